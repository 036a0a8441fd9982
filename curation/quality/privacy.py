"""Private data in texts: where it stands, as edits that put a fixed token in its place.

One scan over the bytes stops at digits, "@", "+" and ":" and reads from there what a kind needs; no
regular expression, so no input makes it slow. Only ASCII digits and letters are read, full-width
ones are not.

email        RFC 5321 lengths; a local part of ASCII letters, digits and ._%+-&'~; labels of
             letters (also Latin, Greek and Cyrillic ones of two bytes), digits and hyphens; a last
             label of two ASCII letters or more, or Punycode, that is no file extension.
ip           IPv4 and IPv6 as `ipaddress` reads them, if globally reachable by the IANA
             special-purpose registries. Not multicast; not IPv6 outside 2000::/3, but
             ::ffff:0:0/96 and 64:ff9b::/96 count as the IPv4 address in them. Versions and numbers
             of sections stay: 1.2.3.4.5, v1.2.3.4, "Section 1.2.3.4", Firefox/2.0.0.4, lib-1.2.3.4.
national_id  China (and its residence permits), United States, Brazil, South Korea, France, Spain,
             Italy, Hong Kong; see `_TEMPLATES`. Bare digits with one check digit (India, the
             Netherlands, Poland) are left out: up to one in ten identifiers of any kind would pass.
bank_card    13 to 19 digits with the prefix and length of an issuer and a right Luhn digit.
phone        +country code and number (ITU-T E.164), North American, Chinese, and in groups with a
             trunk zero as in Japan, Korea and Britain. Not ten bare digits: those are times.

Where they overlap, an e-mail address wins over what lies inside it; then the one that begins first,
then the longest, then the order of PRECEDENCE.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from curation.errors import ConfigError
from curation.ingest.text import utf8_buffers
from curation.quality.edits import EDITS_TYPE

UInt8Array = npt.NDArray[np.uint8]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]

KINDS = ("email", "phone", "ip", "national_id", "bank_card")
EMAIL, PHONE, IP, NATIONAL_ID, BANK_CARD = range(len(KINDS))
NONE = -1
# What has a checksum and more structure goes before what has less.
PRECEDENCE = ("email", "ip", "national_id", "bank_card", "phone")

# One fixed token a kind: a token chosen by turns would depend on the order of documents.
TOKENS: Mapping[str, str] = MappingProxyType({kind: f"<{kind.upper()}>" for kind in KINDS})

MAX_LOCAL_BYTES = 64  # RFC 5321, section 4.5.3.1.1
MAX_DOMAIN_BYTES = 253  # RFC 1035, section 2.3.4: 255 with the lengths of first label and root
MAX_LABEL_BYTES = 63  # RFC 1035, section 2.3.4
# What ends in one of these is a file or an archive of a version: icon@2x.png, lib@1.2.3.tgz. None
# is a top-level domain (IANA root zone database).
FILE_EXTENSIONS = (
    *("png", "jpg", "jpeg", "gif", "webp", "svg", "bmp", "ico", "tif", "tiff", "avif", "heic"),
    *("css", "scss", "less", "js", "mjs", "ts", "jsx", "tsx", "json", "html", "htm", "xml", "yml"),
    *("yaml", "txt", "csv", "pdf", "php", "tar", "gz", "tgz", "bz", "xz", "jar", "whl", "exe"),
)

MIN_E164_DIGITS = 9  # ours: shorter ones exist on islands; signed numbers are as short
MAX_E164_DIGITS = 15  # ITU-T E.164, section 6
# ITU-T E.164, list of assigned country codes. An entry of two codes is a range.
COUNTRY_CODES = (
    *((1,), (7,), (20,), (27,), (30, 34), (36,), (39, 41), (43, 49), (51, 58), (60, 66), (81, 82)),
    *((84,), (86,), (90, 95), (98,), (211, 213), (216,), (218,), (220, 258), (260, 269)),
    *((290, 291), (297, 299), (350, 359), (370, 383), (385, 387), (389,), (420, 421), (423,)),
    *((500, 509), (590, 599), (670,), (672, 683), (685, 692), (800,), (808,), (850,), (852, 853)),
    *((855, 856), (870,), (878,), (880, 883), (886,), (888,), (960, 968), (970, 977), (979,)),
    *((992, 996), (998,)),
)
MAX_EXTENSION_DIGITS = 5  # ours: 010-12345678-80001

# Numbers before which these words stand, perhaps with " ", ":", ".", "=" or "(" between, are no
# addresses.
VERSION_WORDS = (
    *("version", "versions", "ver", "v", "release", "releases", "revision", "rev", "build"),
    *("firmware", "section", "sections", "sec", "chapter", "clause", "appendix", "table", "figure"),
    *("版本", "版", "章节", "第", "§"),
)
MIN_IPV6_GROUPS = 3  # written ones; ours: 2000::2 is a slice of Python

# Issuers: first and last prefix, lengths. ISO/IEC 7812-1 defines the form; the ranges are what the
# networks publish, as collected by github.com/braintree/credit-card-type, without Maestro's "any
# other 6" and lengths below 13, and Visa's old 13 digits added.
ISSUERS = (
    ("4", "4", (13, 16, 18, 19)),  # Visa
    ("51", "55", (16,)),  # Mastercard
    ("2221", "2720", (16,)),
    ("34", "34", (15,)),  # American Express
    ("37", "37", (15,)),
    ("300", "305", (14, 16, 19)),  # Diners Club
    ("36", "36", (14, 16, 19)),
    ("38", "39", (14, 16, 19)),
    ("6011", "6011", (16, 19)),  # Discover
    ("644", "659", (16, 19)),
    ("3528", "3589", (16, 17, 18, 19)),  # JCB
    ("62", "62", (16, 17, 18, 19)),  # UnionPay
    ("810", "817", (16, 17, 18, 19)),
    ("2200", "2204", (16, 17, 18, 19)),  # Mir
    ("500", "509", (16, 18, 19)),  # Maestro, Elo, Verve, RuPay
    ("56", "58", (16, 18, 19)),  # Maestro
    ("63", "63", (16, 18, 19)),
    ("67", "67", (16, 18, 19)),
    ("606282", "606282", (16,)),  # Hipercard
)

# Rules: what the characters of a template must satisfy.
(
    RESIDENT_ID,  # GB 11643-1999; residence permits of 2018 and 2023 (first digits 8 and 9) alike
    SSN,  # US Social Security Administration: areas, groups and serials never issued; no checksum
    CPF,  # Brazil, Receita Federal: two digits modulo 11
    RRN,  # South Korea: date, sex, a digit modulo 11; the digit is random since October 2020
    NIR,  # France, INSEE: month, department and a key modulo 97
    DNI,  # Spain, Real Decreto 1553/2005: a letter modulo 23
    NIE,  # Spain, the same for residents, X, Y and Z standing for 0, 1 and 2
    CODICE_FISCALE,  # Italy, Decreto ministeriale 23 December 1976: a letter modulo 26
    HKID,  # Hong Kong, Immigration Department: check character modulo 11, in parentheses
    CARD,  # ISO/IEC 7812-1: issuer and Luhn digit
    NANP,  # North American Numbering Plan: area codes and exchanges begin with 2 to 9
    MOBILE,  # China, Ministry of Industry and Information Technology, numbering plan of 2017
    CITY,  # China, the same: 8 digits after 010 and 02x
    REGION,  # China, the same: 7 or 8 digits after 03xx to 09xx
    TRUNK,  # Japan (MIC), South Korea (MSIT), United Kingdom (Ofcom): trunk zero, 9 to 11 digits
) = range(15)

# Templates, tried in this order. d digit, L capital letter, X digit or X, H digit or A, C digit, A
# or B; "-" any dash, " " a space or a no-break space, parentheses also full-width; the rest is
# itself.
_TEMPLATES = (
    (NATIONAL_ID, RESIDENT_ID, ("d" * 17 + "X", "d" * 18)),
    (NATIONAL_ID, SSN, ("ddd-dd-dddd",)),
    (NATIONAL_ID, CPF, ("ddd.ddd.ddd-dd",)),
    (NATIONAL_ID, RRN, ("dddddd-ddddddd",)),
    (NATIONAL_ID, NIR, ("d" * 15, "ddddddCdddddddd", "d dd dd dC ddd ddd dd")),
    (NATIONAL_ID, DNI, ("ddddddddL", "dddddddd-L")),
    (NATIONAL_ID, NIE, ("LdddddddL", "Lddddddd-L")),
    (NATIONAL_ID, CODICE_FISCALE, ("LLLLLLddLddLdddL",)),
    (NATIONAL_ID, HKID, ("Ldddddd(H)", "LLdddddd(H)")),
    (BANK_CARD, CARD, tuple("d" * length for length in range(13, 20))),
    (BANK_CARD, CARD, ("dddd dddd dddd dddd", "dddd dddddd ddddd", "dddd dddddd dddd")),
    (BANK_CARD, CARD, ("dddd-dddd-dddd-dddd", "dddd-dddddd-ddddd", "dddd-dddddd-dddd")),
    (BANK_CARD, CARD, ("dddd dddd dddd dddd ddd", "dddd-dddd-dddd-dddd-ddd", "dddddd " + "d" * 13)),
    (PHONE, NANP, ("ddd-ddd-dddd", "ddd.ddd.dddd", "ddd ddd-dddd")),
    (PHONE, NANP, ("(ddd) ddd-dddd", "(ddd)ddd-dddd", "(ddd)-ddd-dddd", "(ddd) ddd dddd")),
    (PHONE, NANP, ("(ddd) ddd.dddd", "d-ddd-ddd-dddd", "d.ddd.ddd.dddd", "d ddd-ddd-dddd")),
    (PHONE, NANP, ("d (ddd) ddd-dddd", "d (ddd)ddd-dddd", "d(ddd) ddd-dddd", "d(ddd)ddd-dddd")),
    (PHONE, NANP, ("d-(ddd)-ddd-dddd", "d ddd ddd dddd", "d ddd ddd-dddd")),
    (PHONE, MOBILE, ("d" * 11, "ddd dddd dddd", "ddd-dddd-dddd", "d" * 13, "d" * 15)),
    (PHONE, MOBILE, ("dd " + "d" * 11, "dd-" + "d" * 11, "dddd " + "d" * 11, "dddd-" + "d" * 11)),
    (PHONE, MOBILE, ("(dd)" + "d" * 11, "(dddd)" + "d" * 11)),
    *(
        (PHONE, CITY, (area[0] + "ddd" + area[1] + "dddddddd",))
        for area in (("", "-"), ("", " "), ("(", ")"), ("(", ") "), ("(", ")-"))
    ),
    *(
        (PHONE, REGION, (area[0] + "dddd" + area[1] + local,))
        for area in (("", "-"), ("", " "), ("(", ")"), ("(", ") "), ("(", ")-"))
        for local in ("dddddddd", "ddddddd")
    ),
    (PHONE, TRUNK, ("dd-dddd-dddd", "dd-ddd-dddd", "ddd-ddd-dddd", "ddd-dddd-dddd")),
    (PHONE, TRUNK, ("dddd-ddd-ddd", "dddd-dd-dddd", "dddd-ddd-dddd")),
    (PHONE, TRUNK, ("ddd dddd dddd", "dddd ddd dddd", "ddddd ddd ddd", "ddddd dddddd")),
)

# Classes of bytes, bits of _CLASS
DIGIT, LETTER, UNDERSCORE, LOCAL, HEX, TRIGGER = 1, 2, 4, 8, 16, 32
WORD = DIGIT | LETTER | UNDERSCORE
PLUS, HYPHEN, DOT, SLASH, COLON, EQUALS, AT = (ord(c) for c in "+-./:=@")
SPACE, OPEN, CLOSE = (ord(c) for c in " ()")

NUM_LETTERS = 8  # before the first digits of a template; the last stands for a parenthesis
IN_PARENTHESES = NUM_LETTERS - 1
MAX_RUN = 20  # digits; a longer run is no template's


def find_private(text: pa.Array, kinds: Sequence[str] = KINDS) -> pa.ListArray:
    """Return the private data of every text as edits: spans of bytes, each with its kind's token.

    EDITS_TYPE, ascending and disjoint; a null list for a null text. `kinds` are some of KINDS; to
    ask for fewer leaves spans out and changes none. Raises ConfigError for an unknown kind.
    Cost: O(bytes) for any bytes, valid UTF-8 or not.
    """
    if isinstance(text, pa.ChunkedArray):
        text = text.combine_chunks()
    is_wanted = _wanted(kinds)
    data, offsets = utf8_buffers(text)
    ends, spans = _find(data, offsets)
    wanted = is_wanted[spans[:, 2]]
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(wanted)])
    spans = spans[wanted]
    edits = pa.StructArray.from_arrays(
        [
            pa.array(spans[:, 0]),
            pa.array(spans[:, 1]),
            pa.array([TOKENS[kind] for kind in KINDS]).take(pa.array(spans[:, 2])),
        ],
        fields=list(EDITS_TYPE.value_type),
    )
    return pa.ListArray.from_arrays(
        pa.array(before[ends].astype(np.int32)),
        edits,
        type=EDITS_TYPE,
        mask=pc.is_null(text) if text.null_count else None,
    )


def _wanted(kinds: Sequence[str]) -> npt.NDArray[np.bool_]:
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(
                f"{kind!r} is no kind of private data; known are {', '.join(KINDS)}; use those"
            )
    return np.array([kind in kinds for kind in KINDS])


def _build_classes() -> UInt8Array:
    classes = np.zeros(256, np.uint8)
    for bit, characters in (
        (DIGIT | LOCAL | HEX | TRIGGER, "0123456789"),
        (LETTER | LOCAL, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        (UNDERSCORE, "_"),
        (LOCAL, "_.%+-&'~"),
        (HEX, "abcdefABCDEF"),
        (TRIGGER, "@+:"),
    ):
        for character in characters:
            classes[ord(character)] |= bit
    return classes


def _build_templates() -> tuple[UInt8Array, Int64Array, Int64Array]:
    """Return the templates [row, byte], their facts [row, 4] and the first row of each key.

    Facts: kind, rule, number of characters, and whether only spaces and dashes divide its groups.
    A key is (letters before the first digits, digits there).
    """
    rows = []
    for kind, rule, templates in _TEMPLATES:
        for template in templates:
            letters = len(template) - len(template.lstrip("L"))
            body = template.lstrip("L").lstrip("(")
            digits = len(body) - len(body.lstrip("d"))
            key = (IN_PARENTHESES if template[0] == "(" else letters) * MAX_RUN + digits
            is_spaced = " " in template and "(" not in template
            num_characters = sum(c in "dLXHC" for c in template)
            rows.append((key, template, (kind, rule, num_characters, is_spaced)))
    order = {KINDS.index(kind): place for place, kind in enumerate(PRECEDENCE)}
    rows.sort(key=lambda row: (row[0], order[row[2][0]]))
    table = np.zeros((len(rows), max(len(row[1]) for row in rows) + 1), np.uint8)
    for place, row in enumerate(rows):
        table[place, : len(row[1])] = np.frombuffer(row[1].encode(), np.uint8)
    keys = [row[0] for row in rows]
    first_row = np.searchsorted(keys, np.arange(NUM_LETTERS * MAX_RUN + 1))
    return table, np.array([row[2] for row in rows], np.int64), first_row.astype(np.int64)


def _build_terms(terms: Sequence[str]) -> UInt8Array:
    """Return the terms' bytes [term, byte], backwards, padded with 0."""
    encoded = [term.encode()[::-1] for term in terms]
    table = np.zeros((len(encoded), max(map(len, encoded)) + 1), np.uint8)
    for row, term in enumerate(encoded):
        table[row, : len(term)] = np.frombuffer(term, np.uint8)
    return table


def _build_country_codes() -> npt.NDArray[np.bool_]:
    """Return by the first three digits of a number whether they begin with a country code."""
    assigned = np.zeros(1000, np.bool_)
    for first, *last in COUNTRY_CODES:
        for code in range(first, (last or [first])[0] + 1):
            width = 10 ** (3 - len(str(code)))
            assigned[code * width : (code + 1) * width] = True
    return assigned


def _build_issuers() -> Int64Array:
    """Return issuers [issuer, 3]: lowest and highest first six digits, lengths as bits."""
    return np.array(
        [
            (int(low.ljust(6, "0")), int(high.ljust(6, "9")), sum(1 << n for n in lengths))
            for low, high, lengths in ISSUERS
        ],
        np.int64,
    )


_CLASS = _build_classes()
_TEMPLATE, _FACTS, _FIRST_ROW = _build_templates()
_VERSION_WORDS = _build_terms(VERSION_WORDS)
_FILE_EXTENSIONS = _build_terms(FILE_EXTENSIONS)
_IS_ASSIGNED = _build_country_codes()
_ISSUERS = _build_issuers()
_RESIDENT_WEIGHTS = np.array([2 ** (17 - k) % 11 for k in range(17)], np.int64)  # ISO 7064
_DNI_LETTERS = np.array([ord(c) - 55 for c in "TRWAGMYFPDXBNJZSQVHLCKE"], np.int64)
# Italy: what a digit or letter counts at an odd place; 0 to 9, then A to Z
_CODICE_ODD = np.array(
    [
        *(1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21),
        *(2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
    ],
    np.int64,
)
_CODICE_MONTHS = np.array([ord(c) - 55 for c in "ABCDEHLMPRST"], np.int64)
_DAYS = np.array([31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)


@njit(cache=True, nogil=True)
def _find(data: UInt8Array, offsets: Int64Array) -> tuple[Int64Array, Int32Array]:
    """Return the n + 1 ends of the texts' spans, and all spans [span, (start, end, kind)]."""
    num_texts = len(offsets) - 1
    ends = np.zeros(num_texts + 1, np.int64)
    spans = np.empty((64, 3), np.int32)
    values = np.empty(MAX_RUN + 4, np.int64)
    count = 0
    for text in range(num_texts):
        begin, end = offsets[text], offsets[text + 1]
        first, free, address_end = count, begin, begin
        i = begin
        while i < end:
            i = _next_trigger(data, i, end)
            if i == end:
                break
            byte = data[i]
            kind, start, stop = NONE, i, i + 1
            if byte == AT:
                start, stop = _email(data, address_end, i, end)
                if stop > i + 1:
                    kind, address_end = EMAIL, stop
                    while count > first and begin + spans[count - 1, 0] >= start:
                        count -= 1
                    if count > first:
                        start = max(start, begin + spans[count - 1, 1])
            elif byte == PLUS:
                kind, start, stop = _plus(data, begin, free, i, end, values)
            elif byte == COLON:
                if _begins_mapped(data, begin, i, end):
                    kind, stop = _ipv6(data, i, end, values)
            else:
                after_ip = count > first and spans[count - 1, 2] == IP
                kind, start, stop = _digits(data, begin, free, after_ip, i, end, values)
            if kind != NONE:
                if count == len(spans):
                    longer = np.empty((2 * count, 3), np.int32)
                    longer[:count] = spans
                    spans = longer
                spans[count, 0] = start - begin
                spans[count, 1] = stop - begin
                spans[count, 2] = kind
                count += 1
                free = stop
            i = stop
        ends[text + 1] = count
    return ends, spans[:count]


@njit(cache=True, nogil=True)
def _next_trigger(data: UInt8Array, i: int, end: int) -> int:
    """Return the first place from `i` on that may begin something, or `end`."""
    for k in range(i, end):
        if _CLASS[data[k]] & TRIGGER:
            return k
    return end


@njit(cache=True, nogil=True)
def _email(data: UInt8Array, begin: int, at: int, end: int) -> tuple[int, int]:
    """Return where the address around the "@" at `at` starts and stops; (at, at + 1) for none."""
    start = at
    while start > begin and _CLASS[data[start - 1]] & LOCAL:
        if data[start - 1] == DOT and (start == at or data[start] == DOT):
            break  # no dot before "@" and no two in a row
        start -= 1
    while start < at and _CLASS[data[start]] & WORD == 0:
        start += 1  # quotes, dashes and dots before an address
    if start == at or at - start > MAX_LOCAL_BYTES:
        return at, at + 1
    stop, num_labels, i = at + 1, 0, at + 1
    while True:
        label, only_letters = i, True
        while i < end:
            if _CLASS[data[i]] & (LETTER | DIGIT) or data[i] == HYPHEN:
                only_letters &= _CLASS[data[i]] & LETTER != 0
                i += 1
            elif 0xC3 <= data[i] <= 0xD3 and i + 1 < end and data[i + 1] & 0xC0 == 0x80:
                only_letters = False  # a letter of two bytes
                i += 2
            else:
                break
        label_end = i
        while label_end > label and data[label_end - 1] == HYPHEN:
            label_end -= 1
        num_labels += 1
        size = label_end - label
        if not 0 < size <= MAX_LABEL_BYTES or data[label] == HYPHEN:
            break
        if label_end - at - 1 > MAX_DOMAIN_BYTES:
            break
        if label_end < i:  # a hyphen, where the label and so the domain ends
            only_letters = _is_letters(data, label, label_end)
        if num_labels > 1 and ((only_letters and size > 1) or _is_punycode(data, label, label_end)):
            if _ends_with_term(data, label, label_end, _FILE_EXTENSIONS):
                return at, at + 1
            stop = label_end
        if label_end < i or i >= end or data[i] != DOT:
            break
        i += 1
    return (start, stop) if stop > at + 1 else (at, at + 1)


@njit(cache=True, nogil=True)
def _is_letters(data: UInt8Array, start: int, end: int) -> bool:
    letters = 0
    for i in range(start, end):
        letters += _CLASS[data[i]] & LETTER != 0
    return letters == end - start


@njit(cache=True, nogil=True)
def _is_punycode(data: UInt8Array, label: int, end: int) -> bool:
    """Whether a label is "xn--" and more (RFC 5890)."""
    return (
        end - label > 4
        and data[label] | 0x20 == 0x78
        and data[label + 1] | 0x20 == 0x6E
        and data[label + 2] == HYPHEN
        and data[label + 3] == HYPHEN
    )


@njit(cache=True, nogil=True)
def _ends_with_term(data: UInt8Array, begin: int, end: int, terms: UInt8Array) -> bool:
    """Whether [begin, end) ends with a term that no ASCII letter precedes, whatever its case."""
    for row in range(len(terms)):
        k = 0
        while terms[row, k] != 0:
            i = end - 1 - k
            if i < begin or (data[i] | (0x20 if _CLASS[data[i]] & LETTER else 0)) != terms[row, k]:
                break
            k += 1
        if terms[row, k] == 0:
            i = end - 1 - k
            if i < begin or data[end - 1] >= 0x80 or _CLASS[data[i]] & LETTER == 0:
                return True
    return False


@njit(cache=True, nogil=True)
def _plus(
    data: UInt8Array, begin: int, free: int, i: int, end: int, values: Int64Array
) -> tuple[int, int, int]:
    """Return kind, start and end of the international number at a "+", perhaps in parentheses."""
    if i > free and data[i - 1] == OPEN and _begins_alone(data, begin, i - 1):
        stop = _international(data, i + 1, end, True, values)
        if stop > 0:
            return PHONE, i - 1, stop
    if _begins_alone(data, begin, i):
        stop = _international(data, i + 1, end, False, values)
        if stop > 0:
            return PHONE, i, stop
    return NONE, i, i + 1


@njit(cache=True, nogil=True)
def _international(data: UInt8Array, i: int, end: int, is_open: bool, values: Int64Array) -> int:
    """Return where the number after a "+" ends, or 0: groups of digits, one pair of parentheses.

    Of several possible ends, at separators, the last that makes a valid number.
    """
    stop, num_digits, parentheses = 0, 0, 1 if is_open else 0
    while True:
        while i < end and _CLASS[data[i]] & DIGIT:
            if num_digits == MAX_E164_DIGITS:
                return stop
            values[num_digits] = data[i] - 0x30
            num_digits += 1
            i += 1
        if not is_open and _ends_alone(data, i, end) and _is_e164(values, num_digits):
            stop = i
        group_end = i
        if is_open and i < end and data[i] == CLOSE:
            is_open = False
            i += 1
        if i < end and (data[i] == DOT or data[i] == SLASH):
            i += 1
        else:
            i += max(_dash(data, i, end), _space(data, i, end))
        if parentheses == 0 and i < end and data[i] == OPEN:
            is_open, parentheses = True, 1
            i += 1
        if i == group_end or i >= end or _CLASS[data[i]] & DIGIT == 0:
            return stop


@njit(cache=True, nogil=True)
def _is_e164(values: Int64Array, num_digits: int) -> bool:
    if num_digits < MIN_E164_DIGITS:
        return False
    if not _IS_ASSIGNED[values[0] * 100 + values[1] * 10 + values[2]]:
        return False
    if values[0] == 1:
        return num_digits == 11 and _is_nanp(values, 1)
    if values[0] == 8 and values[1] == 6 and values[2] == 1 and values[3] >= 3:
        return num_digits == 13
    return True


@njit(cache=True, nogil=True)
def _digits(
    data: UInt8Array,
    begin: int,
    free: int,
    after_ip: bool,
    i: int,
    end: int,
    values: Int64Array,
) -> tuple[int, int, int]:
    """Return kind, start and end of what the digits at `i` are part of; of NONE, where to go on."""
    run_end = i
    while run_end < end and _CLASS[data[run_end]] & DIGIT:
        run_end += 1
    length = run_end - i
    if length >= MAX_RUN:
        return NONE, i, run_end
    if i > begin and _CLASS[data[i - 1]] & WORD:
        start = i
        while start > free and i - start < IN_PARENTHESES and _CLASS[data[start - 1]] & LETTER:
            start -= 1
        if start < i and i - start < IN_PARENTHESES:
            kind, stop = _template(data, begin, start, end, (i - start) * MAX_RUN + length, values)
            if kind != NONE:
                return kind, start, stop
        return NONE, i, run_end
    start = i
    if i > free and data[i - 1] == OPEN:
        start = i - 1
    elif i - free >= 3 and _is_full_width(data, i - 3, end, OPEN):
        start = i - 3
    if start < i:
        key = IN_PARENTHESES * MAX_RUN + length
        kind, stop = _template(data, begin, start, end, key, values)
        if kind != NONE:
            return kind, start, stop
    follows = data[run_end] if run_end < end else SPACE
    may_be_ipv6 = length <= 4 and (_CLASS[follows] & HEX != 0 or follows == COLON)
    if may_be_ipv6 and _begins_ipv6(data, begin, i):
        kind, stop = _ipv6(data, i, end, values)
        if stop > i + 1:
            return kind, i, stop
    if length <= 3 and follows == DOT:
        stop, address = _ipv4(data, i, end)
        if stop > 0 and _is_global(address) and _ends_ipv4(data, stop, end):
            range_of = after_ip and free == i - 1
            if range_of or _begins_ipv4(data, begin, i):
                return IP, i, stop
    kind, stop = _template(data, begin, i, end, length, values)
    return (kind, i, stop) if kind != NONE else (NONE, i, run_end)


@njit(cache=True, nogil=True)
def _template(
    data: UInt8Array, begin: int, start: int, end: int, key: int, values: Int64Array
) -> tuple[int, int]:
    """Return kind and end of the longest template that fits at `start`; of equals, the first."""
    best_kind, best_stop = NONE, start
    if _FIRST_ROW[key] == _FIRST_ROW[key + 1] or not _begins_alone(data, begin, start):
        return best_kind, best_stop
    for row in range(_FIRST_ROW[key], _FIRST_ROW[key + 1]):
        stop = _match(data, start, end, row, values)
        if stop <= best_stop:
            continue
        kind, rule, num_characters, is_spaced = _FACTS[row]
        if rule in (CITY, REGION):
            stop = _skip_extension(data, stop, end)
        if (
            _ends_alone(data, stop, end)
            and not (is_spaced and _is_in_columns(data, begin, start, stop, end))
            and _is_valid(rule, values, num_characters)
        ):
            best_kind, best_stop = kind, stop
    return best_kind, best_stop


@njit(cache=True, nogil=True)
def _match(data: UInt8Array, i: int, end: int, row: int, values: Int64Array) -> int:
    """Return where a template that begins at `i` ends, or 0; write its characters to `values`.

    A digit is itself, a letter 10 (A) to 35 (Z).
    """
    num_values = 0
    for k in range(_TEMPLATE.shape[1]):
        element = _TEMPLATE[row, k]
        if element == 0:
            return i
        if i >= end:
            return 0
        byte = data[i]
        size, value = 0, NONE
        if _CLASS[element] & LETTER:
            if _CLASS[byte] & DIGIT:
                if element != 0x4C:  # L
                    size, value = 1, byte - 0x30
            elif element == 0x4C:
                if 0x41 <= byte <= 0x5A:
                    size, value = 1, byte - 55
            elif element == 0x58:  # X
                if byte | 0x20 == 0x78:
                    size, value = 1, 10
            elif (element == 0x48 and byte == 0x41) or (element == 0x43 and 0x41 <= byte <= 0x42):
                size, value = 1, byte - 55  # H, C
            if size == 0:
                return 0
            values[num_values] = value
            num_values += 1
        elif element == HYPHEN:
            size = _dash(data, i, end)
        elif element == SPACE:
            size = _space(data, i, end)
        elif byte == element:
            size = 1
        elif element != DOT and _is_full_width(data, i, end, element):
            size = 3
        if size == 0:
            return 0
        i += size
    return 0


@njit(cache=True, nogil=True)
def _is_full_width(data: UInt8Array, i: int, end: int, character: int) -> bool:
    """Whether the full-width form of an ASCII character below "@" stands at `i`."""
    if i + 3 > end or data[i] != 0xEF or data[i + 1] != 0xBC:
        return False
    return bool(data[i + 2] == character + 0x60)  # U+FF00 is U+0020, and so on


@njit(cache=True, nogil=True)
def _dash(data: UInt8Array, i: int, end: int) -> int:
    """Return the size of a hyphen, Unicode dash (U+2010 to U+2015) or full-width hyphen, or 0."""
    if i < end and data[i] == HYPHEN:
        return 1
    if i + 3 > end:
        return 0
    if data[i] == 0xE2 and data[i + 1] == 0x80 and 0x90 <= data[i + 2] <= 0x95:
        return 3
    return 3 if _is_full_width(data, i, end, HYPHEN) else 0


@njit(cache=True, nogil=True)
def _space(data: UInt8Array, i: int, end: int) -> int:
    """Return the size of a space or no-break space, or 0."""
    if i < end and data[i] == SPACE:
        return 1
    return 2 if i + 2 <= end and data[i] == 0xC2 and data[i + 1] == 0xA0 else 0


@njit(cache=True, nogil=True)
def _begins_alone(data: UInt8Array, begin: int, i: int) -> bool:
    """Whether what begins at `i` is no part of a word, number, price, path or name."""
    if i == begin:
        return True
    last = data[i - 1]
    # "Tel(212)" and "Tel+1" are fine
    joined = WORD if _CLASS[data[i]] & WORD else DIGIT | UNDERSCORE
    if _CLASS[last] & joined or last == AT or last == 0x24:  # $
        return False
    before = data[i - 2] if i - begin > 1 else SPACE
    if last == DOT:  # "Tel.010" is no fraction
        return _CLASS[before] & LETTER != 0 or before >= 0x80
    if last == SLASH:
        return bool(_CLASS[before] & LETTER == 0)
    return not (last in (HYPHEN, PLUS) and _CLASS[before] & WORD != 0)


@njit(cache=True, nogil=True)
def _ends_alone(data: UInt8Array, i: int, end: int) -> bool:
    """Whether what ends before `i` is no part of a word, number or name."""
    if i >= end:
        return True
    if _CLASS[data[i]] & WORD or data[i] == AT:
        return False
    after = data[i + 1] if i + 1 < end else SPACE
    if data[i] == DOT:
        return bool(_CLASS[after] & DIGIT == 0)
    return not (data[i] == HYPHEN and _CLASS[after] & WORD != 0)


@njit(cache=True, nogil=True)
def _is_in_columns(data: UInt8Array, begin: int, start: int, stop: int, end: int) -> bool:
    """Whether groups of digits are columns of a longer row: a space, and a group as long again."""
    if start - begin > 1 and data[start - 1] == SPACE:
        size = 0
        while _CLASS[data[start + size]] & DIGIT:
            size += 1
        left = start - 2
        while left >= begin and left >= start - 2 - size and _CLASS[data[left]] & DIGIT:
            left -= 1
        if start - 2 - left == size:
            return True
    if end - stop > 1 and data[stop] == SPACE:
        size = 0
        while _CLASS[data[stop - 1 - size]] & DIGIT:
            size += 1
        right = stop + 1
        while right < end and right <= stop + 1 + size and _CLASS[data[right]] & DIGIT:
            right += 1
        return right - stop - 1 == size
    return False


@njit(cache=True, nogil=True)
def _skip_extension(data: UInt8Array, i: int, end: int) -> int:
    """Return where a dash and a few digits end that follow a number, or `i`."""
    digits = i + _dash(data, i, end)
    stop = digits
    while stop < end and stop - digits <= MAX_EXTENSION_DIGITS and _CLASS[data[stop]] & DIGIT:
        stop += 1
    if digits == i or not 0 < stop - digits <= MAX_EXTENSION_DIGITS:
        return i
    return stop if _ends_alone(data, stop, end) else i


@njit(cache=True, nogil=True)
def _is_valid(rule: int, values: Int64Array, size: int) -> bool:
    """Whether the characters of a template satisfy its rule."""
    if rule == RESIDENT_ID:
        return _is_resident_id(values)
    if rule == SSN:
        area = _number(values, 0, 3)
        return (
            area not in (0, 666)
            and area < 900
            and _number(values, 3, 5) > 0
            and _number(values, 5, 9) > 0
        )
    if rule == CPF:
        return _is_cpf(values)
    if rule == RRN:
        return _is_rrn(values)
    if rule == NIR:
        return _is_nir(values)
    if rule == DNI:
        return bool(_DNI_LETTERS[_number(values, 0, 8) % 23] == values[8])
    if rule == NIE:
        if not 33 <= values[0] <= 35:  # X, Y, Z
            return False
        number = (values[0] - 33) * 10_000_000 + _number(values, 1, 8)
        return bool(_DNI_LETTERS[number % 23] == values[8])
    if rule == CODICE_FISCALE:
        return _is_codice_fiscale(values)
    if rule == HKID:
        total = 0 if size == 9 else 9 * 36  # one letter stands behind a blank, which counts 36
        for k in range(size):
            total += (size - k) * values[k]
        return total % 11 == 0
    if rule == CARD:
        return _is_card(values, size)
    if rule == NANP:
        return _is_nanp(values, size - 10) and (size == 10 or values[0] == 1)
    if rule == MOBILE:
        if size == 13 and _number(values, 0, 2) != 86:
            return False
        if size == 15 and _number(values, 0, 4) != 86:
            return False
        return bool(values[size - 11] == 1 and values[size - 10] >= 3)
    if rule == CITY:
        return _number(values, 0, 3) in (10, 20, 21, 22, 23, 24, 25, 27, 28, 29) and values[3] > 0
    if rule == REGION:
        return bool(values[0] == 0 and values[1] >= 3 and values[4] > 0)
    return bool(values[0] == 0 and values[1] > 0)  # TRUNK


@njit(cache=True, nogil=True)
def _number(values: Int64Array, start: int, end: int) -> int:
    number = 0
    for k in range(start, end):
        number = number * 10 + values[k]
    return number


@njit(cache=True, nogil=True)
def _is_date(year: int, month: int, day: int) -> bool:
    if not 1 <= month <= 12 or not 1 <= day <= _DAYS[month - 1]:
        return False
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return is_leap or month != 2 or day < 29


@njit(cache=True, nogil=True)
def _is_resident_id(values: Int64Array) -> bool:
    if values[0] == 0:
        return False
    year, month, day = _number(values, 6, 10), _number(values, 10, 12), _number(values, 12, 14)
    if not 1800 <= year < 2100 or not _is_date(year, month, day):  # the standard has one of 1880
        return False
    total = values[17]
    for k in range(17):
        total += _RESIDENT_WEIGHTS[k] * values[k]
    return bool(total % 11 == 1)


@njit(cache=True, nogil=True)
def _is_cpf(values: Int64Array) -> bool:
    is_varied = False
    for size in (9, 10):
        total = 0
        for k in range(size):
            total += (size + 1 - k) * values[k]
            is_varied |= values[k] != values[0]
        if total * 10 % 11 % 10 != values[size]:
            return False
    return is_varied


@njit(cache=True, nogil=True)
def _is_rrn(values: Int64Array) -> bool:
    sex = values[6]  # 1, 2: born in the 1900s; 3, 4: in the 2000s; 5 to 8: foreigners alike
    if not 1 <= sex <= 8:
        return False
    year = (2000 if (sex - 1) // 2 % 2 else 1900) + _number(values, 0, 2)
    if not _is_date(year, _number(values, 2, 4), _number(values, 4, 6)):
        return False
    total = 0
    for k in range(12):
        total += (2 + k % 8) * values[k]
    return bool((11 - total % 11) % 10 == values[12])


@njit(cache=True, nogil=True)
def _is_nir(values: Int64Array) -> bool:
    if not 1 <= values[0] <= 2 or not 1 <= _number(values, 3, 5) <= 12:
        return False
    number = _number(values, 0, 13)
    if values[6] >= 10:  # Corsica: 2A counts as 19 and 2B as 18
        if values[5] != 2:
            return False
        # positional values so far: 20 + 10 for A, 20 + 11 for B
        number -= (11 + 2 * (values[6] - 10)) * 1_000_000
    elif not 1 <= _number(values, 5, 7) <= 99:
        return False
    return 97 - number % 97 == _number(values, 13, 15)


@njit(cache=True, nogil=True)
def _is_codice_fiscale(values: Int64Array) -> bool:
    is_month = False
    for month in _CODICE_MONTHS:
        is_month |= values[8] == month
    day = _number(values, 9, 11) % 40  # of women 40 more
    if not is_month or not 1 <= day <= 31 or values[9] >= 8:
        return False
    total = 0
    for k in range(15):
        if k % 2 == 0:
            total += _CODICE_ODD[values[k]]
        else:
            total += values[k] if values[k] < 10 else values[k] - 10
    return bool(total % 26 + 10 == values[15])


@njit(cache=True, nogil=True)
def _is_card(values: Int64Array, size: int) -> bool:
    total = 0
    for k in range(size):  # Luhn, ISO/IEC 7812-1 annex B
        digit = values[size - 1 - k] * (1 + k % 2)
        total += digit - 9 if digit > 9 else digit
    if total % 10 != 0:
        return False
    prefix = _number(values, 0, 6)
    for row in range(len(_ISSUERS)):
        if _ISSUERS[row, 0] <= prefix <= _ISSUERS[row, 1] and _ISSUERS[row, 2] >> size & 1:
            return True
    return False


@njit(cache=True, nogil=True)
def _is_nanp(values: Int64Array, at: int) -> bool:
    """Whether an area code, N11 and N9X left out, and an exchange begin at `at`."""
    area, exchange = values[at], values[at + 3]
    is_service = values[at + 1] == 1 and values[at + 2] == 1
    return area >= 2 and exchange >= 2 and values[at + 1] != 9 and not is_service


@njit(cache=True, nogil=True)
def _ipv4(data: UInt8Array, i: int, end: int) -> tuple[int, int]:
    """Return where a dotted quad at `i` ends and its address, or (0, 0). No leading zeros."""
    address = 0
    for part in range(4):
        if part > 0:
            if i >= end or data[i] != DOT:
                return 0, 0
            i += 1
        start, value = i, 0
        while i < end and i - start < 4 and _CLASS[data[i]] & DIGIT:
            value = value * 10 + (data[i] - 0x30)
            i += 1
        if i == start or value > 255 or (data[start] == 0x30 and i - start > 1):
            return 0, 0
        address = address * 256 + value
    return i, address


@njit(cache=True, nogil=True)
def _is_global(address: int) -> bool:
    """Whether an IPv4 address is globally reachable (IANA special-purpose registry) and unicast."""
    a, b, c = address >> 24, address >> 16 & 255, address >> 8 & 255
    if a in (0, 10, 127) or a >= 224:
        return False
    if a == 100:
        return not 64 <= b < 128
    if a == 169:
        return b != 254
    if a == 172:
        return not 16 <= b < 32
    if a == 192:
        if b == 0 and c == 0:
            return address & 255 in (9, 10)
        return b != 168 and not (b == 0 and c == 2)
    if a == 198:
        return b not in (18, 19) and not (b == 51 and c == 100)
    return not (a == 203 and b == 0 and c == 113)


@njit(cache=True, nogil=True)
def _begins_ipv4(data: UInt8Array, begin: int, i: int) -> bool:
    """Whether a quad that begins at `i` is an address: no part of a version or section number."""
    if i == begin:
        return True
    last = data[i - 1]
    before = data[i - 2] if i - begin > 1 else SPACE
    if _CLASS[last] & WORD or last in (DOT, 0x24, 0x5E, 0x7E):  # $ ^ ~
        return False
    if last in (HYPHEN, PLUS, SLASH) and _CLASS[before] & WORD:
        return False
    if last == COLON and (_CLASS[before] & DIGIT or before == COLON):  # 1:1.2.3.4 is of a package
        return False
    if last == EQUALS and before in (EQUALS, 0x21, 0x3C, 0x3E, 0x7E):  # ! < > ~
        return False
    for _ in range(3):
        if i > begin and data[i - 1] in (SPACE, COLON, EQUALS, OPEN, DOT, 0x23):  # #
            i -= 1
        elif i - begin > 1 and data[i - 2] == 0xC2 and data[i - 1] == 0xA0:
            i -= 2
    return not _ends_with_term(data, begin, i, _VERSION_WORDS)


@njit(cache=True, nogil=True)
def _ends_ipv4(data: UInt8Array, i: int, end: int) -> bool:
    """Whether a quad that ends before `i` is no part of a longer number, version or name."""
    if i >= end:
        return True
    if _CLASS[data[i]] & WORD or data[i] == AT:
        return False
    if i + 1 >= end or _CLASS[data[i + 1]] & WORD == 0:
        return True
    if data[i] == HYPHEN:  # a range of addresses
        return _ipv4(data, i + 1, end)[0] > 0
    return data[i] not in (DOT, PLUS, 0x7E)  # ~


@njit(cache=True, nogil=True)
def _begins_mapped(data: UInt8Array, begin: int, i: int, end: int) -> bool:
    """Whether an address that begins with "::f" may begin at the colon at `i`."""
    if i + 2 >= end or data[i + 1] != COLON or data[i + 2] | 0x20 != 0x66:
        return False
    return i == begin or not (_CLASS[data[i - 1]] & WORD or data[i - 1] in (COLON, DOT))


@njit(cache=True, nogil=True)
def _begins_ipv6(data: UInt8Array, begin: int, i: int) -> bool:
    if i == begin:
        return True
    last = data[i - 1]
    before = data[i - 2] if i - begin > 1 else SPACE
    if last == DOT or (last in (HYPHEN, PLUS) and _CLASS[before] & WORD):
        return False
    if last != COLON:
        return True
    # the domain literal of RFC 5321, section 4.1.3
    if i - begin >= 5 and before == 0x36 and data[i - 3] | 0x20 == 0x76:
        return bool(data[i - 4] | 0x20 == 0x70 and data[i - 5] | 0x20 == 0x69)
    return before != COLON and _CLASS[before] & HEX == 0


@njit(cache=True, nogil=True)
def _ipv6(data: UInt8Array, i: int, end: int, groups: Int64Array) -> tuple[int, int]:
    """Return IP or NONE and where the address at `i` ends; (NONE, i + 1) where there is none."""
    start, num_groups, gap = i, 0, -1  # gap: how many groups stand before "::"
    if data[i] == COLON:
        gap = 0
        i += 2
    while num_groups < 8:
        group, value = i, 0
        while i < end and i - group < 5 and _CLASS[data[i]] & HEX:
            digit = data[i] - 0x30 if _CLASS[data[i]] & DIGIT else (data[i] | 0x20) - 87
            value = value * 16 + digit
            i += 1
        if i == group or i - group > 4:
            return NONE, start + 1
        if i + 1 < end and data[i] == DOT and _CLASS[data[i + 1]] & DIGIT:
            i, address = _ipv4(data, group, end)
            if i == 0 or num_groups > 6:
                return NONE, start + 1
            groups[num_groups] = address >> 16
            groups[num_groups + 1] = address & 0xFFFF
            num_groups += 2
            break
        groups[num_groups] = value
        num_groups += 1
        if i + 1 >= end or data[i] != COLON:
            break
        if _CLASS[data[i + 1]] & HEX:
            i += 1
        elif data[i + 1] == COLON:
            if gap >= 0:
                return NONE, start + 1
            gap = num_groups
            i += 2
            if i >= end or _CLASS[data[i]] & HEX == 0:
                break
        else:
            break
    if (num_groups == 8) != (gap < 0) or num_groups < MIN_IPV6_GROUPS:
        return NONE, start + 1
    if i < end:
        after = data[i + 1] if i + 1 < end else SPACE
        if _CLASS[data[i]] & WORD or data[i] == AT:
            return NONE, start + 1
        if data[i] == COLON and (_CLASS[after] & HEX or after == COLON):
            return NONE, start + 1
        if data[i] in (DOT, HYPHEN) and _CLASS[after] & WORD:
            return NONE, start + 1
    if gap >= 0:
        for k in range(num_groups - gap):
            groups[7 - k] = groups[num_groups - 1 - k]
        for k in range(gap, gap + 8 - num_groups):
            groups[k] = 0
    return (IP if _is_global6(groups) else NONE), i


@njit(cache=True, nogil=True)
def _is_global6(groups: Int64Array) -> bool:
    """Whether an IPv6 address is globally reachable (IANA special-purpose registry) and unicast."""
    first, second, third = groups[0], groups[1], groups[2]
    if first < 0x2000:
        is_mapped = first == 0 and second == 0 and groups[4] == 0 and groups[5] == 0xFFFF
        is_nat64 = first == 0x64 and second == 0xFF9B and groups[4] == 0 and groups[5] == 0
        if third != 0 or groups[3] != 0 or not (is_mapped or is_nat64):
            return False
        return _is_global(groups[6] << 16 | groups[7])
    if first == 0x2001 and second < 0x200:  # IETF protocol assignments
        if second == 1:
            for k in range(2, 7):
                if groups[k] != 0:
                    return False
            return bool(1 <= groups[7] <= 3)
        return bool(second == 3 or (second == 4 and third == 0x112) or 0x20 <= second < 0x40)
    if first == 0x2001 and second == 0xDB8:  # documentation
        return False
    if first == 0x2002:  # 6to4
        return False
    return bool(first < 0x3FFF or (first == 0x3FFF and second >= 0x1000))

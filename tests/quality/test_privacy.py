"""Private data against regular expressions and `ipaddress`, published numbers, and real pages."""

import gzip
import ipaddress
import itertools
import json
import os
import re
import subprocess
import sys
from collections import Counter
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import ConfigError
from curation.quality.edits import EDITS_TYPE, apply_edits
from curation.quality.privacy import KINDS, TOKENS, find_private

ROOT = Path(__file__).parents[2]
DOCUMENTS = ROOT / "tests" / "data" / "dumps" / "docs.jsonl.gz"

Span = tuple[int, int, str]


def hide(text: str, kinds: tuple[str, ...] = KINDS) -> str:
    texts = pa.array([text])
    return apply_edits(texts, find_private(texts, kinds))[0].as_py()


# The oracle: one expression a form, tried at every place.

S = "[ \u00a0]"
D = "[-\u2010-\u2015\uff0d]"
OPEN, CLOSE = "[(\uff08]", "[)\uff09]"
FORMS = [
    ("national_id", r"[1-9]\d{16}[\dXx]", "resident_id"),
    ("national_id", rf"(?!000|666|9)\d{{3}}{D}(?!00)\d\d{D}(?!0000)\d{{4}}", None),
    ("national_id", rf"\d{{3}}\.\d{{3}}\.\d{{3}}{D}\d\d", "cpf"),
    ("national_id", rf"\d{{6}}{D}[1-8]\d{{6}}", "rrn"),
    ("national_id", r"[12]\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[1-9]\d|2A|2B)\d{8}", "nir"),
    (
        "national_id",
        rf"[12]{S}\d\d{S}(?:0[1-9]|1[0-2]){S}(?:0[1-9]|[1-9]\d|2A|2B){S}\d{{3}}{S}\d{{3}}{S}\d\d",
        "nir",
    ),
    ("national_id", rf"\d{{8}}{D}?[A-Z]", "dni"),
    ("national_id", rf"[XYZ]\d{{7}}{D}?[A-Z]", "dni"),
    ("national_id", r"[A-Z]{6}\d\d[ABCDEHLMPRST]\d\d[A-Z]\d{3}[A-Z]", "codice_fiscale"),
    ("national_id", rf"[A-Z]{{1,2}}\d{{6}}{OPEN}[\dA]{CLOSE}", "hkid"),
    ("bank_card", r"\d{13,19}", "card"),
    *(
        ("bank_card", rf"\d{{4}}{s}(?:\d{{4}}{s}\d{{4}}{s}\d{{4}}(?:{s}\d{{3}})?)", "card")
        for s in (S, D)
    ),
    *(("bank_card", rf"\d{{4}}{s}\d{{6}}{s}\d{{4,5}}", "card") for s in (S, D)),
    ("bank_card", rf"\d{{6}}{S}\d{{13}}", "card"),
    ("phone", rf"(?:1{D})?\d{{3}}{D}\d{{3}}{D}\d{{4}}", "nanp"),
    ("phone", r"(?:1\.)?\d{3}\.\d{3}\.\d{4}", "nanp"),
    ("phone", rf"(?:1{S})?\d{{3}}{S}\d{{3}}{D}\d{{4}}", "nanp"),
    ("phone", rf"1{S}\d{{3}}(?:{D}\d{{3}}{D}|{S}\d{{3}}{S})\d{{4}}", "nanp"),
    (
        "phone",
        rf"{OPEN}\d{{3}}{CLOSE}(?:{S}?\d{{3}}{D}|{D}\d{{3}}{D}|{S}\d{{3}}[. \u00a0])\d{{4}}",
        "nanp",
    ),
    (
        "phone",
        rf"1(?:{S}?{OPEN}\d{{3}}{CLOSE}{S}?|{D}{OPEN}\d{{3}}{CLOSE}{D})\d{{3}}{D}\d{{4}}",
        "nanp",
    ),
    ("phone", rf"(?:(?:00)?86(?:{S}|{D})?|{OPEN}(?:00)?86{CLOSE})?1[3-9]\d{{9}}", None),
    *(("phone", rf"1[3-9]\d{s}\d{{4}}{s}\d{{4}}", None) for s in (S, D)),
    *(
        ("phone", rf"{area}[1-9]{local}(?:{D}\d{{1,5}}(?!\d))?", None)
        for zone, local in ((r"0(?:10|2[0-57-9])", r"\d{7}"), (r"0[3-9]\d\d", r"\d{6,7}"))
        for area in (rf"{zone}(?:{S}|{D})", rf"{OPEN}{zone}{CLOSE}(?:{S}|{D})?")
    ),
    ("phone", rf"0[1-9](?:{D}\d{{3,4}}|\d{D}\d{{3,4}}|\d\d{D}\d{{2,3}}){D}\d{{4}}", None),
    ("phone", rf"0[1-9]\d\d{D}\d{{3}}{D}\d{{3}}", None),
    ("phone", rf"0[1-9](?:\d{S}\d{{4}}{S}\d{{4}}|\d\d{S}\d{{3}}{S}\d{{4}})", None),
    ("phone", rf"0[1-9]\d\d\d{S}\d{{3}}{S}?\d{{3}}", None),
]
COMPILED = [(kind, re.compile(form, re.ASCII), rule) for kind, form, rule in FORMS]
ORDER = ("ip", "national_id", "bank_card", "phone")
MORE = rf"[./]|{S}|{D}"
GROUPS = rf"\d+(?:(?:{MORE})\d+)*"
INTERNATIONAL = re.compile(
    rf"\+(?:{MORE})?{GROUPS}|\+(?:{GROUPS})?(?:{MORE})?\({GROUPS}\)(?:{MORE})?{GROUPS}"
    rf"|\(\+(?:{MORE})?{GROUPS}\)(?:{MORE})?{GROUPS}",
    re.ASCII,
)
COUNTRIES = re.compile(
    "1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|21[12368]|2[234]|25[0-8]|26|29[01789]"
    "|35|37|38[0-35-79]|42[013]|50|59|67[02-9]|68[0-35-9]|69[0-2]|80[08]|85[02356]|87[08]|88[0-368]"
    "|96[0-8]|97[0-79]|99[2-68]"
)
ISSUERS = [
    (r"4", (13, 16, 18, 19)),
    (r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720", (16,)),
    (r"3[47]", (15,)),
    (r"30[0-5]|36|38|39", (14, 16, 19)),
    (r"6011|64[4-9]|65", (16, 19)),
    (r"352[89]|35[3-8]|62|81[0-7]|220[0-4]", (16, 17, 18, 19)),
    (r"50|5[678]|63|67", (16, 18, 19)),
    (r"606282", (16,)),
]
LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
CODICE_ODD = (
    "BAKPLCQDREVOSFTGUHMINJWZYX"  # places of A, B, C ... in the official table of odd places
)


def is_day(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True


def luhn(digits: str) -> bool:
    doubled = [sum(divmod(2 * int(d), 10)) for d in digits[-2::-2]]
    return (sum(doubled) + sum(int(d) for d in digits[::-2])) % 10 == 0


def resident_id(s: str) -> bool:
    remainder = 0
    for c in s:  # ISO 7064, pure system modulo 11 radix 2, as a recurrence
        remainder = (remainder * 2 + (10 if c in "Xx" else int(c))) % 11
    return (
        1800 <= int(s[6:10]) < 2100
        and is_day(int(s[6:10]), int(s[10:12]), int(s[12:14]))
        and remainder == 1
    )


def cpf(s: str) -> bool:
    digits = [int(c) for c in re.sub(r"\D", "", s)]
    first = sum(d * k for d, k in zip(digits, range(1, 10), strict=False)) % 11 % 10
    second = sum(d * k for d, k in zip(digits, range(10), strict=False)) % 11 % 10
    return len(set(digits)) > 1 and digits[9:] == [first, second]


def rrn(s: str) -> bool:
    digits = re.sub(r"\D", "", s)
    century = 1900 if digits[6] in "1256" else 2000
    weights = [2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5]
    total = sum(int(d) * w for d, w in zip(digits[:12], weights, strict=True))
    return (
        is_day(century + int(digits[:2]), int(digits[2:4]), int(digits[4:6]))
        and str(11 - total % 11)[-1] == digits[12]
    )


def nir(s: str) -> bool:
    s = re.sub(r"\s", "", s).replace("2A", "19").replace("2B", "18")
    return (int(s[:13]) + int(s[13:])) % 97 == 0 and 1 <= int(s[13:]) <= 97


def dni(s: str) -> bool:
    s = re.sub("[^0-9A-Z]", "", s)
    number = s[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return LETTERS[int(number) % 23] == s[-1]


def codice_fiscale(s: str) -> bool:
    def even(c: str) -> int:
        return int(c) if c.isdigit() else ord(c) - 65

    def odd(c: str) -> int:
        return CODICE_ODD.index(chr(even(c) + 65))

    total = sum(odd(c) for c in s[:15:2]) + sum(even(c) for c in s[1:15:2])
    day = int(s[9:11])
    return (1 <= day <= 31 or 41 <= day <= 71) and chr(65 + total % 26) == s[15]


def hkid(s: str) -> bool:
    characters = re.sub("[^0-9A-Z]", "", s).rjust(9)
    values = [36 if c == " " else int(c, 36) for c in characters]
    return sum(v * w for v, w in zip(values, range(9, 0, -1), strict=True)) % 11 == 0


def card(s: str) -> bool:
    digits = re.sub(r"\D", "", s)
    known = any(re.match(prefix, digits) and len(digits) in sizes for prefix, sizes in ISSUERS)
    return known and luhn(digits)


def nanp(s: str) -> bool:
    return bool(re.fullmatch(r"1?(?!.11)[2-9][0-8]\d[2-9]\d{6}", re.sub(r"\D", "", s)))


RULES = {f.__name__: f for f in (resident_id, cpf, rrn, nir, dni, codice_fiscale, hkid, card, nanp)}


def word(c: str) -> bool:
    return re.match(r"[0-9A-Za-z_]", c) is not None


def begins_alone(text: str, i: int) -> bool:
    joined = "[0-9A-Za-z_]" if word(text[i]) else "[0-9_]"
    before = rf"{joined}|[@$]|(?<![A-Za-z\u0080-\U0010ffff])\.|(?<=[A-Za-z])/|(?<=[0-9A-Za-z_])[-+]"
    return re.search(rf"(?:{before})\Z", text[:i]) is None


def ends_alone(text: str, j: int) -> bool:
    return re.match(r"[0-9A-Za-z_@]|\.[0-9]|-[0-9A-Za-z_]", text[j:]) is None


def in_columns(text: str, i: int, j: int) -> bool:
    if not re.search(S, text[i:j]) or re.search(OPEN, text[i:j]):
        return False
    first = len(re.match(r"\d+", text[i:j], re.ASCII)[0])
    last = len(re.search(r"\d+\Z", text[i:j], re.ASCII)[0])
    before = re.search(r"(?<!\d)(\d+) \Z", text[:i], re.ASCII)
    after = re.match(r" (\d+)", text[j:], re.ASCII)
    return (before is not None and len(before[1]) == first) or (
        after is not None and len(after[1]) == last
    )


# Blocks that the registries of IANA changed, or that versions of `ipaddress` read differently.
CHANGED = [
    (ipaddress.ip_network(block), [ipaddress.ip_network(n) for n in public])
    for block, public in (
        ("192.0.0.0/24", ["192.0.0.9/32", "192.0.0.10/32"]),
        (
            "2001::/23",
            [
                *("2001:1::1", "2001:1::2", "2001:1::3", "2001:3::/32", "2001:4:112::/48"),
                *("2001:20::/28", "2001:30::/28"),
            ],
        ),
        ("2002::/16", []),
        ("3fff::/20", []),
    )
]
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    for block, public in CHANGED:
        if address in block:
            return any(address in network for network in public)
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return is_public(address.ipv4_mapped)
        if address in NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address.is_global and not address.is_multicast and not address.is_reserved


VERSION = re.compile(
    r"(?:(?<![a-z])(?:versions?|ver|v|releases?|revision|rev|build|firmware|sections?|sec|chapter"
    r"|clause|appendix|table|figure)|版本|版|章节|第|§)\Z",
    re.IGNORECASE,
)
QUAD = r"(?:0|[1-9]\d{0,2})(?:\.(?:0|[1-9]\d{0,2})){3}(?!\d)"


def ipv4(text: str, i: int, found: list[Span]) -> int:
    m = re.compile(QUAD, re.ASCII).match(text, i)
    try:
        public = m is not None and is_public(ipaddress.IPv4Address(m[0]))
    except ValueError:
        return 0
    if not public:
        return 0
    after = text[m.end() :]
    if re.match(r"[0-9A-Za-z_@]|[.+~][0-9A-Za-z_]", after):
        return 0
    if re.match("-[0-9A-Za-z_]", after):
        m2 = re.match(QUAD, after[1:], re.ASCII)
        if m2 is None or max(map(int, m2[0].split("."))) > 255:
            return 0
    if found and found[-1][2] == "ip" and found[-1][1] == i - 1:
        return m.end()
    before = text[:i]
    if re.search(
        r"(?:[0-9A-Za-z_.$^~]|(?<=[0-9A-Za-z_])[-+/]|(?<=[0-9:]):|(?<=[=!<>~])=)\Z", before
    ):
        return 0
    before = re.sub(r"[ :=(.#\u00a0]{1,3}\Z", "", before)
    return 0 if VERSION.search(before) else m.end()


def ipv6(text: str, i: int) -> tuple[int, bool]:
    if not re.match(r"\d|::f", text[i:], re.ASCII | re.IGNORECASE):
        return 0, False
    before = text[:i]
    if text[i] == ":":
        joined = r"[0-9A-Za-z_:.]\Z"
    else:
        joined = r"[0-9A-Za-z_.]\Z|[0-9A-Za-z_][-+]\Z|(?<!ipv6)(?<=[0-9A-Fa-f:]):\Z"
    if re.search(joined, before, re.IGNORECASE):
        return 0, False
    token = re.match("[0-9A-Fa-f:.]{0,45}", text[i:])[0]
    for size in range(len(token), 2, -1):
        try:
            address = ipaddress.IPv6Address(token[:size])
        except ValueError:
            continue
        after = text[i + size :]
        if re.match(r"[0-9A-Za-z_@]|:[0-9A-Fa-f:]|[.-][0-9A-Za-z_]", after):
            continue
        written = len(re.findall("[0-9A-Fa-f]+", token[:size].replace(".", ":")))
        written -= "." in token[:size] and 2  # four numbers are two groups
        if written >= 3:
            return i + size, is_public(address)
    return 0, False


def international(text: str, i: int) -> int:
    if not re.match(r"\(?\+", text[i:]) or not begins_alone(text, i):
        return 0
    for j in range(min(len(text), i + 60), i + 9, -1):
        if not INTERNATIONAL.fullmatch(text, i, j) or not ends_alone(text, j):
            continue
        digits = re.sub(r"\D", "", text[i:j], flags=re.ASCII)
        if not 9 <= len(digits) <= 15 or not COUNTRIES.match(digits):
            continue
        if digits[0] == "1" and not (len(digits) == 11 and nanp(digits)):
            continue
        if re.match("861[3-9]", digits) and len(digits) != 13:
            continue
        return j
    return 0


FILES = {
    *("png", "jpg", "jpeg", "gif", "webp", "svg", "bmp", "ico", "tif", "tiff", "avif", "heic"),
    *("css", "scss", "less", "js", "mjs", "ts", "jsx", "tsx", "json", "html", "htm", "xml", "yml"),
    *("yaml", "txt", "csv", "pdf", "php", "tar", "gz", "tgz", "bz", "xz", "jar", "whl", "exe"),
}


def emails(text: str) -> list[Span]:
    found: list[Span] = []
    for m in re.finditer("@", text):
        at = m.start()
        begin = found[-1][1] if found else 0
        if at < begin:
            continue
        local = re.search(r"[0-9A-Za-z_.%+&'~-]*\Z", text[begin:at])[0].rpartition("..")[2]
        local = re.sub(r"\A[^0-9A-Za-z_]+", "", local)
        if not local or local.endswith(".") or len(local) > 64:
            continue
        domain = re.match(
            r"[0-9A-Za-z\u00c0-\u04ff-]+(?:\.[0-9A-Za-z\u00c0-\u04ff-]+)*", text[at + 1 :]
        )
        stop, end = at + 1, at + 1
        for number, label in enumerate(domain[0].split(".") if domain else []):
            cut = label.rstrip("-")
            size = len(cut.encode())
            end += len(cut)
            if not 1 <= size <= 63 or cut[0] == "-" or len(text[at + 1 : end].encode()) > 253:
                break
            if number and re.fullmatch("[A-Za-z]{2,}|xn--.+", cut, re.IGNORECASE):
                if cut.lower() in FILES:
                    stop = at + 1
                    break
                stop = end
            if cut != label:
                break
            end += 1
        if stop > at + 1:
            found.append((at - len(local), stop, "email"))
    return found


def oracle(text: str) -> list[Span]:
    found: list[Span] = []
    addresses = emails(text)
    i = 0
    while i < len(text):
        # what lies in a domain is not looked at, what lies in a local part loses
        inside = next((e for e in addresses if text.rindex("@", e[0], e[1]) <= i < e[1]), None)
        if inside:
            i = inside[1]
            continue
        best = (0, 0, "")
        end, public = ipv6(text, i)
        if end and not public:
            i = end
            continue
        if end:
            best = (end, 0, "ip")
        if end := ipv4(text, i, found):
            best = max(best, (end, 0, "ip"))
        if begins_alone(text, i):
            for kind, form, rule in COMPILED:
                m = form.match(text, i)
                if not m:
                    continue
                # the longest form that ends alone, as an expression may have several ends
                for j in range(m.end(), i, -1):
                    full = form.fullmatch(text, i, j)
                    if not full or not ends_alone(text, j) or in_columns(text, i, j):
                        continue
                    if rule is None or RULES[rule](full[0]):
                        best = max(best, (j, -ORDER.index(kind), kind))
                        break
            if end := international(text, i):
                best = max(best, (end, -ORDER.index("phone"), "phone"))
        if best[0]:
            found.append((i, best[0], best[2]))
            i = best[0]
        else:
            i += 1
    result = [s for s in found if not any(a <= s[0] < b for a, b, _ in addresses)]
    for a, b, kind in addresses:
        ends = [s[1] for s in result if s[0] < a < s[1]]
        result.append((max([a, *ends]), b, kind))
    return sorted(result)


FRAGMENTS = st.sampled_from(
    [
        *(
            "a",
            "Z",
            "v",
            "0",
            "1",
            "9",
            "é",
            "电",
            "ｱ",
            "\uff11",
            "🙂",
            "_",
            " ",
            " ",
            "\u00a0",
            "\n",
        ),
        *(
            "-",
            "\u2013",
            ".",
            ",",
            ":",
            "/",
            "(",
            ")",
            "\uff08",
            "\uff09",
            "+",
            "@",
            "=",
            "==",
            "$",
            "'",
            "%",
            "~",
        ),
        *(
            "86",
            "0086",
            "+86",
            "+1",
            "+44 (0)",
            "(+49)",
            "138",
            "8000",
            "0010",
            "010",
            "0755",
            "020",
        ),
        *(
            "12345678",
            "1234567",
            "7946 0958",
            "13800138000",
            "212",
            "555",
            "555-1234",
            "0123",
            "911",
        ),
        *("1234", "5678", "12", "34", "56", "2019", "01", "002X", "110105", "19491231", "123456"),
        *(
            "11010519491231002X",
            "440524188001010014",
            "123-45-6789",
            "000-45-6789",
            "529.982.247-25",
        ),
        *(
            "4111",
            "1111",
            "4111111111111111",
            "3782 822463 10005",
            "378282246310005",
            "6200",
            "0000",
        ),
        *(
            "12345678Z",
            "X1234567L",
            "RSSMRA85T10A562S",
            "A123456(3)",
            "AB987654(3)",
            "900101-1234568",
        ),
        *(
            "255081416802538",
            "2 55 08 14 168 025 38",
            "8.8.8.8",
            "10.0.0.1",
            "1.2.3",
            "1.1.1.1",
            ".5",
        ),
        *("2001:4860:4860::8888", "2001:db8::1", "::ffff:", "64:ff9b::", "2606:", "::", "fe80::1"),
        *(
            "v1.2.3.4",
            "version",
            "Section",
            "IPv6:",
            "http://",
            "user",
            "user.name",
            "@example.com",
        ),
        *(
            "me@163.com",
            "a.b@c-d.co.uk",
            "@2x.png",
            "xn--fiqs8s",
            "müller",
            ".de",
            ".com",
            "tel:",
            "x",
        ),
    ]
)
TEXTS = st.lists(FRAGMENTS, max_size=14).map("".join)


def spans_of(text: str) -> list[Span]:
    """What the kernel finds, in characters."""
    data = text.encode()
    kinds = {token: kind for kind, token in TOKENS.items()}
    return [
        (
            len(data[: span["start"]].decode()),
            len(data[: span["end"]].decode()),
            kinds[span["replacement"]],
        )
        for span in find_private(pa.array([text]))[0].as_py()
    ]


@settings(max_examples=1500)
@given(TEXTS)
def test_spans_are_those_of_the_expressions(text: str) -> None:
    assert spans_of(text) == oracle(text)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        # RFC 5322, appendix A, and RFC 6068, section 6
        ("John Doe <jdoe@machine.example>", "John Doe <<EMAIL>>"),
        ("<1234@local.machine.example>", "<<EMAIL>>"),
        ("mailto:list@example.org?In-Reply-To=x", "mailto:<EMAIL>?In-Reply-To=x"),
        ("Write to o'brien+a%b&c~d_e-f@mail.example.co.uk.", "Write to <EMAIL>."),
        ("'a@b.org', \"c@d.org\"; --e@f.org--", "'<EMAIL>', \"<EMAIL>\"; --<EMAIL>--"),
        ("邮箱foo@163.com请联系", "邮箱<EMAIL>请联系"),
        ("info@müller.de, info@xn--mller-kva.de, a@b.xn--fiqs8s", "<EMAIL>, <EMAIL>, <EMAIL>"),
        ("me@example.com.1 you@example.com-", "<EMAIL>.1 <EMAIL>-"),
        ("user@localhost, @mention, a@b, icon@2x.png, a@b.c", None),
        ("lodash@4.17.21 lodash@4.17.21.tgz a..b@.com a.@b.com", None),
        ("a@b@c.org", "a@<EMAIL>"),
        (f"{'a' * 64}@b.org", "<EMAIL>"),
        (f"{'a' * 65}@b.org", None),
        (f"a@{'b' * 63}.org", "<EMAIL>"),
        (f"a@{'b' * 64}.org", None),
        (f"a@{'b.' * 125}org", "<EMAIL>"),  # 253 bytes
        (f"a@{'b.' * 125}orgs", None),
        # ITU-T E.123, examples of notation, and Ofcom's and NANPA's numbers for drama
        ("+22 607 123 4567, +31 42 123 4567, (0607) 123 4567", "<PHONE>, <PHONE>, (0607) 123 4567"),
        ("+44 (0)20 7946 0958 2019", "<PHONE> 2019"),
        ("+44 20 7946 0958, 020 7946 0958; 07700 900123", "<PHONE>, <PHONE>; <PHONE>"),
        ("call (212) 555-0123 or 1-800-555-0199 x5", "call <PHONE> or <PHONE> x5"),
        ("212.555.0123|(212)555-0123|212 555-0123|1 (212) 555-0123", "|".join(["<PHONE>"] * 4)),
        (
            "Tel(212) 555-0123, Tel+1 212 555 0123, tel:+12125550123",
            "Tel<PHONE>, Tel<PHONE>, tel:<PHONE>",
        ),
        ("112-555-0123, 212-155-0123, 211-555-0123, 291-555-0123", None),
        (
            "手机13800138000\uff0c138-0013-8000\uff0c138 0013 8000",
            "手机<PHONE>\uff0c<PHONE>\uff0c<PHONE>",
        ),
        ("+86 13800138000, 86-13800138000, 008613800138000", "<PHONE>, <PHONE>, <PHONE>"),
        ("12800138000, 138001380001, 1380013800", None),
        ("010-12345678、\uff080755\uff0986153989、0571-1234567-8001", "<PHONE>、<PHONE>、<PHONE>"),
        ("010-12345678-80001, 010-12345678-800011", "<PHONE>, 010-12345678-800011"),
        ("026-12345678, 010-01234567, 0755-123456", None),
        ("03-5809-2727, 0120-123-456, 02-751-1500", "<PHONE>, <PHONE>, <PHONE>"),
        ("+1 212 555 012, +0 12 345 6789, +999 12 345 6789, 1+12125550123", None),
        # what is no number of a person
        ("2019-12-31 10:20:30, 31.12.2019, 12/31/2019, 20191231T102030", None),
        ("1609459200, 1609459200000, pages 123-456, $1,234,567.89, 1234-5678", None),
        ("ISBN 978-3-16-148410-0, 0-306-40615-2, 9783161484100", None),
        ("550e8400-e29b-41d4-a716-446655440000 da39a3ee5e6b4b0d3255bfef95601890afd80709", None),
        ("0.13800138000, 3.212.555.0123.4, a13800138000, 13800138000b, x_13800138000", None),
        ("/p/13800138000 abc-13800138000 1-13800138000 13800138000-1", None),
        ("138 0013 8000 1234, 138 1234 5678 9012 3456", None),
        ("2012 2013 2014 2015 4111 1111 1111 1111 1234", None),
        # RFC 5735, RFC 4291 section 2.2, RFC 5952 section 1
        ("8.8.8.8, 8.8.8.0/24, http://8.8.4.4:80/", "<IP>, <IP>/24, http://<IP>:80/"),
        ("8.8.4.4-8.8.8.8", "<IP>-<IP>"),
        ("127.0.0.1 10.1.2.3 192.168.0.1 192.0.2.1 224.0.0.1 255.255.255.0 0.0.0.0", None),
        (
            "1.2.3.4.5 v1.2.3.4 version 1.2.3.4 Section\u00a09.7.3.1 版本 9.7.3.1 at 9.7.3.1",
            "1.2.3.4.5 v1.2.3.4 version 1.2.3.4 Section\u00a09.7.3.1 版本 9.7.3.1 at <IP>",
        ),
        ("256.8.8.8 8.8.8 8.8.8.256 08.8.8.8 8.8.8.8a", None),
        ("Firefox/2.0.0.4 lib-1.2.3.4 pkg==1.2.3.4 1.2.3.4-1 1:1.2.3.4 1.2.3.4.tar.gz", None),
        ("2001:4860:4860::8888/32, [2606:4700:4700::1111]:53", "<IP>/32, [<IP>]:53"),
        ("[IPv6:2001:4860:4860:0:0:0:0:8888]", "[IPv6:<IP>]"),
        ("::ffff:8.8.8.8 ::FFFF:808:808 64:ff9b::8.8.8.8", "<IP> <IP> <IP>"),
        ("::ffff:10.0.0.1 64:ff9b::10.0.0.1 2001:db8::8.8.8.8 fe80::1 ::1 fc00::1 ff02::1", None),
        ("2001:DB8:0:0:8:800:200C:417A FF01::101 2001:db8::1 4000:1:2::3", None),
        ("x[2000::2] std::find 12:30:45 2001:1:2:3 2001:1::2::3 00:1a:2b:3c:4d:5e", None),
    ],
)
def test_examples(text: str, hidden: str | None) -> None:
    """`hidden` of None: nothing is found."""
    assert hide(text) == (text if hidden is None else hidden)


CARDS = [
    # Test numbers that the networks and their gateways publish
    *("4111111111111111", "4012888888881881", "4222222222222", "5555555555554444"),
    *("5105105105105100", "2223003122003222", "378282246310005", "371449635398431"),
    *("30569309025904", "38520000023237", "6011111111111117", "6011000990139424"),
    *("3530111333300000", "3566002020360505", "6200000000000005", "6205500000000000004"),
]
NATIONAL_IDS = [
    *("11010519491231002X", "440524188001010014"),  # GB 11643-1999, section 4 and annex
    *("111.444.777-35", "529.982.247-25"),
    *("255081416802538", "2 55 08 14 168 025 38"),
    *("12345678Z", "12345678-Z", "X1234567L", "Y1234567X", "Z1234567R"),
    *("RSSMRA85T10A562S", "MRTMTT91D08F205J", "MRTMTT25D09F205Z"),
    *("A123456(3)", "G123456(A)", "L555555(0)", "AB987654(3)", "C123456(9)"),
]


@pytest.mark.parametrize("number", CARDS)
def test_cards_are_found_and_one_wrong_digit_tells(number: str) -> None:
    assert hide(f"no. {number}.") == "no. <BANK_CARD>."
    for place, digit in itertools.product(range(len(number)), "0123456789"):
        other = number[:place] + digit + number[place + 1 :]
        assert hide(other, ("bank_card",)) == ("<BANK_CARD>" if other == number else other)


@pytest.mark.parametrize("number", NATIONAL_IDS)
def test_national_ids_are_found_and_one_wrong_check_character_tells(number: str) -> None:
    assert hide(f"号码{number}\uff0c") == "号码<NATIONAL_ID>\uff0c"
    digits = [i for i, c in enumerate(number) if c.isalnum()]
    place = digits[-1]
    alphabet = "0123456789X" if number[place].isdigit() or len(digits) == 18 else LETTERS
    found = [
        c
        for c in alphabet
        if hide(number[:place] + c + number[place + 1 :], ("national_id",)) == "<NATIONAL_ID>"
    ]
    assert found == [number[place]]


@given(
    st.text("0123456789", min_size=6, max_size=6), st.dates(date(1900, 1, 1), date(2099, 12, 31))
)
def test_korean_numbers_have_one_check_digit(serial: str, day: date) -> None:
    """No number is published: every date and sex, and all ten check digits."""
    sex = str(int(serial[0]) % 4 // 2 * 4 + (3 if day.year >= 2000 else 1) + int(serial[0]) % 2)
    numbers = [f"{day:%y%m%d}-{sex}{serial[1:]}{check}" for check in range(10)]
    found = [number for number in numbers if hide(number) == "<NATIONAL_ID>"]
    assert found == [number for number in numbers if rrn(number)]
    assert len(found) == 1


@pytest.mark.parametrize(
    "number",
    [
        "11010519490229003X",  # no such day, the check digit is right
        "000-12-3456",
        "666-12-3456",
        "900-12-3456",
        "123-00-3456",
        "123-45-0000",
        "111.111.111-11",  # its check digits are right
        "900230-1234560",  # no such day
        "900101-9234567",
        "111.444.77735",
        "4111111111111111-1",
        "9999999999999995",  # Luhn's digit is right, no issuer has it
        "41111111111111113",  # 17 digits
    ],
)
def test_no_numbers_of_persons(number: str) -> None:
    assert resident_id("11010519490229003X") is False
    assert hide(number) == number


def test_longest_then_most_specific_wins() -> None:
    # one number that is a resident id of Gansu and a UnionPay card
    both = next(
        number
        for serial, check in itertools.product(range(1000), "0123456789")
        if resident_id(number := f"62010219900307{serial:03}{check}") and luhn(number)
    )
    assert hide(both) == "<NATIONAL_ID>"
    assert hide(both, ("bank_card",)) == both
    assert hide("13800138000@163.com") == "<EMAIL>"
    assert hide("13800138000'8.8.8.8'x@y.org") == "<EMAIL>"
    assert hide("13800138000@163.com", ("phone",)) == "13800138000@163.com"
    assert hide("(212) 555-0123.x@y.org") == "<PHONE><EMAIL>"
    assert hide("86-13800138000") == "<PHONE>"


@pytest.mark.parametrize(
    ("block", "is_global"),
    [
        # IANA IPv4 and IPv6 special-purpose address registries, and multicast
        *((block, False) for block in ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8")),
        *((block, False) for block in ("169.254.0.0/16", "172.16.0.0/12", "192.0.2.0/24")),
        *((block, False) for block in ("192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24")),
        *((block, False) for block in ("203.0.113.0/24", "192.0.0.0/29", "224.0.0.0/3")),
        *((block, False) for block in ("2001:db8::/32", "2002::/16", "3fff::/20", "2001:2::/48")),
        *((block, True) for block in ("2001:3::/32", "2001:4:112::/48", "2001:20::/28")),
        ("2001:30::/28", True),
    ],
)
def test_both_ends_of_every_special_block(block: str, is_global: bool) -> None:
    network = ipaddress.ip_network(block)
    first, last = int(network[0]), int(network[-1])
    numbers = {max(first - 1, 0), first, last, min(last + 1, 2**network.max_prefixlen - 1)}
    for address in map(type(network[0]), numbers):
        assert (hide(address.exploded) == "<IP>") == is_public(address), address
    assert is_public(network[0]) == is_public(network[-1]) == is_global


@given(st.integers(0, 2**32 - 1) | st.integers(0x2000 << 112, (0x4000 << 112) - 1))
def test_addresses_are_those_of_ipaddress(number: int) -> None:
    address = ipaddress.ip_address(number)
    for written in (address.exploded, address.compressed):
        if len(re.findall("[0-9a-f]+", written)) > 2:
            assert hide(written) == ("<IP>" if is_public(address) else written)


@given(st.lists(st.none() | TEXTS, max_size=6), st.integers(0, 6), st.booleans())
def test_batches_and_slices_change_nothing(
    texts: list[str | None], split: int, large: bool
) -> None:
    array = pa.array(texts, pa.large_string() if large else pa.string())
    found = find_private(array)
    assert found.type == EDITS_TYPE
    found.validate(full=True)
    parts = pa.concat_arrays([find_private(array[:split]), find_private(array[split:])])
    assert parts.equals(found)
    assert find_private(pa.chunked_array([array[:split], array[split:]])).equals(found)
    assert [spans is None for spans in found.to_pylist()] == [text is None for text in texts]
    apply_edits(array, found)  # ascending, disjoint, whole characters


@given(TEXTS, st.sets(st.sampled_from(KINDS)))
def test_fewer_kinds_leave_spans_out_and_change_none(text: str, kinds: set[str]) -> None:
    array = pa.array([text])
    wanted = {TOKENS[kind] for kind in kinds}
    expected = [s for s in find_private(array)[0].as_py() if s["replacement"] in wanted]
    assert find_private(array, tuple(kinds))[0].as_py() == expected


@given(TEXTS)
def test_tokens_are_no_private_data(text: str) -> None:
    """What is hidden stays hidden, and a second time finds nothing new next to a token."""
    assert all(hide(token) == token for token in TOKENS.values())
    hidden = hide(text)
    again = Counter(re.findall("|".join(TOKENS.values()), hide(hidden)))
    before = Counter(re.findall("|".join(TOKENS.values()), hidden))
    assert again >= before


@given(st.lists(st.binary(max_size=8) | FRAGMENTS.map(str.encode), max_size=12).map(b"".join))
def test_bytes_that_are_not_utf8_never_fail(data: bytes) -> None:
    (spans,) = find_private(pa.array([data], pa.large_binary())).to_pylist()
    ends = [0, *itertools.chain(*((s["start"], s["end"]) for s in spans)), len(data)]
    assert ends == sorted(ends)


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'iban' is no kind .* email, phone, ip, national_id"):
        find_private(pa.array(["x"]), ["email", "iban"])


def test_nothing_in_nothing() -> None:
    assert find_private(pa.array([], pa.string())).to_pylist() == []
    assert find_private(pa.array([None, ""], pa.string())).to_pylist() == [None, []]
    assert find_private(pa.nulls(2)).to_pylist() == [None, None]


def test_documentation_holds_one_address_of_each() -> None:
    """All that is private in 880 pages of manuals, looked through: an address and a database host.

    They hold netmasks, private addresses, versions, numbers of sections and dates by the hundred.
    """
    with gzip.open(DOCUMENTS, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    found: Counter[str] = Counter()
    for text, spans in zip(texts, find_private(pa.array(texts)).to_pylist(), strict=True):
        data = text.encode()
        found.update(data[span["start"] : span["end"]].decode() for span in spans)
    assert found.keys() == {"my.name@my.provider.com", "200.46.204.71"}
    for value, count in found.items():
        assert count == sum(text.count(value) for text in texts)


READS = """
import sys
import numpy as np
from curation.quality import privacy

class Bytes:
    def __init__(self, data):
        self.data, self.reads = data, 0
    def __getitem__(self, i):
        self.reads += 1
        return self.data[i]

size = int(sys.argv[1])
for unit in sys.argv[2:]:
    counts = []
    for n in (size, 2 * size):
        data = (unit.encode() * n)[:n]
        text = Bytes(data)
        privacy._find(text, np.array([0, n]))
        counts.append(text.reads)
    print(*counts)
"""
UNITS = (
    *("@", "a@", "1.", "1-", "4", "a", "a.", "a@b.cc", "a@b.", "a@é", "-@-", ".@", "(", "(0", "(1"),
    *("+", "+1", "+1 ", "+1-", "+44 (", "(+", ":", "::f", "1:", "2001:", "2001::", "::ffff:1."),
    *("8.8.8.8-", "8.8.8.8", "138 ", "4111 ", "4111-", "123-", "1234.", "0755-1", "010-12345678-"),
    *("A1", "AAAAAA1", "A123456(", "v 8.8.8.8 ", "12345678-", "123456789012345678 ", "\u00a0"),
    *("\uff081", "\uff11", "\uff0d1", "138\u2013"),
)


def test_reads_grow_with_the_bytes_whatever_they_are() -> None:
    """Counted, not timed: the kernels run uncompiled, on bytes that count their reads."""
    size = 3_000
    done = subprocess.run(
        [sys.executable, "-c", READS, str(size), *UNITS],
        cwd=ROOT,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for unit, line in zip(UNITS, lines, strict=True):
        once, twice = map(int, line.split())
        assert once <= 150 * size, unit
        assert twice <= 2.1 * once + 500, unit

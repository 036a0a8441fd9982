"""Bytes of a page -> characters: byte order mark, HTTP header, <meta>, detection."""

import codecs
import re

import chardet
from resiliparse.parse.encoding import map_encoding_to_html5

BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# The HTML standard looks for <meta charset> in the first 1,024 bytes; a parser that meets one later
# starts again with it. 2 of the 237 pages of the real crawls that the tests read need that.
META_BYTES = 16_384
# Share of broken characters among those outside ASCII up to which an encoding fits. UTF-8 wrongly
# assumed breaks 0.65 or more (213 files in 42 encodings); one cut or pasted character in a page
# breaks far less. Among East Asian encodings no share tells which is right: there the label does.
MAX_BROKEN = 0.05
# Bytes that are second or later in a character, from which UTF-8 is no coincidence.
MIN_UTF8_EVIDENCE = 8
DETECT_BYTES = 50_000  # of text without markup

# Python's codecs for what browsers mean by a label: the superset that pages use under its name.
SUPERSETS = {
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "iso8859-11": "cp874",
    "iso2022_jp": "iso2022_jp_ext",
}
# Labels that the WHATWG does not list and pages carry.
LABELS = {
    "cp932": "cp932",
    "cp936": "gb18030",
    "cp949": "cp949",
    "cp950": "big5hkscs",
    "hz-gb-2312": "hz",
    "iso-2022-kr": "iso2022_kr",
    "ms932": "cp932",
    "uhc": "cp949",
    "x-mac-cyrillic": "mac-cyrillic",
}
# Encodings to detect: those of the WHATWG, less the parts of ISO 8859 that are rarer than a mistake
# for them. Unbounded, chardet weighs EBCDIC and DOS too, three times as slowly and less right.
DETECTED = (
    *("utf-8", "utf-16-le", "utf-16-be", "gb18030", "gb2312", "gbk", "big5", "big5hkscs"),
    *("cp932", "shift_jis", "euc-jp", "iso-2022-jp", "cp949", "euc-kr", "koi8-r", "koi8-u"),
    *("cp866", "cp874", "tis-620", "mac-cyrillic", *(f"cp{page}" for page in range(1250, 1259))),
    *("iso-8859-2", "iso-8859-5", "iso-8859-7", "iso-8859-8"),
)

LABEL = re.compile(r"[A-Za-z0-9_:.\-]+")  # the first of a header such as `"utf-8"; a=b`
PIECES = re.compile(rb"[<>\r\n]+")  # no encoding of the web uses these bytes for anything else
MARKUP = re.compile(
    rb"""<!--(?:>|->|.*?(?:-->|\Z))"""
    rb"""|<meta(?=[\s/])"""
    rb"""|</?[a-z][^\s>]*"""
    rb"""|<[!/?][^>]*>""",
    re.I | re.S,
)
ATTRIBUTE = re.compile(
    rb"""[\s/]*([^\s/>][^\s/>=]*)"""
    rb"""(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>][^\s>]*)(?=[\s>])|(?=>))|\s*(?=[^\s=]))"""
)
TAG_END = re.compile(rb"[\s/]*>")
CONTENT_CHARSET = re.compile(rb"""charset\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s;"'][^\s;]*))""", re.I)


def decode(html: bytes, declared: str | None = None) -> str | None:
    """Return the characters of a page, or None if its bytes are text in no known encoding.

    `declared` is the charset of the HTTP header. The encoding is the first that fits of those named
    by the byte order mark, the header and <meta>, and the detected one. It fits if at most
    MAX_BROKEN of the characters outside ASCII are broken; those become U+FFFD, as in browsers. If
    none fits, the first named one is used. The mark comes before the header, as in the WHATWG's
    standard: under a single-byte label its bytes would be letters, and would fit.

    One rule goes before the labels: a page of well-formed UTF-8 is UTF-8 whatever it says. No text
    of another encoding keeps to UTF-8's rules for long, while the reverse happens: GB 18030 decodes
    every Chinese page in UTF-8, to nonsense.

    A character cut off at the end, as crawlers with a size limit leave it, is dropped. Cost: one or
    two passes of codecs in C; detection, of pages that name nothing, 20 ms at most.
    """
    mark = next((encoding for bom, encoding in BOMS if html.startswith(bom)), None)
    as_utf8, num_broken = _decode(html, "utf-8")
    evidence = len(html) - len(as_utf8)
    if mark in (None, "utf-8") and evidence >= MIN_UTF8_EVIDENCE and _fits(as_utf8, num_broken):
        return as_utf8
    named = [
        encoding
        for encoding in (mark, _of_header(declared), meta_charset(html))
        if encoding is not None
    ]
    for encoding in named:
        text, num_broken_here = (
            (as_utf8, num_broken) if encoding == "utf-8" else _decode(html, encoding)
        )
        if _fits(text, num_broken_here):
            return text
    if not num_broken and b"\x1b" not in html and b"\0" not in html:
        return as_utf8
    detected = detect(html)
    if detected is not None:
        text, num_broken_here = _decode(html, detected)
        if not named or _fits(text, num_broken_here):
            return text
    if named:
        return _decode(html, named[0])[0]
    return None if num_broken else as_utf8


def meta_charset(html: bytes) -> str | None:
    """Return the codec that the first usable <meta> of a page names, or None.

    The prescan of the HTML standard: comments and attribute values are not searched, a `content`
    counts beside http-equiv=content-type only, an unknown label counts for nothing. A superset is
    given for its subsets (gb18030 for gb2312).
    """
    head = html[:META_BYTES]
    if b"charset" not in head.lower():
        return None
    at = 0
    while found := MARKUP.search(head, at):
        at = found.end()
        if found[0][:4] == b"<!--" or found[0][1:2] in b"!?" or found[0][-1:] == b">":
            continue
        attributes: dict[bytes, bytes] = {}
        while attribute := ATTRIBUTE.match(head, at):
            at = attribute.end()
            value = next((group for group in attribute.groups()[1:] if group is not None), b"")
            attributes.setdefault(attribute[1].lower(), value)
        if not TAG_END.match(head, at):  # cut off, or a quote that never closes
            return None
        if found[0].lower() == b"<meta" and (encoding := _named_by(attributes)):
            return encoding
    return None


def detect(html: bytes) -> str | None:
    """Return the most likely codec of bytes that name none, or None for what is no text.

    Markup says little about a language and drowns the rest: only the texts and tags that hold bytes
    outside ASCII are looked at. With the markup chardet took 98 of 405 manual pages with some
    Chinese among English for something else, mostly windows-1252; without the markup, 4.
    """
    if b"\0" not in html and b"\x1b" not in html:  # else they may be UTF-16 or ISO 2022
        pieces = [piece for piece in PIECES.split(html) if not piece.isascii()]
        html = b"\n".join(pieces) or html
    label = chardet.detect(html[:DETECT_BYTES], include_encodings=DETECTED)["encoding"]
    return label and (codec(label) or label)


def _named_by(attributes: dict[bytes, bytes]) -> str | None:
    label = attributes.get(b"charset")
    if label is None and attributes.get(b"http-equiv", b"").lower() == b"content-type":
        found = CONTENT_CHARSET.search(attributes.get(b"content", b""))
        label = found and next(group for group in found.groups() if group is not None)
    encoding = codec((label or b"").decode("latin-1"))
    # a <meta> that could be read does not lie in UTF-16
    return "utf-8" if encoding and encoding.startswith("utf-16") else encoding


def _of_header(declared: str | None) -> str | None:
    found = LABEL.search(declared or "")
    return found and codec(found[0])


def codec(label: str) -> str | None:
    """Return Python's name of the codec that a label stands for, or None."""
    label = label.strip().lower()
    encoding: str | None = LABELS.get(label) or map_encoding_to_html5(label, fallback_utf8=False)
    return encoding and SUPERSETS.get(encoding, encoding)


def _fits(text: str, num_broken: int) -> bool:
    if not num_broken:
        return True
    return num_broken <= MAX_BROKEN * (len(text) - len(text.encode("ascii", "ignore")))


def _decode(html: bytes, encoding: str) -> tuple[str, int]:
    """Return the characters, less one cut off at the end, and how many of them are U+FFFD."""
    decoder = codecs.getincrementaldecoder(encoding)
    text = decoder("replace").decode(html).removeprefix("\ufeff")
    if "\ufffd" not in text:  # to search is faster than to count
        return text, 0
    if encoding in ERRORS and text.count("\ufffd") <= MAX_EXTENDED:
        text = decoder(ERRORS[encoding]).decode(html)
    return text, text.count("\ufffd")


def _read_nec_row(error: UnicodeError) -> tuple[str, int]:
    # EUC-JP has rows 13 and 89 to 92, which NEC added: the same places in Shift JIS.
    assert isinstance(error, UnicodeDecodeError)
    pair = error.object[error.start : error.start + 2]
    if len(pair) == 2 and min(pair) >= 0xA1 and max(pair) <= 0xFE:
        row, cell = pair[0] - 0xA1, pair[1] - 0xA1
        lead = (0x81 if row < 62 else 0xC1) + row // 2
        trail = cell + (0x9F if row % 2 else 0x40 if cell < 63 else 0x41)
        try:
            return bytes((lead, trail)).decode("cp932"), error.start + 2
        except UnicodeDecodeError:
            pass
    return "\ufffd", error.start + 1


def _read_euro(error: UnicodeError) -> tuple[str, int]:
    # GBK has the euro sign at 80, Big5 at A3E1.
    assert isinstance(error, UnicodeDecodeError)
    for octets in (b"\xa3\xe1", b"\x80"):
        if error.object.startswith(octets, error.start):
            return "\u20ac", error.start + len(octets)
    return "\ufffd", error.start + 1


def _keep_c1(error: UnicodeError) -> tuple[str, int]:
    # Bytes that a Windows code page leaves open are control characters to browsers.
    assert isinstance(error, UnicodeDecodeError)
    byte = error.object[error.start]
    return chr(byte) if 0x80 <= byte < 0xA0 else "\ufffd", error.start + 1


# What browsers read and Python's codecs leave out. Handlers are Python, a microsecond a call.
codecs.register_error("curation-nec", _read_nec_row)
codecs.register_error("curation-euro", _read_euro)
codecs.register_error("curation-c1", _keep_c1)
ERRORS = {"euc_jp": "curation-nec", "gb18030": "curation-euro", "big5hkscs": "curation-euro"}
ERRORS |= dict.fromkeys(("cp874", *(f"cp{page}" for page in range(1250, 1259))), "curation-c1")
MAX_EXTENDED = 20_000

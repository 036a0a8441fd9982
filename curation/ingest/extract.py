"""HTML payloads -> title and main text, or the reason why there is none."""

import codecs
import logging
import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import trafilatura
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding, detect_mime, map_encoding_to_html5
from resiliparse.parse.html import HTMLTree

# Common Crawl cuts pages at 1 MiB, since 2025 at 5 MiB; the largest of 880 manual pages has 60 kB.
MAX_HTML_BYTES = 8 << 20
HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
# What the payload itself may look like: detect_mime takes XHTML for XML, and much UTF-8 text for
# octets; those are judged by their characters.
SNIFFED_TYPES = frozenset(
    {"text/html", "text/plain", "application/xhtml+xml", "application/xml", "text/xml"}
    | {"application/octet-stream"}
)
SNIFF_BYTES = 4096
META_BYTES = 1024  # the HTML standard looks for <meta charset> this far
# Share of control and replacement characters from which a payload is no text. Real pages in a
# wrongly declared encoding stay far below; random bytes are above 0.5.
MAX_JUNK = 0.02

BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
META_CHARSET = re.compile(rb"<meta[^>]{0,500}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.\-]+)", re.I)
# Supersets that browsers read too, under the narrower name that pages declare.
SUPERSETS = {"gbk": "gb18030", "gb2312": "gb18030", "big5": "big5hkscs", "euc_kr": "cp949"}

LINE_BREAKS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff\ud800-\udfff]")
JUNK = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x9f\ufffd]")
TRAILING_SPACE = re.compile(r"[^\S\n]+(?=\n|\Z)")
BLANK_LINES = re.compile(r"\n{3,}")

TEXT_TYPE = pa.struct([("title", pa.string()), ("text", pa.string()), ("error", pa.string())])

# What trafilatura would log about a page is in the error column.
logging.getLogger("trafilatura").setLevel(logging.CRITICAL)


def extract(
    payload: pa.Array,
    charset: pa.Array,
    content_type: pa.Array,
    *,
    engine: str = "trafilatura",
    max_html_bytes: int = MAX_HTML_BYTES,
) -> pa.StructArray:
    """Return struct{title, text, error} of HTML payloads: title and main text, or a reason.

    payload is binary, charset and content_type (both may be null) come from the HTTP header; a null
    payload gives null. error is null or one of: `not_html` (by declared type, by the bytes, or by
    too many control characters), `too_large` (above max_html_bytes), `undecodable`, `no_text`
    (nothing that is main text), `parser_error:<class of the exception>`.
    text is null with an error; it uses "\\n", has no trailing spaces, no control characters and no
    more than one blank line in a row.

    The encoding is the byte order mark's, else the header's, else that of <meta>, else a detected
    one: the first of them that decodes the bytes without error.

    engine: `trafilatura` (more accurate; 20 to 60 pages/s/core) or `resiliparse` (10 times faster).
    Pages do not influence each other. Never raises for a payload. What a page may cost is bounded
    by `limits` and `sandbox`, not here.
    """
    parse = ENGINES[engine]
    results = [
        None if html is None else _extract_one(html, declared, kind, parse, max_html_bytes)
        for html, declared, kind in zip(
            payload.to_pylist(), charset.to_pylist(), content_type.to_pylist(), strict=True
        )
    ]
    return _struct(results)


def plain_text(payload: pa.Array) -> pa.StructArray:
    """Return struct{title, text, error} of UTF-8 payloads that are text already.

    Line ends, spaces and control characters are treated as in `extract`; title is null; error is
    `undecodable` or `no_text`. Null gives null.
    """
    return _struct(
        [None if octets is None else _plain_one(octets) for octets in payload.to_pylist()]
    )


def normalise(text: str) -> str:
    """Return a text with "\\n" as its only control beside tab, no trailing space, no more than one
    blank line in a row, and no blank line at either end."""
    text = CONTROLS.sub("", LINE_BREAKS.sub("\n", text))
    return BLANK_LINES.sub("\n\n", TRAILING_SPACE.sub("", text)).strip("\n")


Result = tuple[str | None, str | None, str | None]  # title, text, error


def _struct(results: list[Result | None]) -> pa.StructArray:
    columns = zip(*[result or (None, None, None) for result in results], strict=True)
    arrays = [pa.array(column, pa.string()) for column in columns] or [
        pa.array([], pa.string())
    ] * 3
    is_null = pa.array(np.array([result is None for result in results], dtype=bool))
    return pa.StructArray.from_arrays(arrays, fields=list(TEXT_TYPE), mask=is_null)


def _extract_one(
    html: bytes,
    declared: str | None,
    content_type: str | None,
    parse: Callable[[str], tuple[str | None, str | None]],
    max_html_bytes: int,
) -> Result:
    if len(html) > max_html_bytes:
        return None, None, "too_large"
    if not html.strip():
        return None, None, "no_text"
    is_html = content_type is None or content_type.partition(";")[0].strip().lower() in HTML_TYPES
    if not is_html or detect_mime(html[:SNIFF_BYTES]) not in SNIFFED_TYPES:
        return None, None, "not_html"
    page = decode(html, declared)
    if page is None:
        return None, None, "undecodable"
    if len(JUNK.findall(page)) > MAX_JUNK * len(page):
        return None, None, "not_html"
    try:
        title, text = parse(CONTROLS.sub("", page))
    except BaseException as error:
        # a panic in Rust is no Exception; anything else that is none (an interrupt) goes through
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        return None, None, f"parser_error:{type(error).__name__}"
    text = normalise(text or "")
    title = " ".join(normalise(title or "").split()) or None
    return (title, text, None) if text.strip() else (title, None, "no_text")


def decode(html: bytes, declared: str | None = None) -> str | None:
    """Return the characters of a page, or None if no encoding fits.

    `declared` is the charset of the HTTP header. A character cut off at the end, as crawlers with a
    size limit leave it, is dropped. If no candidate decodes without error, the first known one
    decodes with U+FFFD for what is broken, as in browsers.
    """
    bom = next((encoding for mark, encoding in BOMS if html.startswith(mark)), None)
    meta = META_CHARSET.search(html, 0, META_BYTES)
    usable = []
    for label in (bom, declared, meta and meta[1].decode("ascii")):
        encoding = map_encoding_to_html5(label, fallback_utf8=False) if label else None
        # a <meta> that could be read does not lie in UTF-16
        if encoding and label is not bom and encoding.startswith("utf-16") and meta:
            encoding = "utf-8"
        if encoding:
            usable.append(SUPERSETS.get(encoding, encoding))
    for encoding in usable:
        text = _decode_strictly(html, encoding)
        if text is not None:
            return text
    detected = detect_encoding(html)
    if detected:
        detected = SUPERSETS.get(detected, detected)
        text = _decode_strictly(html, detected)
        if text is not None:
            return text
    for encoding in [*usable, detected]:
        if encoding:
            return html.decode(encoding, "replace").removeprefix("\ufeff")
    return None


def _decode_strictly(html: bytes, encoding: str) -> str | None:
    try:
        decoder = codecs.getincrementaldecoder(encoding)("strict")
        return decoder.decode(html, final=False).removeprefix("\ufeff")
    except (UnicodeDecodeError, LookupError):
        return None


def _parse_with_trafilatura(page: str) -> tuple[str | None, str | None]:
    tree = trafilatura.load_html(page)
    if tree is None:
        return None, None
    title = tree.findtext(".//title")  # before extraction, which takes the tree apart
    text = trafilatura.extract(
        tree,
        include_comments=False,
        deduplicate=False,  # it would remember the paragraphs of earlier pages
        favor_precision=False,
        with_metadata=False,
    )
    return title, text


def _parse_with_resiliparse(page: str) -> tuple[str | None, str | None]:
    tree = HTMLTree.parse(page)
    text = extract_plain_text(
        tree,
        main_content=True,
        list_bullets=True,
        alt_texts=False,
        links=False,
        form_fields=False,
        noscript=False,
        comments=False,
    )
    return tree.title, text


ENGINES: dict[str, Callable[[str], tuple[str | None, str | None]]] = {
    "trafilatura": _parse_with_trafilatura,
    "resiliparse": _parse_with_resiliparse,
}


def _plain_one(octets: bytes) -> Result:
    text = _decode_strictly(octets, "utf-8")
    if text is None or len(JUNK.findall(text)) > MAX_JUNK * len(text):
        return None, None, "undecodable"
    text = normalise(text)
    return (None, text, None) if text.strip() else (None, None, "no_text")

"""HTML payloads -> title, author, date and main text, or the reason why there is no text."""

import codecs
import logging
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_mime
from resiliparse.parse.html import HTMLTree

from curation.config import DEFAULT_EXTRACTOR_MODEL
from curation.ingest import charset as charsets
from curation.ingest import formulas, main_text, metadata

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
# Share of control and replacement characters from which a payload is no text. Real pages in a
# wrongly declared encoding stay far below; random bytes are above 0.5.
MAX_JUNK = 0.02

# Left out of pages and texts: control characters but white space, and code points that are none.
CONTROLS = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufdd0-\ufdef\ufeff\ufffe\uffff\ud800-\udfff]"
)
JUNK = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x9f\ufffd]")
ASCII_CONTROLS = bytes(set(range(0x20)) - set(b"\t\n\x0b\x0c\r")) + b"\x7f"
# Texts only. Invisible hints where a word may be broken (soft hyphen, zero-width space, word
# joiner) cut words in two; the joiners of Persian, Indic scripts and emoji belong to their letters.
REPLACED = (
    (("\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"), "\n"),
    (("\xa0", "\u2007", "\u202f"), " "),  # no-break spaces
    (("\xad", "\u200b", "\u2060"), ""),
)
UNUSUAL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\xa0\xad\u2007\u200b\u2028\u2029\u202f\u2060"
    r"\ufdd0-\ufdef\ufeff\ufffe\uffff\ud800-\udfff]"
)
BLANK_LINES = re.compile(r"\n{3,}")

SMALL_PAGE = b"<title>A page</title><p>A sentence of a page. <p>And another one, with \xc3\xa4."

PRE = re.compile(r"<(/?)pre\b[^<>]*>", re.I)
INLINE = re.compile(r"</?(?:span|font)\b[^<>]*>", re.I)
BLANK_LINE = re.compile(r"(?<=\n)[^\S\n]*(?=\n)")
JOINER = re.compile("(\u200c|&zwnj;|&#8204;|&#x200c;)|\u200d|&zwj;|&#8205;|&#x200d;", re.I)
RUNES = range(0x16A0, 0x16EB)  # letters that hardly any page holds

TIMESTAMP = pa.timestamp("us", tz="UTC")
TEXT_TYPE = pa.struct(
    [
        ("title", pa.string()),
        ("author", pa.string()),
        ("published_at", TIMESTAMP),
        ("text", pa.string()),
        ("error", pa.string()),
    ]
)

# What trafilatura would log about a page is in the error column.
logging.getLogger("trafilatura").setLevel(logging.CRITICAL)


def extract(
    payload: pa.Array,
    charset: pa.Array,
    content_type: pa.Array,
    *,
    engine: str = "blocks",
    max_html_bytes: int = MAX_HTML_BYTES,
    model: str = DEFAULT_EXTRACTOR_MODEL,
    model_digest: str = "",
    unsure_share: float = 0.0,
    comments: bool = True,
) -> pa.StructArray:
    """Return struct TEXT_TYPE of HTML payloads: what a page states and its main text, or a reason.

    payload is binary, charset and content_type (both may be null) come from the HTTP header; a null
    payload gives null. error is null or one of: `not_html` (by declared type, by the bytes, or by
    too many control characters), `too_large` (above max_html_bytes), `undecodable`, `no_text`
    (nothing that is main text), `parser_error:<class of the exception>`.
    text is null with an error; see `normalise` for its characters. Formulas stand in it as TeX (see
    `formulas`), code keeps its lines and indentation, of blank lines in a row one. title, author
    and published_at (UTC) are what the markup states, null where it does not (see `metadata`).
    Encodings: see `charset.decode`.

    engine: a name in ENGINES. `blocks` (see `main_text`) is ours; `trafilatura` leaves comments out
    and takes ten times as long, `trafilatura_precision` drops more in doubt, `trafilatura_fast`
    tries no second algorithm; `resiliparse` is the least accurate. The last four are for `blocks`:
    the card of its model, with the digest that it must have where one is given; the share of pages
    that go to trafilatura, those of which the model expects least (`main_text.least_expected`),
    where it finds text; and whether comments may be kept.
    Pages do not influence each other. Never raises for a payload.
    What a page may cost is bounded by `limits` and `sandbox`, not here.
    """
    parse = ENGINES[engine]
    if engine == "blocks":
        extractor = main_text.load(model, model_digest)
        least = main_text.least_expected(extractor, unsure_share) if unsure_share else 0.0
        parse = partial(parse, model=extractor.model, least=least, comments=comments)
    results = [
        None if html is None else _extract_one(html, declared, kind, parse, max_html_bytes)
        for html, declared, kind in zip(
            payload.to_pylist(), charset.to_pylist(), content_type.to_pylist(), strict=True
        )
    ]
    return _struct(results)


def prepare_extract(**options: Any) -> None:
    """Load what `extract` with these options needs: libraries, kernels, a model."""
    if options.get("unsure_share"):
        import trafilatura  # noqa: F401  # the first page that needs it should not pay
    unknown = pa.array([None], pa.string())
    extract(pa.array([SMALL_PAGE]), unknown, unknown, **options)


def plain_text(payload: pa.Array) -> pa.StructArray:
    """Return struct TEXT_TYPE of UTF-8 payloads that are text already.

    Line ends, spaces and control characters are treated as in `extract`; nothing is stated; error
    is `undecodable` or `no_text`. Null gives null.
    """
    return _struct(
        [None if octets is None else _plain_one(octets) for octets in payload.to_pylist()]
    )


def normalise(text: str) -> str:
    """Return a text with "\\n" as its only control beside tab, no trailing space, no more than one
    blank line in a row, and no blank line at either end.

    No-break spaces become spaces; soft hyphens, zero-width spaces and word joiners go, zero-width
    joiners and non-joiners stay. Linear, and a projection.
    """
    if UNUSUAL.search(text):
        for characters, replacement in REPLACED:
            for character in characters:
                text = text.replace(character, replacement)
        text = CONTROLS.sub("", text)
    text = "\n".join([line.rstrip() for line in text.split("\n")])
    if "\n\n\n" in text:
        text = BLANK_LINES.sub("\n\n", text)
    return text.strip("\n")


Result = tuple[metadata.Stated, str | None, str | None]  # stated, text, error
NOTHING = metadata.Stated()


def _struct(results: list[Result | None]) -> pa.StructArray:
    rows = [result or (NOTHING, None, None) for result in results]
    columns = (
        pa.array([stated.title for stated, _, _ in rows], pa.string()),
        pa.array([stated.author for stated, _, _ in rows], pa.string()),
        pa.array([stated.published_at for stated, _, _ in rows], TIMESTAMP),
        pa.array([text for _, text, _ in rows], pa.string()),
        pa.array([error for _, _, error in rows], pa.string()),
    )
    is_null = pa.array(np.array([result is None for result in results], dtype=bool))
    return pa.StructArray.from_arrays(columns, fields=list(TEXT_TYPE), mask=is_null)


def _extract_one(
    html: bytes,
    declared: str | None,
    content_type: str | None,
    parse: Callable[[str], str | None],
    max_html_bytes: int,
) -> Result:
    if len(html) > max_html_bytes:
        return NOTHING, None, "too_large"
    if not html.strip():
        return NOTHING, None, "no_text"
    is_html = content_type is None or content_type.partition(";")[0].strip().lower() in HTML_TYPES
    if not is_html or detect_mime(html[:SNIFF_BYTES]) not in SNIFFED_TYPES:
        return NOTHING, None, "not_html"
    try:
        page = charsets.decode(html, declared)
        if page is None:
            return NOTHING, None, "undecodable"
        # most pages hold none of these; what is rarer still, `normalise` removes from the text
        if "\ufffd" in page or len(html.translate(None, ASCII_CONTROLS)) < len(html):
            if _is_junk(page):
                return NOTHING, None, "not_html"
            page = CONTROLS.sub("", page)
        stated = _normalised(metadata.read(page))
        text = normalise(parse(page) or "")
    except BaseException as error:
        # a panic in Rust is no Exception; anything else that is none (an interrupt) goes through
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        return NOTHING, None, f"parser_error:{type(error).__name__}"
    return (stated, text, None) if text.strip() else (stated, None, "no_text")


def _is_junk(text: str) -> bool:
    return len(JUNK.findall(text)) > MAX_JUNK * len(text)


def _normalised(stated: metadata.Stated) -> metadata.Stated:
    title, author = (
        " ".join(normalise(value or "").split()) or None for value in (stated.title, stated.author)
    )
    return metadata.Stated(title, author, stated.published_at)


def _parse_with_blocks(
    page: str, model: main_text.Model, least: float, comments: bool
) -> str | None:
    found = main_text.main_text(page, model, comments=comments)
    if found.expected_f1 >= least:
        return found.text
    return _parse_with_trafilatura(page) or found.text


def _parse_with_trafilatura(page: str, fast: bool = False, precise: bool = False) -> str | None:
    import trafilatura  # a fifth of a second that other engines need not wait for

    page, restore = _shield(formulas.tex(page))
    text = trafilatura.extract(
        page,
        include_comments=False,
        deduplicate=False,  # it would remember the paragraphs of earlier pages
        fast=fast,
        favor_precision=precise,
        with_metadata=False,
    )
    return restore(text) if text else None


def _shield(page: str) -> tuple[str, Callable[[str], str]]:
    """Return a page that survives trafilatura, and what undoes the changes in the text.

    By itself trafilatura drops blank lines in <pre>, indentation that stands before an inline
    element there, and joiners. Letters that the page does not use stand in for them meanwhile.
    """
    has_pre = "<pre" in page or "<PRE" in page
    has_joiners = JOINER.search(page) is not None
    free = [rune for rune in map(chr, RUNES) if rune not in page] if has_pre or has_joiners else []
    if len(free) < 3:
        return page, str
    blank, non_joiner, joiner = free[:3]
    if has_joiners:
        page = JOINER.sub(lambda found: non_joiner if found[1] else joiner, page)
    if has_pre:
        parts, at, depth = [], 0, 0
        for tag in PRE.finditer(page):
            part = page[at : tag.start()]
            parts.append(BLANK_LINE.sub(blank, INLINE.sub("", part)) if depth else part)
            parts.append(tag[0])
            at, depth = tag.end(), 0 if tag[1] else 1
        page = "".join((*parts, page[at:]))

    def restore(text: str) -> str:
        return text.replace(blank, "").replace(non_joiner, "\u200c").replace(joiner, "\u200d")

    return page, restore


def _parse_with_resiliparse(page: str) -> str | None:
    text: str = extract_plain_text(
        HTMLTree.parse(formulas.tex(page)),
        main_content=True,
        list_bullets=True,
        alt_texts=False,
        links=False,
        form_fields=False,
        noscript=False,
        comments=False,
    )
    return text


ENGINES: dict[str, Callable[..., str | None]] = {
    "blocks": _parse_with_blocks,
    "trafilatura": _parse_with_trafilatura,
    "trafilatura_precision": partial(_parse_with_trafilatura, precise=True),
    "trafilatura_fast": partial(_parse_with_trafilatura, fast=True),
    "resiliparse": _parse_with_resiliparse,
}


def _plain_one(octets: bytes) -> Result:
    try:
        # a character cut off at the end is dropped
        text = codecs.getincrementaldecoder("utf-8")("strict").decode(octets)
    except UnicodeDecodeError:
        return NOTHING, None, "undecodable"
    if _is_junk(text):
        return NOTHING, None, "undecodable"
    text = normalise(text)
    return (NOTHING, text, None) if text.strip() else (NOTHING, None, "no_text")

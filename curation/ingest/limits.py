"""Limits that a page must keep before an HTML engine may see it, and that its text must keep after.

Engines have costs that grow faster than a page: Resiliparse's with the square of the depth of
nested blocks (2,000: 0.04 s, 100,000: minutes) and of the attributes of a tag (10,000: 0.15 s,
100,000: 17 s) or of different attributes of a page (50,000: 1.4 s, 100,000: 7 s); trafilatura needs
20 us and 2 kB a tag. So bytes, tags, depth and attributes are counted first, in one pass over the
bytes as they came. The counts depend on nothing else: a page is rejected on every machine or on
none.

The pass tokenizes as the HTML standard says and keeps a stack of open elements with these rules:

1. An end tag closes what is open inside its element. It does not reach through a table, nor, if it
   names no block, through a block; without an open element of its name it does nothing.
2. A table cell, row or section closes what the one before left open, and so does a list item.
3. Not counted as depth: elements without an end tag, elements whose end tag may be left out (`p`,
   `li`, `td` and their like), and formatting (`a`, `b`, `font` and their like: pages leave them
   open by the hundred, and both engines take 100,000 of them in 0.1 s).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit, types

from curation.hashing import FNV_OFFSET, FNV_PRIME
from curation.ingest.text import utf8_buffers

VERDICT_TYPE = pa.struct(
    [("rule", pa.string()), ("value", pa.string()), ("threshold", pa.string())]
)

# What a tag does to the stack. The first three are ranks: an end tag never closes a higher rank.
INLINE, BLOCK, BARRIER, DIV, LIST, ITEM, CELL, TABLE, FOREIGN, RAW, PLAIN, IGNORED = range(12)
KINDS = {
    BLOCK: "article aside blockquote center details dialog fieldset figcaption figure footer form "
    "h1 h2 h3 h4 h5 h6 header hgroup listing main nav pre search section summary select frameset",
    BARRIER: "applet marquee object template",
    DIV: "address div",
    LIST: "dir dl menu ol ul",
    ITEM: "dd dt li",
    CELL: "caption colgroup tbody td tfoot th thead tr",
    TABLE: "table",
    FOREIGN: "math svg",
    RAW: "iframe noembed noframes script style textarea title xmp",
    PLAIN: "plaintext",
    IGNORED: "area base basefont bgsound br col embed frame hr image img input keygen link meta "
    "param source track wbr body head html optgroup option p rb rp rt rtc "
    "a b big code em font i nobr s small strike strong tt u",
}
RANKS = np.array([0, 1, 2, 1, 1, 0, 0, 2, 1, 0, 0, 0], np.uint8)  # by kind

NUM_SLOTS = 1 << 12

# C's own, which compares 16 or 32 bytes at once: address, byte, count -> address, or 0 for none.
_memchr: Any = types.ExternalFunction("memchr", types.intp(types.intp, types.int32, types.uintp))

TAGS, DEPTH, ATTRIBUTES, TAG_ATTRIBUTES = range(4)

UInt8Array = npt.NDArray[np.uint8]
UInt64Array = npt.NDArray[np.uint64]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PageLimits:
    """The settings of `[ingest]` that a page must keep; sources: `curation.config.IngestConfig`."""

    max_html_bytes: int
    max_html_tags: int
    max_html_depth: int
    max_html_attributes: int
    max_tag_attributes: int
    max_chars: int


def check_pages(payload: pa.Array, limits: PageLimits) -> pa.StructArray:
    """Return struct{rule, value, threshold} of HTML payloads: the first limit that each breaks.

    payload is binary in any encoding that keeps ASCII, or UTF-16; null gives null, a page within
    the limits a struct of nulls. rule is the name of the setting, in this order: `max_html_bytes`,
    `max_html_tags` (start and end tags), `max_html_depth`, `max_html_attributes` (of the page),
    `max_tag_attributes` (of one tag). value and threshold are decimal; the value of a depth is the
    first that is too much, all others are whole counts (0 tags are counted above max_html_bytes).

    Cost: one pass, about 1 GB/s.
    """
    data, offsets = utf8_buffers(payload)
    num_bytes = np.diff(offsets)
    counts = _counts(data, offsets, num_bytes <= limits.max_html_bytes, limits.max_html_depth)
    return _verdicts(
        payload,
        [
            ("max_html_bytes", num_bytes, limits.max_html_bytes),
            ("max_html_tags", counts[:, TAGS], limits.max_html_tags),
            ("max_html_depth", counts[:, DEPTH], limits.max_html_depth),
            ("max_html_attributes", counts[:, ATTRIBUTES], limits.max_html_attributes),
            ("max_tag_attributes", counts[:, TAG_ATTRIBUTES], limits.max_tag_attributes),
        ],
    )


def check_texts(text: pa.Array, limits: PageLimits) -> pa.StructArray:
    """Return struct{rule, value, threshold} of extracted texts: `max_chars`, or nulls."""
    num_chars = pc.fill_null(pc.utf8_length(text), 0).to_numpy(zero_copy_only=False)
    return _verdicts(text, [("max_chars", num_chars, limits.max_chars)])


def _verdicts(values: pa.Array, checks: list[tuple[str, Int64Array, int]]) -> pa.StructArray:
    """Return the first broken limit of each row: few rows break one, so only those are objects."""
    columns: list[list[str | None]] = [[None] * len(values) for _ in range(3)]
    for rule, measured, threshold in reversed(checks):
        for i in np.flatnonzero(measured > threshold).tolist():
            for column, value in zip(
                columns, (rule, str(measured[i]), str(threshold)), strict=True
            ):
                column[i] = value
    arrays = [pa.array(column, pa.string()) for column in columns]
    return pa.StructArray.from_arrays(arrays, fields=list(VERDICT_TYPE), mask=values.is_null())


def _counts(
    data: UInt8Array, offsets: Int64Array, wanted: npt.NDArray[np.bool_], max_depth: int
) -> Int64Array:
    """Return tags, depth, attributes and most attributes of a tag, by page; 0 where not wanted."""
    counts: Int64Array = scan(data, offsets, wanted, max_depth)
    # A tag in UTF-16 holds zeros. Whether a page with a zero is read as such is decided later, by
    # its header, a mark or detection: what it would be in any of them must keep the limits.
    for i in np.flatnonzero(wanted & _with_zero(data, offsets)).tolist():
        size = (offsets[i + 1] - offsets[i]) // 2 * 2
        for order in ("<u2", ">u2"):
            units = data[offsets[i] : offsets[i] + size].view(order)
            page = np.minimum(units, 0xFF).astype(np.uint8)
            found = scan(page, np.array([0, len(page)]), np.ones(1, np.bool_), max_depth)[0]
            counts[i] = np.maximum(counts[i], found)
    return counts


@njit(cache=True, nogil=True)
def _with_zero(data: UInt8Array, offsets: Int64Array) -> npt.NDArray[np.bool_]:
    found = np.zeros(len(offsets) - 1, np.bool_)
    for i in range(len(found)):
        found[i] = _find(data, offsets[i], offsets[i + 1], 0) < offsets[i + 1]
    return found


def _kinds_by_slot() -> tuple[UInt64Array, UInt8Array]:
    names = np.zeros(NUM_SLOTS, np.uint64)
    kinds = np.full(NUM_SLOTS, INLINE, np.uint8)
    for kind, listed in KINDS.items():
        for name in listed.split():
            key = int(FNV_OFFSET)
            for character in name.encode():
                key = (key ^ character) * int(FNV_PRIME) % 2**64
            slot = (key ^ key >> 32) % NUM_SLOTS
            assert names[slot] == 0, f"{name} needs a slot of its own: change NUM_SLOTS"
            names[slot], kinds[slot] = key, kind
    return names, kinds


SLOT_NAMES, SLOT_KINDS = _kinds_by_slot()


@njit(cache=True, nogil=True)
def scan(
    data: UInt8Array, offsets: Int64Array, wanted: npt.NDArray[np.bool_], max_depth: int
) -> Any:
    """Return (n, 4) counts: tags, depth (max_depth + 1 for all above it), attributes, most of a
    tag. Linear: every byte is passed once, every tag searches at most max_depth open elements."""
    num_pages = len(offsets) - 1
    counts = np.zeros((num_pages, 4), np.int64)
    names = np.zeros(max_depth + 2, np.uint64)
    kinds = np.zeros(max_depth + 2, np.uint8)
    for page in range(num_pages):
        if wanted[page]:
            _scan_page(
                data, offsets[page], offsets[page + 1], max_depth, names, kinds, counts[page]
            )
    return counts


@njit(cache=True, nogil=True)
def _scan_page(
    data: UInt8Array,
    i: int,
    end: int,
    max_depth: int,
    names: UInt64Array,
    kinds: UInt8Array,
    counts: Int64Array,
) -> None:
    depth = 0
    foreign_at = max_depth + 2  # depth at which <svg> or <math> is open
    while True:
        i = _find(data, i, end, 60) + 1  # <
        if i >= end:
            return
        c = data[i]
        is_end_tag = c == 47  # /
        if is_end_tag:
            i += 1
            if i >= end:
                return
            c = data[i]
        if not (97 <= (c | 32) <= 122):
            if c == 33 and not is_end_tag:  # !
                i = _after_comment(data, i, end)
            elif is_end_tag or c == 63:  # ?
                i = _find(data, i, end, 62)  # >
            continue

        # 1. the name, in lower case
        name, i = _hash_name(data, i, end)
        # 2. attributes, up to the end of the tag
        num_attributes = 0
        closes_itself = False
        while i < end and data[i] != 62:
            c = data[i]
            if c <= 32 or c == 47:
                closes_itself = c == 47
                i += 1
                continue
            closes_itself = False
            num_attributes += 1
            i = _after_attribute(data, i, end)
        if i >= end:
            return  # a tag that does not end is none
        counts[TAGS] += 1
        counts[ATTRIBUTES] += num_attributes
        counts[TAG_ATTRIBUTES] = max(counts[TAG_ATTRIBUTES], num_attributes)

        # 3. what it does to the stack
        slot = (name ^ (name >> np.uint64(32))) % np.uint64(NUM_SLOTS)
        kind = SLOT_KINDS[slot] if SLOT_NAMES[slot] == name else np.uint8(INLINE)
        if kind == RAW and not is_end_tag:
            i = _after_raw(data, i, end, name)
        elif kind == PLAIN and not is_end_tag:
            return
        elif counts[DEPTH] > max_depth or kind in (IGNORED, RAW, PLAIN):
            pass
        elif kind == CELL:
            for j in range(depth - 1, -1, -1):
                if kinds[j] == TABLE:
                    depth = j + 1
                    break
        elif kind == ITEM:
            for j in range(depth - 1, -1, -1):
                if kinds[j] == LIST:
                    depth = j + 1
                if RANKS[kinds[j]] > 0 and kinds[j] != DIV:
                    break
        elif is_end_tag:
            for j in range(depth - 1, -1, -1):
                if names[j] == name:
                    depth = j
                    break
                if RANKS[kinds[j]] > RANKS[kind]:
                    break
        elif not (closes_itself and foreign_at < depth + 1):
            names[depth], kinds[depth] = name, kind
            depth += 1
            if kind == FOREIGN and foreign_at > depth:
                foreign_at = depth
            counts[DEPTH] = max(counts[DEPTH], depth)
        if foreign_at > depth:
            foreign_at = max_depth + 2


@njit(cache=True, nogil=True, inline="always")
def _find(data: UInt8Array, i: int, end: int, byte: int) -> int:
    """Return where a byte is next, or `end`."""
    if i >= end:
        return end
    found = _memchr(data.ctypes.data + i, byte, end - i)
    return end if found == 0 else found - data.ctypes.data


@njit(cache=True, nogil=True, inline="always")
def _hash_name(data: UInt8Array, i: int, end: int) -> tuple[np.uint64, int]:
    """Return the hash of the name at i, in lower case, and where it ends."""
    name = FNV_OFFSET
    while i < end:
        c = data[i]
        if c <= 32 or c == 62 or c == 47:  # > /
            break
        if 65 <= c <= 90:
            c |= 32
        name = (name ^ np.uint64(c)) * FNV_PRIME
        i += 1
    return name, i


@njit(cache=True, nogil=True, inline="always")
def _after_attribute(data: UInt8Array, i: int, end: int) -> int:
    """Return where an attribute that starts at i ends: name, and value if there is one."""
    i += 1  # whatever comes first belongs to the name
    while i < end:
        c = data[i]
        if c == 61 or c <= 32 or c == 62 or c == 47:  # = > /
            break
        i += 1
    after_name = i
    while i < end and data[i] <= 32:
        i += 1
    if i >= end or data[i] != 61:
        return after_name
    i += 1
    while i < end and data[i] <= 32:
        i += 1
    if i >= end:
        return i
    quote = data[i]
    if quote == 34 or quote == 39:
        return _find(data, i + 1, end, quote) + 1
    while i < end and data[i] > 32 and data[i] != 62:
        i += 1
    return i


@njit(cache=True, nogil=True)
def _after_comment(data: UInt8Array, i: int, end: int) -> int:
    """Return where a comment or declaration ends whose `!` is at i."""
    if i + 2 < end and data[i + 1] == 45 and data[i + 2] == 45:  # --
        i += 3
        if i < end and data[i] == 62:
            return i
        if i + 1 < end and data[i] == 45 and data[i + 1] == 62:
            return i + 1
        start = i
        while True:
            i = _find(data, i, end, 62)
            dash = i - 2 if data[i - 1] == 33 else i - 1  # --!> ends one too
            if i >= end or (dash > start and data[dash] == 45 and data[dash - 1] == 45):
                return i
            i += 1
    return _find(data, i, end, 62)


@njit(cache=True, nogil=True)
def _after_raw(data: UInt8Array, i: int, end: int, name: np.uint64) -> int:
    """Return where the end tag of an element starts in which no other tag counts."""
    while i < end:
        i = _find(data, i, end, 60)  # <
        if i + 1 >= end:
            return end
        if data[i + 1] == 47:
            found, _ = _hash_name(data, i + 2, min(end, i + 12))  # no such name is longer
            if found == name:
                return i
        i += 1
    return i

"""Lines and paragraphs of texts: keys to count them by, and what stays when some are cut.

A line ends with its line feed. A paragraph is a run of two lines or more without a blank one. Both
are known by their folded words (`curation.ingest.text`), so case, signs and spacing do not count; a
line and a paragraph of the same words are different units. Units without words have no key.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from curation.dedup.minhash import hash_words
from curation.hashing import FMIX_1, fmix64
from curation.ingest.text import KIND_AND_FOLD, utf8_buffers

UInt8Array = npt.NDArray[np.uint8]
UInt32Array = npt.NDArray[np.uint32]
UInt64Array = npt.NDArray[np.uint64]
Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

LINE_FEED = 0x0A
LINE_TAG, PARAGRAPH_TAG = np.uint64(1), np.uint64(2)


class Units(NamedTuple):
    """The units of some texts, text after text; in a text by start, a paragraph before its lines.

    Those of text i are at ends[i] up to ends[i + 1]. start and end are bytes of the text.
    """

    ends: Int64Array
    key: Int64Array
    start: Int64Array
    end: Int64Array
    num_words: Int64Array


class Cuts(NamedTuple):
    """Disjoint spans to cut, text after text as in Units, and the characters that stay."""

    ends: Int64Array
    start: Int64Array
    end: Int64Array
    num_chars_left: Int64Array


def units(text: pa.Array) -> Units:
    """Return the units with words of every text; a null has none. Cost: O(bytes), words twice."""
    data, offsets = utf8_buffers(text)
    return Units(*_units(data, offsets, KIND_AND_FOLD))


def document_counts(found: Units, min_words: int) -> tuple[Int64Array, Int64Array]:
    """Return the keys of units of `min_words` or more, ascending, and in how many texts each is."""
    owner = np.repeat(np.arange(len(found.ends) - 1), np.diff(found.ends))
    counts = found.num_words >= min_words
    key, owner = found.key[counts], owner[counts]
    order = np.lexsort((owner, key))
    key, owner = key[order], owner[order]
    is_new = np.ones(len(key), np.bool_)
    is_new[1:] = (key[1:] != key[:-1]) | (owner[1:] != owner[:-1])
    keys, num_documents = np.unique(key[is_new], return_counts=True)
    return keys, num_documents.astype(np.int64)


def cut(text: pa.Array, found: Units, frequent: Int64Array, min_words: int) -> Cuts:
    """Return what to cut of every text: its units of `min_words` or more with a key in `frequent`.

    `frequent` ascends. Spans that overlap or touch become one.
    """
    data, offsets = utf8_buffers(text)
    place = np.searchsorted(frequent, found.key)
    is_frequent = np.append(frequent, 0)[place] == found.key
    is_frequent &= (place < len(frequent)) & (found.num_words >= min_words)
    return Cuts(*_cuts(data, offsets, found.ends, found.start, found.end, is_frequent))


@njit(cache=True, nogil=True)
def _units(
    data: UInt8Array, offsets: Int64Array, table: UInt32Array
) -> tuple[Int64Array, Int64Array, Int64Array, Int64Array, Int64Array]:
    num_texts = len(offsets) - 1
    longest, num_lines = 0, 0
    for i in range(num_texts):
        longest = max(longest, offsets[i + 1] - offsets[i])
        num_lines += 1
        for at in range(offsets[i], offsets[i + 1]):
            num_lines += data[at] == LINE_FEED
    words = np.empty(longest + 1, np.uint64)
    room = 2 * num_lines  # a line can begin a paragraph
    ends = np.zeros(num_texts + 1, np.int64)
    key, num_words = np.empty(room, np.int64), np.empty(room, np.int64)
    start, end = np.empty(room, np.int64), np.empty(room, np.int64)
    found = 0
    for i in range(num_texts):
        first, last = offsets[i], offsets[i + 1]
        at = first
        paragraph = -1  # the unit of the paragraph that goes on
        lines_in_paragraph = 0
        while at < last:
            stop = _end_of_line(data, at, last)
            if _is_blank(data, at, stop):
                found = _close(paragraph, lines_in_paragraph, found, key, start, end, num_words)
                paragraph, lines_in_paragraph = -1, 0
                at = stop
                continue
            if paragraph < 0:
                block = _end_of_paragraph(data, at, last)
                paragraph = found
                found = _add(
                    data, at, block, first, PARAGRAPH_TAG, table, words, found,
                    key, start, end, num_words,
                )  # fmt: skip
            lines_in_paragraph += 1
            found = _add(
                data, at, stop, first, LINE_TAG, table, words, found,
                key, start, end, num_words,
            )  # fmt: skip
            at = stop
        found = _close(paragraph, lines_in_paragraph, found, key, start, end, num_words)
        ends[i + 1] = found
    # units without words have no key
    keeps = num_words[:found] > 0
    places = np.zeros(found + 1, np.int64)
    places[1:] = np.cumsum(keeps)
    return (
        places[ends],
        key[:found][keeps],
        start[:found][keeps],
        end[:found][keeps],
        num_words[:found][keeps],
    )


@njit(cache=True, nogil=True)
def _add(
    data: UInt8Array,
    begin: int,
    stop: int,
    origin: int,
    tag: np.uint64,
    table: UInt32Array,
    words: UInt64Array,
    found: int,
    key: Int64Array,
    start: Int64Array,
    end: Int64Array,
    num_words: Int64Array,
) -> int:
    """Write down a unit; return how many there are now."""
    content = np.zeros(2, np.uint64)
    num_words[found] = hash_words(data, begin, stop, table, words, content)
    key[found] = np.int64(fmix64((content[0] ^ tag) * FMIX_1 + content[1]))
    start[found], end[found] = begin - origin, stop - origin
    return found + 1


@njit(cache=True, nogil=True)
def _close(
    paragraph: int,
    num_lines: int,
    found: int,
    key: Int64Array,
    start: Int64Array,
    end: Int64Array,
    num_words: Int64Array,
) -> int:
    """Take back a paragraph that is one line."""
    if paragraph < 0 or num_lines != 1:
        return found
    for values in (key, start, end, num_words):
        values[paragraph] = values[paragraph + 1]
    return found - 1


@njit(cache=True, nogil=True)
def _end_of_line(data: UInt8Array, at: int, last: int) -> int:
    while at < last and data[at] != LINE_FEED:
        at += 1
    return min(at + 1, last)


@njit(cache=True, nogil=True)
def _end_of_paragraph(data: UInt8Array, at: int, last: int) -> int:
    while at < last:
        stop = _end_of_line(data, at, last)
        if _is_blank(data, at, stop):
            break
        at = stop
    return at


@njit(cache=True, nogil=True)
def _is_blank(data: UInt8Array, begin: int, stop: int) -> bool:
    for at in range(begin, stop):  # noqa: SIM110  (numba has no all() of a generator)
        if data[at] > 0x20:  # ASCII spaces and controls
            return False
    return True


@njit(cache=True, nogil=True)
def _cuts(
    data: UInt8Array,
    offsets: Int64Array,
    unit_ends: Int64Array,
    start: Int64Array,
    end: Int64Array,
    is_frequent: BoolArray,
) -> tuple[Int64Array, Int64Array, Int64Array, Int64Array]:
    num_texts = len(offsets) - 1
    ends = np.zeros(num_texts + 1, np.int64)
    starts, stops = np.empty(len(start), np.int64), np.empty(len(start), np.int64)
    num_chars_left = np.zeros(num_texts, np.int64)
    found = 0
    for i in range(num_texts):
        first_of_text = found
        for k in range(unit_ends[i], unit_ends[i + 1]):
            if not is_frequent[k]:
                continue
            if found > first_of_text and start[k] <= stops[found - 1]:
                stops[found - 1] = max(stops[found - 1], end[k])
            else:
                starts[found], stops[found] = start[k], end[k]
                found += 1
        ends[i + 1] = found
        span = first_of_text
        for at in range(offsets[i + 1] - offsets[i]):
            while span < found and at >= stops[span]:
                span += 1
            is_cut = span < found and at >= starts[span]
            if not is_cut and data[offsets[i] + at] & 0xC0 != 0x80:
                num_chars_left[i] += 1
    return ends, starts[:found], stops[:found], num_chars_left

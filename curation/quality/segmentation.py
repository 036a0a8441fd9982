"""What models read of a text: words and signs, joined by spaces.

Words are the folded ones of `curation.ingest.text`, so that case, diacritics and scripts of digits
make no difference, a character of Chinese is a word, and every digit is 0 as in CCNet (Wenzek et
al. 2020). Punctuation and symbols are tokens, one a run of the same sign. With a vocabulary, a word
that is not in it is spelled: "quixotic" becomes "=q +u +i +x +o +t +i +c", so that a language model
sees what it is made of in place of <unk>.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from curation.hashing import FNV_OFFSET, FNV_PRIME
from curation.ingest.text import (
    FOLD_BITS,
    KIND_AND_FOLD,
    MARK,
    SEPARATOR,
    SINGLE,
    decode,
    utf8_buffers,
)
from curation.quality.signals import CLASSES, SPACE

UInt8Array = npt.NDArray[np.uint8]
UInt32Array = npt.NDArray[np.uint32]
UInt64Array = npt.NDArray[np.uint64]
Int64Array = npt.NDArray[np.int64]

LINE_FEED = 0x0A
REPLACEMENT = 0xFFFD  # also what a byte reads as that begins no character
FIRST, NEXT = ord("="), ord("+")
MAX_LINE_TOKENS = 1_000
NO_VOCABULARY = np.zeros(0, np.uint64)


class Segmented(NamedTuple):
    """Texts as tokens."""

    text: pa.LargeStringArray  # null for a null text
    num_tokens: Int64Array  # of each text; a word that is spelled is one
    num_chars: Int64Array  # of words and signs, however they are spelled
    num_lines: Int64Array


def segment(
    text: pa.Array, vocabulary: UInt64Array = NO_VOCABULARY, *, keep_lines: bool = False
) -> Segmented:
    r"""Return the tokens of every text.

    `vocabulary` is what `vocabulary_of` returns; an empty one spells nothing. With `keep_lines`,
    lines with tokens are separated by "\n", one of more than MAX_LINE_TOKENS is cut in several;
    otherwise a text is one line. Bytes that are not UTF-8 are white space. Cost: O(bytes), about
    100 MB/s; memory: three times the bytes.
    """
    data, offsets = utf8_buffers(text)
    joined, ends, counts = _segment(data, offsets, KIND_AND_FOLD, CLASSES, vocabulary, keep_lines)
    lines = pa.LargeStringArray.from_buffers(len(text), pa.py_buffer(ends), pa.py_buffer(joined))
    if text.null_count:
        lines = pc.if_else(pc.is_valid(text), lines, pa.scalar(None, lines.type))
    return Segmented(lines, counts[:, 0], counts[:, 1], counts[:, 2])


def vocabulary_of(words: pa.Array) -> UInt64Array:
    """Return a vocabulary of words as `segment` writes them: their hashes, ascending."""
    data, offsets = utf8_buffers(words)
    return np.unique(_hashes(data, offsets))


@njit(cache=True, nogil=True)
def _hashes(data: UInt8Array, offsets: Int64Array) -> UInt64Array:
    found = np.empty(len(offsets) - 1, np.uint64)
    for word in range(len(found)):
        h = FNV_OFFSET
        i = offsets[word]
        while i < offsets[word + 1]:
            code_point, i = decode(data, i, offsets[word + 1])
            h = (h ^ np.uint64(code_point)) * FNV_PRIME
        found[word] = h
    return found


@njit(cache=True, nogil=True)
def _segment(
    data: UInt8Array,
    offsets: Int64Array,
    table: UInt32Array,
    classes: UInt8Array,
    vocabulary: UInt64Array,
    keep_lines: bool,
) -> tuple[UInt8Array, Int64Array, Int64Array]:
    """Return all tokens joined, where those of each text end, and tokens, characters, lines."""
    num_texts = len(offsets) - 1
    # A byte becomes at most three: itself, a mark where it is spelled, and a white space. Folds
    # grow by one byte, and only of two bytes or more.
    joined = np.empty(3 * (offsets[num_texts] - offsets[0]) + 1, np.uint8)
    letters = np.empty(1, np.int64)  # of the present word
    ends = np.zeros(num_texts + 1, np.int64)
    counts = np.zeros((num_texts, 3), np.int64)
    at = 0
    for text in range(num_texts):
        begin = at
        i, end = offsets[text], offsets[text + 1]
        sign = -1  # the last sign, while it goes on
        tokens_of_line = 0
        line_begins = False
        while i < end:
            code_point, i = decode(data, i, end)
            entry = table[code_point]
            what = entry >> FOLD_BITS
            if what == MARK:
                continue
            if what == SEPARATOR:
                is_space = classes[code_point] & SPACE or code_point < 0x20
                if is_space or code_point == REPLACEMENT:
                    sign = -1
                    line_begins |= code_point == LINE_FEED
                    continue
                if code_point == sign:
                    continue
                sign = code_point
                letters[0], num_letters = code_point, 1
                is_known = True
            else:
                sign = -1
                h, num_letters = FNV_OFFSET, 0
                is_single = what == SINGLE
                while True:
                    if what != MARK:
                        letter = int(entry & ((1 << FOLD_BITS) - 1))
                        if 0x30 <= letter <= 0x39:
                            letter = 0x30
                        if num_letters == len(letters):
                            grown = np.empty(2 * num_letters, np.int64)
                            grown[:num_letters] = letters
                            letters = grown
                        letters[num_letters] = letter
                        num_letters += 1
                        h = (h ^ np.uint64(letter)) * FNV_PRIME
                    if is_single or i >= end:
                        break
                    code_point, after = decode(data, i, end)
                    entry = table[code_point]
                    what = entry >> FOLD_BITS
                    if what in (SINGLE, SEPARATOR):
                        break
                    i = after
                place = np.searchsorted(vocabulary, h)
                is_known = len(vocabulary) == 0
                if place < len(vocabulary):
                    is_known = bool(vocabulary[place] == h)
            if (
                keep_lines
                and tokens_of_line > 0
                and (line_begins or tokens_of_line >= MAX_LINE_TOKENS)
            ):
                joined[at] = LINE_FEED
                at += 1
                tokens_of_line = 0
            elif at > begin:
                joined[at] = 0x20
                at += 1
            line_begins = False
            if tokens_of_line == 0 and (keep_lines or counts[text, 2] == 0):
                counts[text, 2] += 1
            counts[text, 1] += num_letters
            counts[text, 0] += 1
            tokens_of_line += 1 if is_known else num_letters
            for k in range(num_letters):
                if not is_known:
                    if k:
                        joined[at] = 0x20
                        at += 1
                    joined[at] = NEXT if k else FIRST
                    at += 1
                at = _encode(joined, at, letters[k])
        ends[text + 1] = at
    return joined[:at].copy(), ends, counts


@njit(cache=True, nogil=True, inline="always")
def _encode(joined: UInt8Array, at: int, code_point: int) -> int:
    """Append a code point as UTF-8; return where it ends."""
    if code_point < 0x80:
        joined[at] = code_point
        return at + 1
    if code_point < 0x800:
        joined[at] = 0xC0 | code_point >> 6
        joined[at + 1] = 0x80 | code_point & 0x3F
        return at + 2
    if code_point < 0x10000:
        joined[at] = 0xE0 | code_point >> 12
        joined[at + 1] = 0x80 | code_point >> 6 & 0x3F
        joined[at + 2] = 0x80 | code_point & 0x3F
        return at + 3
    joined[at] = 0xF0 | code_point >> 18
    joined[at + 1] = 0x80 | code_point >> 12 & 0x3F
    joined[at + 2] = 0x80 | code_point >> 6 & 0x3F
    joined[at + 3] = 0x80 | code_point & 0x3F
    return at + 4

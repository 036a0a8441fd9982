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

from curation.hashing import FNV_OFFSET, FNV_PRIME, GOLDEN
from curation.ingest.text import (
    FOLD_BITS,
    KIND_AND_FOLD,
    MARK,
    SEPARATOR,
    SINGLE,
    WORD,
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
_HALF = np.uint64(32)


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
    300 MB/s of English; memory: three times the bytes.
    """
    data, offsets = utf8_buffers(text)
    joined, ends, counts = _segment(
        data, offsets, KIND_AND_FOLD, CLASSES, _ASCII, vocabulary, keep_lines
    )
    lines = pa.LargeStringArray.from_buffers(len(text), pa.py_buffer(ends), pa.py_buffer(joined))
    if text.null_count:
        lines = pc.if_else(pc.is_valid(text), lines, pa.scalar(None, lines.type))
    return Segmented(lines, counts[:, 0], counts[:, 1], counts[:, 2])


def vocabulary_of(words: pa.Array) -> UInt64Array:
    """Return a vocabulary of words as `segment` writes them: a table of their hashes, half empty.

    A hash lies at its low bits or behind, where no other is in the way; 0 is an empty slot.
    """
    data, offsets = utf8_buffers(words)
    bits = max(4, (2 * len(words)).bit_length())
    table = np.zeros(1 << bits, np.uint64)
    _enter(_hashes(data, offsets), table)
    return table


@njit(cache=True, nogil=True)
def _hashes(data: UInt8Array, offsets: Int64Array) -> UInt64Array:
    found = np.empty(len(offsets) - 1, np.uint64)
    for word in range(len(found)):
        h = FNV_OFFSET
        for i in range(offsets[word], offsets[word + 1]):
            h = (h ^ np.uint64(data[i])) * FNV_PRIME
        found[word] = h
    return found


@njit(cache=True, nogil=True)
def _enter(hashes: UInt64Array, table: UInt64Array) -> None:
    mask = len(table) - 1
    for h in hashes:
        slot = np.int64((h * GOLDEN) >> _HALF) & mask
        while table[slot] != 0 and table[slot] != h:
            slot = (slot + 1) & mask
        table[slot] = h


@njit(cache=True, nogil=True, inline="always")
def _is_known(h: np.uint64, table: UInt64Array) -> bool:
    mask = len(table) - 1
    slot = np.int64((h * GOLDEN) >> _HALF) & mask
    while table[slot] != 0:
        if table[slot] == h:
            return True
        slot = (slot + 1) & mask
    return False


@njit(cache=True, nogil=True)
def _segment(
    data: UInt8Array,
    offsets: Int64Array,
    table: UInt32Array,
    classes: UInt8Array,
    ascii: UInt8Array,
    vocabulary: UInt64Array,
    keep_lines: bool,
) -> tuple[UInt8Array, Int64Array, Int64Array]:
    """Return all tokens joined, where those of each text end, and tokens, characters, lines."""
    num_texts = len(offsets) - 1
    # A byte becomes at most three: itself, a mark where it is spelled, and a white space. Folds
    # grow by one byte, and only of two bytes or more.
    joined = np.empty(3 * (offsets[num_texts] - offsets[0]) + 1, np.uint8)
    ends = np.zeros(num_texts + 1, np.int64)
    counts = np.zeros((num_texts, 3), np.int64)
    spells = len(vocabulary) > 0
    at = 0
    for text in range(num_texts):
        i, end = offsets[text], offsets[text + 1]
        sign = -1  # the last sign, while it goes on
        tokens, chars, lines, tokens_of_line = 0, 0, 0, 0
        line_begins = True
        while i < end:
            code_point, what, byte = 0, 0, data[i]
            if byte < 0x80:
                code_point = int(byte)
                letter = ascii[byte]
                what = WORD if letter else SEPARATOR
                i += 1
            else:
                code_point, i = decode(data, i, end)
                what = int(table[code_point] >> FOLD_BITS)
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
            else:
                sign = -1
            # a token begins
            if keep_lines and (line_begins or tokens_of_line >= MAX_LINE_TOKENS):
                if lines:
                    joined[at] = LINE_FEED
                    at += 1
                lines += 1
                tokens_of_line = 0
            elif tokens:
                joined[at] = 0x20
                at += 1
            else:
                lines = 1
            line_begins = False
            tokens += 1
            tokens_of_line += 1
            first = at
            if what == SEPARATOR:
                at = _encode(joined, at, code_point)
                chars += 1
                continue
            if code_point < 0x80:
                joined[at] = letter
                at += 1
            else:
                at = _encode(joined, at, _fold(code_point, table))
            num_letters = 1
            while what != SINGLE and i < end:
                byte = data[i]
                if byte < 0x80:
                    letter = ascii[byte]
                    if letter == 0:
                        break
                    joined[at] = letter
                    at += 1
                    i += 1
                    num_letters += 1
                    continue
                code_point, after = decode(data, i, end)
                kind = int(table[code_point] >> FOLD_BITS)
                if kind in (SINGLE, SEPARATOR):
                    break
                i = after
                if kind != MARK:
                    at = _encode(joined, at, _fold(code_point, table))
                    num_letters += 1
            chars += num_letters
            if spells:
                h = FNV_OFFSET
                for k in range(first, at):
                    h = (h ^ np.uint64(joined[k])) * FNV_PRIME
                if not _is_known(h, vocabulary):
                    at = _spell(joined, first, at, num_letters)
                    tokens_of_line += num_letters - 1
        ends[text + 1] = at
        counts[text, 0], counts[text, 1], counts[text, 2] = tokens, chars, lines
    return joined[:at].copy(), ends, counts


@njit(cache=True, nogil=True, inline="always")
def _fold(code_point: int, table: UInt32Array) -> int:
    letter = int(table[code_point]) & ((1 << FOLD_BITS) - 1)
    return 0x30 if 0x30 <= letter <= 0x39 else letter


@njit(cache=True, nogil=True)
def _spell(joined: UInt8Array, first: int, stop: int, num_letters: int) -> int:
    """Put a mark before every letter of the word and spaces between; return where it ends."""
    end = stop + 2 * num_letters - 1
    at, k = end, stop
    while k > first:  # from the last letter on
        size = 1
        while joined[k - size] & 0xC0 == 0x80:
            size += 1
        for byte in range(size):
            joined[at - 1 - byte] = joined[k - 1 - byte]
        k -= size
        at -= size + 1
        joined[at] = FIRST if k == first else NEXT
        if k > first:
            at -= 1
            joined[at] = 0x20
    return end


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


def _build_ascii() -> UInt8Array:
    """Return the letter that each ASCII character becomes; 0 for those that are none."""
    letters = np.zeros(128, np.uint8)
    for byte in range(128):
        entry = int(KIND_AND_FOLD[byte])
        if entry >> FOLD_BITS == WORD:
            letter = entry & ((1 << FOLD_BITS) - 1)
            letters[byte] = 0x30 if 0x30 <= letter <= 0x39 else letter
    return letters


_ASCII = _build_ascii()

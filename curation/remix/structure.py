r"""Structure of a text: how much of it is code, and how much is formulas.

Extraction keeps the lines and indentation of code and writes formulas as TeX, so both can be seen
in a text of any language. A line is code when signs of it add up; a formula is what stands between
\( \), \[ \], $$ $$, or $ $ on one line, and characters of mathematics.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from curation.ingest.text import utf8_buffers

STRUCTURE_SCHEMA = pa.schema([("code_share", pa.float64()), ("math_share", pa.float64())])

# Points from which a line is code. No single sign is enough: prose ends in ":" and ")" too.
CODE_POINTS = 3
# A formula between single dollars is short and stands on one line; "$5 and $6" is none.
MAX_DOLLAR_BYTES = 200
# Words that begin lines of code in many languages.
KEYWORDS = """
    abstract assert auto await begin break case catch class const continue def default do double
    echo elif else end enum export extern final float fn for foreach from func function goto if
    impl implements import include inline int interface let local long loop match module mut
    namespace new package print private proc protected pub public raise require return self
    static struct sudo super switch template then this throw trait try type typedef typename
    union unsafe use using val var virtual void where while with yield
"""

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

_KEYWORD_BYTES = np.frombuffer("".join(KEYWORDS.split()).encode(), np.uint8)
_KEYWORD_ENDS = np.cumsum([0, *map(len, KEYWORDS.split())])

(LETTER, DIGIT, BLANK, SIGN, OTHER) = range(5)
_KIND = np.full(256, SIGN, np.uint8)
_KIND[[ord(c) for c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"]] = LETTER
_KIND[[ord(c) for c in "0123456789"]] = DIGIT
_KIND[[9, 32]] = BLANK
_KIND[[ord(c) for c in ".,'\"?!-"]] = OTHER  # of prose as well
_KIND[128:] = LETTER


def structure(text: pa.Array) -> pa.StructArray:
    """Return struct STRUCTURE_SCHEMA: the share of the bytes beside spaces in code and in formulas.

    0..1; 0 for an empty text, null for null. Cost: O(bytes), see structure_bytes in tests/bench.
    """
    data, offsets = utf8_buffers(text)
    shares = _structure(data, offsets)
    mask = np.asarray(text.is_null())
    columns = [pa.array(shares[:, i], mask=mask) for i in range(len(STRUCTURE_SCHEMA))]
    return pa.StructArray.from_arrays(columns, fields=list(STRUCTURE_SCHEMA))


@njit(cache=True, nogil=True)
def _structure(data: UInt8Array, offsets: Int64Array) -> Float64Array:
    shares = np.zeros((len(offsets) - 1, 2))
    for row in range(len(shares)):
        start, end = offsets[row], offsets[row + 1]
        total = code = 0
        line = start
        while line < end:
            stop = line
            while stop < end and data[stop] != 10:
                stop += 1
            size = _num_solid(data, line, stop)
            total += size
            if size and _code_points(data, line, stop, size) >= CODE_POINTS:
                code += size
            line = stop + 1
        if total:
            shares[row, 0] = code / total
            shares[row, 1] = min(1.0, _math_bytes(data, start, end) / total)
    return shares


@njit(cache=True, nogil=True)
def _num_solid(data: UInt8Array, start: int, stop: int) -> int:
    count = 0
    for i in range(start, stop):
        count += data[i] != 32 and data[i] != 9 and data[i] != 10 and data[i] != 13
    return count


@njit(cache=True, nogil=True)
def _code_points(data: UInt8Array, start: int, stop: int, size: int) -> int:
    """Return how much speaks for a line being code."""
    first, last = start, stop - 1
    while _KIND[data[first]] == BLANK:
        first += 1
    while data[last] <= 32:
        last -= 1
    end = data[last]
    points = 0
    if end == 59 or end == 123 or end == 125:  # ; { }
        points += 2
    elif end == 40 or end == 44 or end == 58 or end == 41 or end == 92:  # ( , : ) \
        points += 1
    if first - start >= 4 or (first > start and data[start] == 9):
        points += 1
    points += _begins(data, first, last)
    num_signs, num_words, is_word = 0, 0, False
    joined, called, named = False, False, False
    for i in range(first, last + 1):
        kind = _KIND[data[i]]
        num_signs += kind == SIGN
        num_words += kind == LETTER and not is_word
        is_word = kind in (LETTER, DIGIT)
        if i < last:
            joined = joined or _is_operator(data[i], data[i + 1])
            next_kind = _KIND[data[i + 1]]
            if kind in (LETTER, DIGIT):
                called = called or data[i + 1] == 40  # name(
                named = named or data[i + 1] == 95  # name_
                if data[i + 1] == 46 and i + 1 < last:  # name.name
                    named = named or (_KIND[data[i + 2]] == LETTER and data[i] != 46)
                if 97 <= data[i] <= 122 and 65 <= data[i + 1] <= 90 and next_kind == LETTER:
                    named = True  # camelCase
    points += joined + called + named
    points += (4 * num_signs >= size) + (8 * num_signs >= size)
    if num_words >= 6 and (end == 46 or end == 33 or end == 63) and num_signs * 12 < size:
        points -= 2  # a sentence
    return points


@njit(cache=True, nogil=True)
def _begins(data: UInt8Array, first: int, last: int) -> int:
    a = data[first]
    b = data[first + 1] if first < last else 0
    if (a == 47 and (b == 47 or b == 42)) or (a == 35 and (b == 33 or b == 105)):  # // /* #! #i
        return 2
    if (a == 62 and b == 62) or (a == 36 and b == 32):  # the prompts >> and $
        return 3
    if (
        (a == 60 and (b == 47 or b == 33))
        or (a == 60 and data[last] == 62)
        or (a == 46 and b == 47)
    ):  # </ <! <tag ...> ./program
        return 2
    if a == 64 and _KIND[b] == LETTER:  # @decorator
        return 1
    stop = first
    while stop <= last and 97 <= data[stop] <= 122:
        stop += 1
    if stop > last or data[stop] == 32 or data[stop] == 40 or data[stop] == 58:
        return int(_is_keyword(data, first, stop))
    return 0


@njit(cache=True, nogil=True)
def _is_keyword(data: UInt8Array, start: int, stop: int) -> bool:
    for k in range(len(_KEYWORD_ENDS) - 1):
        begin, end = _KEYWORD_ENDS[k], _KEYWORD_ENDS[k + 1]
        if end - begin == stop - start:
            same = True
            for i in range(stop - start):
                same = same and data[start + i] == _KEYWORD_BYTES[begin + i]
            if same:
                return True
    return False


@njit(cache=True, nogil=True)
def _is_operator(a: int, b: int) -> bool:
    """Return whether two bytes are one of -> => :: := == != <= >= += -= *= && || << >> () [] {}"""
    if b == 61:  # =
        return a in (33, 42, 43, 45, 58, 60, 61, 62)
    if b == 62:  # >
        return a == 45 or a == 61 or a == 62
    return (
        (a == 58 and b == 58)
        or (a == 38 and b == 38)
        or (a == 124 and b == 124)
        or (a == 60 and b == 60)
        or (a == 40 and b == 41)
        or (a == 91 and b == 93)
        or (a == 123 and b == 125)
    )


@njit(cache=True, nogil=True)
def _math_bytes(data: UInt8Array, start: int, end: int) -> int:
    """Return the bytes beside spaces of formulas, and of characters of mathematics elsewhere."""
    count = 0
    i = start
    while i < end:
        stop = i
        if data[i] == 92 and i + 1 < end and (data[i + 1] == 40 or data[i + 1] == 91):
            stop = _closing(data, i + 2, end, data[i + 1] + (1 if data[i + 1] == 40 else 2))
        elif data[i] == 36:
            if i + 1 < end and data[i + 1] == 36:
                stop = _second_dollars(data, i + 2, end)
            else:
                stop = _dollar(data, i + 1, end)
        if stop > i:
            count += _num_solid(data, i, stop)
            i = stop
        else:
            width = _math_character(data, i, end)
            count += width
            i += max(width, 1)
    return count


@njit(cache=True, nogil=True)
def _closing(data: UInt8Array, at: int, end: int, bracket: int) -> int:
    r"""Return where a formula ends that is closed by \) or \]; 0 where it is not."""
    while at + 1 < end:
        if data[at] == 92:
            if data[at + 1] == bracket:
                return at + 2
            at += 1
        elif data[at] == 10 and data[at + 1] == 10:
            return 0  # no formula goes over a paragraph's end
        at += 1
    return 0


@njit(cache=True, nogil=True)
def _second_dollars(data: UInt8Array, at: int, end: int) -> int:
    while at + 1 < end:
        if data[at] == 36 and data[at + 1] == 36:
            return at + 2
        if data[at] == 10 and data[at + 1] == 10:
            return 0
        at += 1
    return 0


@njit(cache=True, nogil=True)
def _dollar(data: UInt8Array, first: int, end: int) -> int:
    """Return where a formula between single dollars ends; 0 where there is none.

    As in Pandoc, no space after the first and before the second, no digit after it; and one of
    the signs that formulas have, or a single letter.
    """
    if first >= end or data[first] <= 32:
        return 0
    has_sign = False
    at = first
    while at < min(end, first + MAX_DOLLAR_BYTES) and data[at] != 10:
        if data[at] == 36:
            if data[at - 1] <= 32 or (at + 1 < end and 48 <= data[at + 1] <= 57):
                return 0
            is_letter = at == first + 1 and _KIND[data[first]] == LETTER
            return at + 1 if has_sign or is_letter else 0
        has_sign = has_sign or data[at] in (92, 94, 95, 61, 43, 60, 62)  # \ ^ _ = + < >
        at += 1
    return 0


@njit(cache=True, nogil=True)
def _math_character(data: UInt8Array, i: int, end: int) -> int:
    """Return the bytes of a character of mathematics, 0 for another.

    Operators U+2200 to U+22FF and U+2A00 to U+2AFF, letters U+1D400 to U+1D7FF.
    """
    if i + 2 < end and data[i] == 0xE2:
        if 0x88 <= data[i + 1] <= 0x8B or 0xA8 <= data[i + 1] <= 0xAB:
            return 3
    elif i + 3 < end and data[i] == 0xF0 and data[i + 1] == 0x9D:
        return 4 if 0x90 <= data[i + 2] <= 0x9F else 0
    return 0

"""Words and normalising: the one segmentation that shingles and quality signals share.

A text is read as code points. Two tables, frozen in `unicode_words.npz` so that no machine's
Unicode version can change a signature, say what each code point is (KIND) and what it is folded to
(FOLD): lower case, compatibility form, no diacritics, ASCII digits. A word is a run of WORD code
points; a SINGLE code point (CJK ideographs, kana, scripts written without spaces) is a word by
itself.
"""

import unicodedata
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

NUM_CODE_POINTS = 0x110000
SEPARATOR, WORD, SINGLE, MARK = 0, 1, 2, 3
FOLD_BITS = 21  # of a code point

# Scripts written without spaces between words; one character is taken as one word.
SINGLE_RANGES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # ideographic iteration mark, closing mark and zero
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),  # Katakana phonetic extensions
    (0x3400, 0x4DBF),  # CJK extension A
    (0x4E00, 0x9FFF),  # CJK unified ideographs
    (0xA9E0, 0xA9FF),  # Myanmar extended B
    (0xAA60, 0xAA7F),  # Myanmar extended A
    (0xF900, 0xFAFF),  # CJK compatibility ideographs
    (0xFF66, 0xFF9D),  # half-width Katakana
    (0x20000, 0x323AF),  # CJK extensions B to H
)
# Diacritics that the fold removes; vowel signs of other scripts belong to their words.
MARK_RANGES = (
    (0x0300, 0x036F),
    (0x0591, 0x05C7),  # Hebrew points
    (0x0610, 0x061A),  # Arabic
    (0x064B, 0x065F),
    (0x0670, 0x0670),
    (0x06D6, 0x06ED),
    (0x0898, 0x089F),
    (0x08CA, 0x08FF),
    (0x1AB0, 0x1AFF),
    (0x1DC0, 0x1DFF),
    (0x20D0, 0x20FF),
    (0x3099, 0x309A),  # sound marks of decomposed kana
    (0xFE20, 0xFE2F),
)
VARIATION_SELECTOR_RANGES = (
    (0x180B, 0x180D),
    (0x180F, 0x180F),
    (0xFE00, 0xFE0F),
    (0xE0100, 0xE01EF),  # of ideographs, as in Japanese names
)

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]


def _load_tables() -> tuple[UInt8Array, npt.NDArray[np.uint32]]:
    with resources.files("curation.ingest").joinpath("unicode_words.npz").open("rb") as file:
        tables = np.load(file)
        kind = tables["kind"]
        fold = (tables["fold_minus_code_point"] + np.arange(NUM_CODE_POINTS)).astype(np.uint32)
    return kind, fold


def words(text: str) -> list[str]:
    """Return the folded words of one text, for tests and for users of datasketch.

    The same tables as the kernels, in plain Python: about 1 MB/s.
    """
    found: list[str] = []
    run: list[str] = []
    for character in text:
        code_point = ord(character)
        kind = KIND[code_point]
        if kind == MARK or 0xD800 <= code_point <= 0xDFFF:
            continue
        if kind == WORD:
            run.append(chr(FOLD[code_point]))
            continue
        if run:
            found.append("".join(run))
            run = []
        if kind == SINGLE:
            found.append(chr(FOLD[code_point]))
    if run:
        found.append("".join(run))
    return found


def utf8_buffers(
    array: pa.Array | pa.ChunkedArray,
) -> tuple[UInt8Array, Int64Array]:
    """Return the bytes and the n + 1 offsets of a (large_)string or (large_)binary array.

    Zero-copy for the bytes, unless there are bytes under a null; slices are respected (offsets
    start where the slice does). A null has an empty range. Raises TypeError for any other type:
    that is a defect of the caller.
    """
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
        if isinstance(array, pa.ChunkedArray):  # pyarrow returns one for zero chunks
            array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if pa.types.is_null(array.type):  # an untyped NULL in SQL
        array = array.cast(pa.string())
    if pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type):
        dtype: type[np.signedinteger] = np.int64
    elif pa.types.is_string(array.type) or pa.types.is_binary(array.type):
        dtype = np.int32
    else:
        raise TypeError(f"expected a string or binary array, got {array.type}")
    _, offsets_buffer, data_buffer = array.buffers()
    if len(array) == 0 or offsets_buffer is None:
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    offsets = np.frombuffer(offsets_buffer, dtype)[array.offset : array.offset + len(array) + 1]
    if array.null_count and np.diff(offsets)[array.is_null().to_numpy(zero_copy_only=False)].any():
        return utf8_buffers(array.fill_null(""))  # the child of a null struct, for example
    data = (
        np.zeros(0, np.uint8) if data_buffer is None else np.frombuffer(data_buffer, dtype=np.uint8)
    )
    return data, offsets.astype(np.int64)


@njit(cache=True, nogil=True, inline="always")
def decode(buffer: UInt8Array, i: int, end: int) -> tuple[Any, int]:
    """Return the code point at byte i and where the next one starts.

    A byte that does not begin a well-formed character is U+FFFD, one byte long; so the kernel
    never reads past `end` and never fails on bytes that are not UTF-8.
    """
    first = np.int64(buffer[i])
    if first < 0x80:
        return first, i + 1
    if first < 0xC2 or first > 0xF4:
        return 0xFFFD, i + 1
    if first < 0xE0:
        length, code_point, least = 2, first & 0x1F, 0x80
    elif first < 0xF0:
        length, code_point, least = 3, first & 0x0F, 0x800
    else:
        length, code_point, least = 4, first & 0x07, 0x10000
    if i + length > end:
        return 0xFFFD, i + 1
    for k in range(1, length):
        byte = np.int64(buffer[i + k])
        if byte & 0xC0 != 0x80:
            return 0xFFFD, i + 1
        code_point = code_point << 6 | (byte & 0x3F)
    if code_point < least or code_point > 0x10FFFF or 0xD800 <= code_point <= 0xDFFF:
        return 0xFFFD, i + 1
    return code_point, i + length


def build_tables() -> tuple[UInt8Array, npt.NDArray[np.uint32]]:
    """Compute KIND and FOLD from this Python's `unicodedata`.

    `python -m curation.ingest.text` writes them to the file that ships; a new file is a new version
    of every signature.
    """
    kind = np.zeros(NUM_CODE_POINTS, np.uint8)
    fold = np.arange(NUM_CODE_POINTS, dtype=np.uint32)
    for code_point in range(NUM_CODE_POINTS):
        character = chr(code_point)
        category = unicodedata.category(character)
        kind[code_point] = _kind(code_point, category)
        if kind[code_point] in (WORD, SINGLE):
            fold[code_point] = _fold(character, bool(kind[code_point] == SINGLE))
    return kind, fold


def _kind(code_point: int, category: str) -> int:
    if category[0] not in "LMN" and category != "Cf":
        return SEPARATOR
    unseen = (*MARK_RANGES, *VARIATION_SELECTOR_RANGES)
    if category == "Cf" or any(a <= code_point <= b for a, b in unseen):
        return MARK  # Cf: joiners, soft hyphens, direction marks
    if category != "Nd" and any(a <= code_point <= b for a, b in SINGLE_RANGES):
        return SINGLE
    return WORD


def _fold(character: str, single: bool) -> int:
    if single:  # a voiced kana is another letter, not a letter with a diacritic
        composed = unicodedata.normalize("NFKC", character)
        return ord(composed) if len(composed) == 1 else ord(character)
    decomposed = unicodedata.normalize("NFKD", character)
    base = [c for c in decomposed if not any(a <= ord(c) <= b for a, b in MARK_RANGES)]
    if len(base) != 1 or base == [" "]:
        base = [character]  # ligatures, Hangul syllables, marks on a space stand for themselves
    digit = unicodedata.decimal(base[0], None)
    if digit is not None:
        return ord(str(digit))
    lowered = base[0].casefold()
    return ord(lowered) if len(lowered) == 1 else ord(base[0])


def _write_tables(path: str) -> None:
    kind, fold = build_tables()
    delta = fold.astype(np.int64) - np.arange(NUM_CODE_POINTS)
    np.savez_compressed(path, kind=kind, fold_minus_code_point=delta.astype(np.int32))


if __name__ == "__main__":
    _write_tables(str(resources.files("curation.ingest").joinpath("unicode_words.npz")))
else:
    KIND, FOLD = _load_tables()
    # Both in one word, for loops that need both of every character.
    KIND_AND_FOLD: npt.NDArray[np.uint32] = KIND.astype(np.uint32) << np.uint32(FOLD_BITS) | FOLD

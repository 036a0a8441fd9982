"""MinHash signatures: text in, fixed-size binary out, one numba pass over the Arrow buffers.

A signature is bit-identical to

    datasketch.MinHash(num_perm=spec.num_perm, seed=spec.seed, scheme="affine32",
                       hashfunc=hash_shingle)

updated with `shingles(text, spec)`, so users can query an index with datasketch itself.

Shingles are n-grams of folded words (`curation.ingest.text`) joined by one space; a text of fewer
words has one shingle of them all; a text without words has none and a null signature.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from curation.hashing import FMIX_1, FMIX_2, FNV_OFFSET, FNV_PRIME, GOLDEN, fmix64
from curation.ingest.text import (
    FOLD_BITS,
    KIND_AND_FOLD,
    MARK,
    SINGLE,
    WORD,
    decode,
    utf8_buffers,
    words,
)

FORMAT_VERSION = 1
"""Version of normalising, hashing and layout. A change of any makes another, incompatible index."""

UInt8Array = npt.NDArray[np.uint8]
UInt32Array = npt.NDArray[np.uint32]
UInt64Array = npt.NDArray[np.uint64]
Int64Array = npt.NDArray[np.int64]

U33, U32, U31, U29 = np.uint64(33), np.uint64(32), np.uint64(31), np.uint64(29)
U35 = np.uint64(35)
ASCII_END = np.uint64(0x80)
FOLDED = np.uint32((1 << FOLD_BITS) - 1)
CONTENT_HASH_BYTES = 16


@dataclass(frozen=True)
class MinHashSpec:
    """What a signature depends on. Defaults: FineWeb's 14 bands of 8 rows over word 5-grams."""

    bands: int = 14
    rows: int = 8
    ngram: int = 5
    seed: int = 1

    @property
    def num_perm(self) -> int:
        """Slots of a signature."""
        return self.bands * self.rows

    @property
    def num_signature_bytes(self) -> int:
        """Bytes of a signature: one little-endian uint32 a slot."""
        return 4 * self.num_perm


def fingerprint(text: pa.Array, spec: MinHashSpec) -> pa.StructArray:
    """Return content_hash, signature and num_shingles of every text.

    content_hash (16 bytes) covers exactly the words that the shingles see; signature holds
    `num_perm` little-endian uint32. A null text, or one without words, gives nulls and 0 shingles.
    Cost: O(bytes + shingles x num_perm).
    """
    data, offsets = utf8_buffers(text)
    hashes, signatures, num_shingles = _fingerprint(
        data,
        offsets,
        KIND_AND_FOLD,
        *permutations(spec.num_perm, spec.seed),
        _multipliers(spec.ngram),
    )
    empty = num_shingles == 0
    return pa.StructArray.from_arrays(
        [
            _fixed_size_binary(hashes.view(np.uint8), CONTENT_HASH_BYTES, empty),
            _binary(signatures.view(np.uint8).reshape(-1), spec.num_signature_bytes, empty),
            pa.array(num_shingles),
        ],
        names=["content_hash", "signature", "num_shingles"],
    )


def shingles(text: str, spec: MinHashSpec) -> list[bytes]:
    """Return the shingles of one text as bytes, for datasketch and for brute-force checks."""
    folded = words(text)
    if not folded:
        return []
    n = min(spec.ngram, len(folded))
    return [" ".join(folded[i : i + n]).encode() for i in range(len(folded) - n + 1)]


def hash_shingle(shingle: bytes) -> int:
    """Return the 32-bit hash of a shingle: the `hashfunc` to give datasketch."""
    folded = shingle.decode().split(" ")
    multipliers = _multipliers(len(folded))
    mixed = 0
    for word, multiplier in zip(folded, multipliers, strict=True):
        mixed += _hash_word(word) * int(multiplier)
    return _fmix64_int(mixed & 0xFFFFFFFFFFFFFFFF) >> 32


def shingle_hashes(text: pa.Array, spec: MinHashSpec) -> pa.ListArray:
    """Return the distinct 64-bit shingle hashes of every text, sorted unsigned, for exact Jaccard.

    A null text gives null, one without words an empty list. Two different shingles share a hash
    with probability 2^-64.
    """
    data, offsets = utf8_buffers(text)
    hashes, ends = _shingle_hashes(data, offsets, KIND_AND_FOLD, _multipliers(spec.ngram))
    return pa.ListArray.from_arrays(
        pa.array(ends.astype(np.int32)),
        pa.array(hashes.view(np.int64)[: ends[-1]]),
        mask=text.is_null(),
    )


def packed(hashes: pa.ListArray) -> pa.BinaryArray:
    """Return lists of shingle hashes as binary values, 8 little-endian bytes a hash."""
    offsets = hashes.offsets.to_numpy().astype(np.int64) * 8
    data = pa.py_buffer(np.ascontiguousarray(hashes.values.to_numpy()))
    return pa.Array.from_buffers(
        pa.large_binary(), len(hashes), [None, pa.py_buffer(offsets), data]
    ).cast(pa.binary())


@lru_cache(maxsize=16)
def permutations(num_perm: int, seed: int) -> tuple[UInt32Array, UInt32Array]:
    """Return a (odd) and b of the permutations h -> a * h + b mod 2^32.

    Drawn as datasketch 2.0 draws them for scheme "affine32".
    """
    generator = np.random.RandomState(seed)
    a = generator.randint(0, 1 << 31, num_perm, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    b = generator.randint(0, 1 << 32, num_perm, dtype=np.uint32)
    return a, b


@lru_cache(maxsize=32)
def _multipliers(ngram: int) -> UInt64Array:
    """Return one odd multiplier for each place in a shingle (splitmix64 of the place)."""
    return np.array(
        [_fmix64_int(((i + 1) * int(GOLDEN)) & 0xFFFFFFFFFFFFFFFF) | 1 for i in range(ngram)],
        dtype=np.uint64,
    )


def _fixed_size_binary(data: UInt8Array, width: int, null: npt.NDArray[np.bool_]) -> pa.Array:
    validity = pa.array(~null).buffers()[1]
    return pa.Array.from_buffers(pa.binary(width), len(null), [validity, pa.py_buffer(data)])


def _binary(data: UInt8Array, width: int, null: npt.NDArray[np.bool_]) -> pa.Array:
    validity = pa.array(~null).buffers()[1]
    offsets = (np.arange(len(null) + 1, dtype=np.int64) * width).astype(np.int32)
    return pa.Array.from_buffers(
        pa.binary(), len(null), [validity, pa.py_buffer(offsets), pa.py_buffer(data)]
    )


@njit(cache=True, nogil=True)
def _fingerprint(
    data: UInt8Array,
    offsets: Int64Array,
    table: UInt32Array,
    a: UInt32Array,
    b: UInt32Array,
    multipliers: UInt64Array,
) -> tuple[UInt64Array, UInt32Array, npt.NDArray[np.int32]]:
    num_texts = len(offsets) - 1
    num_perm = len(a)
    ngram = len(multipliers)
    longest = 0
    for i in range(num_texts):
        longest = max(longest, offsets[i + 1] - offsets[i])
    word_hashes = np.empty(longest + 1, np.uint64)  # a word is at least one byte
    sums = np.empty(longest + 1, np.uint64)
    mixed = np.empty(longest + 1, np.uint32)
    content = np.zeros((num_texts, 2), np.uint64)
    signatures = np.zeros((num_texts, num_perm), np.uint32)
    num_shingles = np.zeros(num_texts, np.int32)
    for i in range(num_texts):
        num_words = hash_words(data, offsets[i], offsets[i + 1], table, word_hashes, content[i])
        if num_words == 0:
            continue
        n = min(ngram, num_words)
        count = num_words - n + 1
        # A place in the shingle at a time: the inner loops become vector code.
        sums[:count] = 0
        for k in range(n):
            multiplier = multipliers[k]
            for j in range(count):
                sums[j] += word_hashes[j + k] * multiplier
        for j in range(count):
            mixed[j] = _fmix32(np.uint32(fmix64(sums[j]) >> U32))
        # One permutation at a time: the shingles stay in cache and the minimum in a register,
        # and the inner loop becomes vector code.
        for k in range(num_perm):
            slot = np.uint32(0xFFFFFFFF)
            a_k, b_k = a[k], b[k]
            for j in range(count):
                slot = min(slot, np.uint32(a_k * mixed[j] + b_k))
            signatures[i, k] = slot
        num_shingles[i] = count
    return content, signatures, num_shingles


@njit(cache=True, nogil=True)
def _shingle_hashes(
    data: UInt8Array,
    offsets: Int64Array,
    table: UInt32Array,
    multipliers: UInt64Array,
) -> tuple[UInt64Array, Int64Array]:
    num_texts = len(offsets) - 1
    ngram = len(multipliers)
    total = offsets[num_texts] - offsets[0] + num_texts
    word_hashes = np.empty(total + 1, np.uint64)
    hashes = np.empty(total + 1, np.uint64)
    ends = np.zeros(num_texts + 1, np.int64)
    content = np.zeros(2, np.uint64)
    end = 0
    for i in range(num_texts):
        num_words = hash_words(data, offsets[i], offsets[i + 1], table, word_hashes, content)
        if num_words > 0:
            n = min(ngram, num_words)
            found = np.empty(num_words - n + 1, np.uint64)
            for j in range(num_words - n + 1):
                found[j] = _combine(word_hashes, j, n, multipliers)
            found.sort()
            for j in range(len(found)):
                if j == 0 or found[j] != found[j - 1]:
                    hashes[end] = found[j]
                    end += 1
        ends[i + 1] = end
    return hashes, ends


@njit(cache=True, nogil=True)
def hash_words(
    data: UInt8Array,
    start: int,
    end: int,
    table: UInt32Array,
    word_hashes: UInt64Array,
    content: UInt64Array,
) -> int:
    """Fill `word_hashes` and the two halves of the content hash; return the number of words.

    The halves mix by different rules: one over word hashes, one over code points, so that a
    collision of word hashes is no collision of contents.
    """
    num_words = 0
    high = GOLDEN
    low = FNV_OFFSET
    run = FNV_OFFSET
    in_word = False
    i = start
    while i < end:
        code_point = np.uint64(data[i])
        if code_point < ASCII_END:  # of decode's branches the one that is nearly always taken
            i += 1
        else:
            decoded, i = decode(data, i, end)
            code_point = np.uint64(decoded)
        entry = table[code_point]
        what = entry >> np.uint32(FOLD_BITS)
        if what == WORD:  # most often, so first
            folded = np.uint64(entry & FOLDED)
            run = (run ^ folded) * FNV_PRIME
            low = (low ^ folded) * FMIX_2
            low ^= low >> U29
            in_word = True
            continue
        if what == MARK:
            continue
        if in_word:
            word = fmix64(run)
            word_hashes[num_words] = word
            num_words += 1
            high, low = _mix_content(high, low, word)
            run = FNV_OFFSET
            in_word = False
        if what == SINGLE:
            folded = np.uint64(entry & FOLDED)
            low = (low ^ folded) * FMIX_2
            low ^= low >> U29
            word = fmix64((FNV_OFFSET ^ folded) * FNV_PRIME)
            word_hashes[num_words] = word
            num_words += 1
            high, low = _mix_content(high, low, word)
    if in_word:
        word = fmix64(run)
        word_hashes[num_words] = word
        num_words += 1
        high, low = _mix_content(high, low, word)
    content[0] = fmix64(high)
    content[1] = fmix64(low)
    return num_words


@njit(cache=True, nogil=True, inline="always")
def _mix_content(high: np.uint64, low: np.uint64, word: np.uint64) -> tuple[np.uint64, np.uint64]:
    """End a word: fold its hash into one half, and a mark of its end into the other."""
    high = (high << U31 | high >> U33) ^ word
    return high * FMIX_1, (low << U29 | low >> U35) + GOLDEN


@njit(cache=True, nogil=True, inline="always")
def _combine(word_hashes: UInt64Array, first: int, n: int, multipliers: UInt64Array) -> np.uint64:
    """Return the 64-bit hash of the n words from `first`: a multilinear sum, then mixed."""
    total = np.uint64(0)
    for j in range(n):
        total += word_hashes[first + j] * multipliers[j]
    return fmix64(total)


@njit(cache=True, nogil=True, inline="always")
def _fmix32(h: np.uint32) -> np.uint32:
    """MurmurHash3's 32-bit finalizer; datasketch applies it once before the permutations."""
    h = np.uint32(h ^ (h >> np.uint32(16)))
    h = np.uint32(h * np.uint32(0x85EBCA6B))
    h = np.uint32(h ^ (h >> np.uint32(13)))
    h = np.uint32(h * np.uint32(0xC2B2AE35))
    return np.uint32(h ^ (h >> np.uint32(16)))


def _hash_word(word: str) -> int:
    """The plain-Python twin of the kernel's word hash."""
    h = int(FNV_OFFSET)
    for character in word:
        h = ((h ^ ord(character)) * int(FNV_PRIME)) & 0xFFFFFFFFFFFFFFFF
    return _fmix64_int(h)


def _fmix64_int(h: int) -> int:
    h ^= h >> 33
    h = (h * int(FMIX_1)) & 0xFFFFFFFFFFFFFFFF
    h ^= h >> 33
    h = (h * int(FMIX_2)) & 0xFFFFFFFFFFFFFFFF
    return h ^ (h >> 33)

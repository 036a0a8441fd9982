"""Locality-sensitive hashing: signatures to bucket keys, and the similarity of two signatures."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from curation.dedup.minhash import U31, U33, MinHashSpec
from curation.hashing import FMIX_1, FMIX_2, GOLDEN
from curation.ingest.text import utf8_buffers

UInt8Array = npt.NDArray[np.uint8]
UInt32Array = npt.NDArray[np.uint32]
UInt64Array = npt.NDArray[np.uint64]
Int64Array = npt.NDArray[np.int64]


def signature_matrix(signature: pa.Array, spec: MinHashSpec) -> UInt32Array:
    """Return binary signatures as an (n, num_perm) uint32 matrix.

    Zero-copy where the buffer is aligned. The array must hold no nulls.
    """
    data, offsets = utf8_buffers(signature)
    if offsets[-1] - offsets[0] != len(signature) * spec.num_signature_bytes:
        raise ValueError(f"a signature must have {spec.num_signature_bytes} bytes")
    matrix = data[offsets[0] : offsets[-1]].view("<u4")
    return matrix.reshape(len(signature), spec.num_perm)


def band_keys(signatures: UInt32Array, spec: MinHashSpec) -> Int64Array:
    """Return an (n, bands) matrix of 64-bit bucket keys.

    The band is part of the key, so keys of different bands do not meet. Two unequal bands share a
    key with probability 2^-64: about 3 chance pairs a band at 10^10 documents.
    """
    keys: Int64Array = _band_keys(signatures, spec.bands, spec.rows)
    return keys


def content_keys(content_hash: UInt8Array) -> Int64Array:
    """Return 64-bit keys of (n, 16) content hashes: the index entry that finds exact copies."""
    halves = np.ascontiguousarray(content_hash).view("<u8").reshape(-1, 2)
    with np.errstate(over="ignore"):
        mixed = (halves[:, 0] ^ GOLDEN) * FMIX_1 + halves[:, 1]
    keys: Int64Array = mixed.view(np.int64)
    return keys


@njit(cache=True, nogil=True, inline="always")
def num_equal_slots(left: UInt32Array, right: UInt32Array) -> int:
    """Return how many slots of two signatures are equal; similarity is this / num_perm."""
    equal = 0
    for k in range(len(left)):
        equal += left[k] == right[k]
    return equal


@njit(cache=True, nogil=True)
def jaccard(left: UInt64Array, right: UInt64Array) -> float:
    """Return the size of the intersection over that of the union of two ascending sets of hashes.

    Two empty sets have similarity 0.
    """
    i = j = num_common = 0
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            num_common += 1
            i += 1
            j += 1
        elif left[i] < right[j]:
            i += 1
        else:
            j += 1
    union = len(left) + len(right) - num_common
    return num_common / union if union else 0.0


@njit(cache=True, nogil=True)
def _band_keys(signatures: UInt32Array, bands: int, rows: int) -> Int64Array:
    keys = np.empty((len(signatures), bands), np.int64)
    for i in range(len(signatures)):
        for band in range(bands):
            h = GOLDEN * np.uint64(band + 1)
            for row in range(rows):
                h = (h << U31 | h >> U33) ^ np.uint64(signatures[i, band * rows + row])
                h *= FMIX_1
            h ^= h >> U33
            h *= FMIX_2
            h ^= h >> U33
            keys[i, band] = np.int64(h)
    return keys

"""Hashes of 64 bits that several kernels share: FNV-1a, MurmurHash3's finalizer, strings."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from curation.ingest.text import utf8_buffers

# Fowler, Noll, Vo: FNV-1a
FNV_OFFSET = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)
# 2^64 / golden ratio, odd (Steele et al. 2014, splitmix64)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# Appleby 2011, MurmurHash3
FMIX_1 = np.uint64(0xFF51AFD7ED558CCD)
FMIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
_U33 = np.uint64(33)


@njit(cache=True, nogil=True, inline="always")
def fmix64(h: np.uint64) -> np.uint64:
    """Return a hash mixed, so that every bit depends on every other."""
    h ^= h >> _U33
    h *= FMIX_1
    h ^= h >> _U33
    h *= FMIX_2
    return h ^ (h >> _U33)


def hash_strings(strings: pa.Array, seed: int) -> npt.NDArray[np.uint64]:
    """Return a seeded hash of every string, by its bytes alone; null is hashed like "".

    Cost: about 1 GB/s a core.
    """
    data, offsets = utf8_buffers(strings.fill_null(""))
    return _hash_strings(data, offsets, np.uint64(seed))


@njit(cache=True, nogil=True)
def _hash_strings(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], seed: np.uint64
) -> npt.NDArray[np.uint64]:
    hashes = np.empty(len(offsets) - 1, np.uint64)
    for row in range(len(hashes)):
        h = FNV_OFFSET ^ fmix64(seed + GOLDEN)
        for i in range(offsets[row], offsets[row + 1]):
            h = (h ^ np.uint64(data[i])) * FNV_PRIME
        hashes[row] = fmix64(h)
    return hashes

"""Hashes of 64 bits that several kernels share: FNV-1a, and MurmurHash3's finalizer."""

import numpy as np
from numba import njit

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

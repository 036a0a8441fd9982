"""Lengths of documents in tokens as a histogram, which sums over files in any order.

A bin is named by its shortest length: a whole number rounded down to four binary digits, so that a
bin is at most an eighth of its lengths wide, and lengths below 16 have one each.
"""

import numpy as np
import pyarrow as pa

DIGITS = 4  # binary ones


def length_bin(num_tokens: pa.Array) -> pa.Int64Array:
    """Return the bin of every length, its shortest length; null for null."""
    lengths = np.asarray(num_tokens.fill_null(0), np.int64)
    _, num_digits = np.frexp(lengths)
    shift = np.maximum(num_digits - DIGITS, 0).astype(np.int64)
    return pa.array((lengths >> shift) << shift, mask=np.asarray(num_tokens.is_null()))

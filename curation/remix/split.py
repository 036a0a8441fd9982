"""The validation set: documents of some hosts, none of them near one that is trained on.

Hosts are chosen by their hash, so that pages of one site are on one side. A held-out document that
is near a document to train on is in neither: of all pairs of a given similarity, comparing groups
of four slots finds far more than the bands of dedup (28 groups of 4 find a pair of similarity 0.8
with probability 1 - 4e-7, 14 bands of 8 with 0.92).
"""

import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from curation.hashing import fmix64, hash_strings
from curation.ingest.text import utf8_buffers
from curation.tokens.packing import document_hash

GROUP_SLOTS = 4

# Hosts are drawn by another hash than anything else is.
HOST_SALT = 0x5EED_0F_4057

Int64Array = npt.NDArray[np.int64]
UInt32Array = npt.NDArray[np.uint32]
UInt64Array = npt.NDArray[np.uint64]


def held_out(host: pa.Array, doc_ids: Int64Array, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return which documents are held out: those of a share of the hosts, by the host's hash.

    A document without a host is one of its own. The hosts of a larger share include those of a
    smaller one.
    """
    if share == 0:
        return np.zeros(len(doc_ids), np.bool_)
    salted = (seed + HOST_SALT) % 2**63
    own = document_hash(doc_ids, np.zeros(len(doc_ids), np.int32), salted)
    has_host = np.asarray(pc.greater(pc.binary_length(host), 0).fill_null(False))
    hashes = np.where(has_host, hash_strings(host, salted), own)
    return hashes < np.uint64(min(int(share * 2.0**64), 2**64 - 1))


class Probe:
    """Signatures of held-out documents, to find documents that are near them.

    Memory: 5 bytes a slot and document.
    """

    def __init__(self, doc_ids: Int64Array, signature: pa.Array, threshold: float) -> None:
        self.doc_ids = doc_ids
        self.signatures = _matrix(signature)
        num_slots = self.signatures.shape[1]
        self.min_equal = max(1, math.ceil(threshold * num_slots - 1e-9))
        self.width = min(GROUP_SLOTS, num_slots)
        keys = _group_keys(self.signatures, self.width)
        order = np.argsort(keys, axis=1, kind="stable")
        self.keys = np.take_along_axis(keys, order, axis=1)
        self.owners = order.astype(np.int32)

    def near(self, doc_ids: Int64Array, signature: pa.Array) -> tuple[Int64Array, Int64Array]:
        """Return pairs (held-out document, document) with as many equal slots as the threshold.

        Cost: about 28 binary searches a document, and a comparison for each that hits.
        """
        if len(self.doc_ids) == 0 or len(doc_ids) == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        rows, owners = _near(
            _matrix(signature), self.signatures, self.keys, self.owners, self.width, self.min_equal
        )
        return self.doc_ids[owners], doc_ids[rows]


def _matrix(signature: pa.Array) -> UInt32Array:
    """Return signatures, little-endian uint32, as a matrix of documents and slots."""
    data, offsets = utf8_buffers(signature)
    values = data[offsets[0] : offsets[-1]].view("<u4")
    return values.reshape(len(signature), -1) if len(signature) else np.zeros((0, 1), np.uint32)


@njit(cache=True, nogil=True)
def _group_key(signature: UInt32Array, group: int, width: int) -> np.uint64:
    key = np.uint64(group)
    for slot in range(group * width, (group + 1) * width):
        key = fmix64(key ^ np.uint64(signature[slot])) + np.uint64(slot)
    return key


@njit(cache=True, nogil=True)
def _group_keys(signatures: UInt32Array, width: int) -> UInt64Array:
    num_groups = signatures.shape[1] // width
    keys = np.empty((num_groups, len(signatures)), np.uint64)
    for group in range(num_groups):
        for row in range(len(signatures)):
            keys[group, row] = _group_key(signatures[row], group, width)
    return keys


@njit(cache=True, nogil=True)
def _near(
    signatures: UInt32Array,
    held: UInt32Array,
    keys: UInt64Array,
    owners: npt.NDArray[np.int32],
    width: int,
    min_equal: int,
) -> tuple[Int64Array, Int64Array]:
    rows, found = [np.int64(0)], [np.int64(0)]  # typed for numba; the first entry is left out
    compared = np.full(len(held), -1, np.int64)
    for row in range(len(signatures)):
        for group in range(len(keys)):
            key = _group_key(signatures[row], group, width)
            at = np.searchsorted(keys[group], key)
            while at < len(held) and keys[group, at] == key:
                owner = owners[group, at]
                at += 1
                if compared[owner] == row:
                    continue
                compared[owner] = row
                num_equal = 0
                for slot in range(signatures.shape[1]):
                    num_equal += signatures[row, slot] == held[owner, slot]
                if num_equal >= min_equal:
                    rows.append(np.int64(row))
                    found.append(np.int64(owner))
    return np.array(rows[1:]), np.array(found[1:])

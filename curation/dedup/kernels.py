"""Loops over numbers that the steps of the leader pass call."""

import numpy as np
import numpy.typing as npt
from numba import njit

from curation.dedup.lsh import jaccard, num_equal_slots

BoolArray = npt.NDArray[np.bool_]
UInt8Array = npt.NDArray[np.uint8]
UInt32Array = npt.NDArray[np.uint32]
UInt64Array = npt.NDArray[np.uint64]
Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]


@njit(cache=True, nogil=True)
def first_equal(to: Int64Array, content: UInt64Array) -> Int64Array:
    """Return the first row of the group with the same content; a group has one, nearly always."""
    first = np.empty(len(to), np.int64)
    firsts = np.empty(len(to), np.int64)
    num_firsts = 0
    for i in range(len(to)):
        if i == 0 or to[i] != to[i - 1]:
            num_firsts = 0
        first[i] = i
        for at in range(num_firsts):
            j = firsts[at]
            if content[i, 0] == content[j, 0] and content[i, 1] == content[j, 1]:
                first[i] = j
                break
        if first[i] == i:
            firsts[num_firsts] = i
            num_firsts += 1
    return first


def match_sorted(left: Int64Array, right: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return all pairs (i, j) with left[i] == right[j]; right is sorted."""
    first = np.searchsorted(right, left, side="left")
    count = np.searchsorted(right, left, side="right") - first
    at = np.repeat(np.arange(len(left)), count)
    step = np.arange(len(at)) - np.repeat(np.cumsum(count) - count, count)
    return at, first[at] + step


def distinct_pairs(left: Int64Array, right: Int64Array) -> tuple[Int64Array, Int64Array]:
    order = np.lexsort((right, left))
    left, right = left[order], right[order]
    is_new = np.ones(len(left), np.bool_)
    is_new[1:] = (left[1:] != left[:-1]) | (right[1:] != right[:-1])
    return left[is_new], right[is_new]


def find(names: Int64Array, wanted: Int64Array) -> Int64Array:
    """Return the place of each wanted value in `names`, -1 where it is not."""
    if len(names) == 0:
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(names, kind="stable")
    place = np.searchsorted(names, wanted, sorter=order)
    place = order[np.minimum(place, len(names) - 1)]
    return np.where(names[place] == wanted, place, -1)


def places(names: Int64Array, wanted: Int64Array) -> Int64Array:
    """Return the place of each wanted value; every one must be there."""
    place = find(names, wanted)
    if (place < 0).any():
        raise AssertionError("a message names a document that is not in its part")
    return place


@njit(cache=True, nogil=True)
def merged(
    key: Int64Array, doc_id: Int64Array, other_key: Int64Array, other_doc: Int64Array
) -> BoolArray:
    found = np.zeros(len(key), np.bool_)
    j = 0
    for i in range(len(key)):
        while j < len(other_key) and (
            other_key[j] < key[i] or (other_key[j] == key[i] and other_doc[j] < doc_id[i])
        ):
            j += 1
        found[i] = j < len(other_key) and other_key[j] == key[i] and other_doc[j] == doc_id[i]
    return found


@njit(cache=True, nogil=True)
def estimates(signatures: UInt32Array, place: Int64Array, others: UInt32Array) -> Float64Array:
    num_perm = signatures.shape[1]
    values = np.empty(len(place), np.float64)
    for i in range(len(place)):
        values[i] = num_equal_slots(signatures[place[i]], others[i]) / num_perm
    return values


@njit(cache=True, nogil=True)
def jaccards(
    hashes: UInt64Array,
    offsets: Int64Array,
    left: Int64Array,
    other_hashes: UInt64Array,
    other_offsets: Int64Array,
    right: Int64Array,
) -> Float64Array:
    values = np.empty(len(left), np.float64)
    for pair in range(len(left)):
        i, j = left[pair], right[pair]
        values[pair] = jaccard(
            hashes[offsets[i] : offsets[i + 1]],
            other_hashes[other_offsets[j] : other_offsets[j + 1]],
        )
    return values


@njit(cache=True, nogil=True)
def tails(data: UInt8Array, starts: Int64Array, offsets: Int64Array, skip: int) -> UInt8Array:
    tails = np.empty(8 * offsets[-1], np.uint8)
    for i in range(len(offsets) - 1):
        begin = starts[i] + skip
        tails[8 * offsets[i] : 8 * offsets[i + 1]] = data[begin : starts[i + 1]]
    return tails


@njit(cache=True, nogil=True)
def cut_out(data: UInt8Array, offsets: Int64Array, skip: int, width: int) -> UInt8Array:
    matrix = np.empty((len(offsets) - 1, width), np.uint8)
    for i in range(len(matrix)):
        begin = offsets[i] + skip
        matrix[i] = data[begin : begin + width]
    return matrix


@njit(cache=True, nogil=True)
def leader_pass(
    bucket: Int64Array,
    signatures: UInt32Array,
    num_entered: Int64Array,
    bucket_cap: int,
    threshold: float,
    floor: float,
    hashes: UInt64Array,
    offsets: Int64Array,
) -> BoolArray:
    """Return which documents, in order, the greedy leader pass retains.

    bucket (n, bands) numbers the buckets from 0; num_entered counts what each already holds of
    documents that are known not to be similar. Without hashes the estimate decides, with them (n
    rows by offsets) the exact similarity of those estimated at `floor` or above. Cost: at most
    n x bands x bucket_cap comparisons.
    """
    n, bands = bucket.shape
    num_perm = signatures.shape[1]
    is_exact = len(offsets) > 1
    counts = num_entered.copy()
    newest = np.full(len(counts), -1, np.int64)  # a linked list of entries for each bucket
    following = np.empty(n * bands, np.int64)
    entry = np.empty(n * bands, np.int64)
    num_entries = 0
    seen = np.full(n, -1, np.int64)
    kept = np.zeros(n, np.bool_)
    for i in range(n):
        similar = False
        for band in range(bands):
            at = newest[bucket[i, band]]
            while at >= 0 and not similar:
                j = entry[at]
                if seen[j] != i:
                    seen[j] = i
                    similar = num_equal_slots(signatures[i], signatures[j]) / num_perm >= floor
                    if similar and is_exact:
                        left = hashes[offsets[i] : offsets[i + 1]]
                        right = hashes[offsets[j] : offsets[j + 1]]
                        similar = jaccard(left, right) >= threshold
                at = following[at]
            if similar:
                break
        if similar:
            continue
        kept[i] = True
        for band in range(bands):
            b = bucket[i, band]
            if counts[b] < bucket_cap:
                counts[b] += 1
                entry[num_entries] = i
                following[num_entries] = newest[b]
                newest[b] = num_entries
                num_entries += 1
    return kept


@njit(cache=True, nogil=True)
def entering_leaders(
    key: Int64Array, leader: BoolArray, num_entered: Int64Array, bucket_cap: int
) -> BoolArray:
    """Return which leaders find room in their bucket, in order of doc_id."""
    enters = np.zeros(len(key), np.bool_)
    count = 0
    for i in range(len(key)):
        if i == 0 or key[i] != key[i - 1]:
            count = num_entered[i]
        if leader[i] and count < bucket_cap:
            enters[i] = True
            count += 1
    return enters


@njit(cache=True, nogil=True)
def similar_leaders(
    key: Int64Array,
    decided: BoolArray,
    enters: BoolArray,
    signatures: UInt32Array,
    floor: float,
    bucket_cap: int,
    first_only: bool,
) -> tuple[Int64Array, Int64Array, Float64Array]:
    """Return rows, lower entering leaders of their bucket, and estimates of at least `floor`."""
    num_perm = signatures.shape[1]
    room = len(key) + 1
    one, other, value = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room)
    found = 0
    entered = np.empty(bucket_cap, np.int64)  # of this bucket, so far
    num_here = 0
    for i in range(len(key)):
        if i == 0 or key[i] != key[i - 1]:
            num_here = 0
        if enters[i]:
            entered[num_here] = i
            num_here += 1
        if decided[i]:
            continue
        for at in range(num_here):
            j = entered[at]
            estimate = num_equal_slots(signatures[i], signatures[j]) / num_perm
            if estimate >= floor:
                if found == len(one):
                    one = np.concatenate((one, np.empty(found, np.int64)))
                    other = np.concatenate((other, np.empty(found, np.int64)))
                    value = np.concatenate((value, np.empty(found)))
                one[found], other[found], value[found] = i, j, estimate
                found += 1
                if first_only:
                    break
    return one[:found], other[:found], value[:found]


@njit(cache=True, nogil=True)
def candidates(
    key: Int64Array, seeking: BoolArray, signatures: UInt32Array, floor: float, best_only: bool
) -> tuple[Int64Array, Int64Array, Float64Array]:
    """Return seeking rows, entered rows above them in the bucket, and estimates from `floor` on.

    `best_only` returns the highest estimate of each row, ties to the lowest document.
    """
    num_perm = signatures.shape[1]
    room = len(key) + 1
    one, other, value = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room)
    found = 0
    entered = np.empty(len(key), np.int64)
    num_here = 0
    for i in range(len(key)):
        if i == 0 or key[i] != key[i - 1]:
            num_here = 0
        if not seeking[i]:
            entered[num_here] = i
            num_here += 1
            continue
        best = -1.0
        for at in range(num_here):  # ascending ids, so a tie keeps the lowest
            j = entered[at]
            estimate = num_equal_slots(signatures[i], signatures[j]) / num_perm
            if estimate < floor or (best_only and estimate <= best):
                continue
            if best_only and best >= 0.0:
                found -= 1
            best = estimate
            if found == len(one):
                one = np.concatenate((one, np.empty(found, np.int64)))
                other = np.concatenate((other, np.empty(found, np.int64)))
                value = np.concatenate((value, np.empty(found)))
            one[found], other[found], value[found] = i, j, estimate
            found += 1
    return one[:found], other[:found], value[:found]

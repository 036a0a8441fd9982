"""Byte-level BPE as a kernel: the ids of Hugging Face `tokenizers`, from text buffers to ids.

Pieces come from `curation.tokens.pieces`. A piece that was met before is found in a table by its
bytes; another one is merged: of all neighbours the pair of the lowest rank, the leftmost of equals,
until none is left. The table is bounded and fills as it is used; it decides speed, never ids. Long
pieces (a megabyte of one character) are left to the library, whose heap makes them cheap.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from curation.hashing import FNV_OFFSET, FNV_PRIME, GOLDEN, fmix64
from curation.ingest.text import utf8_buffers
from curation.tokens.pieces import CLASSES, kind_of, split

UInt8Array = npt.NDArray[np.uint8]
UInt16Array = npt.NDArray[np.uint16]
UInt64Array = npt.NDArray[np.uint64]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]

MAX_PIECE_BYTES = 512  # longer ones go to the library: merging costs the square of the length
TABLE_BITS = 20  # of the slots for pieces: a million
POOL_BYTES = 32_000_000  # of the pieces in the table
POOL_IDS = 16_000_000
NO_ID = -1
_HALF = np.uint64(32)


@dataclass
class Encoder:
    """What the kernel needs of a tokenizer, and the table of pieces that it fills."""

    kind: int
    byte_ids: Int32Array  # id of each byte, NO_ID where the vocabulary has none
    pair_keys: UInt64Array  # open addressing: left id << 32 | right id, plus 1; 0 is empty
    pair_ranks: Int32Array
    pair_ids: Int32Array
    keys: UInt64Array = field(default_factory=lambda: np.zeros(1 << TABLE_BITS, np.uint64))
    # of the piece in each slot: where its bytes and ids begin, and how many
    places: Int64Array = field(default_factory=lambda: np.zeros((1 << TABLE_BITS, 4), np.int64))
    pool: UInt8Array = field(default_factory=lambda: np.empty(POOL_BYTES, np.uint8))
    ids: Int32Array = field(default_factory=lambda: np.empty(POOL_IDS, np.int32))
    # entries, bytes and ids in use
    used: Int64Array = field(default_factory=lambda: np.zeros(3, np.int64))


def load(path: Path) -> Encoder | None:
    """Return the encoder of a tokenizer.json; None for one that works in another way.

    Those with a normalizer, another pre-tokenizer than the two known ones, dropout, an unknown
    token, prefixes, or added tokens that are words of a text are left to the library.
    """
    tree = json.loads(path.read_text(encoding="utf-8"))
    model, kind = tree["model"], kind_of(tree["pre_tokenizer"])
    normalizer = tree["normalizer"] or {}
    is_plain = (
        kind
        and normalizer.get("normalizers", normalizer) in ([], {})
        and model["type"] == "BPE"
        and not any(
            model.get(name)
            for name in (
                *("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"),
                *("byte_fallback", "ignore_merges"),
            )
        )
        and all(token["special"] for token in tree["added_tokens"])
    )
    return _encoder(kind, model) if is_plain else None


def encode(text: pa.Array, encoder: Encoder) -> tuple[Int32Array, Int64Array, Int64Array]:
    """Return all ids, the n + 1 ends of the texts, and the texts that are left to the library.

    A null or left text has no ids. Cost: about 20 MB/s where pieces repeat, and O(bytes).
    """
    data, offsets = utf8_buffers(text)
    return _encode(
        data,
        offsets,
        encoder.kind,
        CLASSES,
        encoder.byte_ids,
        encoder.pair_keys,
        encoder.pair_ranks,
        encoder.pair_ids,
        encoder.keys,
        encoder.places,
        encoder.pool,
        encoder.ids,
        encoder.used,
    )


def byte_alphabet() -> dict[int, str]:
    """Return GPT-2's characters of bytes: printable Latin-1 is itself, others follow U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(0x100 + place) for place, byte in enumerate(others)
    }


def _encoder(kind: int, model: dict[str, Any]) -> Encoder | None:
    vocabulary = model["vocab"]
    byte_ids = np.full(256, NO_ID, np.int32)
    for byte, character in byte_alphabet().items():
        byte_ids[byte] = vocabulary.get(character, NO_ID)
    merges = model["merges"]
    bits = max(4, (2 * len(merges)).bit_length())
    keys = np.zeros(1 << bits, np.uint64)
    ranks, ids = np.zeros(1 << bits, np.int32), np.zeros(1 << bits, np.int32)
    pairs = np.empty((len(merges), 3), np.int64)
    for rank, merge in enumerate(merges):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        pairs[rank] = vocabulary[left], vocabulary[right], vocabulary[left + right]
    _enter_pairs(pairs, keys, ranks, ids)
    return Encoder(kind, byte_ids, keys, ranks, ids)


@njit(cache=True, nogil=True, inline="always")
def _pair_key(left: int, right: int) -> np.uint64:
    return (np.uint64(left) << _HALF | np.uint64(right)) + np.uint64(1)


@njit(cache=True, nogil=True)
def _enter_pairs(pairs: Int64Array, keys: UInt64Array, ranks: Int32Array, ids: Int32Array) -> None:
    mask = len(keys) - 1
    for rank in range(len(pairs)):
        key = _pair_key(pairs[rank, 0], pairs[rank, 1])
        slot = np.int64((key * GOLDEN) >> _HALF) & mask
        while keys[slot] != 0 and keys[slot] != key:
            slot = (slot + 1) & mask
        if keys[slot] == 0:  # of a pair that is listed twice the library keeps the later rank
            keys[slot] = key
        ranks[slot], ids[slot] = rank, pairs[rank, 2]


@njit(cache=True, nogil=True, inline="always")
def _find_pair(left: int, right: int, keys: UInt64Array) -> int:
    """Return the slot of a pair, or -1."""
    mask = len(keys) - 1
    key = _pair_key(left, right)
    slot = int((key * GOLDEN) >> _HALF) & mask
    while keys[slot] != 0:
        if keys[slot] == key:
            return slot
        slot = (slot + 1) & mask
    return -1


@njit(cache=True, nogil=True)
def _encode(
    data: UInt8Array,
    offsets: Int64Array,
    kind: int,
    classes: UInt16Array,
    byte_ids: Int32Array,
    pair_keys: UInt64Array,
    pair_ranks: Int32Array,
    pair_ids: Int32Array,
    keys: UInt64Array,
    places: Int64Array,
    pool: UInt8Array,
    pool_ids: Int32Array,
    used: Int64Array,
) -> tuple[Int32Array, Int64Array, Int64Array]:
    num_texts = len(offsets) - 1
    longest = 0
    for text in range(num_texts):
        longest = max(longest, offsets[text + 1] - offsets[text])
    piece_ends = np.empty(2 * longest + 2, np.int64)
    merged, ranks = np.empty(MAX_PIECE_BYTES, np.int32), np.empty(MAX_PIECE_BYTES, np.int64)
    ids = np.empty(offsets[num_texts] - offsets[0], np.int32)  # a token has a byte or more
    ends = np.zeros(num_texts + 1, np.int64)
    left_out = np.empty(num_texts, np.int64)
    num_left, at = 0, 0
    mask = len(keys) - 1
    for text in range(num_texts):
        num_pieces = split(data, offsets[text], offsets[text + 1], kind, classes, piece_ends)
        start, begin, is_left = offsets[text], at, False
        for piece in range(num_pieces):
            end = piece_ends[piece]
            size = end - start
            if size > MAX_PIECE_BYTES:
                is_left = True
                break
            if size == 1 and byte_ids[data[start]] != NO_ID:
                ids[at] = byte_ids[data[start]]
                at += 1
                start = end
                continue
            h = FNV_OFFSET
            for i in range(start, end):
                h = (h ^ np.uint64(data[i])) * FNV_PRIME
            h = fmix64(h) | np.uint64(1)
            slot = np.int64(h >> _HALF) & mask
            while keys[slot] != 0 and not (
                keys[slot] == h and _equals(data, start, size, pool, places[slot])
            ):
                slot = (slot + 1) & mask
            if keys[slot] != 0:
                first, num = places[slot, 2], places[slot, 3]
                for k in range(num):
                    ids[at + k] = pool_ids[first + k]
                at += num
                start = end
                continue
            num = _merge(
                data, start, size, byte_ids, pair_keys, pair_ranks, pair_ids, merged, ranks
            )
            if num < 0:  # a byte that the vocabulary does not have
                is_left = True
                break
            for k in range(num):
                ids[at + k] = merged[k]
            at += num
            is_room = (
                used[0] < len(keys) // 2
                and used[1] + size <= len(pool)
                and used[2] + num <= len(pool_ids)
            )
            if is_room:
                keys[slot] = h
                places[slot, 0], places[slot, 1] = used[1], size
                places[slot, 2], places[slot, 3] = used[2], num
                pool[used[1] : used[1] + size] = data[start:end]
                pool_ids[used[2] : used[2] + num] = merged[:num]
                used[0] += 1
                used[1] += size
                used[2] += num
            start = end
        if is_left:
            left_out[num_left] = text
            num_left += 1
            at = begin
        ends[text + 1] = at
    return ids[:at].copy(), ends, left_out[:num_left].copy()


@njit(cache=True, nogil=True, inline="always")
def _equals(data: UInt8Array, start: int, size: int, pool: UInt8Array, place: Int64Array) -> bool:
    if place[1] != size:
        return False
    first = place[0]
    for k in range(size):  # noqa: SIM110  (numba has no all() of a generator)
        if pool[first + k] != data[start + k]:
            return False
    return True


@njit(cache=True, nogil=True)
def _merge(
    data: UInt8Array,
    start: int,
    size: int,
    byte_ids: Int32Array,
    pair_keys: UInt64Array,
    pair_ranks: Int32Array,
    pair_ids: Int32Array,
    merged: Int32Array,
    ranks: Int64Array,
) -> int:
    """Write the ids of a piece; return how many, or -1 for a byte without one.

    ranks[k] is that of the pair at k, rank << 32 | its slot, so the lowest is found by numbers.
    """
    none = np.int64(1) << np.int64(62)
    for k in range(size):
        merged[k] = byte_ids[data[start + k]]
        if merged[k] == NO_ID:
            return -1
    for k in range(size - 1):
        slot = _find_pair(merged[k], merged[k + 1], pair_keys)
        ranks[k] = np.int64(pair_ranks[slot]) << 32 | slot if slot >= 0 else none
    num = size
    while num > 1:
        best, place = none, -1
        for k in range(num - 1):
            if ranks[k] < best:
                best, place = ranks[k], k
        if place < 0:
            break
        merged[place] = pair_ids[best & 0xFFFFFFFF]
        num -= 1
        for k in range(place + 1, num):
            merged[k] = merged[k + 1]
        for k in range(place + 1, num - 1):
            ranks[k] = ranks[k + 1]
        for k in range(max(place - 1, 0), min(place + 1, num - 1)):
            slot = _find_pair(merged[k], merged[k + 1], pair_keys)
            ranks[k] = np.int64(pair_ranks[slot]) << 32 | slot if slot >= 0 else none
    return num

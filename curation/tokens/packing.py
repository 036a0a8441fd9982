"""Packing: which shard a copy of a document goes to, where in it, and the rows it is packed into.

Which shard, and which place, follows from a hash of (doc_id, copy, seed). A document is its tokens
and one end-of-text token. Two ways to pack the documents of a shard, in their order:

    concat     without gaps, cut where a row ends: no position is wasted but in the last row
    best_fit   a document is cut only where it is longer than a row; the pieces fill rows by best
               fit decreasing (Ding et al. 2024, arXiv 2404.10830), and what stays free is padded

No token is dropped by either.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

PACKINGS = ("concat", "best_fit")

# A row group is what a reader decodes at once: 4 MiB of ids, 256 rows of 4,096.
ROW_GROUP_TOKENS = 1 << 20

# Best fit chooses among the documents of so many tokens: 16 MiB of ids.
WINDOW_TOKENS = 1 << 22

DOCUMENTS_SCHEMA = pa.schema(
    [("doc_id", pa.int64()), ("copy", pa.int32()), ("input_ids", pa.list_(pa.int32()))]
)

# splitmix64 (Steele, Lea, Flood 2014): the step of its counter, the factors of its finalizer.
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)
U30, U27, U31, U33 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(33)
ONE = np.uint64(1)
# Jump consistent hash (Lamping, Veach 2014, arXiv 1406.2294): the factor of its generator.
JUMP_FACTOR = np.uint64(2862933555777941757)

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
UInt64Array = npt.NDArray[np.uint64]


def shard_schema(sequence_length: int) -> pa.Schema:
    """Return the schema of a shard; a piece is a run of tokens of one document in one row.

    Ids are never null, which makes reading a fifth faster (shards_size in tests/bench).
    """
    return pa.schema(
        [
            ("input_ids", pa.list_(pa.field("item", pa.int32(), nullable=False), sequence_length)),
            ("doc_starts", pa.list_(pa.int32())),  # where in the row each piece starts
            ("doc_ids", pa.list_(pa.int64())),  # whose piece it is
            ("doc_offset", pa.list_(pa.int32())),  # which token of the document it starts with
            ("num_tokens", pa.int32()),  # before the padding, end-of-text tokens included
        ]
    )


@njit(cache=True, nogil=True)
def mix64(x: np.uint64) -> np.uint64:
    """Return the finalizer of splitmix64, a bijection of 64-bit numbers."""
    x = (x ^ (x >> U30)) * MIX_1
    x = (x ^ (x >> U27)) * MIX_2
    return x ^ (x >> U31)


@njit(cache=True, nogil=True)
def document_hash(doc_ids: Int64Array, copies: Int32Array, seed: int) -> UInt64Array:
    """Return the hash that gives every copy of a document its shard and its place in it.

    For one copy number and one seed, different documents have different hashes.
    """
    hashes = np.empty(len(doc_ids), np.uint64)
    key = mix64(np.uint64(seed) + GOLDEN)
    for i in range(len(doc_ids)):
        copy = np.uint64(np.int64(copies[i]))
        hashes[i] = mix64(mix64(key ^ np.uint64(doc_ids[i])) + (copy + ONE) * GOLDEN)
    return hashes


@njit(cache=True, nogil=True)
def jump_hash(hashes: UInt64Array, num_shards: int) -> Int32Array:
    """Return the shard of every hash: uniform, and more shards move documents to new ones only.

    Jump consistent hash (Lamping, Veach 2014). Cost: O(log num_shards) a document.
    """
    shards = np.empty(len(hashes), np.int32)
    for i in range(len(hashes)):
        key = hashes[i]
        shard, jump = np.int64(-1), np.int64(0)
        while jump < num_shards:
            shard = jump
            key = key * JUMP_FACTOR + ONE
            jump = np.int64((shard + 1) * (2147483648.0 / np.float64((key >> U33) + ONE)))
        shards[i] = shard
    return shards


def repeat_documents(
    doc_ids: pa.Array, input_ids: pa.Array, num_copies: Int32Array, partial_tokens: Int32Array
) -> pa.RecordBatch:
    """Return each document as often as the mixture wants it, in DOCUMENTS_SCHEMA.

    `partial_tokens` counts the end-of-text token that packing adds: p tokens are the first p - 1
    of the document, as one more copy; 0 is none. Copies are numbered from 0.
    """
    copied = np.repeat(np.arange(len(doc_ids)), num_copies)
    firsts = np.cumsum(num_copies) - num_copies
    cut = np.flatnonzero(partial_tokens)  # at most one document a domain
    rows = np.concatenate([copied, cut])
    ids_of_rows = [input_ids.take(pa.array(copied))] + [
        pc.list_slice(input_ids.slice(i, 1), 0, int(partial_tokens[i]) - 1) for i in cut.tolist()
    ]
    copies = np.concatenate([np.arange(len(copied)) - firsts[copied], num_copies[cut]])
    return pa.RecordBatch.from_arrays(
        [
            doc_ids.take(pa.array(rows)),
            pa.array(copies.astype(np.int32)),
            pa.concat_arrays(ids_of_rows),
        ],
        schema=DOCUMENTS_SCHEMA,
    )


def pack(
    documents: Iterable[pa.RecordBatch], sequence_length: int, eos_id: int, packing: str = "concat"
) -> Iterator[pa.RecordBatch]:
    """Pack documents (DOCUMENTS_SCHEMA) into rows of `shard_schema`, in the order they come.

    Every document is followed by `eos_id`, which counts as its last token and may be a piece of its
    own; rows are padded with `eos_id`. Batches of rows do not depend on how documents were batched,
    and hold at most ROW_GROUP_TOKENS. Raises ValueError for null documents and unknown packings.
    Memory: about 20 MB for concat, 60 MB for best_fit, and the longest document.
    """
    if packing not in PACKINGS:
        raise ValueError(f"packing {packing!r}; there are {', '.join(PACKINGS)}")
    how = _concat if packing == "concat" else _best_fit
    return how(documents, sequence_length, eos_id)


def _rows(
    ids: Int32Array, ends: Int32Array, pieces: Iterable[npt.NDArray[Any]], num_tokens: Int32Array
) -> pa.RecordBatch:
    """Return rows of `shard_schema`, of ids, and starts, owners and offsets of their pieces."""
    schema = shard_schema(len(ids) // len(num_tokens))
    bounds = pa.array(ends)
    return pa.RecordBatch.from_arrays(
        [
            pa.FixedSizeListArray.from_arrays(pa.array(ids), type=schema.field("input_ids").type),
            *(pa.ListArray.from_arrays(bounds, pa.array(piece)) for piece in pieces),
            pa.array(num_tokens),
        ],
        schema=schema,
    )


def _concat(
    documents: Iterable[pa.RecordBatch], sequence_length: int, eos_id: int
) -> Iterator[pa.RecordBatch]:
    num_rows = max(1, ROW_GROUP_TOKENS // sequence_length)
    block = _Block(num_rows, sequence_length)
    for batch in documents:
        doc_ids, values, offsets = _document_buffers(batch)
        document, token = 0, 0
        while document < len(doc_ids):
            document, token = block.fill(doc_ids, values, offsets, document, token, eos_id)
            if block.filled == len(block.ids):
                yield block.rows(eos_id)
                block = _Block(num_rows, sequence_length)
    if block.filled:
        yield block.rows(eos_id)


class _Block:
    """The rows of one row group while they fill up."""

    def __init__(self, num_rows: int, sequence_length: int) -> None:
        self.sequence_length = sequence_length
        num_tokens = num_rows * sequence_length
        self.ids = np.empty(num_tokens, np.int32)
        # A piece has at least one token.
        self.piece_starts = np.empty(num_tokens, np.int64)
        self.piece_doc_ids = np.empty(num_tokens, np.int64)
        self.piece_offsets = np.empty(num_tokens, np.int32)
        self.filled = 0
        self.num_pieces = 0

    def fill(
        self,
        doc_ids: Int64Array,
        values: Int32Array,
        offsets: Int64Array,
        document: int,
        token: int,
        eos_id: int,
    ) -> tuple[int, int]:
        """Append documents, from a token of one of them; return where the block was full."""
        document, token, self.filled, self.num_pieces = _fill(
            doc_ids,
            values,
            offsets,
            document,
            token,
            eos_id,
            self.sequence_length,
            self.ids,
            self.filled,
            self.piece_starts,
            self.piece_doc_ids,
            self.piece_offsets,
            self.num_pieces,
        )
        return document, token

    def rows(self, eos_id: int) -> pa.RecordBatch:
        """Return the rows begun so far, the last one padded."""
        length = self.sequence_length
        num_rows = -(-self.filled // length)
        ids = self.ids[: num_rows * length]
        ids[self.filled :] = eos_id
        num_tokens = np.full(num_rows, length, np.int32)
        num_tokens[-1] = self.filled - (num_rows - 1) * length
        starts = self.piece_starts[: self.num_pieces]
        ends = np.searchsorted(starts, np.arange(num_rows + 1) * length).astype(np.int32)
        pieces = (
            (starts % length).astype(np.int32),
            self.piece_doc_ids[: self.num_pieces],
            self.piece_offsets[: self.num_pieces],
        )
        return _rows(ids, ends, pieces, num_tokens)


@njit(cache=True, nogil=True)
def _fill(
    doc_ids: Int64Array,
    values: Int32Array,
    offsets: Int64Array,
    document: int,
    token: int,
    eos_id: int,
    sequence_length: int,
    ids: Int32Array,
    filled: int,
    piece_starts: Int64Array,
    piece_doc_ids: Int64Array,
    piece_offsets: Int32Array,
    num_pieces: int,
) -> tuple[int, int, int, int]:
    while document < len(doc_ids) and filled < len(ids):
        first = offsets[document]
        num_values = offsets[document + 1] - first  # the token after them is the end of text
        row_end = (filled // sequence_length + 1) * sequence_length
        count = min(num_values + 1 - token, row_end - filled)
        piece_starts[num_pieces] = filled
        piece_doc_ids[num_pieces] = doc_ids[document]
        piece_offsets[num_pieces] = token
        num_pieces += 1
        for k in range(count):
            ids[filled + k] = eos_id if token + k == num_values else values[first + token + k]
        filled += count
        token += count
        if token > num_values:
            document += 1
            token = 0
    return document, token, filled, num_pieces


def _best_fit(
    documents: Iterable[pa.RecordBatch], sequence_length: int, eos_id: int
) -> Iterator[pa.RecordBatch]:
    num_rows = max(1, ROW_GROUP_TOKENS // sequence_length)
    for window in _windows(documents):
        rows = _rows_by_best_fit(window, sequence_length, eos_id)
        for start in range(0, rows.num_rows, num_rows):
            yield rows.slice(start, num_rows)


class _Window(NamedTuple):
    doc_ids: Int64Array
    values: Int32Array
    offsets: Int64Array


def _windows(documents: Iterable[pa.RecordBatch]) -> Iterator[_Window]:
    """Yield documents until they have WINDOW_TOKENS or more, however they were batched."""
    parts: list[_Window] = []
    held = 0
    for batch in documents:
        doc_ids, values, offsets = _document_buffers(batch)
        start = 0
        while start < len(doc_ids):
            sizes = np.cumsum(np.diff(offsets[start:]) + 1)  # with the end of text
            stop = start + int(np.searchsorted(sizes, WINDOW_TOKENS - held)) + 1
            stop = min(stop, len(doc_ids))
            parts.append(_Window(doc_ids[start:stop], values, offsets[start : stop + 1]))
            held += int(sizes[stop - start - 1])
            start = stop
            if held >= WINDOW_TOKENS:
                yield _joined(parts)
                parts, held = [], 0
    if parts:
        yield _joined(parts)


def _joined(parts: list[_Window]) -> _Window:
    values = [part.values[part.offsets[0] : part.offsets[-1]] for part in parts]
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    return _Window(
        np.concatenate([part.doc_ids for part in parts]),
        np.concatenate(values),
        np.concatenate([[0], np.cumsum(lengths)]),
    )


def _rows_by_best_fit(window: _Window, length: int, eos_id: int) -> pa.RecordBatch:
    """Return the rows of a window in the order of their first piece."""
    sizes = np.diff(window.offsets) + 1
    num_pieces = -(-sizes // length)
    owner = np.repeat(np.arange(len(sizes)), num_pieces)
    nth = np.arange(len(owner)) - (np.cumsum(num_pieces) - num_pieces)[owner]
    offset = nth * length
    piece = np.minimum(sizes[owner] - offset, length)
    _, first, row = np.unique(_place(piece, length), return_index=True, return_inverse=True)
    row = np.argsort(np.argsort(first))[row]
    order = np.argsort(row, kind="stable")
    owner, offset, piece, row = owner[order], offset[order], piece[order], row[order]
    num_tokens = np.bincount(row, piece).astype(np.int32)
    ends = np.concatenate([[0], np.cumsum(np.bincount(row))]).astype(np.int32)
    starts = np.cumsum(piece) - piece
    starts -= starts[ends[:-1]][row]
    ids = np.full(len(num_tokens) * length, eos_id, np.int32)
    _copy(window.values, window.offsets, owner, offset, piece, row * length + starts, ids)
    columns = (starts.astype(np.int32), window.doc_ids[owner], offset.astype(np.int32))
    return _rows(ids, ends, columns, num_tokens)


@njit(cache=True, nogil=True)
def _place(sizes: Int64Array, length: int) -> Int64Array:
    """Return the row of every piece: longest first, each into the fullest row that has room.

    Rows by the room they have are linked lists; the next room that some row has is found in a map
    of bits. Cost: O(n (log n + length / 64)).
    """
    rows = np.empty(len(sizes), np.int64)
    head = np.full(length + 1, -1, np.int64)
    following = np.full(len(sizes), -1, np.int64)
    bits = np.zeros(length // 64 + 1, np.uint64)
    num_rows = 0
    for i in np.argsort(-sizes, kind="mergesort"):
        size = sizes[i]
        word = size >> 6
        found = bits[word] & (~np.uint64(0) << np.uint64(size & 63))
        while found == 0 and word + 1 < len(bits):
            word += 1
            found = bits[word]
        if found == 0:
            row, room = num_rows, length
            num_rows += 1
        else:
            room = word << 6
            while found & ONE == 0:
                found >>= ONE
                room += 1
            row = head[room]
            head[room] = following[row]
            if head[room] < 0:
                bits[room >> 6] &= ~(ONE << np.uint64(room & 63))
        rows[i] = row
        room -= size
        if room > 0:
            following[row] = head[room]
            head[room] = row
            bits[room >> 6] |= ONE << np.uint64(room & 63)
    return rows


@njit(cache=True, nogil=True)
def _copy(
    values: Int32Array,
    offsets: Int64Array,
    owner: Int64Array,
    offset: Int64Array,
    sizes: Int64Array,
    to: Int64Array,
    ids: Int32Array,
) -> None:
    """Write the tokens of every piece; the one after a document's last is left as it is."""
    for i in range(len(owner)):
        first = offsets[owner[i]] + offset[i]
        for k in range(min(sizes[i], offsets[owner[i] + 1] - first)):
            ids[to[i] + k] = values[first + k]


def _document_buffers(batch: pa.RecordBatch) -> tuple[Int64Array, Int32Array, Int64Array]:
    doc_ids, input_ids = batch["doc_id"], batch["input_ids"]
    if doc_ids.null_count or input_ids.null_count or input_ids.values.null_count:
        raise ValueError("documents to pack must have a doc_id and input_ids, and no null in them")
    return (
        doc_ids.to_numpy(),
        input_ids.values.to_numpy(),
        input_ids.offsets.to_numpy().astype(np.int64),
    )

"""Token shards: documents packed into rows of one length, in files that are the same bytes always.

A document is its tokens and one end-of-text token; documents follow each other without gaps and are
cut where a row ends, so no position is wasted but at the end of a shard. Which shard a copy of a
document goes to, and where in it, follows from a hash of (doc_id, copy, seed): sort the documents
of a shard by (hash, doc_id, copy), give them to `write_shard`, and any partitioning of the work
gives identical files.

    documents   {doc_id int64, copy int32, input_ids list<int32>}, in any batches
    row         see `shard_schema`
    manifest    manifest.json beside the shards; its fingerprint names the dataset
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numba import njit

from curation.errors import LakeVersion, NotFound, ShardCorrupt

MANIFEST_NAME = "manifest.json"
MANIFEST_VERSION = 1

# A row group is what a reader decodes at once: 4 MiB of ids, 256 rows of 4,096.
ROW_GROUP_TOKENS = 1 << 20

# Everything that decides a byte of a shard, beside the version of pyarrow. Token ids have no
# order: zstd on plain int32 was smaller than dictionary pages (15.4 to 15.7 bits a token of a
# Zipf distribution), and level 1 smaller and faster than 3. Statistics of shuffled ids skip
# nothing.
WRITER: Mapping[str, Any] = {
    "version": "2.6",
    "data_page_version": "1.0",
    "data_page_size": 1 << 20,
    "write_batch_size": 1024,
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": False,
    "write_statistics": False,
    "store_schema": True,
}

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
Row = dict[str, Any]


def shard_schema(sequence_length: int) -> pa.Schema:
    """Return the schema of a shard; a piece is a run of tokens of one document in one row."""
    return pa.schema(
        [
            ("input_ids", pa.list_(pa.int32(), sequence_length)),
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
    documents: Iterable[pa.RecordBatch], sequence_length: int, eos_id: int
) -> Iterator[pa.RecordBatch]:
    """Pack documents (DOCUMENTS_SCHEMA) into rows of `shard_schema`, in the order they come.

    Every document is followed by `eos_id`, which counts as its last token and may be a piece of its
    own; the last row is padded with `eos_id`. Every batch but the last holds ROW_GROUP_TOKENS, so
    batches do not depend on how documents were batched. Raises ValueError for null documents.
    Memory: about 20 MB, whatever the documents.
    """
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


@dataclass(frozen=True)
class ShardEntry:
    """One file of a release: its name beside the manifest, and what it must hold."""

    path: str
    rows: int
    tokens: int
    bytes: int
    sha256: str


def write_shard(
    path: str | Path, documents: Iterable[pa.RecordBatch], *, sequence_length: int, eos_id: int
) -> ShardEntry:
    """Pack documents, write one shard and describe it; the same documents give the same bytes.

    The file appears under its name only when it is whole. No documents give a shard of 0 rows.
    Cost: about 18 M tokens/s and core.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    rows = tokens = 0
    try:
        with pq.ParquetWriter(unfinished, shard_schema(sequence_length), **WRITER) as writer:
            for batch in pack(documents, sequence_length, eos_id):
                writer.write_batch(batch, row_group_size=batch.num_rows)
                rows += batch.num_rows
                tokens += int(batch["num_tokens"].to_numpy().sum(dtype=np.int64))
        digest = _sha256(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return ShardEntry(path.name, rows, tokens, path.stat().st_size, digest)


@dataclass(frozen=True)
class Manifest:
    """What a release is: its files in order, and everything they follow from.

    `mixture` (share, tokens, epochs by domain) and `lake_keys` (commits by stage and dump) are JSON
    values with string keys.
    """

    name: str
    sequence_length: int
    num_shards: int
    seed: int
    tokenizer_sha256: str
    eos_id: int
    files: tuple[ShardEntry, ...]
    mixture: Mapping[str, Any] = field(default_factory=dict)
    lake_keys: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of all files: the samples of the dataset."""
        return sum(entry.rows for entry in self.files)

    @property
    def tokens(self) -> int:
        """Tokens of all files, without padding."""
        return sum(entry.tokens for entry in self.files)

    @property
    def fingerprint(self) -> str:
        """The sha256 of the manifest as canonical JSON: what names the dataset.

        lake_keys are left out: they hold paths and times of one machine, and the same dataset has
        one name on all.
        """
        content = {name: value for name, value in self.as_dict().items() if name != "lake_keys"}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """Return what the fingerprint covers, as JSON values."""
        return {
            "format_version": MANIFEST_VERSION,
            "name": self.name,
            "sequence_length": self.sequence_length,
            "num_shards": self.num_shards,
            "seed": self.seed,
            "tokenizer_sha256": self.tokenizer_sha256,
            "eos_id": self.eos_id,
            "files": [asdict(entry) for entry in self.files],
            "totals": {
                "rows": self.rows,
                "tokens": self.tokens,
                "bytes": sum(entry.bytes for entry in self.files),
            },
            "mixture": dict(self.mixture),
            "lake_keys": dict(self.lake_keys),
        }


def write_manifest(folder: str | Path, manifest: Manifest) -> Path:
    """Write manifest.json beside the shards, last and at once; return its path."""
    path = Path(folder) / MANIFEST_NAME
    text = json.dumps(manifest.as_dict() | {"fingerprint": manifest.fingerprint}, indent=2)
    unfinished = path.with_name(f".{MANIFEST_NAME}.{uuid4().hex}.tmp")
    unfinished.write_text(text + "\n", encoding="utf-8")
    unfinished.replace(path)
    return path


def read_manifest(path: str | Path) -> Manifest:
    """Read the manifest of a release from its folder or file and check its fingerprint.

    Raises NotFound, LakeVersion for a format of another version, ShardCorrupt when the file is
    no manifest or not what its fingerprint says.
    """
    path = Path(path)
    if path.is_dir():
        path = path / MANIFEST_NAME
    if not path.is_file():
        raise NotFound(f"no release at {path}; make one with `curation release NAME`")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ShardCorrupt(f"{path} is no manifest ({error!r}); release again") from None
    if version != MANIFEST_VERSION:
        raise LakeVersion(
            f"{path} has format version {version}, this program reads {MANIFEST_VERSION}; "
            "release again, or read it with the version that wrote it"
        )
    try:
        manifest = Manifest(
            **{key: content[key] for key in Manifest.__dataclass_fields__ if key != "files"},
            files=tuple(ShardEntry(**entry) for entry in content["files"]),
        )
        fingerprint = manifest.fingerprint
    except (KeyError, TypeError, ValueError) as error:
        raise ShardCorrupt(f"{path} is no manifest ({error!r}); release again") from None
    if fingerprint != content.get("fingerprint"):
        raise ShardCorrupt(
            f"{path} says its fingerprint is {content.get('fingerprint')}, but its content has "
            f"{fingerprint}; it was edited: restore it or release again"
        )
    return manifest


def open_shards(path: str | Path) -> "Shards":
    """Open a release for reading, from its folder or its manifest; see `read_manifest`."""
    path = Path(path)
    return Shards(path if path.is_dir() else path.parent, read_manifest(path))


class Shards:
    """The rows of a release, in order: sample i of the dataset is row i.

    A row is a dict of `shard_schema`: input_ids, doc_starts, doc_ids and doc_offset are read-only
    NumPy arrays, num_tokens is an int. Reading on is cheap (60 to 90 M tokens/s and core); a row
    far from the last one costs a decoded row group. Not for two threads at once.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._ends = list(accumulate(entry.rows for entry in manifest.files))
        self._shard: _OpenShard | None = None

    def __len__(self) -> int:
        return self.manifest.rows

    def row(self, i: int) -> Row:
        """Return row i; raises IndexError beyond the last, ShardCorrupt for a damaged file."""
        if not 0 <= i < len(self):
            raise IndexError(f"row {i} of a release of {len(self)} rows")
        number = int(np.searchsorted(self._ends, i, side="right"))
        entry = self.manifest.files[number]
        if self._shard is None or self._shard.entry is not entry:
            self._shard = _OpenShard(self.folder, entry, self.manifest.sequence_length)
        return self._shard.row(i - (self._ends[number] - entry.rows))

    def iterate(self, start: int = 0) -> Iterator[Row]:
        """Yield the rows from `start` to the last, each row group decoded once."""
        return (self.row(i) for i in range(start, len(self)))

    def verify(self) -> None:
        """Read every file and compare it with the manifest; raises ShardCorrupt naming the file."""
        for entry in self.manifest.files:
            file = _existing(self.folder, entry)
            found = _sha256(file)
            if found != entry.sha256:
                raise ShardCorrupt(
                    f"{file} has sha256 {found}, its manifest says {entry.sha256}; "
                    "restore the file or release again"
                )


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
        offsets = pa.array(
            np.searchsorted(starts, np.arange(num_rows + 1) * length).astype(np.int32)
        )
        pieces = (
            (starts % length).astype(np.int32),
            self.piece_doc_ids[: self.num_pieces],
            self.piece_offsets[: self.num_pieces],
        )
        return pa.RecordBatch.from_arrays(
            [
                pa.FixedSizeListArray.from_arrays(pa.array(ids), length),
                *(pa.ListArray.from_arrays(offsets, pa.array(piece)) for piece in pieces),
                pa.array(num_tokens),
            ],
            schema=shard_schema(length),
        )


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


def _document_buffers(batch: pa.RecordBatch) -> tuple[Int64Array, Int32Array, Int64Array]:
    doc_ids, input_ids = batch["doc_id"], batch["input_ids"]
    if doc_ids.null_count or input_ids.null_count or input_ids.values.null_count:
        raise ValueError("documents to pack must have a doc_id and input_ids, and no null in them")
    return (
        doc_ids.to_numpy(),
        input_ids.values.to_numpy(),
        input_ids.offsets.to_numpy().astype(np.int64),
    )


class _OpenShard:
    """One shard file and its last decoded row group."""

    def __init__(self, folder: Path, entry: ShardEntry, sequence_length: int) -> None:
        self.entry = entry
        self.path = _existing(folder, entry)
        try:
            self.file = pq.ParquetFile(self.path)
            metadata = self.file.metadata
        except (pa.ArrowException, OSError) as error:
            raise self._corrupt(str(error)) from None
        if metadata.num_rows != entry.rows or not self.file.schema_arrow.equals(
            shard_schema(sequence_length)
        ):
            raise self._corrupt(
                f"{metadata.num_rows} rows of {self.file.schema_arrow.field(0).type}, "
                f"but the manifest says {entry.rows} of {sequence_length} ids"
            )
        self.ends = list(
            accumulate(metadata.row_group(g).num_rows for g in range(metadata.num_row_groups))
        )
        self.sequence_length = sequence_length
        self.group = -1

    def row(self, i: int) -> Row:
        group = int(np.searchsorted(self.ends, i, side="right"))
        if group != self.group:
            self._decode(group)
        i -= self.first_row
        start, end = self.piece_ends[i], self.piece_ends[i + 1]
        return {
            "input_ids": self.ids[i],
            **{name: values[start:end] for name, values in self.pieces.items()},
            "num_tokens": int(self.num_tokens[i]),
        }

    def _decode(self, group: int) -> None:
        try:
            rows = self.file.read_row_group(group, use_threads=False).combine_chunks()
        except (pa.ArrowException, OSError) as error:
            raise self._corrupt(str(error)) from None
        columns = {name: rows[name].chunk(0) for name in rows.column_names}
        self.ids = columns["input_ids"].values.to_numpy().reshape(-1, self.sequence_length)
        self.piece_ends = columns["doc_starts"].offsets.to_numpy()
        self.pieces = {
            name: columns[name].values.to_numpy()
            for name in ("doc_starts", "doc_ids", "doc_offset")
        }
        self.num_tokens = columns["num_tokens"].to_numpy()
        self.group, self.first_row = group, self.ends[group] - rows.num_rows

    def _corrupt(self, reason: str) -> ShardCorrupt:
        return ShardCorrupt(f"{self.path}: {reason}; restore the file or release again")


def _existing(folder: Path, entry: ShardEntry) -> Path:
    file = folder / entry.path
    if not file.is_file():
        raise ShardCorrupt(
            f"{file} is gone, but its manifest lists it; restore the file or release again"
        )
    return file


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

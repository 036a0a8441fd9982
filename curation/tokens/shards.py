"""Token shards: packed rows in files that are the same bytes always, and the manifest of them.

Sort the documents of a shard by (hash, doc_id, copy), give them to `write_shard`, and any
partitioning of the work gives identical files.

    documents   {doc_id int64, copy int32, input_ids list<int32>}, in any batches
    row         see `packing.shard_schema`
    manifest    manifest.json beside the shards; its fingerprint names the dataset
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.errors import LakeVersion, NotFound, ShardCorrupt
from curation.tokens.packing import pack, shard_schema

MANIFEST_NAME = "manifest.json"
MANIFEST_VERSION = 2
TOKENIZER_NAME = "tokenizer.json"

TRAIN, VALIDATION = "train", "validation"
SPLITS = (TRAIN, VALIDATION)

# Where the tokens of a lake go: the first two are the sum of the others.
ACCOUNT_WORDS = {
    "in_lake": "in the lake",
    "repeated": "+ repeated",
    "train": "= to train on",
    "validation": "+ validation",
    "held_out": "+ held out: hosts of the validation set",
    "truncated": "+ cut off where a budget ends",
    "not_taken": "+ not taken",
    "without_share": "+ in domains without a share",
}

# Everything that decides a byte of a shard, beside the version of pyarrow. Token ids have no
# order: of plain, dictionary, split-byte and delta pages, zstd makes plain ones the smallest, and
# level 3 a tenth smaller than level 1 at the same speed of reading (shards_size in tests/bench).
# Statistics of shuffled ids skip nothing.
WRITER: Mapping[str, Any] = {
    "version": "2.6",
    "data_page_version": "1.0",
    "data_page_size": 1 << 20,
    "write_batch_size": 1024,
    "compression": "zstd",
    "compression_level": 3,
    "use_dictionary": False,
    "write_statistics": False,
    "store_schema": True,
}


@dataclass(frozen=True)
class ShardEntry:
    """One file of a release: its name beside the manifest, and what it must hold."""

    path: str
    split: str
    rows: int
    tokens: int  # without padding
    cuts: int  # where a document goes on in another row
    bytes: int
    sha256: str


def write_shard(
    path: str | Path,
    documents: Iterable[pa.RecordBatch],
    *,
    sequence_length: int,
    eos_id: int,
    packing: str = "concat",
    split: str = TRAIN,
) -> ShardEntry:
    """Pack documents, write one shard and describe it; the same documents give the same bytes.

    The file appears under its name only when it is whole. No documents give a shard of 0 rows.
    Cost: see shards_write in tests/bench.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    rows = tokens = cuts = 0
    try:
        with pq.ParquetWriter(unfinished, shard_schema(sequence_length), **WRITER) as writer:
            for batch in pack(documents, sequence_length, eos_id, packing):
                writer.write_batch(batch, row_group_size=batch.num_rows)
                rows += batch.num_rows
                tokens += int(batch["num_tokens"].to_numpy().sum(dtype=np.int64))
                cuts += int(np.count_nonzero(batch["doc_offset"].flatten()))
        digest = sha256_of(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return ShardEntry(path.name, split, rows, tokens, cuts, path.stat().st_size, digest)


@dataclass(frozen=True)
class Manifest:
    """What a release is: its files in order, and everything they follow from.

    JSON values with string keys: `mixture` (share, tokens, epochs by component), `strata` (what was
    available to train on and what is taken, by domain/language), `account` (where every token of
    the lake went), `lake_keys` (commits by stage and dump).
    """

    name: str
    sequence_length: int
    num_shards: int
    packing: str
    seed: int
    tokenizer_sha256: str
    vocab_size: int  # of the tokenizer, and
    model_vocab_size: int  # of a model: padded
    eos_id: int
    files: tuple[ShardEntry, ...]
    mixture: Mapping[str, Any] = field(default_factory=dict)
    strata: Mapping[str, Any] = field(default_factory=dict)
    account: Mapping[str, int] = field(default_factory=dict)
    lake_keys: Mapping[str, Any] = field(default_factory=dict)
    lake: str = ""  # where it was made from

    def of(self, split: str) -> tuple[ShardEntry, ...]:
        """Return the files of a split, in order."""
        return tuple(entry for entry in self.files if entry.split == split)

    @property
    def rows(self) -> int:
        """Rows to train on: the samples of the dataset."""
        return sum(entry.rows for entry in self.of(TRAIN))

    @property
    def tokens(self) -> int:
        """Tokens to train on, without padding."""
        return sum(entry.tokens for entry in self.of(TRAIN))

    @property
    def where_tokens_went(self) -> list[tuple[str, int]]:
        """The account in words, without what is nothing."""
        return [(what, self.account[k]) for k, what in ACCOUNT_WORDS.items() if self.account.get(k)]

    @property
    def padding(self) -> int:
        """Positions of the rows to train on that hold no token."""
        return self.rows * self.sequence_length - self.tokens

    @property
    def cuts(self) -> int:
        """How often a document to train on goes on in another row."""
        return sum(entry.cuts for entry in self.of(TRAIN))

    @property
    def fingerprint(self) -> str:
        """The sha256 of the manifest as canonical JSON: what names the dataset.

        lake and lake_keys are left out: they hold paths and times of one machine, and the same
        dataset has one name on all.
        """
        content = self.as_dict()
        del content["lake"], content["lake_keys"]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """Return the manifest as JSON values."""
        return {
            "format_version": MANIFEST_VERSION,
            "name": self.name,
            "sequence_length": self.sequence_length,
            "num_shards": self.num_shards,
            "packing": self.packing,
            "seed": self.seed,
            "tokenizer_sha256": self.tokenizer_sha256,
            "vocab_size": self.vocab_size,
            "model_vocab_size": self.model_vocab_size,
            "eos_id": self.eos_id,
            "files": [asdict(entry) for entry in self.files],
            "totals": {
                "rows": self.rows,
                "tokens": self.tokens,
                "padding": self.padding,
                "cuts": self.cuts,
                "bytes": sum(entry.bytes for entry in self.files),
            },
            "mixture": dict(self.mixture),
            "strata": dict(self.strata),
            "account": dict(self.account),
            "lake": self.lake,
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
    return parse_manifest(path.read_bytes(), str(path))


def parse_manifest(octets: bytes, where: str) -> Manifest:
    """Return the manifest that a file holds; `where` is its name for errors."""
    try:
        content = json.loads(octets)
        version = content["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ShardCorrupt(f"{where} is no manifest ({error!r}); release again") from None
    if version != MANIFEST_VERSION:
        raise LakeVersion(
            f"{where} has format version {version}, this program reads {MANIFEST_VERSION}; "
            "release again, or read it with the version that wrote it"
        )
    try:
        manifest = Manifest(
            **{key: content[key] for key in Manifest.__dataclass_fields__ if key != "files"},
            files=tuple(ShardEntry(**entry) for entry in content["files"]),
        )
        fingerprint = manifest.fingerprint
    except (KeyError, TypeError, ValueError) as error:
        raise ShardCorrupt(f"{where} is no manifest ({error!r}); release again") from None
    if fingerprint != content.get("fingerprint"):
        raise ShardCorrupt(
            f"{where} says its fingerprint is {content.get('fingerprint')}, but its content has "
            f"{fingerprint}; it was edited: restore it or release again"
        )
    return manifest


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file as hex. Cost: one read, about 1.5 GB/s."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

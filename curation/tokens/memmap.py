"""Rows of a release as a plain array of ids and an index: the IndexedDataset of Megatron-LM.

    <prefix>.bin    the ids of all rows, one after the other, without padding, little-endian
    <prefix>.idx    MAGIC, version 1 (uint64), code of the type of an id (uint8), number of
                    sequences and of document bounds (uint64 each), then of the sequences the
                    lengths (int32) and byte offsets (int64), and the document bounds (int64)

(NVIDIA/Megatron-LM, megatron/core/datasets/indexed_dataset.py.) A row is a sequence and a document:
sequence i is row i.
"""

import struct
from pathlib import Path
from uuid import uuid4

import numpy as np

from curation.errors import ConfigError
from curation.tokens.reader import Shards

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
# Megatron-LM stores a vocabulary below this in 16 bits (DType.optimal_dtype).
SMALL_VOCABULARY = 65_500
TYPE_CODES = {np.dtype("<u2"): 8, np.dtype("<i4"): 4}


def export_memmap(dataset: Shards, prefix: Path) -> tuple[Path, Path]:
    """Write `prefix`.bin and `prefix`.idx; return their paths.

    Both appear whole, the index last. Raises ConfigError where one of them exists. Cost: one read
    of the release, and its tokens times 4 bytes (2 for a small vocabulary) on disk.
    """
    target, index = (prefix.with_name(prefix.name + end) for end in (".bin", ".idx"))
    for path in (target, index):
        if path.exists():
            raise ConfigError(f"{path} exists already; name another prefix, or remove it")
    is_small = dataset.manifest.model_vocab_size < SMALL_VOCABULARY
    dtype = np.dtype("<u2" if is_small else "<i4")
    prefix.parent.mkdir(parents=True, exist_ok=True)
    lengths = np.zeros(len(dataset), np.int32)
    unfinished = [path.with_name(f".{path.name}.{uuid4().hex}.tmp") for path in (target, index)]
    try:
        with unfinished[0].open("wb") as file:
            for i, row in enumerate(dataset.iterate()):
                lengths[i] = row["num_tokens"]
                file.write(row["input_ids"][: row["num_tokens"]].astype(dtype).tobytes())
        ends = np.cumsum(lengths, dtype=np.int64) * dtype.itemsize
        with unfinished[1].open("wb") as file:
            file.write(MAGIC + struct.pack("<QB", VERSION, TYPE_CODES[dtype]))
            file.write(struct.pack("<QQ", len(lengths), len(lengths) + 1))
            file.write(lengths.astype("<i4").tobytes())
            file.write((ends - lengths * dtype.itemsize).astype("<i8").tobytes())
            file.write(np.arange(len(lengths) + 1, dtype="<i8").tobytes())
        for source, path in zip(unfinished, (target, index), strict=True):
            source.replace(path)
    finally:
        for path in unfinished:
            path.unlink(missing_ok=True)
    return target, index

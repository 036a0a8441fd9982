"""A small release: rows of 32 tokens, two files, a validation split."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation.tokens.packing import DOCUMENTS_SCHEMA
from curation.tokens.shards import Manifest, sha256_of, write_manifest, write_shard

TOKENIZER = Path(__file__).parents[2] / "jobs" / "conf" / "demo-tokenizer.json"
VOCABULARY, LENGTH, EOS = 4096, 32, 1


def documents(seed: int, num: int) -> pa.RecordBatch:
    """Runs of consecutive numbers, which a model can learn: 300, 301, 302, ..."""
    rng = np.random.default_rng(seed)
    ids = [
        (np.arange(rng.integers(3, 90)) + rng.integers(15, 400)).astype(np.int32)
        for _ in range(num)
    ]
    columns = [
        pa.array(range(num), pa.int64()),
        pa.array([0] * num, pa.int32()),
        pa.array(ids, pa.list_(pa.int32())),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=DOCUMENTS_SCHEMA)


def write_release(folder: Path, seed: int = 0) -> Path:
    """Write a release of some 190 rows to train on, in row groups of 16."""
    folder.mkdir(parents=True)
    how = {"sequence_length": LENGTH, "eos_id": EOS}
    files = [
        write_shard(folder / f"train-{i:05d}.parquet", [documents(seed + i, 65)], **how)
        for i in range(2)
    ]
    held = folder / "validation.parquet"
    files.append(write_shard(held, [documents(99, 20)], split="validation", **how))
    shutil.copy(TOKENIZER, folder / "tokenizer.json")
    manifest = Manifest(
        *("small", LENGTH, 2, "concat", 0, sha256_of(TOKENIZER), VOCABULARY, VOCABULARY, EOS),
        files=tuple(files),
    )
    write_manifest(folder, manifest)
    return folder


def write_rows(path: Path, rows: list[dict]) -> str:
    """Write rows as JSON lines; return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)

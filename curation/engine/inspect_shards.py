"""What is in a release: rows decoded, and where each piece of them came from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation.engine.lake import Lake
from curation.engine.ledger import documents_of
from curation.errors import LakeMissing
from curation.identity import origin
from curation.tokens import tokenizer as tokenizers
from curation.tokens.reader import Shards
from curation.tokens.shards import TOKENIZER_NAME

EXCERPT_CHARS = 240


@dataclass(frozen=True)
class Piece:
    """A run of tokens of one document in a row."""

    doc_id: int
    start: int  # in the row
    num_tokens: int
    offset: int  # of its first token in the document
    dump: str
    url: str  # empty without a lake
    archive: str
    record: int
    text: str


@dataclass(frozen=True)
class Sample:
    """A row of a split."""

    row: int
    num_tokens: int
    pieces: Sequence[Piece]


def inspect_rows(
    dataset: Shards, folder: Path, num_rows: int, seed: int = 0, lake: Path | None = None
) -> Iterator[Sample]:
    """Yield rows drawn by `seed`, ascending, decoded by the tokenizer of the release.

    URLs and archives come from `lake`, by default the one that the release was made from, where it
    still is. Raises ArtifactChanged for another tokenizer than the manifest has, ShardCorrupt for a
    damaged file, LakeMissing for a `lake` that is none.
    """
    manifest = dataset.manifest
    tokenizer = tokenizers.load(folder / TOKENIZER_NAME, manifest.tokenizer_sha256)
    opened = _lake(lake, manifest.lake)
    chosen = np.random.Generator(np.random.PCG64(seed)).permutation(len(dataset))[:num_rows]
    for number in sorted(chosen.tolist()):
        row = dataset.row(number)
        starts = [*row["doc_starts"].tolist(), row["num_tokens"]]
        ids = [row["input_ids"][a:b].tolist() for a, b in pairwise(starts)]
        texts = tokenizers.decode(pa.array(ids, pa.list_(pa.int32())), tokenizer).to_pylist()
        doc_ids = row["doc_ids"].tolist()
        known = _documents(opened, set(doc_ids))
        pieces = []
        for k, doc_id in enumerate(doc_ids):
            found = known.get(doc_id, {})
            where = origin(doc_id)
            pieces.append(
                Piece(
                    doc_id,
                    starts[k],
                    starts[k + 1] - starts[k],
                    int(row["doc_offset"][k]),
                    str(found.get("dump", f"dump {where.dump}")),
                    str(found.get("url", "")),
                    str(found.get("archive", f"file {where.file}")),
                    where.record,
                    texts[k],
                )
            )
        yield Sample(number, row["num_tokens"], pieces)


def _lake(given: Path | None, known: str) -> Lake | None:
    if given is not None:
        return Lake(given)
    try:
        return Lake(known) if known else None
    except LakeMissing:
        return None


def _documents(lake: Lake | None, ids: set[int]) -> dict[int, dict[str, object]]:
    if lake is None:
        return {}
    found = documents_of(lake, ids, ["url", "archive"])
    return {id: {**row, "dump": lake.dump_at(origin(id).dump)} for id, row in found.items()}

"""Train the tokenizer: an artifact with a command of its own; a pipeline run never retrains it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from curation.config import Config
from curation.engine.lake import Lake
from curation.engine.run import parts_of
from curation.engine.stages import plan
from curation.engine.tasks import edited_documents
from curation.errors import NotCommitted
from curation.tokens import tokenizer


def train(config: Config, dumps: Sequence[str], to: Path, vocabulary: int) -> dict[str, Any]:
    """Train a byte-level BPE on the kept text of the dumps (all when none is named).

    Writes tokenizer.json and returns its card. Raises NotCommitted when a dump is not filtered.
    """
    lake = Lake(config.lake)
    units = plan(config, lake, dumps, first="decontaminate", last="decontaminate")
    for unit in units:
        if not unit.committed:
            raise NotCommitted(
                f"training needs {unit.name}, which has not run under this configuration; "
                f"run first: curation run CONFIG --dump {unit.dump} --to decontaminate"
            )
    texts = _texts(lake, [(unit.dump, unit.slice) for unit in units], config.engine.batch_rows)
    return tokenizer.train(texts, vocabulary, to)


def _texts(lake: Lake, slices: Sequence[tuple[str, str]], batch_rows: int) -> Iterator[list[str]]:
    for dump, slice in slices:
        inputs = [f"ingest/{dump}/{slice}", f"lines/{dump}/all"]
        inputs += [f"{stage}/{dump}/{slice}" for stage in ("annotate", "filter", "decontaminate")]
        for part in parts_of(lake, inputs, "documents", slice):
            for rows in edited_documents(part, str(lake.path), batch_rows):
                yield rows["text"].to_pylist()

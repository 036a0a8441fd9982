"""Train the tokenizer: an artifact with a command of its own; a pipeline run never retrains it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curation.config import Config
from curation.engine.lake import Lake
from curation.engine.stages import plan
from curation.engine.training_texts import kept_texts
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
    slices = [(unit.dump, unit.slice) for unit in units]
    rows = kept_texts(lake, slices, config.engine.batch_rows)
    return tokenizer.train((each["text"].to_pylist() for each in rows), vocabulary, to)

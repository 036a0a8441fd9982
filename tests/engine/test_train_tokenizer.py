"""The tokenizer is trained from the lake by a command of its own."""

import hashlib
from pathlib import Path

import pytest

from curation.config import load
from curation.engine.lake import Lake
from curation.engine.run import Selection, run
from curation.engine.train_tokenizer import train
from curation.errors import NotCommitted

CONF = Path(__file__).parents[2] / "jobs" / "conf"


@pytest.mark.spark
def test_training_again_gives_the_pinned_tokenizer(spark, tmp_path: Path) -> None:
    """The recipe in the demo's configuration, to the byte."""
    config = load(CONF / "demo.toml", [f"lake={tmp_path / 'lake'}"])
    dumps = [dump.name for dump in config.dumps[:2]]
    run(config, Selection(tuple(dumps), last="decontaminate"))
    card = train(config, dumps, tmp_path / "tokenizer.json", vocabulary=4096)
    assert card["vocab_size"] == 4096
    assert card["sha256"] == config.encode.sha256
    shipped = (CONF / "demo-tokenizer.json").read_bytes()
    assert hashlib.sha256(shipped).hexdigest() == config.encode.sha256


def test_a_dump_that_is_not_filtered_is_named(configure, tmp_path: Path) -> None:
    config = configure(dumps=2)
    Lake.create(config.lake)
    said = r"decontaminate/DUMP-2021-bullseye/0000.*--to decontaminate"
    with pytest.raises(NotCommitted, match=said):
        train(config, [], tmp_path / "tokenizer.json", vocabulary=4096)

"""The tokenizer is trained from the lake by a command of its own."""

import hashlib
import json
from pathlib import Path

import pytest

from curation.config import load
from curation.engine.lake import Lake
from curation.engine.run import Selection, run
from curation.engine.train_tokenizer import Sample, named_paths, train
from curation.errors import ArtifactMissing, ConfigError, NotCommitted
from curation.tokens import tokenizer

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


@pytest.mark.spark
def test_a_sample_is_of_every_stratum_and_depends_on_nothing_but_the_documents(
    undisturbed, configure, tmp_path: Path
) -> None:
    """A tenth, alike for the small and the large; in lakes of other files the same."""
    config, lake, _ = undisturbed(4)
    kept = lake.table("kept").to_table(["domain", "num_bytes"]).to_pylist()
    total = sum(row["num_bytes"] for row in kept)
    wanted = total // 4
    card = train(config, [], tmp_path / "a.json", 400, sample=Sample(wanted, 1000.0))
    strata = card["sample"]["by_stratum"]
    assert set(strata) == {"chinese/zh", "web/en"}
    assert sum(each["available"] for each in strata.values()) == total
    largest = max(row["num_bytes"] for row in kept)
    for each in strata.values():
        half = min(wanted / 2, each["available"])
        assert half - 2 * largest < each["num_bytes"] <= half + 1
    # the sizes are those of `kept`, before benchmarks were cut out
    assert 0 <= sum(each["num_bytes"] for each in strata.values()) - card["num_bytes"] < 500

    other = configure("ingest.slice_files=1", "engine.group_bytes=1", "engine.batch_rows=3")
    run(other, Selection(last="decontaminate"))
    again = train(other, [], tmp_path / "b.json", 400, sample=Sample(wanted, 1000.0))
    assert again["sha256"] == card["sha256"]
    assert again["sample"] == card["sample"]


@pytest.mark.spark
def test_the_card_compares_on_texts_that_are_held_out(undisturbed, tmp_path: Path) -> None:
    config, lake, _ = undisturbed(4)
    same = str(tmp_path / "a.json")
    for seed in range(20):  # of some 90 documents, a 32nd may be none
        sample = Sample(seed=seed)
        if train(config, [], tmp_path / "a.json", 600, sample=sample)["bytes_per_token"]:
            break
    card = train(config, [], tmp_path / "b.json", 600, sample=sample, compare={"same": same})
    written = json.loads((tmp_path / "b.card.json").read_text())
    assert written == card
    assert card["others"] == {"same": card["sha256"]}
    assert card["model_vocab_size"] == 640
    held = sum(row["num_bytes"] for name, row in card["bytes_per_token"].items() if name != "all")
    tokens = lake.table("tokens").to_table(["input_ids"])["input_ids"].combine_chunks()
    texts = tokenizer.decode(tokens, tokenizer.load(config.encode.tokenizer)).to_pylist()
    assert 0 < held == card["bytes_per_token"]["all"]["num_bytes"]
    whole = sum(len(text.encode()) for text in texts)
    assert held + card["num_bytes"] == whole, "what is measured on is not trained on"
    for row in card["bytes_per_token"].values():
        assert row["this"] == row["same"] > 1


def test_what_a_sample_cannot_be(configure, tmp_path: Path) -> None:
    config = configure(dumps=1)
    for sample in (Sample(-1), Sample(0, 0.0), Sample(0, 1e9)):
        with pytest.raises(ConfigError, match="bytes are 0 or more"):
            train(config, [], tmp_path / "t.json", 4096, sample=sample)
    for given, said in ((["gpt2"], "'gpt2' is not NAME=PATH"), (["a=b", "a=c"], "name of its own")):
        with pytest.raises(ConfigError, match=said):
            named_paths(given)
    with pytest.raises(ArtifactMissing, match="nowhere"):
        train(config, [], tmp_path / "t.json", 4096, compare={"x": "/nowhere.json"})

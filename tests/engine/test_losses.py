"""The alarm: a run that would lose nearly all of a dump, a language or a host stops."""

import json
import random
from pathlib import Path

import pytest

from curation.config import Config, load
from curation.engine.lake import Lake
from curation.engine.run import Selection, run
from curation.errors import ConfigError, DuplicationAlarm

pytestmark = pytest.mark.spark

DEDUP = Selection(last="dedup")
VOCABULARY = (Path(__file__).parents[2] / "README.md").read_text().split()
TRUE_SPARK = "engine.single_task_documents=0"


def page(rng: random.Random, host: str, path: int, text: str | None = None) -> str:
    words = " ".join(rng.choice(VOCABULARY) for _ in range(60)) if text is None else text
    return json.dumps({"url": f"https://{host}/{path}", "text": words})


def configuration(folder: Path, inputs: dict[str, str], *overrides: str) -> Config:
    tables = [
        f'[[dumps]]\nname = "{dump}"\nformat = "jsonl"\ninputs = ["{file}"]\n'
        for dump, file in inputs.items()
    ]
    path = folder / "c.toml"
    path.write_text(
        'lake = "lake"\n' + "".join(tables) + "[ingest]\nmin_language_score = 0.0\nlanguages = []\n"
        "min_script_share = 0.0\n[dedup]\nalarm_documents = 10\n"
    )
    return load(path, overrides)


def write(folder: Path, name: str, rows: list[str]) -> None:
    (folder / name).write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize("overrides", [(), (TRUE_SPARK,)], ids=["one task", "spark"])
def test_one_dump_under_two_names(spark, tmp_path: Path, overrides: tuple[str, ...]) -> None:
    rng = random.Random(1)
    write(tmp_path, "a.jsonl", [page(rng, f"h{i % 3}.example", i) for i in range(30)])
    inputs = {"A": "a.jsonl", "B": "a.jsonl"}
    with pytest.raises(DuplicationAlarm) as raised:
        run(configuration(tmp_path, inputs, *overrides), DEDUP)
    message = str(raised.value)
    assert "dedup of dump B: dump would lose 30 of 30 documents (100.0%)" in message
    assert "language:en would lose" in message
    assert "the bound is 98.0%" in message and "dedup.allowed_losses" in message
    url = "https://h0.example/0"
    assert f"{url} (B) for {url} (A)" in message
    assert "host:" not in message, "a host may lose pages to its earlier captures"
    lake = Lake(tmp_path / "lake")
    assert [record.dump for record in lake.records("dedup")] == ["A"]
    assert lake.table("duplicates").count_rows() == 0

    named = [part.split(" would")[0] for part in message.split(": ", 1)[1].split("; ")[:-1]]
    allowed = f"dedup.allowed_losses={json.dumps(named)}"
    lake = run(configuration(tmp_path, inputs, *overrides, allowed), DEDUP)
    record = lake.records("dedup", "B")[0]
    assert record.rows["rejected"] == 30
    assert record.counts["alarms_allowed"]["dump"] == 30
    assert sum(record.counts["languages_removed"].values()) == 30


@pytest.mark.parametrize("overrides", [(), (TRUE_SPARK,)], ids=["one task", "spark"])
def test_a_host_that_one_template_page_wipes_out(
    spark, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    rng = random.Random(2)
    sentence = " ".join(rng.choice(VOCABULARY) for _ in range(60))
    rows = [page(rng, "whole.example", i) for i in range(60)]
    rows += [page(rng, "wiped.example", i, sentence) for i in range(60)]
    rows += [page(rng, "small.example", i, sentence) for i in range(9)]
    write(tmp_path, "a.jsonl", rows)
    with pytest.raises(DuplicationAlarm) as raised:
        run(configuration(tmp_path, {"A": "a.jsonl"}, *overrides), DEDUP)
    assert "host:wiped.example would lose 59 of 60 documents (98.3%)" in str(raised.value)
    for other in ("whole.example", "small.example", "dump would"):
        assert other not in str(raised.value)
    for setting in (
        'dedup.allowed_losses=["host:wiped.example"]',
        "dedup.alarm_share=0.99",
        "dedup.alarm_documents=61",
    ):
        config = configuration(tmp_path, {"A": "a.jsonl"}, setting, *overrides)
        lake = run(config, DEDUP)
        (record,) = lake.records("dedup")
        assert record.counts["hosts_removed"]["wiped.example"] == 59
        (lake.path / "_runs" / "dedup" / "A" / "all.json").unlink()


def test_a_loss_that_is_no_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"allowed_losses names 'zh'; write"):
        configuration(tmp_path, {"A": "a"}, 'dedup.allowed_losses=["zh"]')

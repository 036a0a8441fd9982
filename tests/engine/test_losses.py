"""The wipe-out alarm: what it counts, when it stops a run, and what it lets pass."""

import json
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation import cli
from curation.config import Config, DedupConfig, load
from curation.engine import losses
from curation.engine.lake import Lake
from curation.engine.losses import Loss, alarms, count_losses, is_allowed, losses_of, summed
from curation.engine.run import Selection, run
from curation.errors import ConfigError, DuplicationAlarm

DEDUP = Selection(last="dedup")
ONE_TASK, TRUE_SPARK = (f"engine.single_task_documents={n}" for n in (20_000, 0))
ENGLISH = "the of and to in is was for on that with as by at from his were are which this be had"
CHINESE = (
    "我们 他们 没有 可以 因为 所以 中国 学校 城市 时间 学生 老师 今天 明天 已经 开始 知道 觉得 "
    "喜欢 工作 生活 问题 国家 社会 文化 历史 音乐 电影 房子 朋友"
)

# ---- counting and deciding, without a JVM ------------------------------------------------------

names = st.sampled_from(["a.example", "b.example", "\u4e2d.example", None])
rows = st.lists(st.tuples(names, st.sampled_from(["en", "zh", None]), st.sampled_from("-AB")))


@given(rows, st.integers(0, 50), st.randoms(use_true_random=False))
def test_counts_equal_plain_python_for_any_split(
    rows: list[tuple[str | None, str | None, str]], at: int, rng: random.Random
) -> None:
    """A row is a host, a language, and the dump of its twin; - for a retained document."""
    ids = sorted(rng.sample(range(10**6), len(rows)))
    expected: dict[tuple[str, str], list[Any]] = {}
    for doc_id, (host, lang, twin) in zip(ids, rows, strict=True):
        for kind, name, counts in (("host", host, twin == "B"), ("language", lang, twin != "-")):
            if name is not None:
                found = expected.setdefault((kind, name), [0, 0, 0, None])
                found[0] += 1
                found[1] += twin != "-"
                found[2] += counts
                if counts and found[3] is None:
                    found[3] = doc_id
    documents = pa.table(
        {
            "doc_id": pa.array(ids, pa.int64()),
            "host": pa.array([row[0] for row in rows], pa.string()),
            "lang": pa.array([row[1] for row in rows], pa.string()),
        }
    )
    removed = [(i, row[2]) for i, row in zip(ids, rows, strict=True) if row[2] != "-"]
    removed.append((10**7, "B"))  # of another file
    duplicates = pa.table(
        {
            "doc_id": pa.array([i for i, _ in removed], pa.int64()),
            "twin_dump": pa.array([dump for _, dump in removed], pa.string()),
        }
    )
    parts = [documents.slice(0, at), documents.slice(at)]
    for counts in (
        count_losses(documents, duplicates, "B"),
        summed([count_losses(part, duplicates, "B") for part in parts]),
    ):
        found = {tuple(row.values())[:2]: list(row.values())[2:] for row in counts.to_pylist()}
        assert found == expected


@pytest.mark.parametrize(
    ("name", "documents", "counted", "raises"),
    [
        ("dump", 5_000_000, 4_900_000, False),  # exactly the share
        ("dump", 5_000_000, 4_900_001, True),
        ("language:zh", 99, 99, False),  # too few to judge
        ("language:zh", 100, 99, True),
        ("host:a.example", 4_999, 4_999, False),  # less than a thousandth of the dump
        ("host:a.example", 5_000, 5_000, True),
    ],
)
def test_bounds_of_the_alarm(name: str, documents: int, counted: int, raises: bool) -> None:
    dump = Loss("A", "dump", 5_000_000, 0, 0)
    loss = Loss("A", name, documents, counted, counted)
    found = alarms([loss] if name == "dump" else [dump, loss], DedupConfig())
    assert found == ([loss] if raises else [])


@pytest.mark.parametrize(
    ("allowed", "passing"),
    [
        (["dump"], {"dump", "language:zh"}),
        (["A/dump"], {"dump", "language:zh"}),
        (["B/dump"], set()),
        (["language:zh"], {"language:zh"}),
        (["language:en"], set()),
        (["host:a.example"], {"host:a.example"}),
        (["A/host:a.example", "B/language:zh"], {"host:a.example"}),
    ],
    ids=lambda value: str(sorted(value)),
)
def test_what_is_allowed(allowed: list[str], passing: set[str]) -> None:
    settings = DedupConfig(allowed_losses=tuple(allowed))
    found = [Loss("A", n, 100, 100, 100) for n in ("dump", "language:zh", "host:a.example")]
    assert {loss.name for loss in found if is_allowed(loss, found, settings)} == passing


def test_a_dump_allows_its_languages_only_where_it_is_lost_itself() -> None:
    settings = DedupConfig(allowed_losses=("dump",))
    loss = Loss("A", "language:zh", 100, 100, 100)
    assert not is_allowed(loss, [loss], settings)


@pytest.mark.parametrize("loss", ["zh", "dump:A", "language:", "A/", "Z/dump", "host"])
def test_a_name_of_no_loss_is_refused(tmp_path: Path, loss: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        'lake = "lake"\n[[dumps]]\nname = "A"\ninputs = []\n'
        f'[dedup]\nallowed_losses = ["dump", "A/host:a.example", "{loss}"]\n'
    )
    with pytest.raises(ConfigError, match=rf"dedup\.allowed_losses .*'({loss}|Z)'"):
        load(path)


# ---- in a lake ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def signed(spark, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the configuration of a fingerprinted lake of three dumps, the last two the same.

    A has 60 articles, a forum that shows half of its pages twice, and a shop of 40 pages of one
    template; B and C have 45 of the articles again
    and 20 new ones of the same hosts.
    """
    rng = random.Random(7)
    folder = tmp_path_factory.mktemp("losses")
    articles = [
        (f"http://{lang}{i % 5}.example/{i}", text(rng, lang))
        for i in range(40)
        for lang in ("en", "zh")
    ]
    template = text(rng, "en")
    shop = [(f"http://shop.example/{i}", f"{template} {i}") for i in range(40)]
    posts = [text(rng, "en") for _ in range(45)]
    forum = [(f"http://forum.example/{i}", post) for i, post in enumerate(2 * posts)]
    write(folder / "A-0.jsonl", articles[:60] + forum + shop[:10])
    write(folder / "A-1.jsonl", shop[10:])
    for dump in "BC":
        write(folder / f"{dump}-0.jsonl", articles[15:])
    tables = [
        f'[[dumps]]\nname = "{dump}"\nformat = "jsonl"\ninputs = ["{dump}-*.jsonl"]\n'
        for dump in "ABC"
    ]
    (folder / "c.toml").write_text(
        'lake = "lake"\nreport = "report.html"\n'
        + "".join(tables)
        + "[ingest]\nmin_language_score = 0.0\nmin_script_share = 0.0\n"
        + "[dedup]\nalarm_share = 0.9\nalarm_documents = 5\nscope = 'window'\nwindow = 3\n"
        + "[engine]\ngroup_bytes = 1\n"  # a task, and so a file of documents, for each input
    )
    run(load(folder / "c.toml"), Selection(last="fingerprint"))
    return folder / "c.toml"


def text(rng: random.Random, lang: str) -> str:
    if lang == "zh":
        return "".join(rng.choice(CHINESE.split()) for _ in range(100))
    return " ".join(rng.choice(ENGLISH.split()) for _ in range(120))


def write(path: Path, pages: list[tuple[str, str]]) -> None:
    lines = [json.dumps({"url": url, "text": text}) for url, text in pages]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def configure(signed: Path, tmp_path: Path) -> Callable[..., Config]:
    """Make a configuration of a copy of the fingerprinted lake."""
    shutil.copytree(signed.parent / "lake", tmp_path / "lake")
    return lambda *overrides: load(signed, [f'lake="{tmp_path / "lake"}"', *overrides])


@pytest.mark.spark
@pytest.mark.parametrize("form", [ONE_TASK, TRUE_SPARK], ids=["one task", "spark"])
def test_a_site_and_a_dump_that_vanish_stop_the_run_until_they_are_allowed(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(losses, "NUM_HOSTS", 1)

    def stopped(*overrides: str) -> str:
        with pytest.raises(DuplicationAlarm) as caught:
            run(configure(form, *overrides), DEDUP)
        return str(caught.value)

    # 1. A site whose pages are one: 39 of 40.
    said = stopped()
    lake = Lake(configure().lake)
    assert lake.records("dedup") == []
    assert said.startswith(
        "dedup of dump A: host:shop.example would lose 39 of 40 documents (97.50%) to pages of the "
        "same dump; the bound is dedup.alarm_share = 0.9. For example http://shop.example/1 as "
    )
    assert " duplicate of http://shop.example/0 in A (similarity " in said
    assert 'dedup.allowed_losses = ["A/host:shop.example"] or raise' in said

    # 2. The dump under another name. Its hosts are not named: they lose to earlier captures.
    allowed = '"A/host:shop.example"'
    said = stopped(f"dedup.allowed_losses=[{allowed}]")
    assert [record.dump for record in lake.records("dedup")] == ["A", "B"]
    assert said.startswith(
        "dedup of dump C: dump would lose 65 of 65 documents (100.00%); language:en would lose 32 "
        "of 32 documents (100.00%); language:zh would lose 33 of 33 documents (100.00%); the bound"
    )
    assert 'dedup.allowed_losses = ["C/dump"] or raise' in said
    assert "host:" not in said

    # 3. Allowed, the same run goes on.
    run(configure(form, f'dedup.allowed_losses=[{allowed}, "C/dump"]'), DEDUP)
    counts = {record.dump: record.counts for record in lake.records("dedup")}
    assert {dump: dict(found["loss_allowed"]) for dump, found in counts.items()} == {
        "A": {"host:shop.example": 39},
        "B": {},
        "C": {"dump": 65, "language:en": 32, "language:zh": 33},
    }
    assert {"host:forum.example", "host:shop.example"} < counts["A"]["loss_documents"].keys()
    for record in lake.records("dedup"):
        assert sorted(losses_of(record), key=lambda loss: loss.name) == counted(lake, record.dump)


def counted(lake: Lake, dump: str) -> list[Loss]:
    """Count by hand what a run record says: of hosts the one that lost most, and alarms."""
    twins = {
        row["doc_id"]: row["twin_dump"]
        for row in lake.table("duplicates", dump=dump).to_table().to_pylist()
    }
    documents, removed, own = Counter[str](), Counter[str](), Counter[str]()
    for row in lake.table("documents", dump=dump).to_table(["doc_id", "host", "lang"]).to_pylist():
        for name in ("dump", f"language:{row['lang']}", f"host:{row['host']}"):
            documents[name] += 1
            removed[name] += row["doc_id"] in twins
            is_own = twins.get(row["doc_id"]) == dump
            own[name] += is_own if name.startswith("host:") else row["doc_id"] in twins
    hosts = sorted((n for n in documents if n.startswith("host:")), key=lambda n: (-removed[n], n))
    left_out = {n for n in hosts[1:] if documents[n] < 5 or own[n] <= 0.9 * documents[n]}
    named = sorted(documents.keys() - left_out)
    return [Loss(dump, n, documents[n], removed[n], own[n]) for n in named]


@pytest.mark.spark
def test_a_small_dump_raises_no_alarm_and_the_settings_are_in_no_key(
    configure: Callable[..., Config],
) -> None:
    lake = run(configure("dedup.alarm_documents=81"), DEDUP)
    records = lake.records("dedup")
    assert [dict(record.counts["loss_allowed"]) for record in records] == [{}, {}, {}]
    run(configure(), DEDUP)  # what is committed stays
    assert lake.records("dedup") == records


@pytest.mark.spark
def test_the_command_line_says_it_without_a_trace(
    configure: Callable[..., Config],
    signed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["run", str(signed), "--to", "dedup", "--lake", configure().lake]
    arguments += ["--progress", "live"]
    monkeypatch.setattr(sys, "argv", ["curation", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: dedup of dump A: host:shop.example would lose 39 of 40 ")
    assert said.count("\n") == 1

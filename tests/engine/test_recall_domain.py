"""The recall loop over the kept pages of a lake."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from curation.config import load
from curation.engine.recall_domain import recall_domain
from curation.engine.run import Selection, run
from curation.errors import ConfigError, InputMissing
from curation.quality.tools import find_tool
from curation.remix.recall import Recall, recall

pytestmark = pytest.mark.spark

WORDS = {
    "maths": [
        *("theorem", "ring", "ideal", "proof", "polynomial"),
        *("integral", "group", "field", "lemma", "matrix"),
    ],
    "prose": [
        *("river", "garden", "morning", "friend", "letter"),
        *("window", "winter", "bread", "summer", "street"),
    ],
    "code": [
        *("compile", "function", "pointer", "struct", "loop"),
        *("variable", "return", "buffer", "thread", "kernel"),
    ],
}
HOSTS = {  # topic of a host, and of every how many pages another's
    "algebra.example": ("maths", 10),
    "geometry.example": ("maths", 10),
    "novels.example": ("prose", 50),
    "programs.example": ("code", 50),
}
PAGES = 60


@pytest.fixture(scope="module")
def lake(spark, tmp_path_factory):
    """Four hosts of 60 pages, each on its topic but for a few."""
    try:
        find_tool("fasttext")
    except Exception:
        pytest.skip("needs fastText's program: make fasttext-tool")
    folder = tmp_path_factory.mktemp("recall")
    rows = []
    for number, (host, (topic, every)) in enumerate(HOSTS.items()):
        for page in range(PAGES):
            rng = np.random.default_rng(1000 * number + page)
            own = topic if page % every else "prose" if topic != "prose" else "code"
            half = WORDS[own][: 6 + number % 2 * 4]
            words = rng.choice([*half, "the", "of", "and", "a"], 80)
            text = " ".join(words) + f" page{chr(97 + page % 26)}{number} of it."
            rows.append({"url": f"https://{host}/{page}", "text": text, "topic": own})
    (folder / "pages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "c.toml").write_text(
        'lake = "lake"\n[[dumps]]\nname = "D"\ninputs = ["pages.jsonl"]\nformat = "jsonl"\n'
        "[ingest]\nlanguages = []\nmin_language_score = 0.0\n[dedup]\nthreshold = 1.0\n"
        "[filter]\nprofiles = []\ncut_lines = false\n[privacy]\nreplace = []\n"
    )
    config = load(folder / "c.toml")
    found = run(config, Selection(last="decontaminate"))
    seeds = [row for row in rows if "algebra" in row["url"] and row["topic"] == "maths"][:25]
    (folder / "seed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in seeds))
    return folder, found, {row["url"]: row["topic"] for row in rows}


def test_from_pages_of_one_host_to_those_of_the_other(lake, tmp_path: Path) -> None:
    folder, found, topics = lake
    rounds = recall_domain(
        [
            *("--seed", str(folder / "seed.jsonl"), "--lake", str(found.path)),
            *("--label", "maths", "--to", str(tmp_path / "maths"), "--min-count", "1"),
            *("--candidate-share", "0.3", "--min-host-pages", "5"),
        ]
    )
    joined = {host for each in rounds for host in each.joined}
    assert joined == {"algebra.example", "geometry.example"}
    collected = pq.read_table(tmp_path / "maths" / "collected").to_pylist()
    documents = found.table("documents").to_table(["doc_id", "url"]).to_pylist()
    url_of = {row["doc_id"]: row["url"] for row in documents}
    right = [topics[url_of[row["doc_id"]]] == "maths" for row in collected]
    wanted = sum(topic == "maths" for topic in topics.values())
    assert sum(right) >= 0.9 * wanted
    assert sum(right) >= 0.9 * len(right)
    hosts = (tmp_path / "maths" / "hosts.txt").read_text().splitlines()
    assert [line.split()[0] for line in hosts] == ["algebra.example", "geometry.example"]
    report = (tmp_path / "maths" / "report.md").read_text()
    assert "| algebra.example |" in report
    assert f"| {len(rounds)} |" in report
    said = json.loads((tmp_path / "maths" / "rounds.json").read_text())
    assert [each["num_collected"] for each in said["rounds"]] == [r.num_collected for r in rounds]
    assert not (tmp_path / "maths" / "scores").exists()


def test_its_classifier_and_its_hosts_name_a_domain(lake, tmp_path: Path) -> None:
    folder, found, _ = lake
    recall_domain(
        [
            *("--seed", str(folder / "seed.jsonl"), "--lake", str(found.path), "--rounds", "1"),
            *("--label", "maths", "--to", str(tmp_path / "maths"), "--min-count", "1"),
            *("--candidate-share", "0.3", "--min-host-pages", "5"),
        ]
    )
    text = (folder / "c.toml").read_text().replace("pages.jsonl", str(folder / "pages.jsonl"))
    (tmp_path / "c.toml").write_text(
        f'{text}[[annotate.models]]\ncard = "maths/maths.json"\n'
        '[[domains]]\nname = "by host"\nhost_file = "hosts.txt"\nmin_score = 0.9\n'
        'label = "maths"\n[[domains]]\nname = "other maths"\nlabel = "maths"\n'
    )
    (tmp_path / "hosts.txt").write_text("algebra.example\n")
    again = run(load(tmp_path / "c.toml"), Selection(last="filter"))
    kept = again.table("kept").to_table(["doc_id", "domain"]).to_pylist()
    documents = again.table("documents").to_table(["doc_id", "host"]).to_pylist()
    host_of = {row["doc_id"]: row["host"] for row in documents}
    by_domain: dict[str, set[str]] = {}
    for row in kept:
        by_domain.setdefault(row["domain"], set()).add(host_of[row["doc_id"]])
    assert by_domain["by host"] == {"algebra.example"}
    assert "geometry.example" in by_domain["other maths"]
    assert by_domain["web"] >= {"novels.example", "programs.example"}


class Nothing:
    num_pages = 0

    def lines(self, hosts, joined, share):
        raise AssertionError

    def score(self, card, label, to):
        raise AssertionError


@pytest.mark.parametrize(
    ("seed", "label", "settings", "error", "message"),
    [
        ([["a theorem"]], "maths", Recall(), InputMissing, "no kept page to search"),
        ([["", " "]], "maths", Recall(), InputMissing, "the seed has no text"),
        ([["a"]], "other", Recall(), ConfigError, "'other' is that of all other pages"),
        ([["a"]], "maths", Recall(rounds=0), ConfigError, "rounds is 0; it must be between"),
        ([["a"]], "maths", Recall(host_share=2), ConfigError, "host_share is 2"),
    ],
)
def test_mistakes(seed, label, settings, error, message, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        recall(seed, Nothing(), label, tmp_path / "x", settings=settings)

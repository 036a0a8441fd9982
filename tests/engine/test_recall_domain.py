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

SYLLABLES = {
    "maths": "ring poly matrix gebra integ theor lemma ideal",
    "prose": "river winter garden morn letter summer bread street",
    "code": "compil struct buffer thread kernel point vari loop",
}
HOSTS = {  # topic of a host, and of every how many pages another's
    "algebra.example": ("maths", 10),
    "geometry.example": ("maths", 10),
    "novels.example": ("prose", 50),
    "programs.example": ("code", 50),
}
PAGES = 60


def words_of(topic: str, which: int) -> list[str]:
    """Words of two syllables of the topic: two sites of it share half of theirs."""
    parts = SYLLABLES[topic].split()
    return [a + b for i, a in enumerate(parts) for j, b in enumerate(parts) if (i + j) % 3 != which]


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
            words = rng.choice([*words_of(own, number % 2), "the", "of", "and", "a"], 60)
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


@pytest.fixture(scope="module")
def looped(lake):
    """The rounds of the loop, and the folder that it wrote."""
    folder, found, _ = lake
    rounds = recall_domain(
        [
            *("--seed", str(folder / "seed.jsonl"), "--lake", str(found.path)),
            *("--label", "maths", "--to", str(folder / "maths"), "--min-count", "1"),
            *("--candidate-share", "0.1", "--min-host-pages", "15"),
        ]
    )
    return rounds, folder / "maths"


def test_from_pages_of_one_host_to_those_of_the_other(lake, looped) -> None:
    _, found, topics = lake
    rounds, to = looped
    joined = {host for each in rounds for host in each.joined}
    assert joined == {"algebra.example", "geometry.example"}
    collected = pq.read_table(to / "collected").to_pylist()
    documents = found.table("documents").to_table(["doc_id", "url"]).to_pylist()
    url_of = {row["doc_id"]: row["url"] for row in documents}
    right = [topics[url_of[row["doc_id"]]] == "maths" for row in collected]
    wanted = sum(topic == "maths" for topic in topics.values())
    assert sum(right) >= 0.9 * wanted
    assert sum(right) >= 0.9 * len(right)
    hosts = (to / "hosts.txt").read_text().splitlines()
    assert [line.split()[0] for line in hosts] == ["algebra.example", "geometry.example"]
    report = (to / "report.md").read_text()
    assert "| algebra.example |" in report
    assert f"| {len(rounds)} |" in report
    said = json.loads((to / "rounds.json").read_text())
    assert [each["num_collected"] for each in said["rounds"]] == [r.num_collected for r in rounds]
    assert not (to / "scores").exists()


def test_its_classifier_and_its_hosts_name_a_domain(lake, looped, tmp_path: Path) -> None:
    folder, _, _ = lake
    _, to = looped
    text = (folder / "c.toml").read_text().replace("pages.jsonl", str(folder / "pages.jsonl"))
    (tmp_path / "c.toml").write_text(
        f'{text}[[annotate.models]]\ncard = "{to / "maths.json"}"\n'
        '[[domains]]\nname = "by host"\nhost_file = "hosts.txt"\nmin_score = 0.3\n'
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

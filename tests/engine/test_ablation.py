"""The arms of an ablation, on two dumps of ten sites where it is known who copies whom."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from curation.config import load
from curation.engine.ablation import ARMS, HELD_OUT, make_arms
from curation.engine.run import run
from curation.errors import ConfigError, LakeCorrupt, NotCommitted
from curation.remix.split import held_out
from curation.tokens import tokenizer as tokenizers
from curation.tokens.reader import open_shards
from curation.tokens.shards import TRAIN, VALIDATION, read_manifest

pytestmark = pytest.mark.spark

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "jobs" / "conf" / "demo-tokenizer.json"
NUM_HOSTS, NUM_PAGES, LENGTH = 10, 12, 32
SHARE, SEED = 0.3, 4  # which hold out h3, h5 and h8
NUM_TOKENS = 64 * LENGTH


def text_of(host: int, page: int, num_words: int = 60) -> str:
    rng = np.random.default_rng(1000 * host + page)
    return " ".join("".join(rng.choice(list("abcdefgh"), 5)) for _ in range(num_words))


def rows_of(dump: int) -> list[dict[str, str]]:
    """Pages of all hosts; the second dump has most of the first's again, and some of its own.

    Every sixth page is short, so the filter rejects it. Every third page holds an address. Page 3
    of the hosts after h3, which is held out, is a near copy of h3's.
    """
    rows = []
    for host in range(NUM_HOSTS):
        for page in range(dump * 3, dump * 3 + NUM_PAGES):
            text = text_of(host, page, 40 if page % 6 == 1 else 60)
            if page == 3 and host > 3:
                text = f"{text_of(3, 3)} host{'abcdefghij'[host]}"
            if page % 3 == 2:
                text += " write to someone@mail.example today"
            rows.append({"url": f"https://h{host}.example/{page}", "text": text})
    return rows


@pytest.fixture(scope="module")
def config(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablation")
    for dump in range(2):
        lines = (json.dumps(row) + "\n" for row in rows_of(dump))
        (folder / f"d{dump}.jsonl").write_text("".join(lines))
    (folder / "rules.toml").write_text(
        '[rules.words]\nsignal = "num_words"\nmin = 50\nsource = "a test"\n'
    )
    path = folder / "c.toml"
    path.write_text(
        'lake = "lake"\nshards = "shards"\nreport = "report.html"\n'
        + "".join(
            f'[[dumps]]\nname = "D{d}"\ninputs = ["d{d}.jsonl"]\nformat = "jsonl"\n'
            for d in range(2)
        )
        + "[ingest]\nlanguages = []\nmin_language_score = 0.0\n"
        + '[filter]\nprofiles = ["rules.toml"]\ncut_lines = false\n'
        + '[[domains]]\nname = "rare"\nhosts = ["h1.example", "h4.example"]\n'
        + f'[encode]\ntokenizer = "{TOKENIZER}"\n'
        + "[release.main]\nshares = { rare = 0.5, web = 0.5 }\n"
        + f"sequence_length = {LENGTH}\nvalidation_share = {SHARE}\nseed = {SEED}\n"
    )
    made = load(path)
    run(made)
    return path, made


@pytest.fixture(scope="module")
def arms(config, tmp_path_factory):
    _, made = config
    return make_arms(made, "main", tmp_path_factory.mktemp("arms"), NUM_TOKENS, (0, 1))


@pytest.fixture(scope="module")
def facts(config):
    """Documents by id: text, host, twin and whether its host is held out; what is kept."""
    from curation.engine.lake import Lake

    lake = Lake(config[1].lake)
    documents = lake.table("documents").to_table(["doc_id", "host", "text"]).sort_by("doc_id")
    held = held_out(documents["host"].combine_chunks(), documents["doc_id"].to_numpy(), SHARE, SEED)
    found = {
        row["doc_id"]: row | {"is_held": bool(is_held), "twin": row["doc_id"]}
        for row, is_held in zip(documents.to_pylist(), held, strict=True)
    }
    for row in lake.table("duplicates").to_table(["doc_id", "twin_id"]).to_pylist():
        found[row["doc_id"]]["twin"] = row["twin_id"]
    kept = set(lake.table("kept").to_table(["doc_id"])["doc_id"].to_pylist())
    assert 0 < sum(held) < len(held)
    return found, kept


def documents_of(folder: Path, split: str = TRAIN) -> Counter:
    """How many tokens of which document a release has."""
    found: Counter = Counter()
    rows = open_shards(folder, split)
    for i in range(len(rows)):
        row = rows.row(i)
        bounds = [*row["doc_starts"].tolist(), int(row["num_tokens"])]
        for doc_id, (start, stop) in zip(row["doc_ids"].tolist(), pairwise(bounds), strict=True):
            found[doc_id] += stop - start
    return found


def test_every_arm_has_just_the_tokens_asked_for(arms) -> None:
    for arm in ARMS:
        for seed in arms.seeds:
            folder = arms.arm(arm, seed)
            assert read_manifest(folder).tokens == NUM_TOKENS
            assert sum(documents_of(folder).values()) == NUM_TOKENS


def test_an_arm_holds_what_its_name_says(arms, facts) -> None:
    documents, kept = facts
    for seed in arms.seeds:
        ids = {arm: set(documents_of(arms.arm(arm, seed))) for arm in ARMS}
        assert not any(documents[i]["is_held"] for each in ids.values() for i in each)
        duplicates = {i for i, row in documents.items() if row["twin"] != i}
        assert ids["raw"] & duplicates
        assert not ids["deduplicated"] & duplicates
        assert ids["deduplicated"] - kept  # the filter would reject them
        assert ids["filtered"] <= kept
        assert ids["remixed"] <= kept
    assert set(documents_of(arms.arm("raw", 0))) != set(documents_of(arms.arm("raw", 1)))


def test_duplicates_are_drawn_along_with_their_twin(arms, facts) -> None:
    """Of all documents drawn, the last alone may be cut, and its duplicates may be missing."""
    documents, _ = facts
    for seed in arms.seeds:
        drawn = set(documents_of(arms.arm("raw", seed)))
        incomplete = {
            row["twin"]
            for i, row in documents.items()
            if not row["is_held"]
            and row["twin"] in {documents[d]["twin"] for d in drawn}
            and i not in drawn
        }
        assert len(incomplete) <= 1


def test_tokens_are_of_the_text_as_it_is_in_that_arm(arms, facts) -> None:
    """An address is replaced in the filtered arm, not in the raw one."""
    documents, _ = facts
    loaded = tokenizers.load(TOKENIZER).model
    texts = {}
    for arm in ("raw", "filtered"):
        rows = open_shards(arms.arm(arm, 0))
        ids = np.concatenate([rows.row(i)["input_ids"] for i in range(len(rows))])
        texts[arm] = loaded.decode(ids.tolist(), skip_special_tokens=False)
    raw = documents_of(arms.arm("raw", 0))
    whole = [row["text"] for i, row in documents.items() if i in raw]
    assert sum(text in texts["raw"] for text in whole) >= len(whole) - 1
    assert "someone@mail.example" in texts["raw"]
    assert "someone@mail.example" not in texts["filtered"]


def test_the_mixture_is_that_of_the_release(arms, facts) -> None:
    documents, _ = facts
    found = documents_of(arms.arm("remixed", 0))
    rare = sum(n for i, n in found.items() if documents[i]["host"] in ("h1.example", "h4.example"))
    assert rare == NUM_TOKENS // 2


def test_what_is_held_out_is_of_other_hosts_and_unlike_all_of_them(arms, facts) -> None:
    documents, kept = facts
    unfiltered, filtered = (set(documents_of(arms.held_out(name), VALIDATION)) for name in HELD_OUT)
    held = {i for i, row in documents.items() if row["is_held"] and row["twin"] == i}
    near = {i for i in held if documents[i]["text"].startswith(text_of(3, 3))}
    assert len(near) == 1
    assert unfiltered == held - near
    assert filtered == unfiltered & kept
    assert filtered < unfiltered


def test_arms_that_are_there_are_taken_and_others_refused(config, arms, spark) -> None:
    _, made = config
    before = {path: path.stat().st_mtime_ns for path in arms.folder.rglob("*")}
    again = make_arms(made, "main", arms.folder.parent, NUM_TOKENS, (0, 1))
    assert {path: path.stat().st_mtime_ns for path in again.folder.rglob("*")} == before
    with pytest.raises(LakeCorrupt, match="other settings"):
        make_arms(made, "main", arms.folder.parent, NUM_TOKENS - LENGTH, (0, 1))


@pytest.mark.parametrize(
    ("num_tokens", "change", "error", "message"),
    [
        (NUM_TOKENS + 1, {}, ConfigError, f"take {NUM_TOKENS}"),
        (NUM_TOKENS, {"validation_share": 0.0}, ConfigError, "holds out no hosts"),
        (10**6 * LENGTH, {}, ConfigError, "arm raw has .* fewer than num_tokens"),
    ],
)
def test_what_cannot_be_is_refused(config, tmp_path, num_tokens, change, error, message) -> None:
    _, made = config
    release = replace(made.release["main"], **change)
    with pytest.raises(error, match=message):
        make_arms(replace(made, release={"main": release}), "main", tmp_path, num_tokens, (0,))
    assert not list(tmp_path.glob("arms/raw*"))


def test_a_lake_that_is_not_encoded_is_named(config, tmp_path) -> None:
    _, made = config
    with pytest.raises(NotCommitted, match="encode/D0/"):
        make_arms(replace(made, default_domain="all"), "main", tmp_path, NUM_TOKENS, (0,))


def test_the_job_trains_on_the_arms_and_prints_a_table(config, tmp_path) -> None:
    pytest.importorskip("torch", reason="needs torch: make test-train")
    path, _ = config
    command = [sys.executable, ROOT / "jobs" / "ablate.py", "--config", path, "--release", "main"]
    command += ["--to", tmp_path, "--num-tokens", str(NUM_TOKENS), "--num-seeds", "2"]
    command += ["--batch-size", "4", "--warmup-steps", "1", "--held-out-rows", "8"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.md").read_text() == done.stdout
    runs = json.loads((tmp_path / "runs.json").read_text())
    assert Counter(run["arm"] for run in runs) == dict.fromkeys(ARMS, 2)
    for name in HELD_OUT:
        mean = np.mean([run["bits_per_byte"][name] for run in runs if run["arm"] == "raw"])
        assert f"| raw | {mean:.4f} ±" in done.stdout


def test_the_job_says_what_is_wrong_in_a_line(tmp_path) -> None:
    pytest.importorskip("torch", reason="needs torch: make test-train")
    command = [sys.executable, ROOT / "jobs" / "ablate.py", "--config", tmp_path / "none.toml"]
    command += ["--release", "main", "--to", tmp_path / "a"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "none.toml" in done.stderr
    assert "Traceback" not in done.stderr

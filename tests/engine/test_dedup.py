"""Dedup on Spark against its specification: many corpora in one lake, on a real cluster too."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyspark
import pytest
from standalone_cluster import standalone, wait

from curation.config import Config, load
from curation.dedup.lsh import signature_matrix
from curation.dedup.minhash import MinHashSpec
from curation.dedup.oracle import Document, LeaderSpec, Verdict, oracle
from curation.engine.brute_force import measure
from curation.engine.lake import Lake
from curation.engine.run import Selection, run

pytestmark = pytest.mark.spark

ROOT = Path(__file__).parents[2]
NUM_CORPORA = 200
DUMPS = ("A", "B", "C")
FILES = 3
MINHASH = MinHashSpec(bands=6, rows=3, ngram=2)
SETTINGS = f"""
[ingest]
languages = []
min_language_score = 0.0
min_script_share = 0.0
min_chars = 1

[fingerprint]
bands = {MINHASH.bands}
rows = {MINHASH.rows}
ngram = {MINHASH.ngram}

[dedup]
threshold = 0.6
bucket_cap = 1
index_ranges = 4
max_rounds = 2
prefix_documents = 30

[engine]
single_task_documents = 0
"""


def corpus(rng: random.Random, name: str) -> list[str]:
    """Draw texts of one vocabulary: copies, near copies, chains, templates, hubs, short texts."""
    vocabulary = [f"{name}w{letters(i)}" for i in range(rng.choice([8, 40, 400]))]

    def fresh(n: int) -> list[str]:
        return [rng.choice(vocabulary) for _ in range(n)]

    def changed(words: list[str], n: int) -> list[str]:
        words = list(words)
        for _ in range(n):
            words[rng.randrange(len(words))] = rng.choice(vocabulary) + "x"
        return words

    texts, template = [fresh(rng.randint(1, 40)) for _ in range(3)], fresh(20)
    for _ in range(rng.randint(0, 20)):
        texts.append(
            rng.choice(
                [
                    lambda: fresh(rng.randint(1, 60)),
                    lambda: list(rng.choice(texts)),
                    lambda: changed(rng.choice(texts), rng.randint(1, 3)),
                    lambda: changed(texts[-1], 1),
                    lambda: template + fresh(rng.randint(6, 12)),
                    lambda: changed(texts[0], rng.randint(1, 2)),
                    lambda: fresh(rng.randint(1, 2)),
                ]
            )()
        )
    return [" ".join(words) for words in texts]


def letters(number: int) -> str:
    """Return a number as letters: a text without any has no language."""
    return "".join("abcdefghij"[int(digit)] for digit in str(number))


@pytest.fixture(scope="module")
def signed(spark, tmp_path_factory) -> Callable[[str], Path]:
    """Return a lake of all corpora, fingerprinted, for a way to verify: to be copied."""
    folder = tmp_path_factory.mktemp("corpora")
    rng = random.Random(4)
    lines: dict[tuple[str, int], list[str]] = {(d, f): [] for d in DUMPS for f in range(FILES)}
    for number in range(NUM_CORPORA):
        for i, text in enumerate(corpus(rng, letters(number))):
            place = (rng.choice(DUMPS), rng.randrange(FILES))
            lines[place].append(json.dumps({"url": f"http://c{number}.example/{i}", "text": text}))
    for (dump, file), rows in lines.items():
        (folder / f"{dump}-{file}.jsonl").write_text("\n".join(rows) + "\n")

    @cache
    def make(verify: str) -> Path:
        path = folder / f"{verify}.toml"
        tables = [
            f'[[dumps]]\nname = "{dump}"\nformat = "jsonl"\ninputs = ["{dump}-*.jsonl"]\n'
            for dump in DUMPS
        ]
        path.write_text('lake = "lake"\n' + "".join(tables) + SETTINGS)
        lake = f"{folder / verify}"
        config = load(path, [f'lake="{lake}"', f'dedup.verify="{verify}"'])
        run(config, Selection(last="fingerprint"))
        return path

    return make


def prepared(signed: Callable[[str], Path], to: Path, verify: str, *overrides: str) -> Config:
    """Copy the fingerprinted lake and return its configuration."""
    path = signed(verify)
    shutil.copytree(path.parent / verify, to)
    return load(path, [f'lake="{to}"', f'dedup.verify="{verify}"', *overrides])


@cache
def expected(lake: Path, verify: str, first_in_scope: Callable[[int], int]) -> dict[int, Any]:
    """Return what the specification says of a lake."""
    opened = Lake(lake)
    stored = opened.table("signatures").to_table().sort_by("doc_id")
    shingles = [frozenset[int]()] * stored.num_rows
    if verify == "exact":
        hashes = opened.table("shingles").to_table().sort_by("doc_id")["hashes"].to_pylist()
        shingles = [frozenset(np.frombuffer(row, "<u8").tolist()) for row in hashes]
    columns = (
        stored["doc_id"].to_pylist(),
        stored["content_hash"].to_pylist(),
        signature_matrix(stored["signature"], MINHASH),
        shingles,
    )
    documents = [Document(*row) for row in zip(*columns, strict=True)]
    spec = LeaderSpec(minhash=MINHASH, threshold=0.6, verify=verify, bucket_cap=1)
    return oracle(documents, spec, lambda dump: range(first_in_scope(dump), dump + 1))


def from_first(dump: int) -> int:
    return 0


def from_last(dump: int) -> int:
    return max(0, dump - 1)


def verdicts(lake: Lake) -> dict[int, Verdict | None]:
    found: dict[int, Verdict | None] = dict.fromkeys(
        lake.table("signatures").to_table(["doc_id"])["doc_id"].to_pylist()
    )
    rows = lake.table("duplicates").to_table().to_pylist()
    assert len({row["doc_id"] for row in rows}) == len(rows), "decided twice"
    for row in rows:
        found[row["doc_id"]] = Verdict(row["kind"], row["twin_id"], row["similarity"])
    return found


@pytest.mark.parametrize(
    ("verify", "partitions", "scope"),
    [
        ("signature", 1, "global"),
        ("signature", 2, "window"),
        pytest.param("signature", 7, "global", marks=pytest.mark.slow),
        ("exact", 2, "global"),
        pytest.param("exact", 7, "window", marks=pytest.mark.slow),
    ],
)
def test_many_corpora_in_one_lake_equal_the_oracle(
    signed, tmp_path: Path, verify: str, partitions: int, scope: str
) -> None:
    config = prepared(
        signed,
        tmp_path / "lake",
        verify,
        f"engine.num_partitions={partitions}",
        f"dedup.scope={scope}",
    )
    lake = run(config, Selection(last="dedup"))
    first = from_first if scope == "global" else from_last
    wanted = expected(signed(verify).parent / verify, verify, first)
    assert verdicts(lake) == wanted
    assert {v.kind for v in wanted.values() if v} == {"exact", "near"}
    counts = [record.counts["leader"] for record in lake.records("dedup")]
    assert all(c["rows_shuffled"] > 0 and c["bytes_shuffled"] > 0 for c in counts)
    assert all(sum(c[what] for c in counts) > 0 for what in ("rounds", "solves"))
    scanned = [c.get("index_bytes_scanned", 0) for c in counts]
    assert scanned[0] == 0 and min(scanned[1:]) > 0
    check_index(lake, wanted)
    by = {"exact": "shingles", "signature": "signature"}[verify]
    found = lake.table("duplicates").to_table(["kind", "verified_by"]).to_pylist()
    assert {(row["kind"], row["verified_by"]) for row in found} == {
        ("exact", "content_hash"),
        ("near", by),
    }


def check_index(lake: Lake, wanted: dict[int, Verdict | None]) -> None:
    """A retained document is in each of its buckets, or beyond a full one; no other is in any."""
    retained = {doc_id for doc_id, verdict in wanted.items() if verdict is None}
    index = lake.table("retained_index").to_table()
    assert set(index["doc_id"].to_pylist()) == retained
    full = lake.table("full_buckets").to_table().to_pylist()
    num_beyond = sum(row["num_beyond"] for row in full)
    num_keys = MINHASH.bands + 1  # its content is one
    assert index.num_rows + num_beyond == num_keys * len(retained)
    assert full, "no bucket was full"
    entered: dict[int, list[int]] = {row["band_key"]: [] for row in full}
    for key, doc_id in zip(
        *(index[name].to_pylist() for name in index.column_names[:2]), strict=True
    ):
        if key in entered:
            entered[key].append(doc_id)
    for row in full:
        dump = row["doc_ids"][0] >> 51
        own = sorted(d for d in entered[row["band_key"]] if d >> 51 == dump)
        assert row["doc_ids"] == own[:5] and row["num_entered"] == len(own) == 1


def test_a_cluster_that_loses_a_worker_gives_the_same(signed, tmp_path: Path) -> None:
    """Master and two workers of Spark's own, on loopback; one dies in the middle of a dump."""
    lake = tmp_path / "lake"
    prepared(signed, lake, "signature")
    path = signed("signature")
    home = {"SPARK_HOME": str(Path(pyspark.__file__).parent), "PYSPARK_PYTHON": sys.executable}
    with standalone(tmp_path, num_workers=2) as (master, workers):
        command = [
            Path(sys.executable).parent / "spark-submit",
            *("--master", master, "--conf", "spark.driver.host=127.0.0.1"),
            *("--conf", "spark.ui.enabled=false", "--conf", "spark.driver.bindAddress=127.0.0.1"),
            *("--conf", "spark.executor.memory=600m", "--driver-memory", "600m"),
            *(ROOT / "jobs" / "dedup.py", "--config", path),
            *("--set", f"lake={lake}", "--set", "engine.num_partitions=4"),
        ]
        job = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | home,
        )
        try:
            wait(
                lambda: job.poll() is not None or len(saved(lake)) >= 3, "the job to save its state"
            )
            assert job.poll() is None, job.communicate()[0]
            os.killpg(workers[0].pid, signal.SIGKILL)
            output, _ = job.communicate(timeout=400)
        finally:
            job.kill()
    assert job.returncode == 0, output
    assert "Lost executor" in output, "the worker died too late to matter"
    wanted = expected(signed("signature").parent / "signature", "signature", from_first)
    assert verdicts(Lake(lake)) == wanted
    check_index(Lake(lake), wanted)


def test_exact_verification_removes_nothing_wrongly(spark, configure) -> None:
    """Every removed page is at the threshold or above to its twin, by brute force; and all found.

    One with a twin of 0.8 shares no bucket in 7 % of cases, one of 0.9 in 1 of 2,000.
    """
    config = configure("dedup.verify=exact")
    found = measure(run(config, Selection(last="dedup")), config)
    assert found is not None and found.num_near > 20
    assert (found.precision, found.wrong, found.mean_absolute_error) == (1.0, (), 0.0)
    assert found.recall is not None and found.recall >= 0.95


def saved(lake: Path) -> list[Path]:
    """Return the parts of the state that an attempt has written so far."""
    return list(lake.glob("_work/*/*/_SUCCESS"))

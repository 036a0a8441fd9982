"""The worst cases: they end, with work in proportion to the documents, in flat memory."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
import pyspark
import pytest

from curation.dedup.lsh import band_keys, signature_matrix
from curation.dedup.minhash import MinHashSpec
from curation.dedup.oracle import Document, LeaderSpec, oracle
from curation.engine.lake import Lake

pytestmark = [pytest.mark.spark, pytest.mark.slow]

SPEC = LeaderSpec()
QUARTER, WHOLE = 250_000, 1_000_000


class Worked(NamedTuple):
    """What a run of `worst_case.py` says, and its lake."""

    facts: dict[str, Any]
    lake: Lake

    @property
    def leader(self) -> dict[str, int]:
        """Counts of the run record."""
        return self.facts["leader"]


def work(folder: Path, kind: str, num_documents: int) -> Worked:
    """Run in a session of its own, with a driver of 1 GB."""
    path = folder / f"{kind}-{num_documents}"
    script = Path(__file__).with_name("worst_case.py")
    command = [
        *(Path(sys.executable).with_name("spark-submit"), "--master", "local[2]"),
        *("--driver-memory", "1g", "--conf", "spark.ui.enabled=false"),
        *("--conf", "spark.driver.bindAddress=127.0.0.1"),
        *(script, path, kind, str(num_documents)),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(script.parents[2]),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_HOME": str(Path(pyspark.__file__).parent),
    }
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, start_new_session=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return Worked(json.loads(done.stdout.splitlines()[-1]), Lake(path / "lake"))


@pytest.mark.parametrize("kind", ["identical", "template", "copies"])
def test_a_million_documents_cost_four_times_a_quarter(tmp_path: Path, kind: str) -> None:
    quarter, whole = (work(tmp_path, kind, n) for n in (QUARTER, WHOLE))
    for worked, n in ((quarter, QUARTER), (whole, WHOLE)):
        assert worked.facts["rows"]["in"] == n
        check = {"identical": check_identical, "template": check_template, "copies": check_copies}
        check[kind](worked, n)
    for what in ("rows_shuffled", "bytes_shuffled"):
        # the template's later documents wait for the solves of the lower ones
        assert whole.leader[what] <= 4.4 * quarter.leader[what], what
    # of the largest Python process; what an allocator keeps varies
    assert whole.facts["python_bytes"] <= 1.5 * quarter.facts["python_bytes"]
    assert whole.facts["python_bytes"] < 2e9


def check_identical(worked: Worked, num_documents: int) -> None:
    """All are exact copies of the first."""
    rows = worked.lake.table("duplicates").to_table(["doc_id", "kind", "twin_id"])
    assert rows.num_rows == num_documents - 1
    assert pc.unique(rows["kind"]).to_pylist() == ["exact"]
    assert pc.unique(rows["twin_id"]).to_pylist() == [0]
    assert pc.count_distinct(rows["doc_id"]).as_py() == num_documents - 1


def check_copies(worked: Worked, num_documents: int) -> None:
    """The first stays; a copy (0.96) is estimated below 0.8 in less than one of 10^12 cases."""
    rows = worked.lake.table("duplicates").to_table(["doc_id", "kind", "twin_id"])
    assert pc.unique(rows["kind"]).to_pylist() == ["near"]
    assert pc.unique(rows["twin_id"]).to_pylist() == [0]
    # it must share one of 14 bands, which fails in (1 - 0.96^8)^14 of cases: one of 10^8
    assert num_documents - 1 - rows.num_rows <= 2


def check_template(worked: Worked, num_documents: int) -> None:
    """Buckets hold the cap, the lowest retained ones; what was removed is similar to its twin."""
    lake, cap = worked.lake, SPEC.bucket_cap
    stored = lake.table("signatures").to_table(["doc_id", "signature"]).sort_by("doc_id")
    ids = stored["doc_id"].to_numpy()
    matrix = signature_matrix(stored["signature"], MinHashSpec())
    rows = lake.table("duplicates").to_table()
    removed = np.isin(ids, rows["doc_id"].to_numpy())
    left = np.searchsorted(ids, rows["doc_id"].to_numpy())
    right = np.searchsorted(ids, rows["twin_id"].to_numpy())
    similarity = (matrix[left] == matrix[right]).mean(axis=1)
    assert np.array_equal(similarity, rows["similarity"].to_numpy())
    assert (similarity >= SPEC.threshold).all() and not removed[right].any()
    # a tie of two pages with similarity 0.6 (standard error 0.046) for 0.8 is rare
    assert removed.sum() < 0.01 * num_documents

    full = lake.table("full_buckets").to_table().to_pylist()
    keys = band_keys(matrix, MinHashSpec())
    index = lake.table("retained_index").to_table(["band_key", "doc_id"])
    assert len(full) == MinHashSpec().bands  # a bucket of the template's own in every band
    for row in full:
        in_bucket = ids[(keys == row["band_key"]).any(axis=1) & ~removed]
        entered = index.filter(pc.equal(index["band_key"], row["band_key"]))["doc_id"]
        assert np.array_equal(np.sort(entered.to_numpy()), in_bucket[:cap])
        assert row["num_beyond"] == len(in_bucket) - cap > 0

        # none of its later pages is similar to one that entered
        entered_rows = matrix[np.searchsorted(ids, in_bucket[:cap])]
        for doc_id in in_bucket[cap :: len(in_bucket) // 50]:
            own = matrix[np.searchsorted(ids, doc_id)]
            assert ((entered_rows == own).mean(axis=1) < SPEC.threshold).all()


def test_a_chain_of_a_thousand_versions(tmp_path: Path) -> None:
    """Equal to the specification, and no cluster of all: some versions in between stay."""
    worked = work(tmp_path, "chain", 1_000)
    stored = worked.lake.table("signatures").to_table().sort_by("doc_id")
    matrix = signature_matrix(stored["signature"], MinHashSpec())
    columns = (stored["doc_id"].to_pylist(), stored["content_hash"].to_pylist(), matrix)
    wanted = oracle(
        (Document(*row) for row in zip(*columns, strict=True)), SPEC, lambda dump: [dump]
    )
    rows = worked.lake.table("duplicates").to_table().to_pylist()
    assert {row["doc_id"]: (row["kind"], row["twin_id"], row["similarity"]) for row in rows} == {
        doc_id: tuple(verdict) for doc_id, verdict in wanted.items() if verdict
    }
    # neighbours share 101 of 112 slots, versions two apart 90, three apart 79: below 0.8
    assert worked.facts["rows"]["kept"] == 334

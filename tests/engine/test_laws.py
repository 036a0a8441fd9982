"""The laws of conservation, invariance and incremental work, on a cut of the demo, in Spark."""

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from warcio.archiveiterator import ArchiveIterator

from curation.dedup import leader
from curation.dedup.lsh import signature_matrix
from curation.engine.lake import Lake
from curation.engine.release import make_release
from curation.engine.run import run
from curation.schemas import TABLES

pytestmark = pytest.mark.spark

TRUE_SPARK = "engine.single_task_documents=0"
ROW_TABLES = (
    "documents",
    "signatures",
    "duplicates",
    "signals",
    "kept",
    "tokens",
    "rejects",
    "edits",
)


def rows_of(lake: Lake) -> dict[str, list[str]]:
    """Every row of every table, in an order of their own."""
    found = {}
    for table in (*ROW_TABLES, "retained_index"):
        columns = TABLES[table].names
        found[table] = sorted(map(str, lake.table(table).to_table(columns=columns).to_pylist()))
    return found


def digests(manifest) -> list[str]:
    return [entry.sha256 for entry in manifest.files]


def finish(config):
    lake = run(config)
    return lake, make_release(config, "demo")


def test_the_ledger_sums_at_every_stage(spark, configure, cut: Path) -> None:
    lake, manifest = finish(configure())
    num_records = 0
    for path in cut.glob("*.warc.gz"):
        with path.open("rb") as file:
            num_records += sum(r.rec_type == "response" for r in ArchiveIterator(file))

    def num_rows(table: str, **where) -> int:
        return lake.table(table, **where).count_rows()

    documents, duplicates = num_rows("documents"), num_rows("duplicates")
    assert num_records == documents + num_rows("rejects", stage="ingest")
    assert documents == num_rows("signatures")
    assert duplicates > 0
    assert documents - duplicates == num_rows("signals")
    assert num_rows("signals") == num_rows("kept") + num_rows("rejects", stage="filter")
    assert num_rows("kept") == num_rows("tokens") == num_rows("mixture")

    def num_bytes(table: str, **where) -> int:
        return pc.sum(lake.table(table, **where).to_table(["num_bytes"])["num_bytes"]).as_py() or 0

    edits = lake.table("edits").to_table()
    num_cut = pc.sum(pc.subtract(edits["end"], edits["start"])).as_py() or 0
    assert num_bytes("documents") - num_bytes("duplicates") == (
        num_bytes("kept") + num_bytes("rejects", stage="filter") + num_cut
    )
    assert manifest.tokens == sum(row["tokens"] for row in manifest.mixture.values())

    listed = {entry.path: entry.rows for record in lake.records() for entry in record.files}
    lying = {
        str(path.relative_to(lake.path)): pq.read_metadata(path).num_rows
        for table in TABLES
        for path in (lake.path / table).rglob("*.parquet")
    }
    assert listed == lying


@pytest.fixture
def reference(spark, configure):
    lake, manifest = finish(configure(lake="reference"))
    return rows_of(lake), digests(manifest)


def test_any_partitions_and_batches_give_the_same_rows_and_shards(
    spark, configure, reference
) -> None:
    rows, shards = reference
    small = "spark.sql.execution.arrow.maxRecordsPerBatch"
    variants = (
        ("3", ["engine.num_partitions=1", "engine.batch_rows=3"]),
        (
            "10000",
            [
                "engine.num_partitions=7",
                "engine.batch_rows=10000",
                "dedup.max_rounds=1",
                "dedup.prefix_documents=30",
            ],
        ),
    )
    before = spark.conf.get(small)
    for number, (batch, overrides) in enumerate(variants):
        spark.conf.set(small, batch)
        try:
            config = configure(TRUE_SPARK, *overrides, lake=f"variant{number}")
            lake, manifest = finish(config)
        finally:
            spark.conf.set(small, before)
        assert rows_of(lake) == rows, overrides
        assert digests(manifest) == shards, overrides


def test_dumps_one_by_one_give_what_all_at_once_give(spark, configure, reference) -> None:
    rows, shards = reference
    attempts: dict[tuple[str, str], str] = {}
    for num_dumps in range(1, 5):
        lake = run(configure(lake="grown", dumps=num_dumps))
        now = {(r.stage, r.dump): r.attempt for r in lake.records()}
        assert attempts.items() <= now.items(), "an earlier dump was done again"
        attempts = now
    assert rows_of(lake) == rows
    assert digests(make_release(configure(lake="grown"), "demo")) == shards


@pytest.mark.parametrize("scope", ["global", "dump", "window"])
def test_duplicates_equal_the_oracle(spark, configure, scope: str) -> None:
    config = configure(f"dedup.scope={scope}", TRUE_SPARK)
    lake = run(config, _to("dedup"))
    stored = lake.table("signatures").to_table().sort_by("doc_id")
    spec = leader.LeaderSpec()
    matrix = signature_matrix(stored["signature"], spec.minhash)
    documents = [
        leader.Document(doc_id, content, matrix[i])
        for i, (doc_id, content) in enumerate(
            zip(stored["doc_id"].to_pylist(), stored["content_hash"].to_pylist(), strict=True)
        )
    ]
    scopes = {
        "global": lambda dump: range(dump + 1),
        "dump": lambda dump: [dump],
        "window": lambda dump: range(max(0, dump - 1), dump + 1),
    }
    verdicts = leader.oracle(documents, spec, scopes[scope])
    wanted = {i: tuple(verdict) for i, verdict in verdicts.items() if verdict}
    got = {
        row["doc_id"]: (row["kind"], row["twin_id"], row["similarity"])
        for row in lake.table("duplicates").to_table().to_pylist()
    }
    assert got == wanted
    signature = {d.doc_id: d.signature for d in documents}
    for doc_id, (kind, twin, value) in got.items():
        assert twin < doc_id and twin not in got, "a twin is retained and lower"
        assert leader.similarity(signature[doc_id], signature[twin]) == value >= 0.8
        assert kind in ("exact", "near")


def _to(stage: str):
    from curation.engine.run import Selection

    return Selection(last=stage)

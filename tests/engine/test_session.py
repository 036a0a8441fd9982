"""The session: paths as Spark is given them, processes that go on, a JVM that dies."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from py4j.protocol import Py4JNetworkError
from pyspark.sql import SparkSession

from curation.dedup.messages import Tally
from curation.engine import session
from curation.engine.metering import metered
from curation.errors import StageStopped

pytestmark = pytest.mark.spark

SCHEMA = pa.schema([("doc_id", pa.int64())])


def test_a_path_is_a_file_whatever_signs_are_in_it(spark, tmp_path: Path) -> None:
    """Those of patterns, of URLs, and a space; what Spark writes lies where pyarrow finds it."""
    folder = tmp_path / "a b%20c[1]{x}#y?z*"
    folder.mkdir()
    pq.write_table(pa.table({"doc_id": [1, 2, 3]}, schema=SCHEMA), folder / "in.parquet")
    rows = session.parquet(spark, SCHEMA, [str(folder / "in.parquet")])
    rows.write.parquet(session.on_disk(folder / "out"))
    assert sorted(pq.read_table(folder / "out")["doc_id"].to_pylist()) == [1, 2, 3]


def test_a_path_names_its_file_system(monkeypatch, tmp_path: Path) -> None:
    """Where HDFS is the default of Spark, a path without a scheme would be looked for there."""
    monkeypatch.chdir(tmp_path)
    assert session.on_disk("lake") == session.on_disk(tmp_path / "lake") == f"file:{tmp_path}/lake"


def test_python_processes_go_from_job_to_job(spark) -> None:
    """Also after a task that leaves its input unread, as dedup's: what they loaded stays loaded."""

    def process(_: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"id": [os.getpid()]})

    worker = partial(metered, worker=process, meter=Tally())
    num_cores = spark.sparkContext.defaultParallelism
    one = spark.range(0, 1, 1, 1)
    runs = [one.mapInArrow(worker, "id bigint").collect() for _ in range(num_cores + 4)]
    assert len({row.id for rows in runs for row in rows}) <= num_cores


def test_a_jvm_that_dies_while_it_starts_is_one_message(monkeypatch) -> None:
    """Found by tests/bench/soak.py: a kill of the JVM just after its launch."""

    def dies(_: object) -> None:
        raise Py4JNetworkError("Error while sending or receiving")

    monkeypatch.setattr(SparkSession.Builder, "getOrCreate", dies)
    with pytest.raises(StageStopped, match="the start of Spark stopped: Error while sending"):
        session.start()

"""The dedup stage on Spark: `curation.dedup.leader` with Spark as the carrier of its messages.

Only slim rows are shuffled: ids, keys and signatures, never text. The index of earlier dumps is
read inside the tasks of its key ranges and never shuffled. The driver sees counts by file only.
"""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark import TaskContext
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from curation.dedup import leader
from curation.dedup.leader import MESSAGE, LeaderSpec, Step
from curation.dedup.minhash import MinHashSpec
from curation.engine.lake import FileEntry, Lake, TableWriter
from curation.engine.session import outcome_of, parquet
from curation.engine.tasks import Context, Outcome, sorted_runs
from curation.identity import MAX_FILES, RECORD_BITS, origin
from curation.schemas import DUPLICATES, RETAINED_INDEX, SIGNATURES, spark_ddl

MESSAGE_DDL = spark_ddl(MESSAGE)
PART_BYTES = 64_000_000  # of messages in a part: its arrays take a few times that
DUPLICATE_COLUMNS = ["slice", "doc_id", "other", "value", "payload", "num_bytes"]


def deduplicate(
    session: SparkSession, lake: Lake, context: Context, earlier_dumps: Sequence[str]
) -> Outcome:
    """Decide one dump; write duplicates by slice and the index run by key range."""
    config = context.config
    entries = _entries(lake, "fingerprint", [context.dump], "signatures")
    num_documents = sum(entry.rows for entry in entries)
    if num_documents == 0:
        return Outcome()
    spec = LeaderSpec(
        minhash=MinHashSpec(
            config.fingerprint.bands,
            config.fingerprint.rows,
            config.fingerprint.ngram,
            config.fingerprint.seed,
        ),
        threshold=config.dedup.threshold,
        bucket_cap=config.dedup.bucket_cap,
        index_ranges=config.dedup.index_ranges,
        max_rounds=config.dedup.max_rounds,
        prefix_documents=config.dedup.prefix_documents,
    )
    paths = [str(lake.path / entry.path) for entry in entries]
    earlier = _earlier(lake, earlier_dumps)
    if num_documents <= config.engine.single_task_documents:
        worker = partial(_in_one_task, paths=paths, spec=spec, earlier=earlier, context=context)
        return outcome_of(session.range(0, 1, 1, numPartitions=1), worker)

    message_bytes = (spec.minhash.num_signature_bytes + 64) * spec.minhash.bands
    num_parts = config.engine.num_partitions or math.ceil(
        num_documents * message_bytes / PART_BYTES
    )
    cluster = SparkCluster(session, lake.work_folder(context.attempt), num_parts)
    signatures = parquet(session, SIGNATURES, paths)
    slim = signatures.select("doc_id", "content_hash", "signature")
    result = leader.deduplicate(cluster, slim, spec, earlier)
    outcome = _write_duplicates(cluster, result, signatures, context)
    outcome.add(_write_index(cluster, result, context))
    total = signatures.agg(F.sum("num_bytes")).collect()[0][0]
    outcome.add(_totals(num_documents, total, outcome.num_bytes["removed"], result))
    return outcome


def _in_one_task(
    _: Iterator[pa.RecordBatch],
    paths: Sequence[str],
    spec: LeaderSpec,
    earlier: "LakeIndex | None",
    context: Context,
) -> Iterator[pa.RecordBatch]:
    """Decide a small dump by the same steps, and write: a shuffle costs more than the work."""
    signatures = pa.concat_tables([pq.read_table(path, partitioning=None) for path in paths])
    slim = signatures.select(["doc_id", "content_hash", "signature"])
    result = leader.deduplicate(leader.Parts(1), slim, spec, earlier)

    num_bytes = signatures.select(["doc_id", "num_bytes"])
    rows = pa.concat_tables(result.duplicates).join(num_bytes, "doc_id", join_type="inner")
    file = rows["doc_id"].to_numpy() >> RECORD_BITS & (MAX_FILES - 1)
    rows = rows.append_column("slice", pa.array(file // context.config.ingest.slice_files))
    rows = rows.select(DUPLICATE_COLUMNS)
    rows = rows.sort_by([("slice", "ascending"), ("doc_id", "ascending")])
    outcome = _write_slices(rows.to_batches(), context)

    index = pa.concat_tables(result.index).select(["to", "other", "doc_id"])
    index = index.sort_by([(name, "ascending") for name in index.column_names])
    outcome.add(_write_ranges(index.to_batches(), context))

    total = pc.sum(signatures["num_bytes"]).as_py()
    outcome.add(_totals(signatures.num_rows, total, outcome.num_bytes["removed"], result))
    yield outcome.to_batch()


def _totals(num_documents: int, num_bytes: int, removed: int, result: leader.Outcome) -> Outcome:
    """Return what came in and what stays; what leaves is counted where it is written."""
    outcome = Outcome()
    outcome.rows.update({"in": num_documents, "kept": result.num_retained})
    outcome.num_bytes.update({"in": num_bytes, "kept": num_bytes - removed})
    outcome.count("leader", {"rounds": result.num_rounds, "solves": result.num_solves})
    return outcome


class SparkCluster:
    """Carries messages with Spark; what it saves lies under the work folder of the attempt."""

    def __init__(self, session: SparkSession, folder: Path, num_parts: int) -> None:
        self.session = session
        self.folder = folder
        self.num_parts = num_parts
        self._num_saved = 0

    def map(self, step: Step, rows: DataFrame) -> DataFrame:
        """Run a row-wise step on every batch as it comes."""
        return rows.mapInArrow(partial(_each_batch, step=step), MESSAGE_DDL)

    def exchange(self, step: Step, *rows: DataFrame) -> DataFrame:
        """Shuffle by `to`; a task holds its whole part as one table."""
        return (
            _union(rows)
            .repartition(self.num_parts, "to")
            .mapInArrow(partial(_whole_part, step=step), MESSAGE_DDL)
        )

    def select(self, rows: DataFrame, kinds: Sequence[int]) -> DataFrame:
        """Return the messages of these kinds."""
        return rows.filter(F.col("kind").isin(list(kinds)))

    def save(self, rows: DataFrame) -> DataFrame:
        """Write the messages as Parquet and return them read back."""
        path = str(self.folder / f"{self._num_saved:04d}")
        self._num_saved += 1
        rows.write.parquet(path)
        return self.session.read.schema(MESSAGE_DDL).parquet(path)

    def count(self, rows: DataFrame, kind: int) -> Mapping[int, int]:
        """Count by file of the crawl: at most as many rows as the dump has files."""
        counted = (
            self.select(rows, [kind])
            .groupBy(F.shiftright("doc_id", RECORD_BITS).alias("file"))
            .count()
        )
        return {row["file"]: row["count"] for row in counted.collect()}


@dataclass(frozen=True)
class LakeIndex:
    """The retained documents of earlier dumps, read from their committed files by the tasks."""

    runs: Mapping[int, Sequence[str]]  # key range -> files sorted by band_key
    first_ids: tuple[int, ...]  # of each file of signatures, ascending
    files: tuple[str, ...]

    def index(self, part: int) -> pa.Table:
        """Return band_key and doc_id of a key range, sorted by key."""
        tables = [pq.read_table(path, partitioning=None) for path in self.runs.get(part, ())]
        return pa.concat_tables([RETAINED_INDEX.empty_table(), *tables]).sort_by("band_key")

    def file_of(self, doc_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the number of the file that holds each document's signature."""
        return np.searchsorted(np.array(self.first_ids), doc_ids, side="right") - 1

    def signatures(self, file: int, doc_ids: pa.Array) -> pa.Table:
        """Return these documents of a file."""
        return pq.read_table(
            self.files[file],
            columns=["doc_id", "content_hash", "signature"],
            filters=pc.field("doc_id").isin(doc_ids),
            partitioning=None,
        )


def _earlier(lake: Lake, dumps: Sequence[str]) -> LakeIndex | None:
    signatures = sorted(
        _entries(lake, "fingerprint", dumps, "signatures"), key=lambda e: e.first_doc_id or 0
    )
    runs: dict[int, list[str]] = {}
    for entry in _entries(lake, "dedup", dumps, "retained_index"):
        part = int(Path(entry.path).parent.name.removeprefix("slice="))
        runs.setdefault(part, []).append(str(lake.path / entry.path))
    if not runs:
        return None
    return LakeIndex(
        runs,
        tuple(entry.first_doc_id or 0 for entry in signatures),
        tuple(str(lake.path / entry.path) for entry in signatures),
    )


def _entries(lake: Lake, stage: str, dumps: Sequence[str], table: str) -> list[FileEntry]:
    return [
        entry
        for dump in dumps
        for record in lake.records(stage, dump)
        for entry in record.files_of(table)
    ]


def _union(rows: Sequence[DataFrame]) -> DataFrame:
    return functools.reduce(DataFrame.unionByName, rows)


def _each_batch(batches: Iterator[pa.RecordBatch], step: Step) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if batch.num_rows:
            yield from step(pa.Table.from_batches([batch])).to_batches()


def _whole_part(batches: Iterator[pa.RecordBatch], step: Step) -> Iterator[pa.RecordBatch]:
    rows = [batch for batch in batches if batch.num_rows]
    if rows:
        yield from step(pa.Table.from_batches(rows).cast(MESSAGE)).to_batches()


def _write_duplicates(
    cluster: SparkCluster, result: leader.Outcome, signatures: DataFrame, context: Context
) -> Outcome:
    """Write the ledger of dedup, one file a slice, in order of doc_id."""
    slice_files = context.config.ingest.slice_files
    file = F.shiftright("doc_id", RECORD_BITS).bitwiseAND(MAX_FILES - 1)
    rows = (
        _union(result.duplicates)
        .join(signatures.select("doc_id", "num_bytes"), on="doc_id", how="inner")
        .withColumn("slice", F.floor(file / slice_files))
        .repartition(cluster.num_parts, "slice")
        .sortWithinPartitions("slice", "doc_id")
        .select(*DUPLICATE_COLUMNS)
    )
    return outcome_of(rows, partial(_as_outcome, write=_write_slices, context=context))


def _write_slices(batches: Iterable[pa.RecordBatch], context: Context) -> Outcome:
    """Write rows of DUPLICATE_COLUMNS, sorted by slice and doc_id, as files of `duplicates`."""
    outcome = Outcome()
    names = [dump.name for dump in context.config.dumps]
    for slice, rows in _groups(batches):
        twins = rows["other"].to_pylist()
        kinds = [kind.decode() for kind in rows["payload"].to_pylist()]
        by = {"exact": "content_hash", "near": "signature"}
        twin_dumps = [names[origin(twin).dump] for twin in twins]
        table = pa.table(
            {
                "doc_id": rows["doc_id"],
                "kind": pa.array(kinds),
                "twin_id": rows["other"],
                "twin_dump": pa.array(twin_dumps),
                "similarity": rows["value"],
                "verified_by": pa.array([by[kind] for kind in kinds]),
                "num_bytes": rows["num_bytes"],
            },
            schema=DUPLICATES,
        )
        _write(context, "duplicates", f"{slice:04d}", table, outcome)
        outcome.rows["rejected"] += table.num_rows
        outcome.num_bytes["removed"] += pc.sum(table["num_bytes"]).as_py()
        outcome.count("duplicates", Counter(kinds))
        outcome.count("twin_dumps", Counter(twin_dumps))
    return outcome


def _write_index(cluster: SparkCluster, result: leader.Outcome, context: Context) -> Outcome:
    """Write the index run, sorted by key in each range."""
    rows = (
        _union(result.index)
        .select("to", "other", "doc_id")
        .repartition(cluster.num_parts, "to")
        .sortWithinPartitions("to", "other", "doc_id")
    )
    return outcome_of(rows, partial(_as_outcome, write=_write_ranges, context=context))


def _write_ranges(batches: Iterable[pa.RecordBatch], context: Context) -> Outcome:
    """Write rows (key range, key, doc_id), sorted, as files of `retained_index`."""
    outcome = Outcome()
    cap = context.config.dedup.bucket_cap
    for part, rows in _groups(batches):
        _, num_entered = np.unique(rows["other"].to_numpy(), return_counts=True)
        outcome.count("leader", {"full_buckets": int((num_entered >= cap).sum())})
        table = pa.table({"band_key": rows["other"], "doc_id": rows["doc_id"]})
        _write(context, "retained_index", f"{part:04d}", table, outcome)
    return outcome


def _as_outcome(
    batches: Iterator[pa.RecordBatch],
    write: Callable[[Iterable[pa.RecordBatch], Context], Outcome],
    context: Context,
) -> Iterator[pa.RecordBatch]:
    yield write(batches, context).to_batch()


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.Table]]:
    """Group rows that are sorted by their first column; one group is held at a time."""
    for value, runs in itertools.groupby(sorted_runs(batches), key=lambda run: run[0]):
        yield value, pa.Table.from_batches([rows for _, rows in runs])


def _write(context: Context, table: str, slice: str, rows: pa.Table, outcome: Outcome) -> None:
    task = TaskContext.get()
    name = f"{context.attempt}-part-00000-{task.taskAttemptId() if task else 0}"
    writer = TableWriter(context.lake, table, context.stage, context.dump, slice, name)
    writer.write(rows)
    entry = writer.close()
    if entry is not None:
        outcome.files.append(entry)

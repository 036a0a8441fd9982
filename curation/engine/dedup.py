"""The dedup stage on Spark: `curation.dedup.leader` with Spark as the carrier of its messages.

Only slim rows are shuffled: ids, keys, signatures of documents that share a bucket, shingle hashes
of candidates; never text. The index of earlier dumps is read inside the tasks of its key ranges and
never shuffled. The driver sees sums by block of a file only.
"""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark import TaskContext
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from curation.dedup import leader
from curation.dedup.messages import (
    BEYOND,
    BLOCK_BITS,
    MESSAGE,
    PIECE_BYTES,
    Meter,
    Parts,
    Step,
    Tally,
    in_pieces,
)
from curation.dedup.minhash import MinHashSpec
from curation.dedup.oracle import LeaderSpec
from curation.engine.index import LakeStore, entries, open_store
from curation.engine.lake import Lake, TableWriter
from curation.engine.losses import check_losses
from curation.engine.metering import Worker, metered
from curation.engine.session import SparkMeter, on_disk, outcome_of, parquet
from curation.engine.tasks import Context, Outcome, sorted_runs, value_counts
from curation.identity import FILE_BITS, MAX_FILES, RECORD_BITS
from curation.schemas import (
    DUPLICATES,
    FULL_BUCKETS,
    SIGNATURES,
    spark_ddl,
)

MESSAGE_DDL = spark_ddl(MESSAGE)
PART_BYTES = 64_000_000  # of messages in a part: how work is shared out; pieces bound the memory
NUM_EXAMPLES = 5  # documents named of a full bucket
SIGNATURE_COLUMNS = ["doc_id", "content_hash", "signature", "num_shingles"]


def deduplicate(
    session: SparkSession, lake: Lake, context: Context, earlier_dumps: Sequence[str]
) -> Outcome:
    """Decide one dump; write duplicates by slice and the index run by key range."""
    config = context.config
    records = lake.records("fingerprint", context.dump)
    num_documents = sum(record.rows["kept"] for record in records)
    num_bytes = sum(record.num_bytes["kept"] for record in records)
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
        verify=config.dedup.verify,
        bucket_cap=config.dedup.bucket_cap,
        index_ranges=config.dedup.index_ranges,
        max_rounds=config.dedup.max_rounds,
        prefix_documents=config.dedup.prefix_documents,
    )
    own = entries(lake, "fingerprint", [context.dump], "signatures")
    paths = [str(lake.path / entry.path) for entry in own]
    dumps, folder = [context.dump, *earlier_dumps], lake.work_folder(context.attempt)
    if num_documents <= config.engine.single_task_documents:
        store = open_store(lake, dumps, earlier_dumps, folder, Tally())
        worker = partial(_in_one_task, paths=paths, spec=spec, store=store, context=context)
        outcome = outcome_of(session.range(0, 1, 1, numPartitions=1), worker, context.meter)
    else:
        meter = SparkMeter(session)
        store = open_store(lake, dumps, earlier_dumps, folder, meter)
        outcome = _on_spark(session, lake, paths, spec, store, context, num_documents)
        outcome.count("leader", meter.counts())
    outcome.add(check_losses(session, lake, context, outcome.files))
    outcome.rows.update({"in": num_documents})
    outcome.num_bytes.update({"in": num_bytes, "kept": num_bytes - outcome.num_bytes["removed"]})
    return outcome


def _on_spark(
    session: SparkSession,
    lake: Lake,
    paths: Sequence[str],
    spec: LeaderSpec,
    store: LakeStore,
    context: Context,
    num_documents: int,
) -> Outcome:
    """Decide a dump by steps that Spark carries."""
    document_bytes = spec.minhash.num_signature_bytes + 64 * spec.minhash.bands
    num_cores = session.sparkContext.defaultParallelism
    num_waves = math.ceil(num_documents * document_bytes / PART_BYTES / num_cores)
    num_parts = context.config.engine.num_partitions or num_cores * num_waves
    cluster = SparkCluster(
        session, lake.work_folder(context.attempt), num_parts, store.meter, context.meter
    )
    signatures = parquet(session, SIGNATURES, paths)
    result = leader.deduplicate(
        cluster, signatures.select(*SIGNATURE_COLUMNS), spec, store, has_earlier=store.has_index
    )
    slice_files = context.config.ingest.slice_files
    file = F.shiftright("doc_id", RECORD_BITS).bitwiseAND(MAX_FILES - 1)
    duplicates = _union(result.duplicates).withColumn("to", F.floor(file / slice_files))
    outcome = outcome_of(
        cluster.sorted(duplicates, "to", "doc_id"),
        partial(_as_outcome, write=_write_duplicates, store=store, context=context),
        context.meter,
    )
    outcome.add(
        outcome_of(
            cluster.sorted(_union(result.index), "to", "other", "kind", "doc_id"),
            partial(_as_outcome, write=_write_index, store=store, context=context),
            context.meter,
        )
    )
    outcome.add(_counted(result))
    return outcome


def _in_one_task(
    _: Iterator[pa.RecordBatch],
    paths: Sequence[str],
    spec: LeaderSpec,
    store: LakeStore,
    context: Context,
) -> Iterator[pa.RecordBatch]:
    """Decide a small dump by the same steps, and write: a shuffle costs more than the work."""
    signatures = pa.concat_tables(
        pq.read_table(path, partitioning=None, columns=SIGNATURE_COLUMNS) for path in paths
    )
    cluster = Parts(1, meter=store.meter)
    result = leader.deduplicate(cluster, signatures, spec, store, has_earlier=store.has_index)

    duplicates = pa.concat_tables(result.duplicates)
    file = duplicates["doc_id"].to_numpy() >> RECORD_BITS & (MAX_FILES - 1)
    slice = pa.array(file // context.config.ingest.slice_files)
    duplicates = duplicates.set_column(0, MESSAGE.field("to"), slice)
    outcome = _write_duplicates(_sorted(duplicates, "to", "doc_id"), store, context)
    index = _sorted(pa.concat_tables(result.index), "to", "other", "kind", "doc_id")
    outcome.add(_write_index(index, store, context))
    outcome.add(_counted(result))
    assert isinstance(store.meter, Tally)
    outcome.count("leader", store.meter.counts)
    yield outcome.to_batch()


def _counted(result: leader.Outcome) -> Outcome:
    outcome = Outcome()
    outcome.rows.update({"kept": result.num_retained})
    outcome.count("leader", {"rounds": result.num_rounds, "solves": result.num_solves})
    return outcome


def _sorted(rows: pa.Table, *names: str) -> list[pa.RecordBatch]:
    batches: list[pa.RecordBatch] = rows.sort_by(
        [(name, "ascending") for name in names]
    ).to_batches()
    return batches


class SparkCluster:
    """Carries messages with Spark; what it saves lies under the work folder of the attempt.

    `meter` counts messages, `work` what tasks use.
    """

    def __init__(
        self, session: SparkSession, folder: Path, num_parts: int, meter: Meter, work: Meter
    ) -> None:
        self.session = session
        self.folder = folder
        self.num_parts = num_parts
        self.meter = meter
        self.work = work
        self._num_saved = 0

    def map(self, run: Callable[[pa.Table], pa.Table], rows: DataFrame) -> DataFrame:
        """Run a row-wise function on every batch as it comes."""
        return self._mapped(rows, partial(_each_batch, run=run))

    def exchange(self, step: Step, *rows: DataFrame) -> DataFrame:
        """Shuffle by `to`, sort, and run the step on piece after piece of a part."""
        ordered = self.sorted(_union(rows), *step.order)
        return self._mapped(ordered, partial(_each_piece, step=step, meter=self.meter))

    def sorted(self, rows: DataFrame, *names: str) -> DataFrame:
        """Shuffle by the first column and sort every part; Spark spills what is too large."""
        return rows.repartition(self.num_parts, names[0]).sortWithinPartitions(*names)

    def select(self, rows: DataFrame, kinds: Sequence[int]) -> DataFrame:
        """Return the messages of these kinds."""
        return rows.filter(F.col("kind").isin(list(kinds)))

    def save(self, rows: DataFrame) -> DataFrame:
        """Write the messages as Parquet and return them read back."""
        path = on_disk(self.folder / f"{self._num_saved:04d}")
        self._num_saved += 1
        rows.write.parquet(path)
        return self.session.read.schema(MESSAGE_DDL).parquet(path)

    def sum_by_block(self, rows: DataFrame, kind: int) -> Mapping[int, float]:
        """Sum by block: at most as many rows as the dump has files, or 65,536 records."""
        block = F.shiftright("doc_id", BLOCK_BITS).alias("block")
        summed = self.select(rows, [kind]).groupBy(block).agg(F.sum("value").alias("value"))
        return {row["block"]: row["value"] for row in summed.collect()}

    def _mapped(self, rows: DataFrame, worker: Worker) -> DataFrame:
        return rows.mapInArrow(partial(metered, worker=worker, meter=self.work), MESSAGE_DDL)


def _union(rows: Sequence[DataFrame]) -> DataFrame:
    return functools.reduce(DataFrame.unionByName, rows)


def _each_batch(
    batches: Iterator[pa.RecordBatch], run: Callable[[pa.Table], pa.Table]
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if batch.num_rows:
            yield from run(pa.Table.from_batches([batch])).to_batches()


def _each_piece(
    batches: Iterator[pa.RecordBatch], step: Step, meter: Meter
) -> Iterator[pa.RecordBatch]:
    for answers in in_pieces(batches, step, PIECE_BYTES, meter):
        yield from answers.to_batches()


def _as_outcome(
    batches: Iterator[pa.RecordBatch],
    write: Callable[[Iterable[pa.RecordBatch], LakeStore, Context], Outcome],
    store: LakeStore,
    context: Context,
) -> Iterator[pa.RecordBatch]:
    yield write(batches, store, context).to_batch()


def _write_duplicates(
    batches: Iterable[pa.RecordBatch], store: LakeStore, context: Context
) -> Outcome:
    """Write DUPLICATE messages, sorted by slice and doc_id, as files of `duplicates`."""
    outcome = Outcome()
    names = np.array([dump.name for dump in context.config.dumps], dtype=object)
    near_by = "shingles" if context.config.dedup.verify == "exact" else "signature"
    for slice, rows in _groups(batches):
        with _file(context, "duplicates", f"{slice:04d}", outcome) as writer:
            for run in rows:
                twins = run["other"].to_numpy()
                kinds = run["payload"].cast(pa.string())
                twin_dumps = pa.array(names[twins >> (FILE_BITS + RECORD_BITS)], pa.string())
                num_bytes = store.num_bytes(run["doc_id"].to_numpy())
                writer.write(
                    pa.table(
                        {
                            "doc_id": run["doc_id"],
                            "kind": kinds,
                            "twin_id": run["other"],
                            "twin_dump": twin_dumps,
                            "similarity": run["value"],
                            "verified_by": pc.if_else(
                                pc.equal(kinds, "exact"), "content_hash", near_by
                            ),
                            "num_bytes": num_bytes,
                        },
                        schema=DUPLICATES,
                    )
                )
                outcome.rows["rejected"] += run.num_rows
                outcome.num_bytes["removed"] += pc.sum(num_bytes).as_py()
                outcome.count("duplicates", value_counts(kinds))
                outcome.count("twin_dumps", value_counts(twin_dumps))
    return outcome


def _write_index(batches: Iterable[pa.RecordBatch], store: LakeStore, context: Context) -> Outcome:
    """Write INDEX and BEYOND messages, sorted by range, key and kind, as the run of the dump."""
    outcome = Outcome()
    cap = context.config.dedup.bucket_cap
    for part, rows in _groups(batches):
        slice = f"{part:04d}"
        full = _FullBuckets(cap)
        with _file(context, "retained_index", slice, outcome) as writer:
            for run in rows:
                full.see(run)
                entered = run.filter(pc.not_equal(run["kind"], pa.scalar(BEYOND, pa.int8())))
                writer.write(pa.table({"band_key": entered["other"], "doc_id": entered["doc_id"]}))
        with _file(context, "full_buckets", slice, outcome) as writer:
            found = full.close()
            writer.write(found)
            outcome.count("leader", {"full_buckets": found.num_rows})
    return outcome


class _FullBuckets:
    """Collects the buckets that turned documents away, from rows sorted by key, INDEX first."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.num_beyond: Counter[int] = Counter()
        self.examples: dict[int, list[int]] = {}
        self._last: tuple[int, list[int]] = (0, [])  # a key may go on in the next rows

    def see(self, rows: pa.RecordBatch) -> None:
        """Look at the next rows of a range."""
        keys, doc_ids = rows["other"].to_numpy(), rows["doc_id"].to_numpy()
        is_beyond = rows["kind"].to_numpy() == BEYOND
        names, counts = np.unique(keys[is_beyond], return_counts=True)
        entered, owners = keys[~is_beyond], doc_ids[~is_beyond]

        def first_of(key: int) -> list[int]:
            begin, end = np.searchsorted(entered, key), np.searchsorted(entered, key, "right")
            before = self._last[1] if self._last[0] == key else []
            found: list[int] = owners[begin:end][:NUM_EXAMPLES].tolist()
            return [*before, *found][:NUM_EXAMPLES]

        for key, count in zip(names.tolist(), counts.tolist(), strict=True):
            self.num_beyond[key] += count
            self.examples.setdefault(key, first_of(key))
        self._last = (int(keys[-1]), first_of(int(keys[-1])))

    def close(self) -> pa.Table:
        """Return the rows of `full_buckets`."""
        return pa.table(
            {
                "band_key": list(self.num_beyond),
                "num_entered": [self.cap] * len(self.num_beyond),
                "num_beyond": list(self.num_beyond.values()),
                "doc_ids": list(self.examples.values()),
            },
            schema=FULL_BUCKETS,
        )


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, Iterator[pa.RecordBatch]]]:
    """Group rows that are sorted by their first column; one batch is held at a time."""
    for value, runs in itertools.groupby(sorted_runs(batches), key=lambda run: run[0]):
        yield value, (rows for _, rows in runs)


@contextmanager
def _file(context: Context, table: str, slice: str, outcome: Outcome) -> Iterator[TableWriter]:
    """Write a file of a table, and name it in the outcome."""
    task = TaskContext.get()
    name = f"{context.attempt}-part-00000-{task.taskAttemptId() if task else 0}"
    writer = TableWriter(context.lake, table, context.stage, context.dump, slice, name)
    yield writer
    entry = writer.close()
    if entry is not None:
        outcome.files.append(entry)

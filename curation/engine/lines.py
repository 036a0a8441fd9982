"""The lines stage: repeated lines and paragraphs of retained documents are cut, as edits.

First the units of the dump are counted, each once a document, and the counts of units that stand in
two documents or more are written as a run of `line_counts`, sorted by key in key ranges. A unit is
frequent when the counts of the dump and of the earlier ones in scope sum to more than
`lines.max_documents`. Then every file is read again and its frequent units are cut. Only keys and
counts are shuffled; earlier runs are read where their range is summed. Decisions are causal: a dump
sees itself and the dumps before it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import TaskContext
from pyspark.sql import SparkSession

from curation.dedup import lines
from curation.dedup.messages import PIECE_BYTES
from curation.dedup.steps import key_range
from curation.engine.index import entries, matching_rows
from curation.engine.lake import Lake
from curation.engine.metering import metered
from curation.engine.session import outcome_of
from curation.engine.tasks import (
    Context,
    Outcome,
    Part,
    Writers,
    count_rejects,
    ledger,
    read_between,
    scan,
    sorted_runs,
)
from curation.schemas import LINE_COUNTS

Int64Array = npt.NDArray[np.int64]

COUNT = pa.schema([("range", pa.int64()), ("key", pa.int64()), ("num_documents", pa.int64())])
COUNT_DDL = "range bigint, key bigint, num_documents bigint"
MIN_DOCUMENTS = 2
"""Units that stand in one document of a dump are not counted: most do, and never repeat."""


def cut_lines(
    session: SparkSession,
    lake: Lake,
    context: Context,
    parts: Sequence[tuple[str, Part]],
    earlier_dumps: Sequence[str],
) -> Outcome:
    """Count and cut one dump; `parts` are (slice, part), one a file of documents."""
    if not parts:
        return Outcome()
    runs: dict[int, list[str]] = {}
    for entry in entries(lake, "lines", earlier_dumps, "line_counts"):
        number = int(Path(entry.path).parent.name.removeprefix("slice="))
        runs.setdefault(number, []).append(str(lake.path / entry.path))
    frequent = lake.work_folder(context.attempt)
    frequent.mkdir(parents=True, exist_ok=True)
    num_documents = sum(
        entry.rows for _, part in parts for entry in part.files.get("documents", ())
    )
    summing = partial(_sum_ranges, runs=runs, frequent=str(frequent), context=context)
    if num_documents <= context.config.engine.single_task_documents:
        worker = partial(_in_one_task, parts=parts, summing=summing, frequent=str(frequent))
        one = session.range(0, 1, 1, numPartitions=1)
        return outcome_of(one, partial(worker, context=context), context.meter)

    numbers = session.range(0, len(parts), 1, numPartitions=len(parts))
    counting = partial(_count, parts=parts, context=context)
    counted = numbers.mapInArrow(partial(metered, worker=counting, meter=context.meter), COUNT_DDL)
    num_parts = context.config.engine.num_partitions or context.config.dedup.index_ranges
    ordered = counted.repartition(num_parts, "range").sortWithinPartitions("range", "key")
    outcome = outcome_of(ordered, summing, context.meter)
    cutting = partial(_cut, parts=parts, frequent=str(frequent), context=context)
    outcome.add(outcome_of(numbers, cutting, context.meter))
    return outcome


def _in_one_task(
    _: Iterator[pa.RecordBatch],
    parts: Sequence[tuple[str, Part]],
    summing: "partial[Iterator[pa.RecordBatch]]",
    frequent: str,
    context: Context,
) -> Iterator[pa.RecordBatch]:
    """Do all of a small dump: a shuffle costs more than the work."""
    every = pa.RecordBatch.from_pydict({"id": pa.array(range(len(parts)), pa.int64())})
    counted = pa.Table.from_batches(list(_count(iter([every]), parts, context)), COUNT)
    ordered = counted.sort_by([("range", "ascending"), ("key", "ascending")])
    yield from summing(iter(ordered.to_batches()))
    yield from _cut(iter([every]), parts, frequent, context)


# ---- counting ----------------------------------------------------------------------------------


def _count(
    batches: Iterable[pa.RecordBatch], parts: Sequence[tuple[str, Part]], context: Context
) -> Iterator[pa.RecordBatch]:
    """Yield the keys of the units of each file, with in how many of its documents they stand."""
    num_ranges = context.config.dedup.index_ranges
    for batch in batches:
        for number in batch.column(0).to_pylist():
            keys, counts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
            for rows in _retained(parts[number][1], ["doc_id", "text"], context):
                found = lines.units(rows["text"].combine_chunks())
                own = lines.document_counts(found, context.config.lines.min_words)
                keys.append(own[0])
                counts.append(own[1])
            names, place = np.unique(np.concatenate(keys), return_inverse=True)
            sums = np.bincount(place, np.concatenate(counts), len(names)).astype(np.int64)
            yield pa.record_batch([key_range(names, num_ranges), names, sums], schema=COUNT)


def _sum_ranges(
    batches: Iterator[pa.RecordBatch],
    runs: dict[int, list[str]],
    frequent: str,
    context: Context,
) -> Iterator[pa.RecordBatch]:
    """Sum the counts of each range, sorted by key; write the run, and the frequent keys.

    A frequent key file is an array of int64, ascending, `frequent/<range>.npy`.
    """
    outcome = Outcome()
    limit = context.config.lines.max_documents
    writers: dict[int, Writers] = {}
    chosen: dict[int, list[Int64Array]] = {}
    for part, keys, counts in _summed(batches):
        if part not in writers:
            inside = _slice(context, f"{part:04d}")
            writers[part] = Writers(inside, "00000", _task_id(), ("line_counts",))
        repeated = counts >= MIN_DOCUMENTS
        writers[part].write(
            "line_counts",
            pa.table(
                {"line_key": keys[repeated], "num_documents": counts[repeated]}, schema=LINE_COUNTS
            ),
        )
        total = np.where(repeated, counts, 0)
        for path in runs.get(part, ()):
            for rows in matching_rows(path, "line_key", keys, LINE_COUNTS):
                place = np.searchsorted(keys, rows["line_key"].to_numpy())
                total[place] += rows["num_documents"].to_numpy()
        chosen.setdefault(part, []).append(keys[total > limit])
    for part, own in writers.items():
        own.close(outcome)
        found = np.concatenate(chosen[part])
        np.save(f"{frequent}/{part:04d}.npy", found)
        outcome.count("lines", {"frequent": len(found)})
    yield outcome.to_batch()


def _summed(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, Int64Array, Int64Array]]:
    """Sum counts, sorted by range and key, by key; yield a range in pieces of distinct keys."""
    held: list[pa.RecordBatch] = []
    part, size = -1, 0
    for number, rows in sorted_runs(batches):
        if held and (number != part or size > PIECE_BYTES):
            keys, counts = _sums(held)
            held, size = [], 0
            if number == part:  # the last key may go on
                last = pa.record_batch([[part], keys[-1:], counts[-1:]], schema=COUNT)
                held, keys, counts = [last], keys[:-1], counts[:-1]
            yield part, keys, counts
        part = number
        held.append(rows)
        size += rows.nbytes
    if held:
        yield (part, *_sums(held))


def _sums(batches: Sequence[pa.RecordBatch]) -> tuple[Int64Array, Int64Array]:
    rows = pa.Table.from_batches(batches).cast(COUNT)
    keys = rows["key"].to_numpy()
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    return keys[starts], np.add.reduceat(rows["num_documents"].to_numpy(), starts)


# ---- cutting -----------------------------------------------------------------------------------


def _cut(
    batches: Iterable[pa.RecordBatch],
    parts: Sequence[tuple[str, Part]],
    frequent: str,
    context: Context,
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for number in batch.column(0).to_pylist():
            slice, part = parts[number]
            yield _cut_part(part, _slice(context, slice), frequent).to_batch()


def _cut_part(part: Part, context: Context, frequent: str) -> Outcome:
    """Cut the frequent units of every retained document of a file; reject the too short."""
    outcome = Outcome()
    settings = context.config.lines
    keys = _frequent_keys(frequent)
    writers = Writers(context, f"{part.number:05d}", _task_id(), ("edits", "rejects"))
    columns = ["doc_id", "url", "host", "archive", "offset", "text", "num_bytes"]
    for rows in _retained(part, columns, context):
        text = rows["text"].combine_chunks()
        cuts = lines.cut(text, lines.units(text), keys, settings.min_words)
        num_cuts = np.diff(cuts.ends)
        gone = (num_cuts > 0) & (cuts.num_chars_left < settings.min_chars)
        owner = np.repeat(np.arange(rows.num_rows), num_cuts)
        stays = ~gone[owner]
        edits = pa.table(
            {
                "doc_id": rows["doc_id"].combine_chunks().take(pa.array(owner[stays])),
                "start": cuts.start[stays].astype(np.int32),
                "end": cuts.end[stays].astype(np.int32),
                "replacement": pa.array([""] * int(stays.sum()), pa.string()),
            }
        )
        writers.write("edits", edits)
        left = pa.array(cuts.num_chars_left).filter(pa.array(gone)).cast(pa.string())
        num_gone = int(gone.sum())
        rejected = ledger(
            rows.filter(pa.array(gone)),
            pa.array(["repeated_lines"] * num_gone, pa.string()),
            [["repeated_lines"]] * num_gone,
            left,
            pa.array([str(settings.min_chars)] * num_gone, pa.string()),
        )
        writers.write("rejects", rejected)
        num_bytes = pc.sum(rows["num_bytes"]).as_py()
        num_cut = int((cuts.end - cuts.start)[stays].sum())
        removed = num_cut + (pc.sum(rejected["num_bytes"]).as_py() or 0)
        outcome.rows.update({"in": rows.num_rows, "kept": rows.num_rows - num_gone})
        outcome.rows["rejected"] += num_gone
        outcome.num_bytes.update({"in": num_bytes, "kept": num_bytes - removed, "removed": removed})
        num_touched = len(np.unique(owner[stays]))
        counts = {"cuts": edits.num_rows, "bytes_cut": num_cut, "documents_cut": num_touched}
        outcome.count("lines", counts)
        count_rejects(outcome, rejected)
    writers.close(outcome)
    return outcome


def _retained(part: Part, columns: Sequence[str], context: Context) -> Iterator[pa.Table]:
    """Yield the documents of a file that dedup retained, some rows at a time."""
    duplicates = read_between(part, "documents", "duplicates", ["doc_id"], context.lake)["doc_id"]
    for rows in scan(part, "documents", columns, context.lake, context.config.engine.batch_rows):
        rows = rows.filter(pc.invert(pc.is_in(rows["doc_id"], duplicates)))
        if rows.num_rows:
            yield rows


@lru_cache(maxsize=2)
def _frequent_keys(folder: str) -> Int64Array:
    """Return the frequent keys of all ranges, ascending."""
    arrays = [np.load(path) for path in sorted(Path(folder).glob("*.npy"))]
    keys: Int64Array = np.sort(np.concatenate([np.empty(0, np.int64), *arrays]))
    return keys


def _slice(context: Context, slice: str) -> Context:
    return replace(context, slice=slice)


def _task_id() -> str:
    task = TaskContext.get()
    return str(task.taskAttemptId() if task else 0)

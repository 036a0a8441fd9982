"""What dedup took from a dump, its languages and its hosts, and the alarm when it is nearly all.

For the dump and a language all duplicates count. For a host only those whose twin is of the same
dump: losing pages to their earlier captures is what dedup across dumps is for, while a host that
loses nearly all to pages of its own dump was wiped out. Only hosts with a thousandth of the dump's
documents are watched. Counts come before the commit, so that nothing is committed at an alarm.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from curation.engine.lake import FileEntry, Lake
from curation.engine.tasks import Context, Outcome, Part, read_between, scan
from curation.errors import DuplicationAlarm
from curation.identity import FILE_BITS, RECORD_BITS, origin
from curation.schemas import spark_ddl

MIN_HOST_SHARE = 0.001  # of a dump's documents, for a host to be watched
NUM_HOSTS = 20  # with most documents removed, in the run record

LOSS = pa.schema(
    [
        ("kind", pa.string()),  # dump, language, host
        ("name", pa.string()),
        ("num_documents", pa.int64()),
        ("num_removed", pa.int64()),
        ("num_lost", pa.int64()),  # removed, of a host for a twin in the dump itself
        ("example", pa.int64()),  # the first removed document, or the largest number
    ]
)
NOBODY = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Loss:
    """What a dump, a language or a host had and lost."""

    kind: str
    name: str
    num_documents: int
    num_removed: int
    num_lost: int
    example: int

    @property
    def title(self) -> str:
        """The name that `dedup.allowed_losses` takes."""
        return "dump" if self.kind == "dump" else f"{self.kind}:{self.name}"


def watch(
    session: SparkSession, lake: Lake, context: Context, duplicates: Sequence[FileEntry]
) -> Outcome:
    """Count what a dump loses; raises DuplicationAlarm. `duplicates` are its files just written.

    Cost: the columns doc_id, host and lang of its documents; names above the bounds reach the
    driver.
    """
    records = lake.records("ingest", context.dump)
    documents = [entry for record in records for entry in record.files_of("documents")]
    removed = [entry for entry in duplicates if entry.table == "duplicates"]
    parts = [
        Part(number, {"documents": [entry], "duplicates": removed})
        for number, entry in enumerate(documents)
    ]
    num_documents = sum(entry.rows for entry in documents)
    settings = context.config.dedup
    least = max(settings.alarm_documents, MIN_HOST_SHARE * num_documents)
    if num_documents <= context.config.engine.single_task_documents:
        losses = _summed([_losses(part, context) for part in parts])
    else:
        losses = _by_spark(session, parts, context, least, settings.alarm_share)
    outcome = Outcome()
    languages = {loss.name: loss.num_removed for loss in losses if loss.kind == "language"}
    outcome.count("languages_removed", languages)
    hosts = [loss for loss in losses if loss.kind == "host"]
    hosts.sort(key=lambda loss: (-loss.num_removed, loss.name))
    most = [loss for loss in hosts[:NUM_HOSTS] if loss.num_removed]
    outcome.count("hosts_removed", {loss.name: loss.num_removed for loss in most})
    outcome.count("hosts_in", {loss.name: loss.num_documents for loss in most})
    alarms = [
        loss
        for loss in losses
        if loss.num_documents >= (least if loss.kind == "host" else settings.alarm_documents)
        and loss.num_lost > settings.alarm_share * loss.num_documents
    ]
    alarms.sort(key=lambda loss: (loss.kind, -loss.num_lost, loss.name))
    outcome.count("alarms_allowed", {loss.title: loss.num_lost for loss in alarms})
    refused = [loss for loss in alarms if loss.title not in settings.allowed_losses]
    if refused:
        raise DuplicationAlarm(_message(lake, context, refused, removed))
    return outcome


def _losses(part: Part, context: Context) -> pa.Table:
    """Return partial losses of a file of documents."""
    found = [LOSS.empty_table()]
    twins = read_between(part, "documents", "duplicates", ["doc_id", "twin_id"], context.lake)
    twins = twins.sort_by("doc_id")
    columns = ["doc_id", "host", "lang"]
    for rows in scan(part, "documents", columns, context.lake, context.config.engine.batch_rows):
        place = pc.index_in(rows["doc_id"], twins["doc_id"])
        removed = pc.is_valid(place)
        twin = twins["twin_id"].take(pc.fill_null(place, 0)) if twins.num_rows else rows["doc_id"]
        bits = FILE_BITS + RECORD_BITS
        is_own = pc.equal(pc.shift_right(twin, bits), pc.shift_right(rows["doc_id"], bits))
        by_own = pc.and_(removed, is_own)
        same = pa.array([context.dump] * rows.num_rows, pa.string())
        for kind, names, lost in (
            ("dump", same, removed),
            ("language", rows["lang"], removed),
            ("host", rows["host"], by_own),
        ):
            found.append(
                pa.table(
                    {
                        "kind": pa.array([kind] * rows.num_rows, pa.string()),
                        "name": pc.fill_null(names, ""),
                        "num_documents": pa.array(np.ones(rows.num_rows, np.int64)),
                        "num_removed": pc.cast(removed, pa.int64()),
                        "num_lost": pc.cast(lost, pa.int64()),
                        "example": pc.if_else(lost, rows["doc_id"], NOBODY),
                    },
                    schema=LOSS,
                )
            )
        found = [_grouped(pa.concat_tables(found))]
    return pa.concat_tables(found)


def _grouped(rows: pa.Table) -> pa.Table:
    sums = rows.group_by(["kind", "name"]).aggregate(
        [("num_documents", "sum"), ("num_removed", "sum"), ("num_lost", "sum"), ("example", "min")]
    )
    names = ["num_documents_sum", "num_removed_sum", "num_lost_sum", "example_min"]
    return sums.select(["kind", "name", *names]).rename_columns(LOSS.names).cast(LOSS)


def _summed(tables: Sequence[pa.Table]) -> list[Loss]:
    together = _grouped(pa.concat_tables([LOSS.empty_table(), *tables]))
    return [Loss(**row) for row in together.to_pylist()]


def _by_spark(
    session: SparkSession, parts: Sequence[Part], context: Context, least: float, share: float
) -> list[Loss]:
    """Return the dump, its languages, and the hosts that lost most or may be alarming."""
    numbers = session.range(0, len(parts), 1, numPartitions=len(parts))
    worker = partial(_on_worker, parts=parts, context=context)
    losses = (
        numbers.mapInArrow(worker, spark_ddl(LOSS))
        .groupBy("kind", "name")
        .agg(
            F.sum("num_documents").alias("num_documents"),
            F.sum("num_removed").alias("num_removed"),
            F.sum("num_lost").alias("num_lost"),
            F.min("example").alias("example"),
        )
    )
    hosts = losses.filter("kind = 'host'")
    most = hosts.orderBy(F.desc("num_removed"), "name").limit(NUM_HOSTS)
    alarming = hosts.filter(
        (F.col("num_documents") >= least) & (F.col("num_lost") > share * F.col("num_documents"))
    )
    rows = losses.filter("kind != 'host'").union(most).union(alarming).distinct().collect()
    return [Loss(**row.asDict()) for row in rows]


def _on_worker(
    batches: Iterator[pa.RecordBatch], parts: Sequence[Part], context: Context
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for number in batch.column(0).to_pylist():
            yield from _losses(parts[number], context).to_batches()


def _message(
    lake: Lake, context: Context, alarms: Sequence[Loss], duplicates: Sequence[FileEntry]
) -> str:
    share = context.config.dedup.alarm_share
    told = [
        f"{loss.title} would lose {loss.num_lost:,} of {loss.num_documents:,} documents "
        f"({loss.num_lost / loss.num_documents:.1%})"
        for loss in alarms[:5]
    ]
    more = f" and {len(alarms) - 5} more" if len(alarms) > 5 else ""
    doc_id = alarms[0].example
    only = FileEntry("documents", "", 1, 0, doc_id, doc_id)
    part = Part(0, {"documents": [only], "duplicates": duplicates})
    found = read_between(part, "documents", "duplicates", ["doc_id", "twin_id"], context.lake)
    twin_id = found["twin_id"][0].as_py()
    pair = " for ".join(_url(lake, each) for each in (doc_id, twin_id))
    allowed = ", ".join(f'"{loss.title}"' for loss in alarms[:5])
    return (
        f"dedup of dump {context.dump}: {'; '.join(told)}{more}; the bound is {share:.1%}. For "
        f"example {pair}. Nothing was committed. Is the dump listed twice, or a threshold too low? "
        f"If it is meant so: dedup.allowed_losses = [{allowed}], or raise dedup.alarm_share"
    )


def _url(lake: Lake, doc_id: int) -> str:
    dump = lake.dump_at(origin(doc_id).dump)
    rows: Any = lake.table("documents", dump=dump).to_table(
        ["url"], filter=pc.field("doc_id") == doc_id
    )
    return f"{rows['url'][0].as_py()} ({dump})"

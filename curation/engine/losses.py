"""The wipe-out alarm: what dedup takes from a dump, from its languages and from its hosts.

One dump under two names, a template that swallows a site, a language whose words are not
segmented: each shows as nearly all of something gone. So before the dedup of a dump is committed,
its losses are counted; above a share the run stops. Of a dump and of a language every duplicate
counts. Of a host only those count whose twin is in the same dump: to lose pages to earlier
captures of themselves is what dedup over dumps is for, to lose them to each other is not.
"""

import json
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.config import DedupConfig
from curation.engine.lake import FileEntry, Lake, RunRecord
from curation.engine.ledger import documents_of
from curation.engine.tasks import Context, Outcome
from curation.errors import DuplicationAlarm
from curation.schemas import DUPLICATES, spark_ddl

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

HOST_PARTS = 1_000  # a host with less than this part of a dump's documents raises no alarm
NUM_HOSTS = 100  # with most documents removed, that a run record names
NUM_NAMED = 10  # losses that a message names
NUM_EXAMPLES = 3  # pairs that it shows
MAX_URL_CHARS = 300
COLUMNS = {"language": "lang", "host": "host"}  # of documents

COUNTS = pa.schema(
    [
        ("kind", pa.string()),  # language | host
        ("name", pa.string()),
        ("num_documents", pa.int64()),  # that came to dedup
        ("num_removed", pa.int64()),
        ("num_counted", pa.int64()),  # removed, and counting for the alarm
        ("first", pa.int64()),  # lowest doc_id of those that count; null without any
    ]
)
HOW = {"num_documents": "sum", "num_removed": "sum", "num_counted": "sum", "first": "min"}


@dataclass(frozen=True)
class Loss:
    """What dedup took from a dump, or from a language or host of it."""

    dump: str
    name: str  # dump, language:zh, host:example.org: as dedup.allowed_losses names it
    num_documents: int
    num_removed: int
    num_counted: int  # of a host only what has its twin in the same dump
    first: int | None = None  # lowest doc_id of those that count, before the commit

    @property
    def share(self) -> float:
        """Share of the documents that counts for the alarm."""
        return self.num_counted / max(self.num_documents, 1)


def check_losses(
    session: "SparkSession", lake: Lake, context: Context, files: Sequence[FileEntry]
) -> Outcome:
    """Return what the run record of a dump says of its losses.

    `files` are those that its dedup has written and not committed yet. Raises DuplicationAlarm
    when a loss is above `dedup.alarm_share` and not among `dedup.allowed_losses`. Cost: one scan of
    three columns of documents, one task a file unless the dump is small; the driver holds all
    languages and at most 1,100 hosts.
    """
    records = lake.records("ingest", context.dump)
    documents = [entry for record in records for entry in record.files_of("documents")]
    duplicates = sorted(
        (entry for entry in files if entry.table == "duplicates"), key=FileEntry.id_range
    )
    num_documents = sum(entry.rows for entry in documents)
    num_removed = sum(entry.rows for entry in duplicates)
    parts = _parts(lake, documents, duplicates)
    settings = context.config.dedup
    if num_documents <= context.config.engine.single_task_documents:
        counts = summed([_count_part(part, context.dump) for part in parts])
        counts = _chosen(counts, num_documents, settings)
    else:
        counts = _count_on_spark(session, lake, context, parts, num_documents)

    first = duplicates[0].first_doc_id if duplicates else None
    losses = [Loss(context.dump, "dump", num_documents, num_removed, num_removed, first)]
    for row in counts.sort_by([("kind", "descending"), ("name", "ascending")]).to_pylist():
        name = f"{row.pop('kind')}:{row.pop('name')}"
        losses.append(Loss(dump=context.dump, name=name, **row))
    found = alarms(losses, settings)
    stopping = [loss for loss in found if not is_allowed(loss, found, settings)]
    if stopping:
        raise DuplicationAlarm(_message(lake, stopping, duplicates, settings))

    outcome = Outcome()
    outcome.count("loss_documents", {loss.name: loss.num_documents for loss in losses})
    outcome.count("loss_removed", {loss.name: loss.num_removed for loss in losses})
    outcome.count("loss_counted", {loss.name: loss.num_counted for loss in losses})
    outcome.count("loss_allowed", {loss.name: loss.num_counted for loss in found})
    return outcome


def losses_of(record: RunRecord) -> list[Loss]:
    """Return the losses that a run record of dedup holds: all languages, the largest of hosts."""
    removed, counted = (record.counts.get(f"loss_{what}", {}) for what in ("removed", "counted"))
    return [
        Loss(record.dump, name, number, removed.get(name, 0), counted.get(name, 0))
        for name, number in record.counts.get("loss_documents", {}).items()
    ]


def alarms(losses: Sequence[Loss], settings: DedupConfig) -> list[Loss]:
    """Return the losses of one dump that are above the share and large enough."""
    total = max((loss.num_documents for loss in losses if loss.name == "dump"), default=0)
    return [
        loss
        for loss in losses
        if loss.share > settings.alarm_share
        and loss.num_documents >= _min_documents(loss.name.partition(":")[0], total, settings)
    ]


def is_allowed(loss: Loss, found: Sequence[Loss], settings: DedupConfig) -> bool:
    """Return whether the settings allow a loss of a dump, whose alarms are `found`.

    Where nearly all of a dump may go, so may its languages.
    """
    names = [loss.name]
    if loss.name.startswith("language:") and any(other.name == "dump" for other in found):
        names.append("dump")
    allowed = settings.allowed_losses
    return any(name in allowed or f"{loss.dump}/{name}" in allowed for name in names)


def _min_documents(kind: str, num_documents: int, settings: DedupConfig) -> int:
    """Return how many documents a name must have in a dump of `num_documents` for an alarm."""
    least = math.ceil(num_documents / HOST_PARTS) if kind == "host" else 0
    return max(settings.alarm_documents, least)


# ---- counting ----------------------------------------------------------------------------------


def count_losses(documents: pa.Table, duplicates: pa.Table, dump: str) -> pa.Table:
    """Count by language and host: rows of COUNTS, in any order; a null is no name.

    `documents` has doc_id, host and lang, `duplicates` doc_id and twin_dump of these or more.
    Counts of parts of the documents add up with `summed`.
    """
    place = pc.index_in(documents["doc_id"], value_set=duplicates["doc_id"].combine_chunks())
    is_removed = pc.is_valid(place)
    is_within = pc.fill_null(pc.equal(pc.take(duplicates["twin_dump"], place), dump), False)
    counts = []
    for kind, is_counted in (("language", is_removed), ("host", is_within)):
        rows = pa.table(
            {
                "kind": pa.repeat(kind, documents.num_rows),
                "name": documents[COLUMNS[kind]],
                "num_documents": pa.repeat(1, documents.num_rows),
                "num_removed": is_removed.cast(pa.int64()),
                "num_counted": is_counted.cast(pa.int64()),
                "first": pc.if_else(is_counted, documents["doc_id"], None),
            }
        )
        counts.append(rows.filter(pc.is_valid(rows["name"])).cast(COUNTS))
    return summed(counts)


def summed(counts: Sequence[pa.Table]) -> pa.Table:
    """Add up counts of parts by kind and name."""
    rows = pa.concat_tables([COUNTS.empty_table(), *counts])
    rows = rows.group_by(["kind", "name"], use_threads=False).aggregate(list(HOW.items()))
    names = ["kind", "name", *(f"{name}_{how}" for name, how in HOW.items())]
    return rows.select(names).rename_columns(COUNTS.names).cast(COUNTS)


def _chosen(counts: pa.Table, num_documents: int, settings: DedupConfig) -> pa.Table:
    """Return all languages, the hosts that lost most, and those that may raise an alarm."""
    is_host = pc.equal(counts["kind"], "host")
    hosts = counts.filter(is_host).sort_by([("num_removed", "descending"), ("name", "ascending")])
    least = _min_documents("host", num_documents, settings)
    share = pc.divide(hosts["num_counted"].cast(pa.float64()), hosts["num_documents"])
    is_large = pc.greater_equal(hosts["num_documents"], least)
    is_alarm = pc.and_(is_large, pc.greater(share, settings.alarm_share))
    most = hosts.slice(0, NUM_HOSTS)
    others = hosts.slice(NUM_HOSTS).filter(is_alarm.slice(NUM_HOSTS))
    return pa.concat_tables([counts.filter(pc.invert(is_host)), most, others])


def _count_on_spark(
    session: "SparkSession",
    lake: Lake,
    context: Context,
    parts: Sequence["_Part"],
    num_documents: int,
) -> pa.Table:
    """Count with one task a file, and choose as `_chosen` does, before the driver sees a host."""
    from pyspark.sql import functions as F

    from curation.engine.session import on_disk

    folder = lake.work_folder(context.attempt) / "losses"
    folder.mkdir(parents=True, exist_ok=True)
    listing = folder / "parts.arrow"
    rows = pa.Table.from_pylist([part._asdict() for part in parts], schema=PARTS).combine_chunks()
    with pa.ipc.new_file(str(listing), PARTS) as writer:
        writer.write_table(rows)
    worker = partial(_on_worker, listing=str(listing), dump=context.dump)
    by_part = session.range(0, len(parts), 1, numPartitions=len(parts)).mapInArrow(
        worker, spark_ddl(COUNTS)
    )
    sums = [getattr(F, how)(name).alias(name) for name, how in HOW.items()]
    by_part.groupBy("kind", "name").agg(*sums).write.parquet(on_disk(folder / "counts"))

    counts = session.read.schema(spark_ddl(COUNTS)).parquet(on_disk(folder / "counts"))
    hosts = counts.filter(F.col("kind") == "host")
    settings = context.config.dedup
    is_alarm = (F.col("num_documents") >= _min_documents("host", num_documents, settings)) & (
        F.col("num_counted") / F.col("num_documents") > settings.alarm_share
    )
    most = hosts.orderBy(F.desc("num_removed"), "name").limit(NUM_HOSTS)
    languages = counts.filter(F.col("kind") == "language")
    found = languages.union(hosts.filter(is_alarm)).union(most).distinct().toArrow()
    return _chosen(found.cast(COUNTS), num_documents, settings)


def _on_worker(
    batches: Iterator[pa.RecordBatch], listing: str, dump: str
) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(listing) as source:
        parts = pa.ipc.open_file(source).read_all()
        for batch in batches:
            for number in batch.column(0).to_pylist():
                part = _Part(**parts.slice(number, 1).to_pylist()[0])
                yield from _count_part(part, dump).to_batches()


class _Part(NamedTuple):
    """A file of documents, and the files of duplicates that may name some of them."""

    documents: str
    first: int  # doc_id
    last: int
    duplicates: Sequence[str]


PARTS = pa.schema(
    [
        ("documents", pa.string()),
        ("first", pa.int64()),
        ("last", pa.int64()),
        ("duplicates", pa.list_(pa.string())),
    ]
)


def _parts(
    lake: Lake, documents: Sequence[FileEntry], duplicates: Sequence[FileEntry]
) -> list[_Part]:
    """Pair files by their ranges of doc_id; `duplicates` are ascending and do not overlap."""
    firsts, lasts = ([ids[end] for ids in map(FileEntry.id_range, duplicates)] for end in (0, 1))
    parts = []
    for entry in documents:
        first, last = entry.id_range()
        overlapping = duplicates[bisect_left(lasts, first) : bisect_right(firsts, last)]
        paths = [str(lake.path / other.path) for other in overlapping]
        parts.append(_Part(str(lake.path / entry.path), first, last, paths))
    return parts


def _count_part(part: _Part, dump: str) -> pa.Table:
    documents = pq.read_table(part.documents, columns=["doc_id", "host", "lang"], partitioning=None)
    ids = pc.field("doc_id")
    duplicates = [
        pq.read_table(
            path,
            columns=["doc_id", "twin_dump"],
            filters=(ids >= part.first) & (ids <= part.last),
            partitioning=None,
        )
        for path in part.duplicates
    ]
    empty = pa.schema([DUPLICATES.field(name) for name in ("doc_id", "twin_dump")]).empty_table()
    return count_losses(documents, pa.concat_tables([empty, *duplicates]), dump)


# ---- what the user is told ---------------------------------------------------------------------


def _message(
    lake: Lake, losses: Sequence[Loss], duplicates: Sequence[FileEntry], settings: DedupConfig
) -> str:
    named = [
        f"{loss.name} would lose {loss.num_counted:,} of {loss.num_documents:,} documents "
        f"({loss.share:.2%})" + " to pages of the same dump" * loss.name.startswith("host:")
        for loss in losses[:NUM_NAMED]
    ]
    if len(losses) > NUM_NAMED:
        named.append(f"and {len(losses) - NUM_NAMED} more")
    pairs = _pairs(lake, losses, duplicates)
    dump = losses[0].dump
    # What is allowed for the dump holds for its languages.
    of_dump = [loss for loss in losses if loss.name == "dump"]
    wanted = [loss for loss in losses if not (of_dump and loss.name.startswith("language:"))]
    names = json.dumps([f"{dump}/{loss.name}" for loss in wanted], ensure_ascii=False)
    return (
        f"dedup of dump {dump}: {'; '.join(named)}; the bound is dedup.alarm_share = "
        f"{settings.alarm_share:g}. For example {'; '.join(pairs)}. Nothing was committed. Look at "
        "these pages: is a dump listed under two names, does one template or notice pass for many "
        f"pages? If the loss is right, allow it with dedup.allowed_losses = {names} or raise "
        "dedup.alarm_share, and run the same command again"
    )


def _pairs(lake: Lake, losses: Sequence[Loss], duplicates: Sequence[FileEntry]) -> list[str]:
    """Return the first duplicate of some losses, with its twin."""
    wanted = sorted({loss.first for loss in losses if loss.first is not None})[:NUM_EXAMPLES]
    found = [
        row
        for entry in duplicates
        if any(entry.id_range()[0] <= doc_id <= entry.id_range()[1] for doc_id in wanted)
        for row in pq.read_table(
            lake.path / entry.path,
            columns=["doc_id", "kind", "twin_id", "twin_dump", "similarity"],
            filters=pc.field("doc_id").isin(wanted),
            partitioning=None,
        ).to_pylist()
    ]
    ids = [row[name] for row in found for name in ("doc_id", "twin_id")]
    pages = documents_of(lake, ids, ["url"])
    return [
        f"{_shown(pages[row['doc_id']]['url'])} as {row['kind']} duplicate of "
        f"{_shown(pages[row['twin_id']]['url'])} in {row['twin_dump']} "
        f"(similarity {row['similarity']:.3f})"
        for row in found
    ]


def _shown(url: str | None) -> str:
    return " ".join((url or "a page without URL").split())[:MAX_URL_CHARS]

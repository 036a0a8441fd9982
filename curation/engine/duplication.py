"""What dedup did to a lake, in numbers, for the report and `curation show`. Needs no Spark.

Everything is read from run records and committed tables, of these only columns of ids, batch after
batch. What needs memory for every duplicate is left out above a stated number of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.config import DedupConfig
from curation.engine.lake import Lake
from curation.engine.ledger import FUNNEL_STAGES, Funnel, documents_of
from curation.engine.losses import Loss, alarms, losses_of
from curation.errors import LakeCorrupt
from curation.identity import FILE_BITS, MAX_DUMPS, RECORD_BITS, origin
from curation.schemas import FULL_BUCKETS

Int64Array = npt.NDArray[np.int64]

LATER_STAGES = FUNNEL_STAGES[FUNNEL_STAGES.index("dedup") + 1 :]
MAX_DUPLICATES = 20_000_000  # of a lake whose clusters are counted: 32 bytes each
MAX_REJECTS = 20_000_000  # of later stages, among which twins of orphans are sought: 36 bytes each
MAX_FULL_BUCKETS = 20_000_000  # that are looked through for the fullest
NUM_CLUSTERS = 10  # largest, that are listed
NUM_HOSTS = 20
NUM_LOSSES = 10
NUM_RULES = 10  # of orphans' twins, with an example each
NUM_BUCKETS = 200  # fullest, which are listed by their first document
NUM_TEMPLATES = 8  # first documents of full buckets that are listed
NUM_EXCERPTS = 3  # documents of a bucket that are shown
EXCERPT_CHARS = 160


@dataclass(frozen=True)
class DumpRow:
    """What dedup did to one dump, and to all dumps up to it."""

    dump: str
    num_documents: int
    exact: int
    near: int
    rate: float
    rate_together: float
    leader: Mapping[str, int]


@dataclass(frozen=True)
class Page:
    """A document of the lake by id and URL, with the start of its text where that was asked for."""

    doc_id: int
    dump: str
    url: str
    excerpt: str = ""


@dataclass(frozen=True)
class SizeClass:
    """The clusters of `low` to `high` documents, and how many documents they hold."""

    low: int
    high: int
    num_clusters: int
    num_documents: int


@dataclass(frozen=True)
class Clusters:
    """Retained documents, each with the duplicates that name it as their twin."""

    num_clusters: int
    num_documents: int
    classes: Sequence[SizeClass]
    largest: Sequence[tuple[Page, int]]  # the retained document and the size


@dataclass(frozen=True)
class OrphanRow:
    """The orphans of a rule, and the first: the removed document and its twin."""

    stage: str
    rule: str
    num_orphans: int
    example: tuple[Page, Page]


@dataclass(frozen=True)
class Orphans:
    """Removed documents whose retained twin a later stage rejected: nothing of them is kept."""

    num_removed: int
    num_orphans: int
    by_dump: Sequence[tuple[str, int, int]]  # dump, documents removed from it, orphans
    by_rule: Sequence[OrphanRow]
    num_hidden: int  # rules that are not listed


@dataclass(frozen=True)
class Template:
    """Full buckets of a dump with the same first document: as a rule one template of pages."""

    dump: str
    num_buckets: int
    num_entered: int  # documents in each of them
    num_beyond: int  # documents that found no room in the fullest
    pages: Sequence[Page]


@dataclass(frozen=True)
class HostRow:
    """What dedup left of a host, over the dumps that name it among those that lost most."""

    host: str
    num_dumps: int
    num_documents: int
    num_removed: int


@dataclass(frozen=True)
class Finding:
    """A loss, and what the alarm makes of it."""

    loss: Loss
    is_alarm: bool
    was_allowed: bool


def by_dump(flow: Funnel) -> list[DumpRow]:
    """Return what dedup did to each dump, and to the first 1, 2, 3, ... dumps taken together."""
    dumps = [dump for dump in flow.dumps if (dump, "dedup") in flow.totals]
    totals = [flow.totals[dump, "dedup"] for dump in dumps]
    documents = accumulate(total.rows_in for total in totals)
    removed = accumulate(total.rows_rejected for total in totals)
    rows = []
    for dump, total, of, gone in zip(dumps, totals, documents, removed, strict=True):
        kinds = total.counts.get("duplicates", {})
        rows.append(
            DumpRow(
                dump,
                total.rows_in,
                kinds.get("exact", 0),
                kinds.get("near", 0),
                rate=total.rows_rejected / max(total.rows_in, 1),
                rate_together=gone / max(of, 1),
                leader=total.counts.get("leader", {}),
            )
        )
    return rows


# ---- clusters ----------------------------------------------------------------------------------


def clusters(lake: Lake, flow: Funnel) -> Clusters | None:
    """Return the sizes of clusters; None for more than 20 million duplicates."""
    total = flow.total("dedup")
    if total is None or total.rows_rejected > MAX_DUPLICATES:
        return None
    twins = [np.empty(0, np.int64)]
    twins += [batch["twin_id"].to_numpy() for batch in _batches(lake, "duplicates", ["twin_id"])]
    ids, counts = np.unique(np.concatenate(twins), return_counts=True)
    sizes = counts + 1
    most = np.lexsort((ids, -sizes))[:NUM_CLUSTERS]
    pages = _pages(lake, ids[most].tolist())
    return Clusters(
        num_clusters=total.rows_kept,
        num_documents=total.rows_in,
        classes=size_classes(sizes, total.rows_kept - len(ids)),
        largest=[(pages[int(ids[at])], int(sizes[at])) for at in most],
    )


def size_classes(sizes: Int64Array, num_single: int) -> list[SizeClass]:
    """Group sizes of 2 and more, and single documents, by 1, 2, 3 to 4, 5 to 8, ..., doubling.

    Classes between the first and the last that are empty are among them.
    """
    _, exponent = np.frexp(sizes - 1)  # 2 ** (exponent - 1) < size <= 2 ** exponent
    num_classes = int(exponent.max(initial=0)) + 1
    num_clusters = np.bincount(exponent, minlength=num_classes)
    num_documents = np.zeros(num_classes, np.int64)
    np.add.at(num_documents, exponent, sizes)
    num_clusters[0], num_documents[0] = num_single, num_single
    return [
        SizeClass(2 ** (k - 1) + 1 if k else 1, 2**k, int(n), int(num_documents[k]))
        for k, n in enumerate(num_clusters)
    ]


# ---- orphans -----------------------------------------------------------------------------------


def orphans(lake: Lake, flow: Funnel) -> Orphans | None:
    """Return whose twin left later; None where the filter has not run, or for too many rejects."""
    later = {stage: flow.total(stage) for stage in LATER_STAGES}
    num_rejected = sum(total.rows_rejected for total in later.values() if total)
    if later["filter"] is None or num_rejected > MAX_REJECTS:
        return None
    rejected, rules, names = _rejected(lake)
    removed = np.zeros(MAX_DUMPS, np.int64)
    orphaned = np.zeros(MAX_DUMPS, np.int64)
    by_rule = np.zeros(len(names), np.int64)
    first: dict[int, tuple[int, int]] = {}
    for batch in _batches(lake, "duplicates", ["doc_id", "twin_id"]):
        ids, twins = (batch[name].to_numpy() for name in ("doc_id", "twin_id"))
        removed += np.bincount(ids >> (FILE_BITS + RECORD_BITS), minlength=MAX_DUMPS)
        place = np.minimum(np.searchsorted(rejected, twins), max(len(rejected) - 1, 0))
        is_orphan = rejected[place] == twins if len(rejected) else np.zeros(len(twins), np.bool_)
        ids, twins, codes = ids[is_orphan], twins[is_orphan], rules[place[is_orphan]]
        orphaned += np.bincount(ids >> (FILE_BITS + RECORD_BITS), minlength=MAX_DUMPS)
        by_rule += np.bincount(codes, minlength=len(names))
        found, at = np.unique(codes, return_index=True)
        for code, i in zip(found.tolist(), at.tolist(), strict=True):
            pair = (int(ids[i]), int(twins[i]))
            first[code] = min(first.get(code, pair), pair)
    ranked = sorted(first, key=lambda code: (-int(by_rule[code]), names[code]))
    pages = _pages(lake, [i for code in ranked[:NUM_RULES] for i in first[code]])
    return Orphans(
        int(removed.sum()),
        int(orphaned.sum()),
        [
            (lake.dump_at(ordinal), int(removed[ordinal]), int(orphaned[ordinal]))
            for ordinal in np.flatnonzero(removed).tolist()
        ],
        [
            OrphanRow(
                *names[code],
                int(by_rule[code]),
                (pages[first[code][0]], pages[first[code][1]]),
            )
            for code in ranked[:NUM_RULES]
        ],
        len(ranked[NUM_RULES:]),
    )


def _rejected(lake: Lake) -> tuple[Int64Array, npt.NDArray[np.int32], list[tuple[str, str]]]:
    """Return doc_id, ascending, of what left after dedup, and a place in the stages and rules."""
    codes: dict[tuple[str, str], int] = {}
    ids, rules = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
    for stage in LATER_STAGES:
        for batch in _batches(lake, "rejects", ["doc_id", "rule"], stage=stage):
            column = batch["rule"].dictionary_encode()
            names = [(stage, rule) for rule in column.dictionary.to_pylist()]
            known = [codes.setdefault(name, len(codes)) for name in names]
            ids.append(batch["doc_id"].to_numpy())
            rules.append(np.array(known, np.int32)[column.indices.to_numpy()])
    order = np.argsort(np.concatenate(ids))
    return np.concatenate(ids)[order], np.concatenate(rules)[order], list(codes)


# ---- full buckets ------------------------------------------------------------------------------


def full_buckets(lake: Lake) -> list[Template] | None:
    """Return the fullest buckets by their first document; None for more than 20 million."""
    table = lake.table("full_buckets")
    if table.count_rows() > MAX_FULL_BUCKETS:
        return None
    order = [("num_beyond", "descending"), ("dump", "ascending"), ("band_key", "ascending")]
    columns = [*FULL_BUCKETS.names, "dump"]
    most = table.schema.empty_table().select(columns)
    for batch in _batches(lake, "full_buckets", columns):
        rows = pa.concat_tables([most, pa.Table.from_batches([batch])])
        most = rows.sort_by(order).slice(0, NUM_BUCKETS)
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in most.to_pylist():
        groups.setdefault((row["dump"], row["doc_ids"][0]), []).append(row)
    chosen = list(groups.values())[:NUM_TEMPLATES]  # the fullest come first
    pages = _pages(lake, [i for rows in chosen for i in rows[0]["doc_ids"][:NUM_EXCERPTS]], True)
    return [
        Template(
            rows[0]["dump"],
            len(rows),
            rows[0]["num_entered"],
            rows[0]["num_beyond"],
            [pages[i] for i in rows[0]["doc_ids"][:NUM_EXCERPTS]],
        )
        for rows in chosen
    ]


# ---- losses ------------------------------------------------------------------------------------


def hosts(lake: Lake) -> list[HostRow]:
    """Return the hosts that lost most, over the dumps whose run records name them."""
    found: dict[str, list[Loss]] = {}
    for record in lake.records("dedup"):
        for loss in losses_of(record):
            kind, _, host = loss.name.partition(":")
            if kind == "host":
                found.setdefault(host, []).append(loss)
    rows = [
        HostRow(
            host,
            len(losses),
            sum(loss.num_documents for loss in losses),
            sum(loss.num_removed for loss in losses),
        )
        for host, losses in found.items()
        if any(loss.num_removed for loss in losses)
    ]
    return sorted(rows, key=lambda row: (-row.num_removed, row.host))[:NUM_HOSTS]


def languages_removed(lake: Lake) -> dict[str, int]:
    """Return how many documents of each language dedup removed."""
    found: dict[str, int] = {}
    for record in lake.records("dedup"):
        for loss in losses_of(record):
            kind, _, language = loss.name.partition(":")
            if kind == "language":
                found[language] = found.get(language, 0) + loss.num_removed
    return found


def allowed(lake: Lake) -> list[tuple[str, str, int]]:
    """Return the losses above the bound of their time that were allowed: dump, name, documents."""
    return [
        (record.dump, name, count)
        for record in lake.records("dedup")
        for name, count in record.counts.get("loss_allowed", {}).items()
    ]


def findings(lake: Lake, settings: DedupConfig) -> tuple[list[Finding], int]:
    """Return the largest losses of names that are large enough for an alarm, and how many are one.

    Losses that were committed may be above a bound that was lowered, or dropped, since.
    """
    rows = []
    for record in lake.records("dedup"):
        losses = losses_of(record)
        found = alarms(losses, settings)
        large = alarms(losses, replace(settings, alarm_share=-1.0))
        allowed = record.counts.get("loss_allowed", {})
        rows += [
            Finding(loss, loss in found, loss.name in allowed) for loss in large if loss.num_counted
        ]
    rows.sort(key=lambda row: (not row.is_alarm, -row.loss.share))
    return rows[:NUM_LOSSES], sum(row.is_alarm for row in rows)


# ---- reading -----------------------------------------------------------------------------------


def _batches(
    lake: Lake, table: str, columns: Sequence[str], stage: str | None = None
) -> Iterator[pa.RecordBatch]:
    for batch in lake.table(table, stage=stage).to_batches(columns=list(columns)):
        if batch.num_rows:
            yield batch


def _pages(lake: Lake, doc_ids: Sequence[int], with_text: bool = False) -> dict[int, Page]:
    """Look up documents; raises LakeCorrupt when one is not there."""
    rows = documents_of(lake, doc_ids, ["url", "text"] if with_text else ["url"])
    for doc_id in doc_ids:
        if doc_id not in rows:
            raise LakeCorrupt(
                f"{doc_id} is named by dedup but is no document of the lake {lake.path}; restore "
                "the lake from a backup, or run it anew from ingest"
            )
    return {
        doc_id: Page(
            doc_id,
            lake.dump_at(origin(doc_id).dump),
            row["url"] or "",
            _excerpt(row["text"] or "") if with_text else "",
        )
        for doc_id, row in rows.items()
    }


def _excerpt(text: str) -> str:
    words = " ".join(text[: 4 * EXCERPT_CHARS].split())
    return words if len(words) <= EXCERPT_CHARS else words[:EXCERPT_CHARS] + "..."

"""What the duplicates of a lake look like: clusters, hosts, full buckets, orphans. No Spark.

Read for the report. Only ids are read in full; URLs and texts of the few documents shown.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from curation.engine.lake import Lake
from curation.identity import FILE_BITS, RECORD_BITS, origin

MAX_DUPLICATES = 20_000_000  # ids held in memory, 16 bytes each; a larger lake has no such sections
MAX_LISTED = 10
DUMP_SHIFT = FILE_BITS + RECORD_BITS
MAX_EXCERPT_CHARS = 160
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Clusters:
    """Retained documents by how many they stand for, duplicates and themselves."""

    histogram: Sequence[tuple[str, int, int]]  # size, retained documents, all their documents
    largest: Sequence[tuple[int, str, str]]  # documents, URL and dump of the retained one


@dataclass(frozen=True)
class Host:
    """A host's documents that came to dedup, and those removed, in dumps where many were."""

    name: str
    num_documents: int
    num_removed: int


@dataclass(frozen=True)
class FullBucket:
    """A bucket that turned retained documents away, and what the first in it say."""

    dump: str
    num_entered: int
    num_beyond: int
    excerpts: Sequence[tuple[str, str]]  # URL and the first words


@dataclass(frozen=True)
class Orphans:
    """Removed documents whose retained twin left later, so that nothing of them is kept."""

    by_dump: Sequence[tuple[str, int, int]]  # dump of the removed document, orphans, duplicates
    by_rule: Sequence[tuple[str, str, int]]  # stage and rule of the twin, orphans
    examples: Sequence[tuple[str, str, str]]  # URL, URL of the twin, its rule

    @property
    def num_orphans(self) -> int:
        """All of them."""
        return sum(orphans for _, orphans, _ in self.by_dump)


def num_duplicates(lake: Lake) -> int:
    """Return how many duplicates there are, from the run records."""
    return sum(record.rows["rejected"] for record in lake.records("dedup"))


def clusters(lake: Lake) -> Clusters:
    """Count clusters by size: 1, 2, 3-4, 5-8, ... Cost: reads the column twin_id."""
    num_retained = sum(record.rows["kept"] for record in lake.records("dedup"))
    twins, counts = np.unique(_ids(lake, "duplicates", "twin_id"), return_counts=True)
    sizes = np.concatenate([counts + 1, np.ones(num_retained - len(twins), np.int64)])
    bins = np.ceil(np.log2(sizes)).astype(np.int64)  # 1, 2, 3-4, 5-8
    histogram = []
    for bin in np.unique(bins).tolist():
        inside = sizes[bins == bin]
        low, high = 2 ** (bin - 1) + 1, 2**bin
        name = str(high) if bin < 2 else f"{low:,}-{high:,}"
        histogram.append((name, len(inside), int(inside.sum())))
    order = np.lexsort((twins, -counts))[:MAX_LISTED]
    urls = _urls(lake, twins[order].tolist())
    largest = [
        (int(counts[at]) + 1, *urls[int(twins[at])]) for at in order.tolist() if counts[at] > 1
    ]
    return Clusters(histogram, largest)


def hosts(lake: Lake) -> list[Host]:
    """Return the hosts that lost most, from the run records, which name those of each dump."""
    removed, documents = Counter[str](), Counter[str]()
    for record in lake.records("dedup"):
        removed.update(record.counts.get("hosts_removed", {}))
        documents.update(record.counts.get("hosts_in", {}))
    ranked = sorted(removed.items(), key=lambda item: (-item[1], item[0]))[:MAX_LISTED]
    return [Host(name, documents[name], count) for name, count in ranked]


def full_buckets(lake: Lake) -> list[FullBucket]:
    """Return the buckets that turned most documents away, with excerpts."""
    rows = lake.table("full_buckets").to_table().to_pylist()
    rows.sort(key=lambda row: (-row["num_beyond"], row["dump"], row["band_key"]))
    found = []
    for row in rows[:MAX_LISTED]:
        matches = pc.field("doc_id").isin(row["doc_ids"][:2])
        texts = lake.table("documents", dump=row["dump"]).to_table(["url", "text"], filter=matches)
        excerpts = [
            (each["url"], " ".join(each["text"][: 4 * MAX_EXCERPT_CHARS].split()))
            for each in texts.to_pylist()
        ]
        shown = [(url, text[:MAX_EXCERPT_CHARS]) for url, text in excerpts]
        found.append(FullBucket(row["dump"], row["num_entered"], row["num_beyond"], shown))
    return found


def orphans(lake: Lake) -> Orphans:
    """Count the duplicates whose twin a later stage rejected. Cost: reads ids and rules."""
    rules: dict[int, tuple[str, str]] = {}
    for stage in ("lines", "filter", "encode"):
        rows = lake.table("rejects", stage=stage).to_table(["doc_id", "rule"])
        rules |= {row["doc_id"]: (stage, row["rule"]) for row in rows.to_pylist()}
    rejected = np.array(sorted(rules), np.int64)
    ids, twins = (_ids(lake, "duplicates", name) for name in ("doc_id", "twin_id"))
    is_orphan = np.isin(twins, rejected)
    by_dump = [
        (lake.dump_at(dump), int(is_orphan[own].sum()), int(own.sum()))
        for dump in np.unique(ids >> DUMP_SHIFT).tolist()
        for own in [ids >> DUMP_SHIFT == dump]
    ]
    by_rule = Counter(rules[twin] for twin in twins[is_orphan].tolist())
    ranked = sorted(by_rule.items(), key=lambda item: (-item[1], item[0]))
    first = np.flatnonzero(is_orphan)[:MAX_LISTED].tolist()
    urls = _urls(lake, [int(each[at]) for at in first for each in (ids, twins)])
    examples = [
        (urls[int(ids[at])][0], urls[int(twins[at])][0], rules[int(twins[at])][1]) for at in first
    ]
    return Orphans(by_dump, [(*rule, count) for rule, count in ranked[:MAX_LISTED]], examples)


def _ids(lake: Lake, table: str, column: str) -> Int64Array:
    values: Int64Array = lake.table(table).to_table([column])[column].to_numpy()
    return values


def _urls(lake: Lake, doc_ids: Iterable[int]) -> Mapping[int, tuple[str, str]]:
    """Return URL and dump of some documents."""
    wanted: dict[str, list[int]] = {}
    for doc_id in doc_ids:
        wanted.setdefault(lake.dump_at(origin(doc_id).dump), []).append(doc_id)
    found: dict[int, tuple[str, str]] = {}
    for dump, ids in wanted.items():
        rows: Any = lake.table("documents", dump=dump).to_table(
            ["doc_id", "url"], filter=pc.field("doc_id").isin(ids)
        )
        for row in rows.to_pylist():
            found[row["doc_id"]] = (row["url"], dump)
    return found

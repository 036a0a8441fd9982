"""Numbers about duplicates, against plain Python over the rows of random lakes."""

import random
from collections import Counter
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_records import made

from curation.config import DedupConfig
from curation.engine import duplication
from curation.engine.lake import FileEntry, Lake, TableWriter
from curation.engine.ledger import funnel, why
from curation.errors import LakeCorrupt
from curation.identity import first_doc_id
from curation.schemas import TABLES

Rows = list[dict[str, Any]]
DUMPS = ("B", "A", "C")  # not in the order of their names


@given(st.lists(st.integers(2, 70)), st.integers(0, 9))
def test_classes_of_sizes_double(sizes: list[int], num_single: int) -> None:
    found = duplication.size_classes(np.array(sizes, np.int64), num_single)
    together = sizes + [1] * num_single
    low = 1
    for row in found:
        assert (row.low, row.high) == (low, max(1, 2 * (low - 1)))
        own = [size for size in together if row.low <= size <= row.high]
        assert (row.num_clusters, row.num_documents) == (len(own), sum(own))
        low = row.high + 1
    assert sum(row.num_documents for row in found) == sum(together)


@pytest.fixture(scope="module")
def random_lake(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, Mapping[str, Rows]]:
    """Three dumps of 40 documents; the rows of their tables as Python sees them."""
    rng = random.Random(11)
    lake = Lake.create(tmp_path_factory.mktemp("random") / "lake")
    tables: dict[str, Rows] = {"documents": [], "duplicates": [], "rejects": []}
    retained: list[int] = []
    for ordinal, dump in enumerate(DUMPS):
        lake.freeze_inputs(dump, ordinal, 500, [])
        ids = [first_doc_id(ordinal, i % 2) + i for i in range(40)]
        documents = [
            {"doc_id": i, "url": f"https://{dump}.example/{i}", "lang_score": 1.0} for i in ids
        ]
        duplicates, own = [], []
        for i in sorted(ids):
            if retained and rng.random() < 0.6:
                twin = rng.choice(retained[:7] + retained)
                duplicates.append({"doc_id": i, "twin_id": twin, "kind": "exact"})
            else:
                retained.append(i)
                own.append(i)
        rules = [f"rule{rng.randrange(3)}" if rng.random() < 0.5 else None for _ in own]
        rejects = [{"doc_id": i, "rule": rule} for i, rule in zip(own, rules, strict=True) if rule]
        # What left earlier has a rule as well, and is nobody's twin.
        early = [{"doc_id": first_doc_id(ordinal, 0) + 100, "rule": "min_chars"}]
        by_file = (sorted(ids)[:20], sorted(ids)[20:])
        files = [
            write(lake, "documents", dump, [r for r in documents if r["doc_id"] in part], "ingest")
            for part in by_file
        ]
        commit(lake, "ingest", dump, 41, 1, [*files, write(lake, "rejects", dump, early, "ingest")])
        files = [write(lake, "duplicates", dump, duplicates, "dedup")]
        commit(lake, "dedup", dump, 40, len(duplicates), files)
        files = [write(lake, "rejects", dump, rejects, "filter")]
        commit(lake, "filter", dump, len(own), len(rejects), files)
        tables["documents"] += documents
        tables["duplicates"] += [{**row, "dump": dump} for row in duplicates]
        tables["rejects"] += rejects
    return lake, tables


def test_clusters_equal_plain_python(
    random_lake: tuple[Lake, Mapping[str, Rows]],
) -> None:
    lake, tables = random_lake
    sizes = Counter(row["doc_id"] for row in tables["documents"])
    sizes.subtract(row["doc_id"] for row in tables["duplicates"])
    sizes = +sizes  # the retained ones, each of size 1
    sizes.update(row["twin_id"] for row in tables["duplicates"])
    found = duplication.clusters(lake, funnel(lake))
    assert found is not None
    assert (found.num_clusters, found.num_documents) == (len(sizes), 120)
    for row in found.classes:
        own = [size for size in sizes.values() if row.low <= size <= row.high]
        assert (row.num_clusters, row.num_documents) == (len(own), sum(own))
    largest = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:10]
    urls = {row["doc_id"]: row["url"] for row in tables["documents"]}
    assert [(page.doc_id, page.url, size) for page, size in found.largest] == [
        (doc_id, urls[doc_id], size) for doc_id, size in largest
    ]


def test_orphans_equal_plain_python(
    random_lake: tuple[Lake, Mapping[str, Rows]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, tables = random_lake
    rules = {row["doc_id"]: row["rule"] for row in tables["rejects"]}
    orphans = [row for row in tables["duplicates"] if row["twin_id"] in rules]
    found = duplication.orphans(lake, funnel(lake))
    assert found is not None
    assert (found.num_removed, found.num_orphans) == (len(tables["duplicates"]), len(orphans))
    removed, orphaned = (
        Counter(r["dump"] for r in rows) for rows in (tables["duplicates"], orphans)
    )
    assert found.by_dump == [(dump, removed[dump], orphaned[dump]) for dump in DUMPS]
    by_rule = Counter(rules[row["twin_id"]] for row in orphans)
    ranked = sorted(by_rule.items(), key=lambda item: (-item[1], item[0]))
    assert [(row.stage, row.rule, row.num_orphans) for row in found.by_rule] == [
        ("filter", rule, number) for rule, number in ranked
    ]
    for row in found.by_rule:
        first = min(
            (r for r in orphans if rules[r["twin_id"]] == row.rule), key=lambda r: r["doc_id"]
        )
        assert tuple(page.doc_id for page in row.example) == (first["doc_id"], first["twin_id"])

    said = dict(why(lake, str(orphans[0]["doc_id"]))[0].decisions)["dedup"]
    assert said.endswith(f"an orphan: filter rejected the twin by {rules[orphans[0]['twin_id']]}")
    monkeypatch.setattr(duplication, "MAX_REJECTS", len(rules) - 1)
    assert duplication.orphans(lake, funnel(lake)) is None


def test_a_twin_that_is_no_document_is_named(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    lake.freeze_inputs("A", 0, 500, [])
    rows = [{"doc_id": 5, "twin_id": 4, "kind": "exact"}]
    commit(lake, "dedup", "A", 1, 1, [write(lake, "duplicates", "A", rows, "dedup")])
    with pytest.raises(LakeCorrupt, match="4 is named by dedup but is no document"):
        duplication.clusters(lake, funnel(lake))


def test_the_fullest_buckets_by_their_first_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(5)
    lake = Lake.create(tmp_path / "lake")
    lake.freeze_inputs("A", 0, 500, [])
    documents = [{"doc_id": i, "url": f"u{i}", "text": f"a\n{'word ' * i}"} for i in range(60)]
    commit(lake, "ingest", "A", 60, 0, [write(lake, "documents", "A", documents, "ingest")])
    buckets: Rows = [
        {
            "band_key": rng.randrange(-(2**63), 2**63),
            "num_entered": 3,
            "num_beyond": rng.randrange(1, 9),
            "doc_ids": [first, first + 1, first + 2],
        }
        for first in (rng.randrange(50) for _ in range(300))
    ]
    files = [
        write(lake, "full_buckets", "A", part, "dedup", f"part{i}")
        for i, part in enumerate((buckets[:100], buckets[100:]))
    ]
    commit(lake, "dedup", "A", 60, 0, files)
    most = sorted(buckets, key=lambda row: (-row["num_beyond"], row["band_key"]))[:200]
    firsts = list(dict.fromkeys(row["doc_ids"][0] for row in most))[:8]
    found = duplication.full_buckets(lake)
    assert found is not None
    assert [row.pages[0].doc_id for row in found] == firsts
    for row, first in zip(found, firsts, strict=True):
        own = [bucket for bucket in most if bucket["doc_ids"][0] == first]
        assert (row.num_buckets, row.num_entered) == (len(own), 3)
        assert row.num_beyond == max(bucket["num_beyond"] for bucket in own)
        assert [page.url for page in row.pages] == [f"u{first + i}" for i in range(3)]
        text = " ".join(documents[first]["text"].split())
        assert row.pages[0].excerpt == (text if len(text) <= 160 else text[:160] + "...")
    monkeypatch.setattr(duplication, "MAX_FULL_BUCKETS", 299)
    assert duplication.full_buckets(lake) is None


def test_hosts_languages_and_findings_add_up_the_records(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    losses = {
        "A": {"dump": (500, 90, 90), "language:zh": (300, 90, 90), "host:x": (400, 0, 0)},
        "C": {"dump": (500, 490, 490), "language:zh": (99, 99, 99), "host:x": (300, 290, 0)},
    }
    for ordinal, (dump, found) in enumerate(losses.items()):
        lake.freeze_inputs(dump, ordinal, 500, [])
        counts = {
            f"loss_{what}": {name: values[at] for name, values in found.items()}
            for at, what in enumerate(("documents", "removed", "counted"))
        }
        counts["loss_allowed"] = {"dump": 490} if dump == "C" else {}
        commit(lake, "dedup", dump, 500, found["dump"][1], [], counts)
    (host,) = duplication.hosts(lake)
    assert (host.host, host.num_dumps, host.num_documents, host.num_removed) == ("x", 2, 700, 290)
    assert duplication.languages_removed(lake) == {"zh": 189}
    assert duplication.allowed(lake) == [("C", "dump", 490)]

    def told(**settings: Any) -> list[tuple[str, str, bool, bool]]:
        rows, num_alarms = duplication.findings(lake, DedupConfig(**settings))
        assert num_alarms == sum(row.is_alarm for row in rows)
        return [(row.loss.dump, row.loss.name, row.is_alarm, row.was_allowed) for row in rows]

    assert told() == [
        ("C", "dump", False, True),  # 98 % are not more than that
        ("A", "language:zh", False, False),
        ("A", "dump", False, False),
    ]
    assert told(alarm_share=0.25, alarm_documents=99)[:3] == [
        ("C", "language:zh", True, False),
        ("C", "dump", True, True),
        ("A", "language:zh", True, False),
    ]


# ---- lakes by hand -----------------------------------------------------------------------------


def write(
    lake: Lake, table: str, dump: str, rows: Rows, stage: str, name: str = "part"
) -> FileEntry:
    """Write a file of a table; columns that are not given are null."""
    schema = TABLES[table]
    empty = dict.fromkeys(schema.names)
    full = [
        {**empty, **row, **({"twin_dump": DUMPS[row["twin_id"] >> 51]} if "twin_id" in row else {})}
        for row in rows
    ]
    for row in full:
        if "similarity" in row:
            row |= {"similarity": 1.0, "verified_by": "content_hash"}
    writer = TableWriter(str(lake.path), table, stage, dump, "0000", f"{name}-{next(numbers)}")
    writer.write(pa.Table.from_pylist(full, schema=schema))
    entry = writer.close()
    assert entry is not None
    return entry


numbers = count()


def commit(
    lake: Lake,
    stage: str,
    dump: str,
    num_in: int,
    num_out: int,
    files: list[FileEntry],
    counts: Mapping[str, Mapping[str, int]] | None = None,
) -> None:
    slice = "all" if stage == "dedup" else "0000"
    more = {"counts": counts or {}, "files": tuple(files)}
    lake.commit(made(stage, dump, slice, num_in, num_in - num_out, **more))

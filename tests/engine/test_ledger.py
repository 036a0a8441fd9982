"""The ledger: sums of the records, and everything that happened to one document."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from run_records import made

from curation.engine import ledger
from curation.engine.lake import WHOLE_DUMP, FileEntry, Lake, TableWriter
from curation.engine.ledger import StageTotals
from curation.errors import NotFound
from curation.identity import first_doc_id
from curation.schemas import TABLES

A, B = first_doc_id(0, 2), first_doc_id(1, 0)  # the third file of A, the first of B
KEPT, SHORT, BAD, EXACT, NEAR, AGAIN = A + 4, A + 5, A + 6, A + 7, B, B + 1
URLS = {id_: f"https://example.org/{id_ & 0xFF}" for id_ in (KEPT, SHORT, BAD, EXACT, NEAR)}
URLS[AGAIN] = URLS[KEPT]  # crawled again, with another text
OTHER = "https://example.org/other"
NUM_BYTES = 100


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Two dumps of six pages: kept and cut, too short, of bad quality, two copies, kept again."""
    lake = Lake.create(tmp_path_factory.mktemp("ledger") / "lake")
    lake.freeze_inputs("A", 0, 500, [])
    lake.freeze_inputs("B", 1, 500, [])
    short = rejects([SHORT], "min_chars", "7", "100")
    counts = {"rejects": {"min_chars": 1}, "languages": {"en": 3}}
    files = [write(lake, "A", "ingest", documents([KEPT, BAD, EXACT]))]
    files += [write(lake, "A", "ingest", short, "rejects")]
    commit(lake, "A", "ingest", (4, 3), counts, files, seconds=1.5)
    commit(lake, "A", "ingest", (10, 0), {"rejects": {"min_chars": 8, "language": 2}}, slice="0001")
    files = [write(lake, "B", "ingest", documents([NEAR, AGAIN]))]
    commit(lake, "B", "ingest", (2, 2), {"languages": {"en": 1, "zh": 1}}, files)

    files = [write(lake, "A", "dedup", twin(EXACT, "exact", 1.0, "content_hash"), "duplicates")]
    commit(lake, "A", "dedup", (3, 2), {"duplicates": {"exact": 1}}, files, slice=WHOLE_DUMP)
    files = [write(lake, "B", "dedup", twin(NEAR, "near", 0.875, "signature"), "duplicates")]
    commit(lake, "B", "dedup", (2, 1), {"duplicates": {"near": 1}}, files, slice=WHOLE_DUMP)

    bad = rejects([BAD], "gopher_min_words", "12.0", "50.0")
    bad["rules"] = [["gopher_min_words", "c4_min_sentences"]]
    edits = {"doc_id": [KEPT, KEPT], "start": [0, 50], "end": [7, 80]}
    edits["replacement"] = ["", ""]
    files = [write(lake, "A", "filter", kept(KEPT, "docs"), "kept")]
    files += [write(lake, "A", "filter", bad, "rejects")]
    files += [write(lake, "A", "filter", edits, "edits")]
    counts = {"rejects": {"gopher_min_words": 1}, "domains": {"docs": 1}}
    commit(lake, "A", "filter", (2, 1), counts, files)
    files = [write(lake, "B", "filter", kept(AGAIN, "web"), "kept")]
    commit(lake, "B", "filter", (1, 1), {"rejects": {}, "domains": {"web": 1}}, files)

    tokens = {"doc_id": [KEPT], "domain": ["docs"], "input_ids": [[1, 2, 3]], "num_tokens": [3]}
    files = [write(lake, "A", "encode", tokens, "tokens")]
    commit(lake, "A", "encode", (1, 1), {"tokens": {"docs": 3}}, files)

    share = {"doc_id": [KEPT], "component": ["docs"], "split": ["train"], "num_tokens": [3]}
    share |= {"stratum": ["docs/en"]}
    share |= {
        "weight": [2],
        "copies": [2],
        "partial_tokens": [1],
        "share": [0.25],
        "num_duplicates": [2],
    }
    files = [write(lake, "demo", "release", share, "mixture")]
    commit(lake, "demo", "release", (1, 1), {"tokens": {"docs": 7}}, files, slice=WHOLE_DUMP)
    return lake


def documents(ids: list[int]) -> dict[str, list[object]]:
    return {
        "doc_id": list(ids),
        "url": [URLS.get(id_, OTHER) for id_ in ids],
        "crawled_at": [datetime(2021, 3, 4, 5, 6, 7, tzinfo=UTC)] * len(ids),
        "lang": ["en"] * len(ids),
        "lang_score": [0.75] * len(ids),
        "text": [("Accept\n" + "x" * NUM_BYTES)[:NUM_BYTES]] * len(ids),
        "num_bytes": [NUM_BYTES] * len(ids),
        "archive": [f"/archives/{id_ >> 30}.warc.gz" for id_ in ids],
        "offset": [id_ & 0xFF for id_ in ids],
    }


def rejects(ids: list[int], rule: str, value: str, threshold: str) -> dict[str, list]:
    columns = documents(ids)
    for name in ("crawled_at", "lang", "lang_score", "text"):
        del columns[name]
    columns |= {"rule": [rule], "rules": [[rule]]}
    return columns | {"value": [value], "threshold": [threshold]}


def twin(doc_id: int, kind: str, similarity: float, verified_by: str) -> dict[str, list]:
    columns = {"doc_id": [doc_id], "kind": [kind], "twin_id": [KEPT], "twin_dump": ["A"]}
    return columns | {"similarity": [similarity], "verified_by": [verified_by]}


def kept(doc_id: int, domain: str) -> dict[str, list]:
    return {"doc_id": [doc_id], "domain": [domain], "num_chars": [90], "num_bytes": [63]}


def write(
    lake: Lake, dump: str, stage: str, columns: Mapping[str, list], table: str = "documents"
) -> FileEntry:
    """Write one file of a table; columns that are not given are null."""
    num_rows = len(columns["doc_id"])
    writer = TableWriter(str(lake.path), table, stage, dump, "0000", "part")
    writer.write(
        pa.table(
            {
                f.name: pa.array(columns.get(f.name, [None] * num_rows), f.type)
                for f in TABLES[table]
            },
            schema=TABLES[table],
        )
    )
    entry = writer.close()
    assert entry is not None
    return entry


def commit(
    lake: Lake,
    dump: str,
    stage: str,
    rows: tuple[int, int],
    counts: Mapping[str, Mapping[str, int]],
    files: list[FileEntry] | None = None,
    slice: str = "0000",
    seconds: float = 1.0,
) -> None:
    num_in, num_kept = rows
    num_bytes = {"in": 100 * num_in, "kept": 90 * num_kept}
    num_bytes["removed"] = num_bytes["in"] - num_bytes["kept"]
    more = {"counts": counts, "files": tuple(files or ()), "seconds": seconds}
    lake.commit(made(stage, dump, slice, *rows, num_bytes=num_bytes, **more))


# ---- the funnel --------------------------------------------------------------------------------


def test_a_funnel_sums_slices_and_dumps(lake: Lake) -> None:
    funnel = ledger.funnel(lake)
    assert funnel.dumps == ["A", "B"]
    assert funnel.totals["A", "ingest"] == StageTotals(
        rows_in=14,
        rows_kept=3,
        rows_rejected=11,
        bytes_in=1400,
        bytes_kept=270,
        seconds=2.5,
        counts={"rejects": {"min_chars": 9, "language": 2}, "languages": {"en": 3}},
    )
    total = funnel.total("ingest")
    assert total is not None
    assert (total.rows_in, total.rows_kept, total.rows_rejected) == (16, 5, 11)
    assert (total.bytes_in, total.bytes_kept, total.seconds) == (1600, 450, 3.5)
    assert total.counts["languages"] == {"en": 4, "zh": 1}
    assert ("B", "encode") not in funnel.totals
    assert {dump for dump, _ in funnel.totals} == {"A", "B"}, "a release is no dump"
    encode = funnel.total("encode")
    assert encode is not None and encode.counts == {"tokens": {"docs": 3}}, "no release counts"


def test_what_has_not_run_has_no_total(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    assert ledger.funnel(lake).totals == {}
    assert ledger.funnel(lake).total("ingest") is None
    assert ledger.rejects_by_rule(lake) == {}


def test_rules_are_counted_by_stage_and_duplicates_by_kind(lake: Lake) -> None:
    assert ledger.rejects_by_rule(lake) == {
        "ingest": {"min_chars": 9, "language": 2},
        "dedup": {"exact": 1, "near": 1},
        "filter": {"gopher_min_words": 1},
    }


# ---- one document ------------------------------------------------------------------------------

INGESTED = (
    "ingest",
    "kept: 100 bytes of text, language en (0.75), crawled 2021-03-04 05:06:07+00:00",
)
RETAINED = ("dedup", "retained; 0 name it as their twin")
TWIN = f"{KEPT} ({URLS[KEPT]} in A, /archives/2.warc.gz at 4)"


@pytest.mark.parametrize(
    ("doc_id", "decisions"),
    [
        (
            KEPT,
            [
                INGESTED,
                ("dedup", "retained; 2 name it as their twin"),
                ("filter", "kept in domain docs: 90 characters; 2 spans cut (37 bytes)"),
                ("filter", "bytes 0 to 7 cut: Accept"),
                ("filter", "bytes 50 to 80 cut: " + "x" * 30),
                ("encode", "3 tokens"),
                (
                    "release demo",
                    "2 whole copies and 1 tokens of a partial one, train, docs with share 0.250, "
                    "weight 2",
                ),
            ],
        ),
        (SHORT, [("ingest", "rejected by min_chars: 7 (bound 100)")]),
        (
            BAD,
            [
                INGESTED,
                RETAINED,
                (
                    "filter",
                    "rejected by gopher_min_words: 12.0 (bound 50.0); also c4_min_sentences",
                ),
            ],
        ),
        (
            EXACT,
            [
                INGESTED,
                (
                    "dedup",
                    f"removed as exact duplicate of {TWIN}, similarity 1.000 by content_hash",
                ),
            ],
        ),
        (
            NEAR,
            [
                INGESTED,
                ("dedup", f"removed as near duplicate of {TWIN}, similarity 0.875 by signature"),
            ],
        ),
        (
            AGAIN,
            [
                INGESTED,
                RETAINED,
                ("filter", "kept in domain web: 90 characters; 0 spans cut (0 bytes)"),
            ],
        ),
    ],
    ids=["kept", "short", "bad", "exact", "near", "again"],
)
def test_every_decision_about_a_document(
    lake: Lake, doc_id: int, decisions: list[tuple[str, str]]
) -> None:
    (history,) = ledger.why(lake, str(doc_id))
    assert history.doc_id == doc_id
    assert history.where == {
        "dump": "A" if doc_id < B else "B",
        "url": URLS[doc_id],
        "archive": f"/archives/{doc_id >> 30}.warc.gz",
        "offset": doc_id & 0xFF,
        "record": doc_id & 0xFF,
    }
    assert history.decisions == decisions


def test_a_url_names_every_crawl_of_it_oldest_first(lake: Lake) -> None:
    assert [history.doc_id for history in ledger.why(lake, URLS[KEPT])] == [KEPT, AGAIN]
    assert [history.doc_id for history in ledger.why(lake, URLS[SHORT])] == [SHORT]


@pytest.mark.parametrize(
    "wanted",
    [str(A), str(2**63 - 1), "https://example.org/", URLS[KEPT].upper(), "-1", "²", "", "4.0"],
)
def test_what_is_not_in_the_lake_is_not_found(lake: Lake, wanted: str) -> None:
    with pytest.raises(NotFound, match=r"is not in the lake .*; give a doc_id, or the URL exactly"):
        ledger.why(lake, wanted)


@pytest.mark.parametrize("wanted", [2**63, 2**64, 10**30])
def test_a_number_beyond_63_bits_is_no_id(lake: Lake, wanted: int) -> None:
    with pytest.raises(NotFound, match=f"^{wanted} is no doc_id: it has 63 bits"):
        ledger.why(lake, str(wanted))


def test_a_later_dump_may_be_in_the_lake_alone(tmp_path: Path) -> None:
    """As `curation run CONFIG --dump C --to ingest` leaves it."""
    lake = Lake.create(tmp_path / "lake")
    lake.freeze_inputs("C", 2, 500, [])
    doc_id = first_doc_id(2, 0) + 7
    commit(lake, "C", "ingest", (1, 1), {}, [write(lake, "C", "ingest", documents([doc_id]))])
    (history,) = ledger.why(lake, str(doc_id))
    assert (history.where["dump"], history.where["record"]) == ("C", 7)
    assert history.decisions == [INGESTED]

"""A lake: what a record lists counts, nothing else does, and a crash leaves one or the other."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.engine import lake as lakes
from curation.engine.lake import STAGED_TABLES, WHOLE_DUMP, FileEntry, Lake, RunRecord, TableWriter
from curation.errors import (
    DumpOrderChanged,
    LakeCorrupt,
    LakeLocked,
    LakeMissing,
    LakeReadOnly,
    NotFound,
    SlicesChanged,
)
from curation.ingest.listing import InputFile
from curation.schemas import FORMAT_VERSION, TABLES

BOOKKEEPING = {"_lake.json", "_lock"}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.create(tmp_path / "lake")


def write(
    lake: Lake,
    ids: Iterable[int],
    table: str = "kept",
    dump: str = "A",
    slice: str = "0000",
    attempt: str = "1",
    stage: str = "filter",
) -> FileEntry:
    """Write one file whose rows have these ids and nulls."""
    writer = TableWriter(str(lake.path), table, stage, dump, slice, f"{attempt}-part-0")
    writer.write(rows(table, ids))
    entry = writer.close()
    assert entry is not None
    return entry


def rows(table: str, ids: Iterable[int]) -> pa.Table:
    ids = list(ids)
    columns = {f.name: pa.nulls(len(ids), f.type) for f in TABLES[table]}
    return pa.table(columns | {"doc_id": pa.array(ids, pa.int64())}, schema=TABLES[table])


def record(
    *files: FileEntry,
    stage: str = "filter",
    dump: str = "A",
    slice: str = "0000",
    key: str = "k",
    inputs: Mapping[str, str] | None = None,
) -> RunRecord:
    zeros = {"in": 0, "kept": 0}
    return RunRecord(
        stage,
        dump,
        slice,
        key,
        attempt="1",
        stage_version=1,
        inputs=inputs or {},
        settings={"list": [1.5, "é"]},
        artifacts={},
        packages={},
        started_at="2026-01-01T00:00:00Z",
        seconds=1.0,
        rows=zeros | {"rejected": 0},
        num_bytes=zeros | {"removed": 0},
        counts={"rejects": {"rule \u2028": 1}},
        files=files,
    )


def ids_of(lake: Lake, table: str = "kept", **where: str) -> list[int]:
    return sorted(lake.table(table, **where).to_table()["doc_id"].to_pylist())


def files_of(lake: Lake) -> set[str]:
    """Every file of a lake but records and bookkeeping."""
    found = {str(p.relative_to(lake.path)) for p in lake.path.rglob("*") if p.is_file()}
    return {path for path in found - BOOKKEEPING if not path.startswith("_runs/")}


class Killed(Exception):
    """Stands for the end of the process."""


def die(*_: object) -> None:
    raise Killed


# ---- opening -----------------------------------------------------------------------------------


def test_a_lake_is_made_once_and_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "lake"
    with pytest.raises(LakeMissing, match=r"no lake at .*; create one with: curation run CONFIG"):
        Lake(path)
    assert not path.exists()
    Lake.create(path)
    marker = (path / "_lake.json").read_text()
    assert json.loads(marker) == {"format_version": FORMAT_VERSION}
    before = (path / "_lake.json").stat().st_mtime_ns
    assert Lake.create(path).path == Lake(str(path)).path == path
    assert (path / "_lake.json").stat().st_mtime_ns == before


def test_a_file_is_no_lake(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("")
    with pytest.raises(LakeMissing):
        Lake(tmp_path / "lake")


def test_a_folder_of_other_files_does_not_become_a_lake(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(LakeCorrupt, match="holds files but is no lake; name an empty folder"):
        Lake.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("marker", [b"", b"{", b"[]", b"{}", b"1", b"null", b'"x"', b"\xff\xfe"])
def test_a_damaged_marker_is_named(lake: Lake, marker: bytes) -> None:
    (lake.path / "_lake.json").write_bytes(marker)
    with pytest.raises(LakeCorrupt, match=r"_lake\.json is not a lake marker; restore it"):
        Lake(lake.path)


def test_a_kill_while_a_lake_is_made_leaves_a_path_that_becomes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 6: the same command goes on."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(Killed):
            Lake.create(tmp_path / "lake")
    with pytest.raises(LakeMissing):
        Lake(tmp_path / "lake")
    assert Lake.create(tmp_path / "lake").records() == []


def test_a_read_only_lake_can_be_read(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.commit(record(write(lake, [1])))

    def refuse(path: str | Path, mode: str = "r") -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(lakes, "open", refuse, raising=False)
    with pytest.raises(LakeReadOnly, match=r"cannot be written \(Read-only file system\); give"):
        Lake.create(lake.path)
    assert ids_of(Lake(lake.path)) == [1]


# ---- outdated commits --------------------------------------------------------------------------


@pytest.fixture
def chain(lake: Lake) -> Lake:
    """Dump B's filter follows from its ingest and, over two dedups, from the ingest of dump A."""
    for stage, dump, inputs in (
        ("ingest", "A", {}),
        ("ingest", "B", {}),
        ("dedup", "A", {"ingest/A/0000": "k"}),
        ("dedup", "B", {"ingest/B/0000": "k", "dedup/A/0000": "k"}),
        ("filter", "B", {"dedup/B/0000": "k"}),
        ("release", "demo", {"filter/B/0000": "k"}),
    ):
        lake.commit(record(stage=stage, dump=dump, inputs=inputs))
    return lake


def names_of(lake: Lake) -> set[str]:
    return {f"{r.stage}/{r.dump}" for r in lake.records()}


EVERY = {"ingest/A", "ingest/B", "dedup/A", "dedup/B", "filter/B", "release/demo"}


@pytest.mark.parametrize(
    ("changed", "outdated"),
    [
        (("ingest", "A"), {"dedup/A", "dedup/B", "filter/B"}),
        (("ingest", "B"), {"dedup/B", "filter/B"}),
        (("dedup", "B"), {"filter/B"}),
        (("filter", "B"), set()),  # a release never changes
    ],
)
def test_what_follows_from_another_commit_is_outdated(
    chain: Lake, changed: tuple[str, str], outdated: set[str]
) -> None:
    assert names_of(chain) == EVERY
    stage, dump = changed
    before = chain.record(stage, dump, "0000")
    assert before is not None
    chain.commit(replace(before, key="other"))
    assert names_of(chain) == EVERY - outdated
    assert chain.records("filter", "B") == [r for r in chain.records() if r.stage == "filter"]
    chain.commit(before)
    assert names_of(chain) == EVERY


def test_what_follows_from_a_commit_that_is_gone_is_outdated(chain: Lake) -> None:
    (chain.path / "_runs" / "ingest" / "A" / "0000.json").unlink()
    assert names_of(chain) == {"ingest/B", "release/demo"}


def test_files_of_outdated_commits_are_hidden_and_kept(lake: Lake) -> None:
    """They count again when the configuration that made them does."""
    lake.commit(record(stage="ingest"))
    lake.commit(record(write(lake, [1, 2]), inputs={"ingest/A/0000": "k"}))
    lake.commit(record(stage="ingest", key="other"))
    assert ids_of(lake) == []
    assert lake.gc() == []
    lake.commit(record(stage="ingest"))
    assert ids_of(lake) == [1, 2]


def test_other_slices_of_a_frozen_dump_are_refused(lake: Lake) -> None:
    lake.check_slices("A", 7)
    lake.freeze_inputs("A", 0, 500, [])
    lake.check_slices("A", 500)
    with pytest.raises(SlicesChanged, match=r"slice_files is 7, but dump A .* restore .* = 500"):
        lake.check_slices("A", 7)


@pytest.mark.parametrize("table", STAGED_TABLES)
def test_pandas_reads_a_plain_glob(lake: Lake, table: str) -> None:
    """As it reads the tables of this field: the folders become columns, no name meets another."""
    lake.commit(record(write(lake, [1, 2], table), write(lake, [3], table, attempt="2")))
    frame = pd.read_parquet(lake.path / table)
    assert sorted(frame["doc_id"]) == [1, 2, 3]
    assert set(frame["stage"].astype(str)) == {"filter"}
    assert set(frame["dump"].astype(str)) == {"A"}


# ---- commits -----------------------------------------------------------------------------------


def test_a_record_is_read_as_it_was_written(lake: Lake) -> None:
    committed = record(write(lake, [3, 5]))
    lake.commit(committed)
    assert lake.record("filter", "A", "0000") == committed
    assert lake.records() == [committed]
    assert lake.record("filter", "A", "0001") is None
    assert lake.records(stage="encode") == lake.records(dump="B") == []


def test_a_commit_replaces_its_predecessor_and_removes_its_files_alone(lake: Lake) -> None:
    def own(attempt: str) -> list[FileEntry]:
        return [write(lake, [1], table, attempt=attempt) for table in ("kept", "rejects", "edits")]

    others = [
        record(write(lake, [2], slice="0001"), slice="0001"),
        record(write(lake, [3], slice="00000"), slice="00000"),
        record(write(lake, [4], dump="A-2"), dump="A-2"),
        record(write(lake, [5], "rejects", stage="ingest"), stage="ingest"),
        record(write(lake, [6], "tokens", stage="encode"), stage="encode"),
        record(write(lake, [7], "duplicates"), stage="dedup", slice=WHOLE_DUMP),
    ]
    lake.commit(record(*own("1")))
    for other in others:
        lake.commit(other)
    successor = record(*own("2")[1:], key="k2")  # the second time none was kept
    lake.commit(successor)
    assert lake.record("filter", "A", "0000") == successor
    listed = [entry.path for r in [successor, *others] for entry in r.files]
    assert files_of(lake) == set(listed)


def test_a_commit_of_a_whole_dump_replaces_all_its_slices(lake: Lake) -> None:
    def files(attempt: str, slices: str) -> list[FileEntry]:
        return [
            write(lake, [int(s)], table, slice=f"000{s}", attempt=attempt, stage="dedup")
            for s in slices
            for table in ("duplicates", "retained_index")
        ]

    lake.commit(record(*files("1", "012"), stage="dedup", slice=WHOLE_DUMP))
    other = record(write(lake, [9], "duplicates", dump="B"), stage="dedup", dump="B", slice="all")
    lake.commit(other)
    successor = record(*files("2", "02"), stage="dedup", slice=WHOLE_DUMP)
    lake.commit(successor)
    assert files_of(lake) == {entry.path for r in (successor, other) for entry in r.files}
    assert ids_of(lake, "duplicates", dump="A") == [0, 2]
    assert ids_of(lake, "duplicates", dump="A", slice="0002") == [2]


@pytest.mark.parametrize("has_predecessor", [True, False])
def test_a_kill_before_the_commit_leaves_what_was(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, has_predecessor: bool
) -> None:
    before = record(write(lake, [1], attempt="1"))
    if has_predecessor:
        lake.commit(before)
    after = record(write(lake, [2], attempt="2"), key="k2")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(Killed):
            lake.commit(after)
    assert lake.records() == ([before] if has_predecessor else [])
    assert ids_of(lake) == ([1] if has_predecessor else [])
    lake.commit(after)  # the next run
    assert lake.records() == [after]
    assert files_of(lake) == {entry.path for entry in after.files}


def test_a_kill_after_the_commit_leaves_what_is_and_debris_for_gc(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = record(write(lake, [1], attempt="1"))
    lake.commit(before)
    after = record(write(lake, [2], attempt="2"), key="k2")
    with monkeypatch.context() as patch:
        patch.setattr(lakes, "_remove_unlisted", die)
        with pytest.raises(Killed):
            lake.commit(after)
    assert lake.records() == [after]
    assert ids_of(lake) == [2]
    assert lake.gc() == [entry.path for entry in before.files]


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"{}", b'{"files": []}', b'{"files": 3}', b"\xff"]
)
def test_a_damaged_record_is_named_and_can_be_deleted(lake: Lake, text: bytes) -> None:
    lake.commit(record())
    (path,) = (lake.path / "_runs").rglob("*.json")
    path.write_bytes(text)
    with pytest.raises(LakeCorrupt, match=r"_runs/filter/A/0000\.json is not a run record; delete"):
        lake.records()
    path.unlink()
    assert lake.record("filter", "A", "0000") is None


# ---- tables ------------------------------------------------------------------------------------


def test_a_table_is_exactly_what_the_records_list(lake: Lake) -> None:
    for dump, slice, ids in (("A", "0000", [1, 2]), ("A", "0001", [3]), ("A-2", "0000", [4])):
        lake.commit(record(write(lake, ids, dump=dump, slice=slice), dump=dump, slice=slice))
        write(lake, [99], dump=dump, slice=slice, attempt="dead")
    (lake.path / "kept" / "dump=A" / "broken.parquet").write_bytes(b"PAR1")
    assert ids_of(lake) == [1, 2, 3, 4]
    assert ids_of(lake, dump="A") == [1, 2, 3]
    assert ids_of(lake, slice="0000") == [1, 2, 4]
    assert ids_of(lake, dump="A", slice="0001") == [3]
    assert ids_of(lake, dump="A", slice="001") == []
    table = lake.table("kept").to_table().sort_by("doc_id")
    assert table["dump"].to_pylist() == ["A", "A", "A", "A-2"]
    assert table["slice"].to_pylist() == ["0000", "0000", "0001", "0000"]


def test_the_tables_of_several_stages_are_told_apart(lake: Lake) -> None:
    for stage, doc_id in (("ingest", 1), ("filter", 2)):
        lake.commit(record(write(lake, [doc_id], "rejects", stage=stage), stage=stage))
    assert ids_of(lake, "rejects") == [1, 2]
    assert ids_of(lake, "rejects", stage="filter") == [2]
    assert ids_of(lake, "rejects", stage="encode") == []


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_its_columns_before_it_has_rows(lake: Lake, name: str) -> None:
    table = lake.table(name).to_table()
    assert table.num_rows == 0
    folders = ["stage", "dump", "slice"] if name in STAGED_TABLES else ["dump", "slice"]
    assert table.schema.names == [*TABLES[name].names, *folders]


def test_an_unknown_table_or_dump_names_the_known(lake: Lake) -> None:
    lake.freeze_inputs("A", 0, 500, [])
    lake.commit(record())
    with pytest.raises(NotFound, match="no table 'document'; tables are documents, duplicates"):
        lake.table("document")
    with pytest.raises(NotFound, match=r"dump 'B' is not in the lake .*; it has \['A'\]"):
        lake.table("kept", dump="B")


def test_a_committed_file_that_is_gone_is_named(lake: Lake) -> None:
    """As errors.py has it: LakeCorrupt, files and records do not agree."""
    entry = write(lake, [1])
    lake.commit(record(entry))
    (lake.path / entry.path).unlink()
    with pytest.raises(LakeCorrupt, match=entry.path):
        lake.table("kept").to_table()


# ---- garbage -----------------------------------------------------------------------------------


def test_gc_removes_what_no_record_lists_and_nothing_else(lake: Lake) -> None:
    lake.freeze_inputs("A", 0, 500, [])
    kept = [write(lake, [1]), write(lake, [2], "edits")]
    lake.commit(record(*kept))
    dead = [
        write(lake, [3], attempt="dead").path,
        write(lake, [4], dump="B").path,
        write(lake, [5], "rejects", stage="ingest").path,
        "kept/dump=A/slice=0000/.part.crc",
        "_work/dead/round/rows.parquet",
    ]
    foreign = "notes.txt"
    for path in (*dead[-2:], foreign):
        (lake.path / path).parent.mkdir(parents=True, exist_ok=True)
        (lake.path / path).write_bytes(b"")
    records = lake.records()
    assert sorted(lake.gc()) == sorted(dead)
    assert files_of(lake) == {*(e.path for e in kept), foreign, "_inputs/A.jsonl"}
    assert not (lake.path / "kept" / "dump=B").exists()
    assert lake.records() == records
    assert lake.gc() == []


def test_gc_removes_nothing_while_a_record_cannot_be_read(lake: Lake) -> None:
    lake.commit(record(write(lake, [1])))
    (path,) = (lake.path / "_runs").rglob("*.json")
    path.write_text("{")
    before = files_of(lake)
    with pytest.raises(LakeCorrupt):
        lake.gc()
    assert files_of(lake) == before


# ---- the lock ----------------------------------------------------------------------------------

HOLD = """
import subprocess, sys
from curation.engine.lake import Lake
with Lake(sys.argv[1]).lock():
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"])
    print(child.pid, flush=True)
    sys.stdin.read()
"""


def test_a_killed_holder_frees_the_lake_though_its_child_lives(lake: Lake) -> None:
    """Spark's JVM is such a child. Who holds the lake next is named, not the dead one."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lake.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None and holder.stdout is not None
    try:
        child = int(holder.stdout.readline())
        with pytest.raises(LakeLocked, match=rf"held by process {holder.pid} on .* since "):
            lake.lock().__enter__()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        os.kill(child, 0)  # it lives
        own = rf"held by process {os.getpid()} on "
        with lake.lock(), pytest.raises(LakeLocked, match=own):
            lake.lock().__enter__()
    finally:
        holder.kill()
        holder.stdin.close()  # which ends the child
        holder.stdout.close()
        holder.wait()


def test_an_error_frees_the_lake(lake: Lake) -> None:
    with pytest.raises(Killed), lake.lock():
        raise Killed
    with lake.lock():
        pass
    assert (lake.path / "_lock").read_text() == ""


# ---- frozen inputs -----------------------------------------------------------------------------


@given(st.lists(st.text(st.characters(exclude_characters="\0"), min_size=1), max_size=4))
def test_frozen_files_come_back_whatever_their_names(
    tmp_path_factory: pytest.TempPathFactory, paths: list[str]
) -> None:
    """Names that are not UTF-8 too, which Python gives as surrogates."""
    lake = Lake.create(tmp_path_factory.mktemp("lake"))
    paths += [os.fsdecode(b"\xff.gz"), "a\u2028b\x85\n.gz"]
    files = [InputFile(i, path, 2**40 + i, 2**62 + i) for i, path in enumerate(paths)]
    lake.freeze_inputs("A", 0, 500, files)
    assert lake.inputs("A") == files
    assert lake.inputs("B") == []


def test_dumps_come_in_their_order(lake: Lake) -> None:
    for name, ordinal in (("a", 10), ("c", 2), ("b", 0)):
        lake.freeze_inputs(name, ordinal, 500, [])
    assert lake.dumps() == ["b", "c", "a"]


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"dump": "A"}', b'{"dump": "A", "ordinal": 0}\n{}', b"\xff"]
)
def test_a_damaged_listing_is_named(lake: Lake, text: bytes) -> None:
    lake.freeze_inputs("A", 0, 500, [])
    (lake.path / "_inputs" / "A.jsonl").write_bytes(text)
    for read in (lake.dumps, lambda: lake.inputs("A"), lambda: lake.check_order(["A"])):
        with pytest.raises(LakeCorrupt, match=r"_inputs/A\.jsonl is damaged; restore it from a"):
            read()


@pytest.mark.parametrize("dumps", ["ABC", "ABCD", "AXC"])
def test_dumps_may_be_appended(lake: Lake, dumps: str) -> None:
    for name, ordinal in (("A", 0), ("C", 2)):
        lake.freeze_inputs(name, ordinal, 500, [])
    lake.check_order(list(dumps))


@pytest.mark.parametrize(
    ("dumps", "moved"),
    [
        ("ACB", "dump C is number 2 in the lake .* but 1 in the configuration; dumps may only be"),
        ("BAC", "dump A is number 0 in the lake .* but 1 in"),
        ("AB", "dump C is number 2 in the lake .* but nowhere in"),
        ("", "dump A is number 0 in the lake .* but nowhere in"),
    ],
)
def test_dumps_may_not_move(lake: Lake, dumps: str, moved: str) -> None:
    for name, ordinal in (("A", 0), ("C", 2)):
        lake.freeze_inputs(name, ordinal, 500, [])
    with pytest.raises(DumpOrderChanged, match=moved):
        lake.check_order(list(dumps))


# ---- writing files -----------------------------------------------------------------------------


def writer(lake: Lake, table: str = "kept") -> TableWriter:
    return TableWriter(str(lake.path), table, "filter", "A", "0007", "x")


@pytest.mark.parametrize(
    ("table", "path"),
    [
        ("kept", "kept/dump=A/slice=0007/x.parquet"),
        ("rejects", "rejects/stage=filter/dump=A/slice=0007/x.parquet"),
        ("edits", "edits/stage=filter/dump=A/slice=0007/x.parquet"),
    ],
)
def test_an_entry_says_what_the_file_holds(lake: Lake, table: str, path: str) -> None:
    out = writer(lake, table)
    for ids in ([5, 7], [], [8, 2**62]):
        out.write(rows(table, ids))
    out.write(rows(table, [2**62 + 1, 2**62 + 3, 2**62 + 5])[1:].to_batches()[0])
    entry = out.close()
    assert entry is not None
    size = (lake.path / path).stat().st_size
    assert entry == FileEntry(table, path, 6, size, 5, 2**62 + 5)
    assert entry.id_range() == (5, 2**62 + 5)
    with pq.ParquetFile(lake.path / path) as file:
        assert file.schema_arrow.equals(TABLES[table])
        assert file.read()["doc_id"].to_pylist() == [5, 7, 8, 2**62, 2**62 + 3, 2**62 + 5]


def test_a_file_out_of_order_of_ids_claims_no_range(lake: Lake) -> None:
    out = writer(lake, "retained_index")
    out.write(pa.table({"band_key": [1, 2], "doc_id": [9, 3]}))
    entry = out.close()
    assert entry is not None
    first, last = entry.id_range()
    assert entry.rows == 2 and first > last


@pytest.mark.parametrize("ids", [[], None])
def test_no_rows_leave_no_file(lake: Lake, ids: list[int] | None) -> None:
    out = writer(lake)
    if ids is not None:
        out.write(rows("kept", ids))
    assert out.close() is None
    assert files_of(lake) == set()


def test_row_groups_end_at_20_000_rows(lake: Lake) -> None:
    out = writer(lake)
    for start in range(0, 45_000, 5_000):
        out.write(rows("kept", range(start, start + 5_000)))
    entry = out.close()
    assert entry is not None
    metadata = pq.read_metadata(lake.path / entry.path)
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert groups == [20_000, 20_000, 5_000]


def test_row_groups_end_at_their_bytes(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MB, here 1 kB: rows of 600 bytes end one every second time."""
    monkeypatch.setattr(lakes, "ROW_GROUP_BYTES", 1_000)
    out = writer(lake, "edits")
    names = ["doc_id", "start", "end", "replacement"]
    for i in range(5):
        out.write(pa.table([[i], [0], [1], ["x" * 600]], names=names))
    entry = out.close()
    assert entry is not None
    metadata = pq.read_metadata(lake.path / entry.path)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [2, 2, 1]


KEPT = {
    "doc_id": [1],
    "domain": ["web"],
    "lang": ["en"],
    "num_chars": [3],
    "num_bytes": [4],
    "perplexity_bucket": ["head"],
    "quality_score": [0.5],
}


@pytest.mark.parametrize(
    "columns",
    [
        {"doc_id": [1]},
        KEPT | {"host": ["a"]},
        dict(reversed(KEPT.items())),
        KEPT | {"num_chars": ["three"]},
        KEPT | {"num_chars": [2.5]},
        KEPT | {"num_chars": pa.array([2**63], pa.uint64())},
        KEPT | {"domain": [{"name": "web"}]},
    ],
    ids=["missing", "more", "order", "text", "fraction", "overflow", "struct"],
)
def test_rows_of_another_schema_are_refused(lake: Lake, columns: dict[str, object]) -> None:
    out = writer(lake)
    with pytest.raises(LakeCorrupt, match=r"table kept has columns \['doc_id', 'domain', "):
        out.write(pa.table(columns))
    assert out.close() is None
    assert files_of(lake) == set()


def test_rows_of_a_wider_type_are_stored_as_the_schema_has_it(lake: Lake) -> None:
    out = writer(lake)
    out.write(pa.table(KEPT | {"domain": pa.array(["web"], pa.large_string())}))
    entry = out.close()
    assert entry is not None
    lake.commit(replace(record(entry), slice="0007"))
    assert lake.table("kept").to_table(columns=list(KEPT)).to_pydict() == KEPT

"""A lake: plain Parquet folders, and the run records that say which of their files count.

    <lake>/_lake.json                                  format version
    <lake>/_lock                                       held with flock by the one running writer
    <lake>/_inputs/<dump>.jsonl                        the frozen input files of a dump; its first
                                                       line has the digests of remote listings
    <lake>/_runs/<stage>/<dump>/<slice>.json           the run records: the only commits
    <lake>/_history/<run id>.json                      that a command began, and how it ended
    <lake>/<table>/dump=<dump>/slice=<nnnn>/<attempt>-part-<nnnnn>-<task>.parquet
    <lake>/<rejects|edits>/stage=<stage>/dump=...      the two tables that several stages write

A record is outdated when a commit that it names as input is not there any more or has another key:
an earlier stage ran under another configuration. No reader shows the files of an outdated record;
they stay, because the same configuration makes them current again.

Nothing here needs Spark: a notebook opens a lake with `curation.open(path)`, a worker writes with
`TableWriter`. A reader opens exactly the files that the run records list.
"""

import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from curation.errors import (
    CurationError,
    DumpOrderChanged,
    LakeCorrupt,
    LakeLocked,
    LakeMissing,
    LakeReadOnly,
    LakeVersion,
    NotFound,
    SlicesChanged,
    TimeBudgetSpent,
)
from curation.ingest.listing import InputFile, RemoteListing
from curation.schemas import FORMAT_VERSION, TABLES

if TYPE_CHECKING:
    import pyarrow.dataset as pads


WHOLE_DUMP = "all"  # the slice name of a stage that commits a dump at once
STAGED_TABLES = ("rejects", "edits")  # written by several stages
ROW_GROUP_ROWS = 20_000
ROW_GROUP_BYTES = 64_000_000
NUM_READERS = 16  # of run records
Place = tuple[str, str, str]  # stage, dump, slice


@dataclass(frozen=True)
class FileEntry:
    """One committed Parquet file; the path is relative to the lake."""

    table: str
    path: str
    rows: int
    bytes: int
    first_doc_id: int | None = None
    last_doc_id: int | None = None

    def id_range(self) -> tuple[int, int]:
        """Return the first and last doc_id of a file in order of doc_id; else an empty range."""
        if self.first_doc_id is None or self.last_doc_id is None:
            return 0, -1
        return self.first_doc_id, self.last_doc_id


@dataclass(frozen=True)
class RunRecord:
    """What one stage did to one slice: the commit."""

    stage: str
    dump: str
    slice: str
    key: str
    attempt: str
    stage_version: int
    inputs: Mapping[str, str]  # name of an input commit -> its key
    settings: Mapping[str, Any]
    artifacts: Mapping[str, str]  # path -> sha256
    packages: Mapping[str, str]  # the packages that decide rows
    started_at: str
    seconds: float
    rows: Mapping[str, int]  # in, kept, rejected
    num_bytes: Mapping[str, int]  # of text: in, kept, removed
    counts: Mapping[str, Mapping[str, int]]  # rejects by rule, records by type, ...
    files: tuple[FileEntry, ...]
    environment: Mapping[str, str] = field(default_factory=dict)  # decides nothing
    # What servers said of remote input files when they were read: file ordinal -> the fields of
    # curation.ingest.remote.Facts.
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    run_id: str = ""  # of the command; empty in records of before there were any
    # What the work took: see curation.engine.capacity. Decides nothing.
    resources: Mapping[str, float] = field(default_factory=dict)

    def files_of(self, table: str) -> list[FileEntry]:
        """Return the committed files of a table."""
        return [entry for entry in self.files if entry.table == table]

    def to_json(self) -> str:
        """Return the record as it is stored."""
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "RunRecord":
        """Read a stored record."""
        values = json.loads(text)
        values["files"] = tuple(FileEntry(**entry) for entry in values["files"])
        return cls(**values)


class Lake:
    """A lake on a file system. Reading needs no lock."""

    def __init__(self, path: str | Path) -> None:
        """Open an existing lake. Raises LakeMissing, LakeCorrupt, or LakeVersion."""
        self.path = Path(path)
        self._sources: dict[str, dict[str, Mapping[str, Any]]] = {}
        marker = self.path / "_lake.json"
        try:
            version = json.loads(marker.read_text())["format_version"]
        except (FileNotFoundError, NotADirectoryError):
            raise LakeMissing(
                f"there is no lake at {self.path}; create one with: curation run CONFIG"
            ) from None
        except (ValueError, KeyError, TypeError):  # not UTF-8, not JSON, another JSON
            raise LakeCorrupt(f"{marker} is not a lake marker; restore it or start anew") from None
        if version != FORMAT_VERSION:
            raise LakeVersion(
                f"the lake at {self.path} has format {version}, this program reads "
                f"{FORMAT_VERSION}; use the program that wrote it, or start a new lake"
            )

    @classmethod
    def create(cls, path: str | Path) -> "Lake":
        """Open a lake for writing, making it if there is none. Raises LakeReadOnly."""
        path = Path(path)
        marker = path / "_lake.json"
        try:
            if not marker.exists():
                path.mkdir(parents=True, exist_ok=True)
                # A kill on the way to the marker leaves its unfinished file.
                if any(not f.name.startswith(f".{marker.name}.") for f in path.iterdir()):
                    raise LakeCorrupt(
                        f"{path} holds files but is no lake; name an empty folder for the lake"
                    )
                write_atomically(marker, json.dumps({"format_version": FORMAT_VERSION}))
            with open(path / "_lock", "a"):
                pass
        except (FileExistsError, NotADirectoryError):
            raise LakeCorrupt(
                f"{path} or a parent of it is a file; name a folder for the lake"
            ) from None
        except OSError as error:
            raise LakeReadOnly(
                f"the lake at {path} cannot be written ({error.strerror}); "
                "give this user write access or choose another path with --lake"
            ) from None
        return cls(path)

    # ---- reading -------------------------------------------------------------------------------

    def table(
        self, name: str, dump: str | None = None, slice: str | None = None, stage: str | None = None
    ) -> "pads.Dataset":
        """Return the committed rows of a table as a pyarrow dataset.

        Adds the columns dump and slice, for rejects and edits also stage. Nothing is read until the
        dataset is scanned; `.to_table(columns=[...])`, `.head(n)` and DuckDB read from it.
        """
        import pyarrow.dataset as pads  # it takes as long to load as all the rest

        if name not in TABLES:
            raise NotFound(f"no table {name!r}; tables are {', '.join(sorted(TABLES))}")
        paths = [
            str(self.path / entry.path)
            for record in self.records(dump=dump)
            for entry in record.files_of(name)
            if (slice is None or f"/slice={slice}/" in f"/{entry.path}")
            and (stage is None or record.stage == stage)
        ]
        if dump is not None and not self._places(dump=dump):
            raise NotFound(f"dump {dump!r} is not in the lake {self.path}; it has {self.dumps()}")
        folders = pa.schema(
            [
                (folder, pa.string())
                for folder in ("stage", "dump", "slice")
                if folder != "stage" or name in STAGED_TABLES
            ]
        )
        schema = pa.schema([*TABLES[name], *folders])
        if not paths:
            return pads.dataset(schema.empty_table())
        partitioning = pads.partitioning(folders, flavor="hive")
        try:
            return pads.dataset(
                paths, schema=schema, partitioning=partitioning, partition_base_dir=str(self.path)
            )
        except FileNotFoundError as error:
            raise LakeCorrupt(
                f"a committed file of table {name} is gone ({error}); restore it, or delete the "
                "run record under _runs that lists it, and the next run does its slice again"
            ) from None

    def record(self, stage: str, dump: str, slice: str) -> RunRecord | None:
        """Return the commit of a stage and slice, None when there is none."""
        path = self._record_path(stage, dump, slice)
        try:
            return RunRecord.from_json(path.read_text())
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise LakeCorrupt(
                f"{path} is not a run record; delete it, and the next run does its slice again"
            ) from None

    def records(
        self, stage: str | None = None, dump: str | None = None, *, with_outdated: bool = False
    ) -> list[RunRecord]:
        """Return all commits, without those that are outdated, ordered by path.

        Cost: reads these records and, for whether they are outdated, all that they depend on.
        """
        places = self._places(stage, dump)
        with ThreadPoolExecutor(NUM_READERS) as pool:  # a distant file system answers slowly
            known = dict(zip(places, pool.map(lambda at: self.record(*at), places), strict=True))
        if with_outdated:
            return [record for record in known.values() if record is not None]

        @cache
        def read(*place: str) -> RunRecord | None:
            return known[place] if place in known else self.record(*place)

        @cache
        def is_current(stage: str, dump: str, slice: str) -> bool:
            record = read(stage, dump, slice)
            return record is not None and all(
                (source := read(*place)) is not None and source.key == key and is_current(*place)
                for place, key in ((name.split("/"), key) for name, key in record.inputs.items())
                # A release never changes, whatever becomes of the lake.
                if stage != "release"
            )

        return [record for at in places if is_current(*at) and (record := read(*at)) is not None]

    def history(self) -> list[dict[str, Any]]:
        """Return what is written of runs, oldest first: run_id, begun_at, host, process, end.

        `ended_at`, `end` (done, stopped or failed), `error` (its class) and `reason` (what it said,
        of an error that a user can act on) are missing while a run goes on, and for ever when it
        was killed.
        """
        found = []
        for path in sorted((self.path / "_history").glob("*.json")):
            try:
                found.append({"run_id": path.stem, **json.loads(path.read_text())})
            except (ValueError, TypeError):
                raise LakeCorrupt(f"{path} is damaged; delete it: nothing depends on it") from None
        return found

    def dumps(self) -> list[str]:
        """Return the dumps frozen in this lake, in their order."""
        ordinals = self._ordinals()
        return [ordinals[ordinal] for ordinal in sorted(ordinals)]

    def dump_at(self, ordinal: int) -> str:
        """Return the dump with this ordinal, as it stands in a doc_id; raises NotFound."""
        ordinals = self._ordinals()
        if ordinal not in ordinals:
            raise NotFound(f"the lake {self.path} has no dump number {ordinal}: {ordinals}")
        return ordinals[ordinal]

    def inputs(self, dump: str) -> list[InputFile]:
        """Return the frozen input files of a dump, empty when none are frozen."""
        frozen = self._frozen(dump)
        return list(frozen.files) if frozen else []

    def listings(self, dump: str) -> dict[str, RemoteListing]:
        """Return the frozen remote listings of a dump by URL, with the files that they named."""
        frozen = self._frozen(dump)
        if frozen is None:
            return {}
        paths = {file.ordinal: file.path for file in frozen.files}
        return {
            listing["url"]: RemoteListing(
                listing["sha256"],
                listing["base"],
                tuple(
                    sorted(
                        paths[ordinal]
                        for first, last in listing["ordinals"]
                        for ordinal in range(first, last + 1)
                    )
                ),
            )
            for listing in frozen.listings
        }

    def sources(self, dump: str) -> Mapping[str, Mapping[str, Any]]:
        """Return what servers said of the remote files of a dump that are ingested, by ordinal.

        Read once from all run records of ingest, then kept up with what this object commits.
        """
        if dump not in self._sources:
            records = self.records("ingest", dump)
            self._sources[dump] = {k: v for record in records for k, v in record.sources.items()}
        return self._sources[dump]

    def check_order(self, dumps: Sequence[str]) -> None:
        """Raise DumpOrderChanged unless the frozen dumps are a subset in the same places."""
        for path in sorted((self.path / "_inputs").glob("*.jsonl")):
            name, ordinal, *_ = _read_inputs(path, with_files=False)
            if ordinal >= len(dumps) or dumps[ordinal] != name:
                now = dumps.index(name) if name in dumps else "nowhere"
                raise DumpOrderChanged(
                    f"dump {name} is number {ordinal} in the lake {self.path} but {now} in the "
                    "configuration; dumps may only be appended, because earlier decisions depend "
                    "on their order: restore the order, or start a new lake"
                )

    def check_slices(self, dump: str, slice_files: int) -> None:
        """Raise SlicesChanged unless a frozen dump was cut in slices of as many files."""
        frozen = self._frozen(dump, with_files=False)
        if frozen and frozen.slice_files != slice_files:
            raise SlicesChanged(
                f"ingest.slice_files is {slice_files}, but dump {dump} of the lake {self.path} has "
                f"slices of {frozen.slice_files} files, which its commits name; restore "
                f"ingest.slice_files = {frozen.slice_files}, or start a new lake"
            )

    # ---- writing -------------------------------------------------------------------------------

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lake; raises LakeLocked naming the holder. The lock dies with its process."""
        path = self.path / "_lock"
        with open(path, "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise LakeLocked(
                    f"the lake {self.path} is held by {holder}; wait for it or stop it"
                ) from None
            file.truncate(0)
            started = time.strftime("%Y-%m-%d %H:%M:%S")
            command = Path(sys.argv[0]).name
            file.write(
                f"process {os.getpid()} on {socket.gethostname()} ({command}) since {started}"
            )
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)

    @contextmanager
    def recorded(self, run_id: str) -> Iterator[None]:
        """Write down that a run begins, and how it ends; see `history`. For one who holds the lock.

        A run of several parts is one: its begin is that of the first, its end that of the last.
        """
        path = self.path / "_history" / f"{run_id}.json"
        path.parent.mkdir(exist_ok=True)
        begun_at = json.loads(path.read_text())["begun_at"] if path.exists() else _now()
        entry = {
            "begun_at": begun_at,
            "host": socket.gethostname(),
            "process": os.getpid(),
        }
        write_atomically(path, json.dumps(entry))
        try:
            yield
        except BaseException as error:
            is_stop = isinstance(error, KeyboardInterrupt | TimeBudgetSpent)
            end = {"end": "stopped" if is_stop else "failed", "error": type(error).__name__}
            end["reason"] = str(error) if isinstance(error, CurationError) else ""
            write_atomically(path, json.dumps({**entry, "ended_at": _now(), **end}))
            raise
        write_atomically(path, json.dumps({**entry, "ended_at": _now(), "end": "done"}))

    def freeze_inputs(
        self,
        dump: str,
        ordinal: int,
        slice_files: int,
        files: Sequence[InputFile],
        listings: Mapping[str, RemoteListing] | None = None,
    ) -> None:
        """Write the input listing of a dump, and which files its remote listings named."""
        header: dict[str, Any] = {"dump": dump, "ordinal": ordinal, "slice_files": slice_files}
        if listings:
            ordinals = {file.path: file.ordinal for file in files}
            header["listings"] = [
                {
                    "url": url,
                    "base": listing.base,
                    "sha256": listing.sha256,
                    "ordinals": _ranges(sorted(ordinals[path] for path in listing.paths)),
                }
                for url, listing in listings.items()
            ]
        lines = [json.dumps(header)]
        lines += [json.dumps(asdict(file)) for file in files]
        folder = self.path / "_inputs"
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"{dump}.jsonl", "\n".join(lines) + "\n")

    def commit(self, record: RunRecord) -> None:
        """Make a stage and slice count, then remove the files that it supersedes."""
        path = self._record_path(record.stage, record.dump, record.slice)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, record.to_json())
        if record.sources and record.dump in self._sources:
            self._sources[record.dump].update(record.sources)
        for folder in self._folders(record):
            _remove_unlisted(self.path, folder, {entry.path for entry in record.files})

    def gc(self) -> list[str]:
        """Remove every file that no run record lists; return their paths. Holds no lock itself."""
        records = [record for place in self._places() if (record := self.record(*place))]
        listed = {entry.path for record in records for entry in record.files}
        removed = []
        for table in TABLES:
            if (self.path / table).exists():
                removed += _remove_unlisted(self.path, self.path / table, listed)
        for path in sorted((self.path / "_work").glob("*")):
            removed += _remove_unlisted(self.path, path, set())
        for path in sorted(self.path.glob("_*/**/.*.json*")):  # of a kill during a commit
            path.unlink()
            removed.append(str(path.relative_to(self.path)))
        return removed

    def work_folder(self, attempt: str) -> Path:
        """Return a folder for the state of one attempt; `gc` removes what is left in it."""
        return self.path / "_work" / attempt

    def _ordinals(self) -> dict[int, str]:
        """Return the frozen dumps by ordinal; a dump may be frozen before those listed before."""
        paths = (self.path / "_inputs").glob("*.jsonl")
        frozen = [_read_inputs(path, with_files=False) for path in paths]
        return {dump.ordinal: dump.name for dump in frozen}

    def _frozen(self, dump: str, with_files: bool = True) -> "_Frozen | None":
        path = self.path / "_inputs" / f"{dump}.jsonl"
        return _read_inputs(path, with_files) if path.exists() else None

    def _places(self, stage: str | None = None, dump: str | None = None) -> list[Place]:
        """Return stage, dump and slice of every commit, outdated ones too, ordered by path."""
        paths = sorted((self.path / "_runs").glob(f"{stage or '*'}/{dump or '*'}/*.json"))
        return [(path.parent.parent.name, path.parent.name, path.stem) for path in paths]

    def _record_path(self, stage: str, dump: str, slice: str) -> Path:
        return self.path / "_runs" / stage / dump / f"{slice}.json"

    def _folders(self, record: RunRecord) -> list[Path]:
        folders = []
        for table in TABLES:
            base = self.path / table
            if table in STAGED_TABLES:
                base = base / f"stage={record.stage}"
            elif table not in STAGE_TABLES[record.stage]:
                continue
            base = base / f"dump={record.dump}"
            folders.append(base if record.slice == WHOLE_DUMP else base / f"slice={record.slice}")
        return folders


STAGE_TABLES: dict[str, tuple[str, ...]] = {
    "ingest": ("documents",),
    "fingerprint": ("signatures", "shingles"),
    "dedup": ("duplicates", "retained_index", "full_buckets"),
    "lines": ("line_counts",),
    "annotate": ("signals",),
    "filter": ("kept",),
    "decontaminate": (),
    "encode": ("tokens",),
    "release": ("mixture",),
}
"""The tables that only one stage writes."""


def damaged(lake: str | Path, path: str, error: Exception) -> LakeCorrupt:
    """Return what to say of a committed file, by its path in the lake, that cannot be read."""
    table, *folders = path.split("/")[:-1]
    named = dict(folder.split("=", 1) for folder in folders)
    writers = [stage for stage, tables in STAGE_TABLES.items() if table in tables]
    records = Path(lake, "_runs", named.get("stage", *writers[:1]), named["dump"])
    record = records / f"{named.get('slice', WHOLE_DUMP)}.json"
    if not record.exists():
        record = records / f"{WHOLE_DUMP}.json"
    return LakeCorrupt(
        f"{Path(lake, path)} cannot be read ({error}); it changed after it was committed: restore "
        f"it, or rm {record} and run the same command again, which makes that slice anew"
    )


class TableWriter:
    """Writes one Parquet file of a table; used on workers.

    The file is made at the first row, so a part without rows leaves no file. Row groups are cut at
    20,000 rows or 64 MB.
    """

    def __init__(self, lake: str, table: str, stage: str, dump: str, slice: str, name: str) -> None:
        self.table = table
        folder = Path(table)
        if table in STAGED_TABLES:
            folder = folder / f"stage={stage}"
        self.path = folder / f"dump={dump}" / f"slice={slice}" / f"{name}.parquet"
        self._lake = Path(lake)
        self._writer: pq.ParquetWriter | None = None
        self._pending: list[pa.Table] = []
        self._first: int | None = None
        self._last: int | None = None
        self._rows = 0

    def write(self, rows: pa.Table | pa.RecordBatch) -> None:
        """Append rows of the table's schema; a different schema is a LakeCorrupt error."""
        if isinstance(rows, pa.RecordBatch):
            rows = pa.Table.from_batches([rows])
        if rows.num_rows == 0:
            return
        schema = TABLES[self.table]
        try:
            rows = rows.cast(schema)
        except (ValueError, NotImplementedError) as error:  # pyarrow's: other names, other types
            raise LakeCorrupt(
                f"table {self.table} has columns {schema.names}, got {rows.schema.names}: {error}"
            ) from error
        if "doc_id" in schema.names and self.table != "retained_index":  # that one is by key
            ids = rows["doc_id"]
            self._first = ids[0].as_py() if self._first is None else self._first
            self._last = ids[-1].as_py()
        self._pending.append(rows)
        self._rows += rows.num_rows
        num_rows = sum(table.num_rows for table in self._pending)
        if num_rows >= ROW_GROUP_ROWS or sum(t.nbytes for t in self._pending) >= ROW_GROUP_BYTES:
            self._flush()

    def close(self) -> FileEntry | None:
        """Finish the file and return its entry with the rows its footer counts; None if empty."""
        if self._rows == 0:
            return None
        self._flush()
        assert self._writer is not None
        self._writer.close()
        path = self._lake / self.path
        with open(path, "rb") as file:
            os.fsync(file.fileno())  # a record must not outlive a file that it lists
        rows = pq.read_metadata(path).num_rows
        return FileEntry(
            self.table, str(self.path), rows, path.stat().st_size, self._first, self._last
        )

    def _flush(self) -> None:
        if not self._pending:
            return
        rows = pa.concat_tables(self._pending)
        self._pending = []
        if self._writer is None:
            path = self._lake / self.path
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(
                path, TABLES[self.table], compression="zstd", compression_level=3
            )
        self._writer.write_table(rows, row_group_size=max(rows.num_rows, 1))


class _Frozen(NamedTuple):
    """A dump as it was at first sight."""

    name: str
    ordinal: int
    slice_files: int
    files: Sequence[InputFile]
    listings: Sequence[Mapping[str, Any]]


def _read_inputs(path: Path, with_files: bool = True) -> _Frozen:
    """Read a listing, or its header alone: a dump has up to 100,000 files."""
    try:
        with open(path, encoding="utf-8") as lines:
            header = json.loads(next(lines))
            files = [json.loads(line) for line in lines] if with_files else []
        return _Frozen(
            header["dump"],
            header["ordinal"],
            header["slice_files"],
            [InputFile(**line) for line in files],
            header.get("listings", []),
        )
    except (ValueError, KeyError, TypeError, StopIteration):
        raise LakeCorrupt(f"{path} is damaged; restore it from a backup of the lake") from None


def _ranges(ordinals: Sequence[int]) -> list[list[int]]:
    """Return ascending numbers as [first, last] of each run without a gap."""
    runs: list[list[int]] = []
    for ordinal in ordinals:
        if runs and ordinal == runs[-1][1] + 1:
            runs[-1][1] = ordinal
        else:
            runs.append([ordinal, ordinal])
    return runs


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def write_atomically(path: Path, text: str) -> None:
    """Replace a file so that a reader sees the old or the new one, and a crash leaves one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _remove_unlisted(root: Path, folder: Path, listed: set[str]) -> list[str]:
    """Remove the files under a folder that are not listed, and folders left empty."""
    removed = []
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(parent, name)
            relative = str(path.relative_to(root))
            if relative not in listed:
                path.unlink(missing_ok=True)
                removed.append(relative)
        if not os.listdir(parent):
            os.rmdir(parent)
    return removed

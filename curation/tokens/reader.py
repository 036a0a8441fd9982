"""Reading a release: rows by their number, in order by design. No Spark and no torch.

Sample i of the dataset is row i of its split. Row groups are decoded whole, the next one in the
background while this one is read, so reading on is cheap and a jump costs a row group. A file is
compared with the manifest when its first row is asked for. A release behind a URL (s3://,
https://, anything of fsspec) is fetched file by file into a folder that keeps so many bytes.
"""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, cast
from uuid import uuid4

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.cache import cache_dir
from curation.errors import NotFound, ShardCorrupt
from curation.tokens.packing import Int32Array, Int64Array, shard_schema
from curation.tokens.shards import (
    MANIFEST_NAME,
    SPLITS,
    TOKENIZER_NAME,
    TRAIN,
    Manifest,
    ShardEntry,
    parse_manifest,
    read_manifest,
    sha256_of,
)

CACHE_BYTES = 50 * 2**30
CACHED_GROUPS = 4  # this one, the next, and two of a jump back; 5 MiB each
FETCH_BYTES = 8 << 20

Row = dict[str, Any]


def open_shards(
    location: str | Path,
    split: str = TRAIN,
    *,
    cached_groups: int = CACHED_GROUPS,
    cache_folder: str | Path | None = None,
    cache_bytes: int = CACHE_BYTES,
    storage_options: Mapping[str, Any] | None = None,
) -> "Shards":
    """Open a release by its folder, its manifest or the URL of its folder.

    `cached_groups` decoded row groups are kept. Files of a URL are kept in `cache_folder` (in the
    user's cache by default) up to `cache_bytes`, those that were opened last, and always the one
    in use; `storage_options` go to fsspec. Raises NotFound, LakeVersion, ShardCorrupt as
    `read_manifest` does, and ValueError for a split that there is not.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r}; there are {', '.join(SPLITS)}")
    if "://" not in str(location):
        path = Path(location)
        folder = path if path.is_dir() else path.parent
        return Shards(_Folder(folder), read_manifest(path), split, cached_groups)
    url = str(location).removesuffix(MANIFEST_NAME).rstrip("/")
    options = dict(storage_options or {})
    where = f"{url}/{MANIFEST_NAME}"
    manifest = parse_manifest(_read(where, options), where)
    own = cache_dir("shards") if cache_folder is None else Path(cache_folder)
    source = _Remote(url, own / manifest.fingerprint, cache_bytes, options)
    return Shards(source, manifest, split, cached_groups)


class Shards:
    """The rows of a split of a release, in order.

    A row is a dict of `shard_schema`: input_ids, doc_starts, doc_ids and doc_offset are read-only
    NumPy arrays, num_tokens is an int. Reading on: see shards_read in tests/bench. May be pickled
    and forked: each process decodes for itself. Not for two threads at once.
    """

    _last: tuple[int, int] | None
    _open_shards: dict[int, "_OpenShard"]

    def __init__(
        self, source: "_Source", manifest: Manifest, split: str, cached_groups: int
    ) -> None:
        self.manifest = manifest
        self.files = manifest.of(split)
        self._source = source
        self._cached_groups = cached_groups
        self._ends = list(accumulate(entry.rows for entry in self.files))
        self._forget()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def row(self, i: int) -> Row:
        """Return row i; raises IndexError beyond the last, ShardCorrupt for a damaged file."""
        if not 0 <= i < len(self):
            raise IndexError(f"row {i} of a release of {len(self)} rows")
        if not self._first <= i < self._stop:
            self._turn_to(i)
        return self._group.row(i - self._first)

    def iterate(self, start: int = 0) -> Iterator[Row]:
        """Yield the rows from `start` to the last."""
        return (self.row(i) for i in range(start, len(self)))

    def ids(self, start: int, stop: int) -> Int32Array:
        """Return the ids of rows [start, stop), one row each, padding included.

        A view of the decoded row group where they lie in one.
        """
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"rows {start} to {stop} of a release of {len(self)} rows")
        parts = []
        while start < stop:
            if not self._first <= start < self._stop:
                self._turn_to(start)
            end = min(stop, self._stop)
            parts.append(self._group.ids[start - self._first : end - self._first])
            start = end
        if len(parts) == 1:
            return parts[0]
        length = self.manifest.sequence_length
        return np.concatenate([np.empty((0, length), np.int32), *parts])

    def group_ends(self) -> Int64Array:
        """Return the row after the last of each row group: what is decoded together.

        Cost: opens every file, and so compares it with the manifest.
        """
        firsts = np.array([0, *self._ends[:-1]], np.int64)
        ends = [first + np.array(self._open(i).ends, np.int64) for i, first in enumerate(firsts)]
        return np.concatenate([np.zeros(0, np.int64), *ends])

    def tokenizer(self) -> Path:
        """Return the tokenizer.json of the release; raises ShardCorrupt unless it is that."""
        sha256 = self.manifest.tokenizer_sha256
        path = self._source.file(TOKENIZER_NAME, sha256)
        _agree(str(path), sha256_of(path), sha256)
        return path

    def verify(self) -> None:
        """Read every file and compare it with the manifest; raises ShardCorrupt naming the file."""
        for entry in self.files:
            _check(self._source.file(entry.path, entry.sha256, entry.bytes), entry)

    def _turn_to(self, i: int) -> None:
        """Make the row group of row i the current one, and begin with the one after it."""
        if self._process != os.getpid():
            self._forget()
        number = int(np.searchsorted(self._ends, i, side="right"))
        first = self._ends[number] - self.files[number].rows
        shard = self._open(number)
        group = int(np.searchsorted(shard.ends, i - first, side="right"))
        self._group = self._wanted((number, group)).result()
        self._stop = first + shard.ends[group]
        self._first = self._stop - len(self._group.num_tokens)
        is_last = group + 1 == len(shard.ends)
        following = (number + 1, 0) if is_last else (number, group + 1)
        has_following = not is_last or any(entry.rows for entry in self.files[number + 1 :])
        if has_following and self._last in (None, (number, group), (number, group - 1)):
            while self.files[following[0]].rows == 0:
                following = (following[0] + 1, 0)
            self._wanted(following)
        self._last = following if is_last else (number, group)

    def _wanted(self, place: tuple[int, int]) -> "Future[_Group]":
        if place not in self._decoded:
            self._decoded[place] = self._worker.submit(self._decode, place)
        self._decoded.move_to_end(place)
        while len(self._decoded) > max(self._cached_groups, 2):
            self._decoded.popitem(last=False)
        return self._decoded[place]

    def _decode(self, place: tuple[int, int]) -> "_Group":
        return self._open(place[0]).group(place[1])

    def _open(self, number: int) -> "_OpenShard":
        with self._lock:  # the reader and the worker may both be the first
            if number not in self._open_shards:
                entry = self.files[number]
                path = self._source.file(entry.path, entry.sha256, entry.bytes)
                _check(path, entry)
                opened = _OpenShard(path, entry, self.manifest.sequence_length)
                self._open_shards = {**dict(list(self._open_shards.items())[-1:]), number: opened}
            return self._open_shards[number]

    def _forget(self) -> None:
        self._process = os.getpid()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="shards")
        self._decoded: OrderedDict[tuple[int, int], Future[_Group]] = OrderedDict()
        self._open_shards = {}
        self._lock = threading.Lock()
        self._group = cast(_Group, None)
        self._first = self._stop = 0
        self._last = None

    def __getstate__(self) -> dict[str, Any]:
        names = ("manifest", "files", "_source", "_cached_groups", "_ends")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._forget()


class _Source(Protocol):
    """Where the files of a release are."""

    def file(self, name: str, sha256: str, num_bytes: int | None = None) -> Path:
        """Return a local file; raises ShardCorrupt where there is none."""


class _Folder:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, name: str, sha256: str, num_bytes: int | None = None) -> Path:
        file = self.folder / name
        if not file.is_file():
            raise ShardCorrupt(
                f"{file} is gone, but its manifest lists it; restore the file or release again"
            )
        return file


class _Remote:
    """Files behind a URL, fetched whole: a sum over the whole file is what the manifest has."""

    def __init__(
        self, url: str, folder: Path, cache_bytes: int, options: Mapping[str, Any]
    ) -> None:
        self.url = url
        self.folder = folder
        self.cache_bytes = cache_bytes
        self.options = dict(options)

    def file(self, name: str, sha256: str, num_bytes: int | None = None) -> Path:
        file = self.folder / name
        if file.is_file() and num_bytes in (None, file.stat().st_size):
            os.utime(file)  # what was opened last stays longest
            return file
        self.folder.mkdir(parents=True, exist_ok=True)
        self._make_room(num_bytes or 0)
        unfinished = file.with_name(f".{file.name}.{uuid4().hex}.tmp")
        url = f"{self.url}/{name}"
        digest = hashlib.sha256()
        try:
            with _opened(url, self.options) as source, unfinished.open("wb") as target:
                while block := source.read(FETCH_BYTES):
                    digest.update(block)
                    target.write(block)
            _agree(url, digest.hexdigest(), sha256)
            unfinished.replace(file)
        except FileNotFoundError:
            raise ShardCorrupt(
                f"{url} is gone, but its manifest lists it; restore the file or release again"
            ) from None
        finally:
            unfinished.unlink(missing_ok=True)
        return file

    def _make_room(self, num_bytes: int) -> None:
        kept = sorted(self.folder.parent.glob("*/*.parquet"), key=lambda file: file.stat().st_mtime)
        held = sum(file.stat().st_size for file in kept) + num_bytes
        for file in kept:
            if held <= self.cache_bytes:
                break
            held -= file.stat().st_size
            file.unlink(missing_ok=True)  # who has it open reads on


class _Group:
    """One decoded row group."""

    def __init__(self, rows: pa.Table, sequence_length: int) -> None:
        columns = {name: rows[name].chunk(0) for name in rows.column_names}
        self.ids: Int32Array = columns["input_ids"].flatten().to_numpy()
        self.ids = self.ids.reshape(-1, sequence_length)
        self.piece_ends = columns["doc_starts"].offsets.to_numpy()
        self.pieces = {
            name: columns[name].values.to_numpy()
            for name in ("doc_starts", "doc_ids", "doc_offset")
        }
        self.num_tokens: Int64Array = columns["num_tokens"].to_numpy()

    def row(self, i: int) -> Row:
        start, end = self.piece_ends[i], self.piece_ends[i + 1]
        return {
            "input_ids": self.ids[i],
            **{name: values[start:end] for name, values in self.pieces.items()},
            "num_tokens": int(self.num_tokens[i]),
        }


class _OpenShard:
    """One shard file."""

    def __init__(self, path: Path, entry: ShardEntry, sequence_length: int) -> None:
        self.path = path
        self.sequence_length = sequence_length
        try:
            self.file = pq.ParquetFile(path, memory_map=True)
            metadata = self.file.metadata
        except (pa.ArrowException, OSError) as error:
            raise self._corrupt(str(error)) from None
        if metadata.num_rows != entry.rows or not self.file.schema_arrow.equals(
            shard_schema(sequence_length)
        ):
            raise self._corrupt(
                f"{metadata.num_rows} rows of {self.file.schema_arrow.field(0).type}, "
                f"but the manifest says {entry.rows} of {sequence_length} ids"
            )
        self.ends = list(
            accumulate(metadata.row_group(g).num_rows for g in range(metadata.num_row_groups))
        )

    def group(self, number: int) -> _Group:
        try:
            rows = self.file.read_row_group(number, use_threads=False).combine_chunks()
        except (pa.ArrowException, OSError) as error:
            raise self._corrupt(str(error)) from None
        return _Group(rows, self.sequence_length)

    def _corrupt(self, reason: str) -> ShardCorrupt:
        return ShardCorrupt(f"{self.path}: {reason}; restore the file or release again")


def _check(file: Path, entry: ShardEntry) -> None:
    _agree(str(file), sha256_of(file), entry.sha256)


def _agree(where: str, found: str, expected: str) -> None:
    if found != expected:
        raise ShardCorrupt(
            f"{where} has sha256 {found}, its manifest says {expected}; "
            "restore the file or release again"
        )


def _read(url: str, options: Mapping[str, Any]) -> bytes:
    try:
        with _opened(url, options) as file:
            return bytes(file.read())
    except FileNotFoundError:
        raise NotFound(f"no release at {url}; make one with `curation release NAME`") from None


def _opened(url: str, options: Mapping[str, Any]) -> Any:
    try:
        return fsspec.open(url, "rb", **options).open()
    except FileNotFoundError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise NotFound(f"{url} cannot be opened ({error}); check it and its rights") from None

"""The index of a lake: keys of retained documents, and signatures and shingles behind them.

Needs no Spark: tasks of dedup read it, and so does `curation query`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.dedup.messages import Meter
from curation.engine.lake import FileEntry, Lake
from curation.schemas import RETAINED_INDEX, SHINGLES, SIGNATURES


@dataclass(frozen=True)
class LakeStore:
    """Signatures, shingles and index runs in scope, read from their committed files by the tasks.

    What is sent to tasks is the path of a list of files, which they map into memory. Of a file only
    the row groups are read that may hold what is asked for, one after another.
    """

    listing: str  # an Arrow file: table, first (doc_id of a file, or range of a run), path
    has_index: bool
    has_shingles: bool
    meter: Meter

    def index(self, part: int, keys: npt.NDArray[np.int64]) -> pa.Table:
        """Return band_key and doc_id of a key range for ascending keys, sorted by key."""
        parts, paths = _files(self.listing, "retained_index")
        own = range(np.searchsorted(parts, part), np.searchsorted(parts, part, "right"))
        found = [RETAINED_INDEX.empty_table()]
        for number in own:
            path = paths[number].as_py()
            found += self._matching("retained_index", path, "band_key", keys, RETAINED_INDEX)
        return pa.concat_tables(found).sort_by("band_key")

    def file_of(self, doc_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the number of the file that holds each document's signature."""
        first_ids, _ = _files(self.listing, "signatures")
        return np.searchsorted(first_ids, doc_ids, side="right") - 1

    def signatures(self, file: int, doc_ids: npt.NDArray[np.int64]) -> pa.Table:
        """Return these ascending documents of a file."""
        return self._documents("signatures", file, doc_ids, SIGNATURES)

    def shingles(self, file: int, doc_ids: npt.NDArray[np.int64]) -> pa.Table:
        """Return these ascending documents of a file."""
        return self._documents("shingles", file, doc_ids, SHINGLES)

    def num_bytes(self, doc_ids: npt.NDArray[np.int64]) -> pa.Array:
        """Return the bytes of text of ascending documents."""
        schema = pa.schema([SIGNATURES.field("doc_id"), SIGNATURES.field("num_bytes")])
        found = [schema.empty_table()]
        files = self.file_of(doc_ids)
        for file in np.unique(files).tolist():
            found.append(self._documents("signatures", file, doc_ids[files == file], schema))
        return pa.concat_tables(found)["num_bytes"].combine_chunks()

    def _documents(
        self, table: str, file: int, doc_ids: npt.NDArray[np.int64], schema: pa.Schema
    ) -> pa.Table:
        _, paths = _files(self.listing, table)
        path = paths[file].as_py()
        found = self._matching(table, path, "doc_id", doc_ids, schema)
        return pa.concat_tables([schema.empty_table(), *found])

    def _matching(
        self, table: str, path: str, key: str, wanted: npt.NDArray[np.int64], schema: pa.Schema
    ) -> Iterator[pa.Table]:
        what = table.removeprefix("retained_")
        return matching_rows(path, key, wanted, schema, self.meter, f"{what}_bytes_scanned")


def open_store(
    lake: Lake, dumps: Sequence[str], indexed: Sequence[str], folder: Path, meter: Meter
) -> LakeStore:
    """List the signatures of `dumps` and the index runs of `indexed`, in a file in `folder`."""
    rows = [
        (table, entry.id_range()[0], entry.path)
        for table in ("signatures", "shingles")
        for entry in entries(lake, "fingerprint", dumps, table)
    ]
    runs = entries(lake, "dedup", indexed, "retained_index")
    for entry in runs:
        part = int(Path(entry.path).parent.name.removeprefix("slice="))
        rows.append(("retained_index", part, entry.path))
    rows.sort()
    folder.mkdir(parents=True, exist_ok=True)
    listing = folder / "files.arrow"
    table = pa.table(
        {
            "table": pa.array([row[0] for row in rows], pa.string()),
            "first": pa.array([row[1] for row in rows], pa.int64()),
            "path": pa.array([str(lake.path / row[2]) for row in rows], pa.string()),
        }
    )
    with pa.ipc.new_file(str(listing), table.schema) as writer:
        writer.write_table(table)
    has_shingles = any(table == "shingles" for table, *_ in rows)
    return LakeStore(str(listing), bool(runs), has_shingles, meter)


def matching_rows(
    path: str,
    key: str,
    wanted: npt.NDArray[np.int64],
    schema: pa.Schema,
    meter: Meter | None = None,
    name: str = "bytes_scanned",
) -> Iterator[pa.Table]:
    """Yield the rows of a file, sorted by `key`, whose key is one of the ascending `wanted`.

    One row group after another, and only those that may hold one; `meter` gets their stored bytes.
    """
    groups = _row_groups(path, key, tuple(schema.names))
    some = np.searchsorted(wanted, groups.lows) < np.searchsorted(wanted, groups.highs, "right")
    if not some.any():
        return
    if meter is not None:
        meter.add({name: int(groups.num_bytes[some].sum())})
    with pq.ParquetFile(path) as file:
        for number in np.flatnonzero(some).tolist():
            rows = file.read_row_group(number, columns=schema.names).cast(schema)
            keys = rows[key].to_numpy()
            place = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
            yield rows.filter(pa.array(wanted[place] == keys))


def entries(lake: Lake, stage: str, dumps: Sequence[str], table: str) -> list[FileEntry]:
    return [
        entry
        for dump in dumps
        for record in lake.records(stage, dump)
        for entry in record.files_of(table)
    ]


class _RowGroups(NamedTuple):
    """Lowest and highest key, and the stored bytes, of every row group of a file."""

    lows: npt.NDArray[np.int64]
    highs: npt.NDArray[np.int64]
    num_bytes: npt.NDArray[np.int64]


@lru_cache(maxsize=4096)
def _row_groups(path: str, key: str, names: tuple[str, ...]) -> _RowGroups:
    metadata = pq.read_metadata(path)
    columns = {metadata.schema.column(i).path: i for i in range(metadata.num_columns)}
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    statistics = [group.column(columns[key]).statistics for group in groups]
    return _RowGroups(
        np.array([each.min for each in statistics], np.int64),
        np.array([each.max for each in statistics], np.int64),
        np.array([sum(g.column(columns[n]).total_compressed_size for n in names) for g in groups]),
    )


@lru_cache(maxsize=16)
def _files(listing: str, table: str) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """Return `first`, ascending, and path of the files of a table."""
    with pa.memory_map(listing) as source:
        rows = pa.ipc.open_file(source).read_all()
    rows = rows.filter(pc.equal(rows["table"], table))
    return rows["first"].to_numpy(), rows["path"].combine_chunks()

"""Input files, in groups -> their records with the file and place of each: what a task reads."""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from curation.config import RemoteConfig
from curation.ingest import remote, warc
from curation.ingest.ranges import split_ranges

PLACED_SCHEMA = pa.schema(
    [("file_ordinal", pa.int32()), ("archive", pa.string()), *warc.RECORD_SCHEMA]
)
END_OF_FILE = "file"  # the record_type of the row behind a file


def read_files(
    files: Sequence[tuple[int, str]],
    contents: str,
    *,
    max_record_bytes: int = warc.MAX_RECORD_BYTES,
    settings: RemoteConfig | None = None,
    known: Mapping[int, remote.Facts] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the records of files, given as (ordinal, path), in order, as batches of PLACED_SCHEMA.

    contents: warc, parquet, jsonl or text. known: what remote files were when they were first read,
    by ordinal. Behind the rows of a file (see `warc.read_records`) stands one of record_type
    END_OF_FILE, whose metadata is what the server of a remote file said of it, as JSON. Memory: one
    batch and one record. Raises what `warc.read_records`, `warc.read_rows` and `remote` raise.
    """
    known = known or {}
    remote.configure(
        settings or RemoteConfig(), {path: known[n] for n, path in files if n in known}
    )
    try:
        for ordinal, path in files:
            for batch in _read(path, contents, max_record_bytes):
                yield _placed(batch, ordinal, path)
            yield _placed(_end_of(path), ordinal, path)
    except remote.RemoteFailure as failure:
        raise failure.error from None


def ahead(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield batches while a thread reads the next one: a slow server need not be waited for twice.

    Raises what reading raises. Memory: two batches more.
    """
    with ThreadPoolExecutor(1, "reader") as reader:
        pending = reader.submit(next, batches, None)
        while (batch := pending.result()) is not None:
            pending = reader.submit(next, batches, None)
            yield batch


def _read(path: str, contents: str, max_record_bytes: int) -> Iterator[pa.RecordBatch]:
    if contents == "warc":
        return warc.read_records(path, max_record_bytes=max_record_bytes)
    return warc.read_rows(path, contents, max_record_bytes=max_record_bytes)


def _end_of(path: str) -> pa.RecordBatch:
    facts = remote.facts_of(path)
    metadata = None if facts is None else json.dumps(facts._asdict())
    row = {"record_type": END_OF_FILE, "metadata": metadata, "num_other": 1}
    return pa.RecordBatch.from_pylist([row], schema=warc.RECORD_SCHEMA)


def _placed(batch: pa.RecordBatch, ordinal: int, path: str) -> pa.RecordBatch:
    n = batch.num_rows
    archive, _ = split_ranges(path)  # offsets are those in the whole file
    columns = [pa.array([ordinal] * n, pa.int32()), pa.array([archive] * n, pa.string())]
    return pa.record_batch([*columns, *batch.columns], schema=PLACED_SCHEMA)

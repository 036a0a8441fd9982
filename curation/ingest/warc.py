"""Bytes of an input file -> Arrow batches of records: WARC, WET, ARC, and rows of other formats.

Every HTTP response, conversion record and document becomes a row of RECORD_SCHEMA. So does every
range that cannot be read: damage costs the records it hits and nothing else.

An archive is a sequence of records, each usually a gzip member of its own, sometimes many in one
member, sometimes not compressed. What it is, its bytes say, not its name; one file may hold both
WARC and ARC. `members` turns the file into text, `records` reads the records out of it: with
FastWARC, and with warcio those that FastWARC does not read. Rules for damage:

1. A record is complete when all bytes that its Content-Length announces are there. A complete
   record is kept, except one alone in a member whose checksum fails or is cut off.
2. What does not belong to a complete record is a lost range: from the first byte lost to the next
   gzip member (in an uncompressed file: line) that starts a record, or to the end of the file. One
   row per range, however many records it held; it takes one record ordinal.
3. Errors of a range: `truncated` (the file ends inside it), `corrupt` (gzip cannot be inflated, or
   its checksum fails), `malformed` (readable, but no record), `not_warc` and `empty` (the
   whole file holds no record).
4. Errors of the medium are no damage: they are raised.
"""

import base64
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from datetime import datetime
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from curation.errors import InputInvalid, InputMissing
from curation.ingest import codings, remote
from curation.ingest.members import InflatedText, PlainText, Text, find_record, first_record
from curation.ingest.records import HttpInvalid, Record, fastwarc_records, warcio_records

RECORD_SCHEMA = pa.schema(
    [
        ("record_ordinal", pa.int32()),  # over all record headers of the file, from 0
        ("offset", pa.int64()),  # bytes into the file: the gzip member, or the plain record
        ("length", pa.int64()),  # bytes in the file, 0 when a member holds several records
        ("record_type", pa.string()),  # response, conversion, document, lost; or see num_other
        ("url", pa.string()),
        ("date", pa.timestamp("us", "UTC")),
        ("http_status", pa.int16()),
        ("content_type", pa.string()),
        ("charset", pa.string()),
        ("payload", pa.binary()),
        ("metadata", pa.string()),  # JSON of a document's other columns; null for archives
        ("error", pa.string()),  # null, or why there is no payload
        # Null in every row above. The last rows of a file say how many records of every other type
        # it held: record_type and num_other, all else null.
        ("num_other", pa.int32()),
    ]
)

BATCH_BYTES = 16 << 20
BATCH_ROWS = 256
# Common Crawl cuts payloads at 1 MiB (5 MiB since 2025); 64 MiB lets other crawls' books pass.
MAX_RECORD_BYTES = 64 << 20

MAX_INT16 = (1 << 15) - 1


class _Row(NamedTuple):
    """One row of RECORD_SCHEMA."""

    record_ordinal: int | None = None
    offset: int | None = None
    length: int | None = None
    record_type: str | None = None
    url: str | None = None
    date: datetime | None = None
    http_status: int | None = None
    content_type: str | None = None
    charset: str | None = None
    payload: bytes | None = None
    metadata: str | None = None
    error: str | None = None
    num_other: int | None = None


def read_records(
    source: BinaryIO | str | Path,
    *,
    batch_bytes: int = BATCH_BYTES,
    batch_rows: int = BATCH_ROWS,
    max_record_bytes: int = MAX_RECORD_BYTES,
    with_warcio: bool = False,
) -> Iterator[pa.RecordBatch]:
    """Yield the records of one WARC, WET or ARC file as batches of RECORD_SCHEMA.

    Byte ranges of a file (`remote.RangedFile`) are read as one archive, with offsets in the file.
    `source` is a path, a URL that fsspec opens, or a seekable binary stream (left open). A batch is
    closed by `batch_rows` rows or `batch_bytes` bytes of payload, whichever comes first; the rows
    do not depend on either. A payload above `max_record_bytes`, as stored or decoded, is a row with
    error `record_too_large`; a response without a readable status line one with `http_invalid`.
    HTTP transfer and content codings (chunked; gzip, deflate, br, zstd) are undone; a payload that
    does not decode stays as it is (see `codings`). The last rows count records of other types (see
    RECORD_SCHEMA): `resource`, `revisit`, `response_not_http` (DNS look-ups), `arc_header`, ...
    `with_warcio` reads every record with warcio, to compare: rows of a proper file are the same.

    Damage never raises (rules: see the module). Raises InputMissing when there is no such file and
    OSError when the medium fails. Memory: one batch and one record. Cost: about 100 MB of text a
    second and core, half of it spent in zlib.
    """
    reader = _WarcRows(max_record_bytes, with_warcio)
    return _batches(_with_stream(source, reader.rows), batch_bytes, batch_rows)


def read_rows(
    source: str | Path,
    source_format: str,
    *,
    batch_bytes: int = BATCH_BYTES,
    batch_rows: int = BATCH_ROWS,
    max_record_bytes: int = MAX_RECORD_BYTES,
) -> Iterator[pa.RecordBatch]:
    """Yield the documents of a `parquet`, `jsonl` or `text` file as batches of RECORD_SCHEMA.

    record_type is `document`, payload the UTF-8 text, record_ordinal the row, the line (jsonl) or 0
    (a text file is one document, its URL the file's). Columns: `text`, and `url` or else `id` for
    the URL; all others (origin, licence, ...) pass through as one JSON object in metadata, with
    times in ISO 8601, bytes in base64 and NaN as null. offset and length are those of the line in
    an uncompressed file, else 0. A row without text has error `no_text`; a bad line
    `malformed:line N`; a Parquet row group that cannot be read is one row with error `corrupt`.
    jsonl and text may be compressed (.gz, .bz2, .zst, by the end of the path).

    Raises InputMissing when there is no such file, InputInvalid when a Parquet file has no string
    column `text`, or the first object of a jsonl file no such key.
    """
    readers = {"parquet": _parquet_rows, "jsonl": _jsonl_rows, "text": _text_rows}
    return _batches(readers[source_format](str(source), max_record_bytes), batch_bytes, batch_rows)


def _batches(rows: Iterator[_Row], batch_bytes: int, batch_rows: int) -> Iterator[pa.RecordBatch]:
    pending: list[_Row] = []
    pending_bytes = 0
    for row in rows:
        pending.append(row)
        pending_bytes += len(row.payload or b"")
        if len(pending) >= batch_rows or pending_bytes >= batch_bytes:
            yield _batch(pending)
            pending, pending_bytes = [], 0
    if pending:
        yield _batch(pending)


def _batch(rows: list[_Row]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = [
        pa.array(column, field.type) for column, field in zip(columns, RECORD_SCHEMA, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=RECORD_SCHEMA)


def _with_stream(
    source: BinaryIO | str | Path, read: Callable[[BinaryIO], Iterator[_Row]]
) -> Iterator[_Row]:
    if not isinstance(source, str | Path):
        yield from read(source)
        return
    with _open(str(source)) as stream:
        if isinstance(stream, remote.RangedFile):
            yield from _in_whole_file(read(stream), stream)
        else:
            yield from read(stream)


def _in_whole_file(rows: Iterator[_Row], ranges: remote.RangedFile) -> Iterator[_Row]:
    for row in rows:
        yield row if row.offset is None else row._replace(offset=ranges.locate(row.offset))


def _open(path: str) -> BinaryIO:
    try:
        if "://" in path:
            return remote.open_url(path)
        return open(path, "rb")  # never a pattern or a chain, whatever characters it has
    except FileNotFoundError as error:
        raise InputMissing(
            f"input {path} does not exist any more; restore it, or remove it from the inputs"
        ) from error


# --- WARC --------------------------------------------------------------------------------


class _Lost(NamedTuple):
    """A lost range whose end is not yet known."""

    ordinal: int
    offset: int
    error: str
    url: str | None


class _Current(NamedTuple):
    """The record last returned: complete only once the text is known to reach its end."""

    ordinal: int
    record_type: str
    row: _Row | None  # None: of another type, only counted
    end: int  # text position
    offset: int  # in the file
    starts_member: bool


class _WarcRows:
    """Reads one archive into rows."""

    def __init__(self, max_record_bytes: int, with_warcio: bool) -> None:
        self.max_record_bytes = max_record_bytes
        self.with_warcio = with_warcio
        self.num_other: Counter[str] = Counter()
        self.num_complete = 0
        self.next_ordinal = 0
        self.lost: _Lost | None = None

    def rows(self, stream: BinaryIO) -> Iterator[_Row]:
        size = stream.seek(0, os.SEEK_END)
        compressed, start = first_record(stream)
        if start != 0 and size > 0:
            self._lose(0, 0, "malformed", None)
        while start is not None:
            # 1. read records to the end, or to damage
            text = InflatedText(stream, start) if compressed else PlainText(stream, start)
            damaged_at = yield from self._read(text, start)
            # 2. go on at the next record behind it; damage right behind damage is the same range,
            #    so the range is reported when a record completes, or at the end
            start = None
            any_arc = text.holds_arc or self.num_complete == 0
            if damaged_at is not None:
                start = find_record(stream, damaged_at + 1, compressed, any_arc=any_arc)
            if damaged_at is not None and start is None and self.num_complete == 0:
                # what the file seems to be rests on its first bytes alone: they may be the damage
                compressed = not compressed
                start = find_record(stream, damaged_at + 1, compressed)
        if self.num_complete == 0:
            if self.lost is None:
                self._lose(0, 0, "empty", None)
            elif self.lost.error == "malformed":
                self.lost = self.lost._replace(error="not_warc")
        yield from self._report_lost(size)
        for record_type, count in sorted(self.num_other.items()):
            yield _Row(record_type=record_type, num_other=count)

    def _read(self, text: Text, first_offset: int) -> Generator[_Row, None, int | None]:
        """Yield the rows of complete records; return the file offset of damage, or None."""
        current: _Current | None = None
        with_warcio = self.with_warcio
        records = warcio_records(text, 0) if with_warcio else fastwarc_records(text)
        while True:
            record = next(records, None)
            if text.failure is not None:
                raise text.failure
            if record is None or record.end is None:
                # The one library finds no proper header here: ask the other.
                position = text.skip_blank(current.end if current is not None else 0)
                if record is not None:
                    position = record.start
                if not with_warcio and (position == 0 or text.begins_record(position)):
                    with_warcio = True
                    records = warcio_records(text, position)
                    continue
            if record is None:
                break
            if record.end is None:  # another record's text may hide behind it
                offset, starts_member = text.locate(record.start)
            else:
                following = self._current(record, record.end, text)
                offset, starts_member = following.offset, following.starts_member
            if current is not None:
                yield from self._complete(current, offset, starts_member, first_offset)
            if record.end is None:
                damage_offset = text.damage_offset(record.start)
                why_lost = text.why_lost(record.start)
                self._lose(self.next_ordinal, damage_offset, why_lost, record.url)
                return damage_offset
            current = following
            self.next_ordinal = current.ordinal + 1

        # No further record: was the last one complete, and is anything left behind it?
        if current is not None:
            rest = text.skip_blank(current.end)
            is_alone = (
                current.starts_member
                and current.offset == text.member_offset
                and not text.begins_record(rest)
            )
            if current.end > text.num_bytes or (text.damage is not None and is_alone):
                url = current.row.url if current.row is not None else None
                self._lose(current.ordinal, current.offset, text.damage or "truncated", url)
                return current.offset
            yield from self._complete(current, *text.locate(rest), first_offset)
        else:
            rest = text.skip_blank(0)
        if rest == text.num_bytes and text.damage is None:
            return None
        offset = text.damage_offset(rest)
        self._lose(self.next_ordinal, offset, text.why_lost(rest), None)
        return offset

    def _current(self, record: Record, end: int, text: Text) -> _Current:
        """Return where a record lies, with its row."""
        record_type = record.record_type
        offset, starts_member = text.locate(record.start)
        row = None
        if record_type == "response" and not record.is_http:
            record_type = "response_not_http"
        elif record_type in ("response", "conversion"):
            row = _row(record, self.next_ordinal, offset, self.max_record_bytes)
        return _Current(self.next_ordinal, record_type, row, end, offset, starts_member)

    def _complete(
        self, current: _Current, next_offset: int, next_starts_member: bool, first_offset: int
    ) -> Iterator[_Row]:
        yield from self._report_lost(first_offset)
        self.num_complete += 1
        if current.row is None:
            self.num_other[current.record_type] += 1
            return
        is_alone = current.starts_member and next_starts_member
        yield current.row._replace(length=next_offset - current.offset if is_alone else 0)

    def _lose(self, ordinal: int, offset: int, error: str, url: str | None) -> None:
        if self.lost is None:
            self.lost = _Lost(ordinal, offset, error, url)
        self.next_ordinal = self.lost.ordinal + 1

    def _report_lost(self, end_offset: int) -> Iterator[_Row]:
        if self.lost is None:
            return
        ordinal, offset, error, url = self.lost
        self.lost = None
        yield _Row(
            record_ordinal=ordinal,
            offset=offset,
            length=end_offset - offset,
            record_type="lost",
            url=url,
            error=error,
        )


def _row(record: Record, ordinal: int, offset: int, max_record_bytes: int) -> _Row:
    """Return the row of a response or conversion record; its length is not yet known."""
    place = (ordinal, offset, None, record.record_type, record.url, record.date())
    if record.num_bytes > max_record_bytes:
        return _Row(*place, error="record_too_large")
    if record.record_type == "conversion":
        content_type = (record.content_type() or "").partition(";")[0].strip().lower()
        return _Row(*place, None, content_type or None, "utf-8", record.read())
    try:
        response = record.read_http()
    except HttpInvalid:
        return _Row(*place, error="http_invalid")
    status = response.status if 0 <= response.status <= MAX_INT16 else None
    payload = error = None
    try:
        payload = codings.decode(response.payload, response.codings, max_record_bytes)
    except codings.TooLarge:
        error = "record_too_large"
    except ValueError:
        error = "http_invalid"
    return _Row(*place, status, response.content_type, response.charset, payload, error=error)


# --- Parquet, JSONL and text -------------------------------------------------------------


def _parquet_rows(path: str, max_record_bytes: int) -> Iterator[_Row]:
    with _open(path) as stream:
        try:
            file = pq.ParquetFile(stream)
        except (pa.ArrowInvalid, OSError) as error:
            _raise_if_of_medium(error)
            yield _lost_row(0, 0, stream.seek(0, os.SEEK_END), "corrupt")
            return
        url_column = _check_parquet(path, file.schema_arrow)
        first = 0
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            ordinal = first
            try:
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[number]):
                    texts = batch["text"].cast(pa.large_binary()).to_pylist()
                    others = batch.drop_columns(["text"]).to_pylist()
                    for text, other in zip(texts, others, strict=True):
                        url = other.pop(url_column, None)
                        yield _document_row(ordinal, 0, 0, url, text, other, max_record_bytes)
                        ordinal += 1
            except (pa.ArrowInvalid, OSError) as error:
                _raise_if_of_medium(error)
                yield _lost_row(ordinal, 0, group.total_byte_size, "corrupt")
            first += group.num_rows


def _check_parquet(path: str, schema: pa.Schema) -> str:
    """Return the name of the column that names documents; raises InputInvalid without text."""
    if "text" not in schema.names:
        raise InputInvalid(
            f"{path} has no column 'text' (it has {', '.join(schema.names)}); rename the column "
            "that holds the text"
        )
    text_type = schema.field("text").type
    if not (pa.types.is_string(text_type) or pa.types.is_large_string(text_type)):
        raise InputInvalid(f"column 'text' of {path} is {text_type}, not string; cast it")
    return "url" if "url" in schema.names else "id"


def _jsonl_rows(path: str, max_record_bytes: int) -> Iterator[_Row]:
    num_documents = ordinal = -1
    for ordinal, (offset, length, line) in enumerate(_lines(path, max_record_bytes)):
        if line is None:
            yield _lost_row(ordinal, offset, length, "corrupt")
            continue
        if length > max_record_bytes:
            yield _lost_row(ordinal, offset, length, "record_too_large")
            continue
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            yield _lost_row(ordinal, offset, length, f"malformed:line {ordinal + 1}")
            continue
        num_documents += 1
        if num_documents == 0 and "text" not in document:
            raise InputInvalid(
                f"{path} line {ordinal + 1} has no key 'text' (it has "
                f"{', '.join(document) or 'none'}); rename the key that holds the text"
            )
        text = document.pop("text", None)
        url = document.pop("url" if "url" in document else "id", None)
        encoded = text.encode("utf-8", "replace") if isinstance(text, str) else None
        yield _document_row(ordinal, offset, length, url, encoded, document, max_record_bytes)
    if ordinal < 0:
        yield _lost_row(0, 0, 0, "empty")


def _text_rows(path: str, max_record_bytes: int) -> Iterator[_Row]:
    url = path if "://" in path else Path(os.path.abspath(path)).as_uri()
    with _open_lines(path) as stream:
        length = 0 if _codec(path) else stream.seek(0, os.SEEK_END)
        if length:
            stream.seek(0)
        try:
            text = stream.read(max_record_bytes + 1)
        except OSError as error:
            _raise_if_of_medium(error)
            yield _lost_row(0, 0, length, "corrupt")
            return
    yield _document_row(0, 0, length, url, text, {}, max_record_bytes)


def _document_row(
    ordinal: int,
    offset: int,
    length: int,
    url: object,
    text: bytes | None,
    metadata: dict[str, Any],
    max_bytes: int,
) -> _Row:
    error = None
    if text is None:
        error = "no_text"
    elif len(text) > max_bytes:
        text, error = None, "record_too_large"
    return _Row(
        record_ordinal=ordinal,
        offset=offset,
        length=length,
        record_type="document",
        url=str(url).encode("utf-8", "replace").decode() if url not in (None, "") else None,
        content_type="text/plain",
        charset="utf-8",
        payload=text,
        metadata=_json(metadata) if metadata else None,
        error=error,
    )


def _json(value: dict[str, Any]) -> str:
    """Return a row's other columns as canonical JSON; a lone surrogate is '?'."""
    text = json.dumps(_plain(value), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8", "replace").decode()


def _plain(value: Any) -> Any:
    """Return a value in types that JSON has."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if value is None or isinstance(value, bool | int | str):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _lost_row(ordinal: int, offset: int, length: int, error: str) -> _Row:
    return _Row(
        record_ordinal=ordinal, offset=offset, length=length, record_type="lost", error=error
    )


def _lines(path: str, max_line_bytes: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Yield (offset, length, line) per line, the line None when the rest cannot be read.

    No more than max_line_bytes + 1 bytes of a line are kept. offset and length are 0 in a
    compressed file.
    """
    is_compressed = _codec(path) is not None
    offset = 0
    with _open_lines(path) as stream:
        while True:
            try:
                line = stream.readline(max_line_bytes + 1)
                length = len(line)
                rest = line
                while len(rest) > max_line_bytes and not rest.endswith(b"\n"):
                    rest = stream.readline(max_line_bytes + 1)
                    length += len(rest)
            except OSError as error:
                _raise_if_of_medium(error)
                yield 0, 0, None
                return
            if not line:
                return
            yield (0, max(length, 1), line) if is_compressed else (offset, length, line)
            offset += length


def _open_lines(path: str) -> BufferedReader:
    stream = _open(path)
    codec = _codec(path)
    if codec is None:
        return cast(BufferedReader, stream)
    return BufferedReader(pa.CompressedInputStream(pa.PythonFile(stream, "r"), codec))


def _codec(path: str) -> str | None:
    name = urlsplit(path).path if "://" in path else path  # of a URL without its query
    return {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}.get(Path(name).suffix.lower())


def _raise_if_of_medium(error: Exception) -> None:
    # Arrow reports broken content as an OSError too, but only the system sets errno
    if getattr(error, "errno", None) is not None:
        raise error

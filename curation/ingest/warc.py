"""Bytes of an input file -> Arrow batches of records: WARC, WET, and rows of other formats.

Every HTTP response, conversion record and document becomes a row of RECORD_SCHEMA. So does every
range that cannot be read: damage costs the records it hits and nothing else.

A WARC file is a sequence of records, each usually a gzip member of its own, sometimes many in one
member, sometimes not compressed. Members are inflated here, so that every position in the text
maps to one in the file; FastWARC reads the records out of the text. Rules for damage:

1. A record is complete when all bytes that its Content-Length announces are there. A complete
   record is kept, except one alone in a member whose checksum fails or is cut off.
2. What does not belong to a complete record is a lost range: from the first byte lost to the next
   gzip member (in an uncompressed file: line) that starts a WARC record, or to the end of the
   file. One row per range, however many records it held; it takes one record ordinal.
3. Errors of a range: `truncated` (the file ends inside it), `corrupt` (gzip cannot be inflated, or
   its checksum fails), `malformed` (readable, but no WARC record), `not_warc` and `empty` (the
   whole file holds no record).
4. Errors of the medium are no damage: they are raised.
"""

import base64
import json
import math
import os
import re
import zlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from datetime import datetime
from io import BufferedReader, BytesIO, RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq
from fastwarc.stream_io import BrotliReader, ChunkedReader, GzipReader
from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from curation.errors import InputInvalid, InputMissing
from curation.ingest import remote

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

READ_BYTES = 64 << 10  # file bytes read, and text bytes inflated, at a time
# FastWARC reads at most one buffer (64 KiB) past the record it returns, and a header of at most
# 32 KiB: positions further back are never asked for.
KEPT_TEXT_BYTES = 4 * READ_BYTES
SCAN_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"
GZIP_MEMBER = re.compile(rb"(?P<start>\x1f\x8b\x08)")
RECORD_LINE = re.compile(rb"\n(?P<start>WARC/1\.[01]\r\n)")
GZIP_WBITS = 31
HEADER_END = b"\r\n\r\n"
RECORD_MAGIC = b"WARC/"
MAX_INT16 = (1 << 15) - 1
DECODERS: dict[str, Callable[[BinaryIO], Any]] = {
    "chunked": ChunkedReader,
    "gzip": GzipReader,
    "x-gzip": GzipReader,
    "deflate": lambda stream: GzipReader(stream, zlib=True),
    "br": BrotliReader,
}
CONTENT_LENGTH = re.compile(r"\d{1,18}")


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
) -> Iterator[pa.RecordBatch]:
    """Yield the records of one WARC or WET file as batches of RECORD_SCHEMA.

    `source` is a path, a URL that fsspec opens, or a seekable binary stream (left open). A batch is
    closed by `batch_rows` rows or `batch_bytes` bytes of payload, whichever comes first; the rows
    do not depend on either. A payload above `max_record_bytes`, as stored or decoded, is a row with
    error `record_too_large`; a response without a readable status line one with `http_invalid`.
    HTTP transfer and content encodings (chunked; gzip, deflate, br) are undone; a payload that does
    not decode stays as it is. The last rows count records of other types (see RECORD_SCHEMA).

    Damage never raises (rules: see the module). Raises InputMissing when there is no such file and
    OSError when the medium fails. Memory: one batch and one record. Cost: about 100 MB of text a
    second and core, half of it spent in zlib.
    """
    return _batches(_with_stream(source, _WarcRows(max_record_bytes).rows), batch_bytes, batch_rows)


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
    jsonl and text may be compressed (.gz, .bz2, .xz, .zst).

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
        yield from read(stream)


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
    """Reads one WARC stream into rows."""

    def __init__(self, max_record_bytes: int) -> None:
        self.max_record_bytes = max_record_bytes
        self.num_other: Counter[str] = Counter()
        self.num_complete = 0
        self.next_ordinal = 0
        self.lost: _Lost | None = None

    def rows(self, stream: BinaryIO) -> Iterator[_Row]:
        size = stream.seek(0, os.SEEK_END)
        compressed, start = _first_record(stream)
        if start != 0 and size > 0:
            self._lose(0, 0, "malformed", None)
        while start is not None:
            # 1. read records to the end, or to damage
            text = _Inflated(stream, start) if compressed else _Plain(stream, start)
            damaged_at = yield from self._read(text, start)
            # 2. go on at the next record behind it; damage right behind damage is the same range,
            #    so the range is reported when a record completes, or at the end
            start = None
            if damaged_at is not None:
                start = _find_record(stream, damaged_at + 1, compressed)
            if damaged_at is not None and start is None and self.num_complete == 0:
                # what the file seems to be rests on its first bytes alone: they may be the damage
                compressed = not compressed
                start = _find_record(stream, damaged_at + 1, compressed)
        if self.num_complete == 0:
            if self.lost is None:
                self._lose(0, 0, "empty", None)
            elif self.lost.error == "malformed":
                self.lost = self.lost._replace(error="not_warc")
        yield from self._report_lost(size)
        for record_type, count in sorted(self.num_other.items()):
            yield _Row(record_type=record_type, num_other=count)

    def _read(self, text: "_Text", first_offset: int) -> Generator[_Row, None, int | None]:
        """Yield the rows of complete records; return the file offset of damage, or None."""
        current: _Current | None = None
        records = ArchiveIterator(text, parse_http=False, stream_detect=False)
        while True:
            following = None
            try:
                record = next(records, None)
                if record is not None:
                    following = self._current(record, text)
            except OSError:  # FastWARC found no record here
                record = None
            if text.failure is not None:
                raise text.failure
            if record is None:
                break
            if following is None:  # no proper header: another record's text may hide behind it
                offset, starts_member = text.locate(record.stream_pos)
            else:
                offset, starts_member = following.offset, following.starts_member
            if current is not None:
                yield from self._complete(current, offset, starts_member, first_offset)
            if following is None:
                damage_offset = text.damage_offset(record.stream_pos)
                self._lose(
                    self.next_ordinal,
                    damage_offset,
                    text.why_lost(record.stream_pos),
                    _url(record),
                )
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

    def _current(self, record: WarcRecord, text: "_Text") -> _Current | None:
        """Return what a record's header says, with its row; None if it is no proper header."""
        start = record.stream_pos
        header_end = text.header_end(start)
        content_length = (record.headers.get("Content-Length") or "").strip()
        if (
            header_end is None
            or CONTENT_LENGTH.fullmatch(content_length) is None
            or int(content_length) != record.content_length
        ):
            return None
        record_type = (record.headers.get("WARC-Type") or "unknown").strip().lower()
        end = header_end + int(content_length)
        offset, starts_member = text.locate(start)
        row = None
        is_response = record.record_type == WarcRecordType.response
        if is_response and not record.is_http:
            record_type = "response_not_http"
        elif is_response or record.record_type == WarcRecordType.conversion:
            row = _row(record, self.next_ordinal, offset, record_type, self.max_record_bytes)
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


def _row(
    record: WarcRecord, ordinal: int, offset: int, record_type: str, max_record_bytes: int
) -> _Row:
    """Return the row of a response or conversion record; its length is not yet known."""
    place = (ordinal, offset, None, record_type, _url(record), record.record_date)
    if record.content_length > max_record_bytes:
        return _Row(*place, error="record_too_large")
    if record_type == "conversion":
        content_type = (record.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
        return _Row(*place, None, content_type or None, "utf-8", record.reader.read())

    try:
        record.parse_http(auto_decode="none")
    except OSError:
        return _Row(*place, error="http_invalid")
    headers = record.http_headers
    if headers is None or headers.status_code is None:
        return _Row(*place, error="http_invalid")
    payload = _decode(
        record.reader.read(),
        [headers.get("Transfer-Encoding"), headers.get("Content-Encoding")],
        max_record_bytes,
    )
    return _Row(
        *place,
        headers.status_code if headers.status_code <= MAX_INT16 else None,
        (record.http_content_type or "").lower() or None,
        (record.http_charset or "").strip("\"' ") or None,
        payload,
        error="record_too_large" if payload is None else None,
    )


def _decode(payload: bytes, encodings: list[str | None], max_bytes: int) -> bytes | None:
    """Undo HTTP encodings, transfer first; None when the result exceeds max_bytes.

    What is cut or broken half-way keeps its decoded part, as in browsers. What does not decode at
    all stays as it is: many archivers decode the payload and keep the header.
    """
    for encoding in encodings:
        for name in reversed(encoding.lower().split(",") if encoding else []):
            decoder = DECODERS.get(name.strip())
            if decoder is None:
                continue
            decoded = bytearray()
            try:
                reader = decoder(BytesIO(payload))
                while part := reader.read(READ_BYTES):
                    decoded += part
                    if len(decoded) > max_bytes:
                        return None
            except OSError:
                pass  # what was decoded before stands
            payload = bytes(decoded) or payload
    return payload


def _url(record: WarcRecord) -> str | None:
    # wget up to 1.19 wrote the URL in angle brackets
    return (record.headers.get("WARC-Target-URI") or "").strip().strip("<>") or None


class _Piece(NamedTuple):
    """A stretch of text, at most READ_BYTES, and where in the file it comes from."""

    start: int  # text position
    data: bytes
    offset: int  # of the block it was read or inflated from
    member_offset: int
    starts_member: bool


class _Text(RawIOBase):
    """The text of a file from one offset to the end or to damage, as FastWARC reads it.

    The last KEPT_TEXT_BYTES stay here, so that text positions can be looked at and mapped to the
    file. An error of the medium ends the text and is kept in `failure`.
    """

    def __init__(self, stream: BinaryIO, offset: int) -> None:
        stream.seek(offset)
        self.stream = stream
        self.base = offset
        self.num_bytes = 0
        self.member_offset = -1
        self.damage: str | None = None
        self.failure: OSError | None = None
        self.ended = False
        self._pieces: deque[_Piece] = deque()

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.num_bytes

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes of text; none at the end."""
        if self.ended:
            return b""
        try:
            piece = self._next(min(size, READ_BYTES) if size > 0 else READ_BYTES)
        except OSError as error:
            self.failure = error
            piece = None
        if piece is None:
            self.ended = True
            return b""
        self._pieces.append(piece)
        self.num_bytes += len(piece.data)
        while len(self._pieces) > 1 and self.num_bytes - self._pieces[1].start >= KEPT_TEXT_BYTES:
            self._pieces.popleft()
        return piece.data

    def _next(self, size: int) -> _Piece | None:
        raise NotImplementedError

    def locate(self, position: int) -> tuple[int, bool]:
        """Return the file offset from which the text at `position` is read, and whether a
        member starts with it."""
        raise NotImplementedError

    def damage_offset(self, position: int) -> int:
        """Return the first file offset that holds nothing of the text before `position`, or the
        start of the block in which it lies."""
        raise NotImplementedError

    def header_end(self, position: int) -> int | None:
        """Return the text position behind the header that starts at `position`."""
        piece = self._piece(position)
        end = piece.data.find(HEADER_END, position - piece.start)
        if end >= 0:
            return piece.start + end + len(HEADER_END)
        end = self._after(position).find(HEADER_END)
        return None if end < 0 else position + end + len(HEADER_END)

    def skip_blank(self, position: int) -> int:
        """Return the first text position from `position` on that is not part of a line end."""
        position = max(position, self._pieces[0].start) if self._pieces else self.num_bytes
        rest = self._after(position)
        return position + len(rest) - len(rest.lstrip(b"\r\n"))

    def begins_record(self, position: int) -> bool:
        """Return whether there is text at `position` that could begin a record."""
        rest = self._after(position)
        return bool(rest) and rest[: len(RECORD_MAGIC)] == RECORD_MAGIC[: len(rest)]

    def why_lost(self, position: int) -> str:
        """Return why no record could be read at `position`."""
        rest = self._after(position)
        has_header = HEADER_END in rest or b"\n\n" in rest
        if self.begins_record(position) and self.ended and not has_header:
            return self.damage or "truncated"
        return "malformed"

    def _after(self, position: int) -> bytes:
        parts = [
            piece.data[max(position - piece.start, 0) :]
            for piece in self._pieces
            if piece.start + len(piece.data) > position
        ]
        return b"".join(parts)

    def _piece(self, position: int) -> _Piece:
        return next(piece for piece in reversed(self._pieces) if piece.start <= position)


class _Plain(_Text):
    """The text of an uncompressed file: the bytes themselves."""

    def _next(self, size: int) -> _Piece | None:
        data = self.stream.read(size)
        offset = self.base + self.num_bytes
        return _Piece(self.num_bytes, data, offset, offset, True) if data else None

    def locate(self, position: int) -> tuple[int, bool]:
        return self.base + position, True

    def damage_offset(self, position: int) -> int:
        return self.base + position


class _Inflated(_Text):
    """The text of the gzip members of a file."""

    def __init__(self, stream: BinaryIO, offset: int) -> None:
        super().__init__(stream, offset)
        self._inflater: Any = None  # of the member being read; zlib does not export its type
        self._block = b""  # bytes of the file not yet inflated
        self._block_offset = offset
        self._end_offset = offset  # of what has been read from the file
        self._member_start = 0  # text position

    def _next(self, size: int) -> _Piece | None:
        while self.damage is None:
            if not self._block:
                self._block = self.stream.read(READ_BYTES)
                self._end_offset += len(self._block)
                if not self._block and self._inflater is None:
                    return None
            at_end = not self._block
            if not at_end:
                self._block_offset = self._end_offset - len(self._block)
            if self._inflater is None:
                self._inflater = zlib.decompressobj(GZIP_WBITS)
                self.member_offset = self._block_offset
                self._member_start = self.num_bytes
            data = self._inflate(size)
            if data:
                starts_member = self._member_start == self.num_bytes
                return _Piece(
                    self.num_bytes, data, self._block_offset, self.member_offset, starts_member
                )
            if at_end and self._inflater is not None:
                self.damage = "truncated"
        return None

    def _inflate(self, size: int) -> bytes:
        inflater, before = self._inflater, self._inflater.copy()
        try:
            data: bytes = inflater.decompress(self._block, size)
        except zlib.error:
            self.damage = "corrupt"
            return _inflate_to_error(before, self._block, size)
        self._block = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
        if inflater.eof:
            self._inflater = None
        return data

    def locate(self, position: int) -> tuple[int, bool]:
        if position < self.num_bytes:
            piece = self._piece(position)
            return piece.member_offset, piece.starts_member and piece.start == position
        if self.damage is None:
            return self._end_offset, True
        return self.damage_offset(position), self._member_start == self.num_bytes

    def damage_offset(self, position: int) -> int:
        if position < self.num_bytes:
            return self._piece(position).offset
        # no text came of the broken member, or some did, up to somewhere in this block
        is_empty = self._member_start == self.num_bytes
        return self.member_offset if is_empty else self._block_offset

    def why_lost(self, position: int) -> str:
        if self.damage is not None and position == self.num_bytes:
            return self.damage
        if self.damage == "corrupt" and position >= self._member_start:
            return self.damage  # what a broken member inflates to is not to be trusted
        return super().why_lost(position)


def _inflate_to_error(inflater: Any, block: bytes, size: int) -> bytes:
    """Return what can be inflated of a broken block: zlib drops a call's output when it fails."""
    data = bytearray()
    try:
        while len(data) < size:
            part = inflater.decompress(block, 1)
            data += part
            block = inflater.unconsumed_tail
            if not part and not block:
                break
    except zlib.error:
        pass  # as expected
    return bytes(data)


def _first_record(stream: BinaryIO) -> tuple[bool, int | None]:
    """Return whether the file is compressed, and where its first record starts, if anywhere."""
    stream.seek(0)
    head = stream.read(len(RECORD_MAGIC))
    if head.startswith(GZIP_MAGIC):
        return True, 0
    if head == RECORD_MAGIC:
        return False, 0
    start = _find_record(stream, 0, compressed=True)
    return (True, start) if start is not None else (False, _find_record(stream, 0, False))


def _find_record(stream: BinaryIO, offset: int, compressed: bool) -> int | None:
    """Return the first offset from `offset` on at which a record starts: in a compressed file the
    gzip member whose text starts with one, else the line."""
    pattern = GZIP_MEMBER if compressed else RECORD_LINE
    overlap = 16  # longer than either pattern can match
    carried = b""
    while True:
        stream.seek(offset + len(carried))
        block = stream.read(SCAN_BYTES)
        if not block:
            return None
        window = carried + block
        for match in pattern.finditer(window):
            found = offset + match.start("start")
            if not compressed or _starts_record(stream, found):
                return found
        carried = window[-overlap:]
        offset += len(window) - len(carried)


def _starts_record(stream: BinaryIO, offset: int) -> bool:
    stream.seek(offset)
    try:
        text = zlib.decompressobj(GZIP_WBITS).decompress(stream.read(READ_BYTES), len(RECORD_MAGIC))
    except zlib.error:
        return False
    return text == RECORD_MAGIC


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
    return {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}.get(Path(path).suffix)


def _raise_if_of_medium(error: Exception) -> None:
    # Arrow reports broken content as an OSError too, but only the system sets errno
    if getattr(error, "errno", None) is not None:
        raise error

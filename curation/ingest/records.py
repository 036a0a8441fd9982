"""Records of an archive's text: what FastWARC reads, and what warcio reads where FastWARC stops.

Both give the same records of a proper WARC file. warcio reads ARC files, and WARC headers whose
lines do not end in CR LF or that FastWARC refuses for other reasons.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, NamedTuple

from fastwarc.warc import ArchiveIterator, WarcRecord
from warcio.recordloader import ARCHeadersParser
from warcio.statusandheaders import StatusAndHeadersParser, StatusAndHeadersParserException
from warcio.timeutils import iso_date_to_datetime

from curation.ingest.members import ARC_START, MAX_HEADER_BYTES, WARC_LINE, Text

CONTENT_LENGTH = re.compile(r"\d{1,18}")
# Linear on any header: neighbouring parts share no character.
CHARSET = re.compile(r"charset\s*=[\s\"']*([^\s\"';,]+)", re.IGNORECASE)
WARC_FIRST_LINE = re.compile(WARC_LINE)
HTTP_SCHEMES = ("http://", "https://")


class HttpInvalid(Exception):
    """The block of a response does not start with a status line."""


class Response(NamedTuple):
    """An HTTP response."""

    status: int
    content_type: str | None
    charset: str | None
    codings: Sequence[str]  # in the order in which they were applied
    payload: bytes  # as stored


class Record:
    """One record: where it lies in the text, and what its header says.

    `end` is the text position behind its block, None when the header is no proper one. The block
    can be read until the next record is asked for.
    """

    __slots__ = ("end", "is_http", "num_bytes", "record_type", "start", "url")
    start: int
    end: int | None
    num_bytes: int  # of the block
    record_type: str
    is_http: bool
    url: str | None

    def content_type(self) -> str | None:
        """Return what the header says of the block's type."""
        raise NotImplementedError

    def date(self) -> datetime | None:
        """Return when it was captured; None when that cannot be read."""
        raise NotImplementedError

    def read(self) -> bytes:
        """Return the block."""
        raise NotImplementedError

    def read_http(self) -> Response:
        """Return the response in the block; raises HttpInvalid."""
        raise NotImplementedError


# --- FastWARC ----------------------------------------------------------------------------


def fastwarc_records(text: Text) -> Iterator[Record]:
    """Yield records from the start of the text on, until FastWARC finds none."""
    records = ArchiveIterator(text, parse_http=False, stream_detect=False)
    while True:
        try:
            record = next(records, None)
        except OSError:
            return
        if record is None:
            return
        yield _FastwarcRecord(record, text)


class _FastwarcRecord(Record):
    __slots__ = ("_record",)

    def __init__(self, record: WarcRecord, text: Text) -> None:
        headers = record.headers
        self._record = record
        self.start = record.stream_pos
        self.num_bytes = record.content_length
        self.end = None
        header_end = text.header_end(self.start)
        length = (headers.get("Content-Length") or "").strip()
        if header_end is not None and CONTENT_LENGTH.fullmatch(length) is not None:
            self.end = header_end + self.num_bytes if int(length) == self.num_bytes else None
        self.record_type = (headers.get("WARC-Type") or "unknown").strip().lower()
        self.is_http = record.is_http
        self.url = _url(headers.get("WARC-Target-URI"))

    def content_type(self) -> str | None:
        return self._record.headers.get("Content-Type")

    def date(self) -> datetime | None:
        return self._record.record_date

    def read(self) -> bytes:
        return self._record.reader.read()

    def read_http(self) -> Response:
        try:
            # quirks: lines that end in LF alone, which take the payload for headers else
            self._record.parse_http(auto_decode="none", quirks_mode=True)
        except OSError as error:
            raise HttpInvalid from error
        headers = self._record.http_headers
        if headers is None or headers.status_code is None:
            raise HttpInvalid
        codings = (
            *headers.get_multiple("Content-Encoding"),
            *headers.get_multiple("Transfer-Encoding"),
        )
        return _response(
            headers.status_code, headers.get("Content-Type"), codings, self._record.reader.read()
        )


# --- warcio ------------------------------------------------------------------------------


def warcio_records(text: Text, position: int) -> Iterator[Record]:
    """Yield records from a text position that is still kept on, until warcio finds none."""
    stream = _Lines(text, position)
    arc_parser = ARCHeadersParser()
    while True:
        start, line = stream.next_line()
        record: _WarcioRecord
        try:
            if WARC_FIRST_LINE.fullmatch(line):
                record = _WarcioRecord(start, stream, _WARC_PARSER.parse(stream, line))
            elif ARC_START.fullmatch(line):
                text.holds_arc = True
                if line.startswith(b"filedesc://"):
                    arc_parser.headernames = ARCHeadersParser.ARC_HEADERS
                record = _ArcRecord(start, stream, arc_parser.parse(BytesIO(), line))
            else:
                return
        except (StatusAndHeadersParserException, EOFError, _HeaderTooLong):
            return
        yield record
        if record.end is None:
            return
        if record.record_type == "arc_header":
            arc_parser.headernames = _arc_fields(text.after(start))
        stream.skip_to(record.end)


_WARC_PARSER = StatusAndHeadersParser(["WARC/"])
_HTTP_PARSER = StatusAndHeadersParser(["HTTP/"])


class _HeaderTooLong(Exception):
    pass


class _Lines:
    """The text from one position on, as the parsers of warcio read it: line by line."""

    def __init__(self, text: Text, position: int) -> None:
        self._text = text
        self._block = text.after(position)
        self._next = 0  # in the block
        self.position = position  # of the text
        self._header_start = position
        self.ended = False  # the header that is read was cut off

    def next_line(self) -> tuple[int, bytes]:
        """Return the next line that is not blank, and where it starts."""
        while True:
            start = self._header_start = self.position
            line = self.readline()
            if line.strip(b"\r\n") or not line:
                return start, line

    def readline(self) -> bytes:
        """Return a line with its end, or what there is of it at the end of the text."""
        parts = []
        while True:
            line_end = self._block.find(b"\n", self._next)
            part = self._block[self._next : line_end + 1 if line_end >= 0 else None]
            self._next += len(part)
            self.position += len(part)
            parts.append(part)
            if self.position - self._header_start > MAX_HEADER_BYTES:
                raise _HeaderTooLong
            if line_end >= 0:
                return b"".join(parts)
            if not self._fill():
                self.ended = True
                return b"".join(parts)

    def read(self, size: int) -> bytes:
        """Return `size` bytes, fewer at the end of the text."""
        parts = []
        while size:
            part = self._block[self._next : self._next + size]
            self._next += len(part)
            self.position += len(part)
            size -= len(part)
            parts.append(part)
            if size and not self._fill():
                break
        return b"".join(parts)

    def skip_to(self, position: int) -> None:
        while self.position < position:
            step = min(position - self.position, len(self._block) - self._next)
            self._next += step
            self.position += step
            if self.position < position and not self._fill():
                break

    def _fill(self) -> bool:
        self._block, self._next = self._text.read(), 0
        return bool(self._block)


class _WarcioRecord(Record):
    __slots__ = ("_headers", "_stream")

    def __init__(self, start: int, stream: _Lines, headers: Any) -> None:
        self.start = start
        self._stream = stream
        self._headers = headers
        self._set_length(headers.get_header("Content-Length"))
        self.record_type = (headers.get_header("WARC-Type") or "unknown").strip().lower()
        self.is_http = (self.content_type() or "").lower().startswith("application/http")
        self.url = _url(headers.get_header("WARC-Target-URI"))

    def content_type(self) -> str | None:
        content_type: str | None = self._headers.get_header("Content-Type")
        return content_type

    def _set_length(self, length: str | None) -> None:
        length = (length or "").strip()
        is_proper = not self._stream.ended and CONTENT_LENGTH.fullmatch(length) is not None
        self.num_bytes = int(length) if is_proper else 0
        self.end = self._stream.position + self.num_bytes if is_proper else None

    def date(self) -> datetime | None:
        try:
            date: datetime = iso_date_to_datetime(
                self._headers.get_header("WARC-Date"), tz_aware=True
            )
        except (AttributeError, TypeError, ValueError, OverflowError):
            return None
        return date

    def read(self) -> bytes:
        return self._stream.read(self.num_bytes)

    def read_http(self) -> Response:
        block = BytesIO(self.read())
        try:
            headers = _HTTP_PARSER.parse(block)
            status = int(headers.statusline.split()[1])  # "1.1 200 OK"
        except (StatusAndHeadersParserException, EOFError, IndexError, ValueError) as error:
            raise HttpInvalid from error
        names = ("content-encoding", "transfer-encoding")
        codings = [value for name in names for key, value in headers.headers if key.lower() == name]
        return _response(status, headers.get_header("Content-Type"), codings, block.read())


class _ArcRecord(_WarcioRecord):
    __slots__ = ()

    def __init__(self, start: int, stream: _Lines, headers: Any) -> None:
        self.start = start
        self._stream = stream
        self._headers = headers
        self._set_length(headers.get_header("length"))
        url = headers.get_header("uri")
        self.url = _url(url)
        self.record_type = "arc_header" if url.startswith("filedesc://") else "response"
        self.is_http = url.lower().startswith(HTTP_SCHEMES)

    def date(self) -> datetime | None:
        try:
            date = datetime.strptime(self._headers.get_header("archive-date")[:14], "%Y%m%d%H%M%S")
        except ValueError:
            return None
        return date.replace(tzinfo=UTC)


def _arc_fields(header: bytes) -> list[str]:
    """Return the names of the fields of the records that follow, as the third line of the file
    says: five in version 1, ten in version 2."""
    names = {"url": "uri", "archive-length": "length"}
    fields = [name.decode("ascii", "replace").lower() for name in _third_line(header).split()]
    known = list(ARCHeadersParser.ARC_HEADERS)
    if len(fields) < len(known) or fields[0] != "url" or fields[-1] != "archive-length":
        return known
    return [names.get(name, name) for name in fields]


def _third_line(header: bytes) -> bytes:
    lines = header[:MAX_HEADER_BYTES].split(b"\n", 3)
    return lines[2] if len(lines) > 2 else b""


# --- both --------------------------------------------------------------------------------


def _url(value: str | None) -> str | None:
    # wget up to 1.19 wrote the URL in angle brackets
    return (value or "").strip().strip("<>") or None


def _response(
    status: int, content_type: str | None, codings: Sequence[str], payload: bytes
) -> Response:
    kind = charset = None
    if content_type:
        kind = content_type.partition(";")[0].strip().lower() or None
        found = CHARSET.search(content_type)
        charset = found[1] if found else None
    if codings:
        codings = [name.strip().lower() for value in codings for name in value.split(",")]
    return Response(status, kind, charset, codings, payload)

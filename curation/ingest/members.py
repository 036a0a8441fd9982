"""The text of an archive: its bytes or what its gzip members inflate to, and where each part lies.

Members are inflated here, not by the libraries that read records, so that every position in the
text maps to one in the file and damage to one member costs no other.
"""

import re
from collections import deque
from io import RawIOBase
from typing import Any, BinaryIO, NamedTuple

from zlib_ng import zlib_ng

from curation.ingest.codings import InflateError, inflate_to_error

READ_BYTES = 64 << 10  # file bytes read, and text bytes inflated, at a time
# FastWARC reads at most one buffer (64 KiB) past the record it returns, and a header of at most
# 32 KiB: positions further back are never asked for.
KEPT_TEXT_BYTES = 4 * READ_BYTES
MAX_HEADER_BYTES = 32 << 10  # FastWARC's

SCAN_BYTES = 1 << 20
MEMBER_HEAD_BYTES = 2 << 10  # of a member, to see what it starts with
GZIP_MAGIC = b"\x1f\x8b"
GZIP_MEMBER = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]")  # deflate, no reserved flag (RFC 1952)
GZIP_WBITS = 31

HEADER_END = b"\r\n\r\n"
RECORD_MAGICS = (b"WARC/", b"filedesc://")
WARC_LINE = rb"WARC/[01]\.\d{1,2}[ \t]*\r?\n"
# URL, IP address, date of 14 digits (some wrote more), and the rest up to the length: Internet
# Archive, "Arc File Format" 1.0; version 2 has five fields more, all before the length.
ARC_LINE = (
    rb"[A-Za-z][A-Za-z0-9+.-]*:[^\r\n]{0,8192} [0-9A-Fa-f.:]{3,45} \d{12,18} [^\r\n]{1,8192}\r?\n"
)
WARC_START = re.compile(WARC_LINE + rb"(?=[A-Za-z][A-Za-z0-9-]*[ \t]*:)")
ARC_START = re.compile(ARC_LINE)
# Where a record starts in an uncompressed file: `filedesc` lines say that ARC records follow, other
# lines of ARC records are too much like text to be looked for in a WARC file.
RECORD_LINE = re.compile(rb"\n(?=" + WARC_START.pattern + rb"|(?=filedesc://)" + ARC_LINE + rb")")
ARC_RECORD_LINE = re.compile(rb"\n(?=" + WARC_START.pattern + rb"|" + ARC_LINE + rb")")


class _Piece(NamedTuple):
    """A stretch of text, at most READ_BYTES, and where in the file it comes from."""

    start: int  # text position
    data: bytes
    offset: int  # of the block it was read or inflated from
    member_offset: int
    starts_member: bool


class Text(RawIOBase):
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
        self.holds_arc = False  # an ARC record was read
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
        """Return the text position behind the header that starts at `position`; None when it has
        no end, or lines that do not end as the standard says."""
        piece = self._piece(position)
        start = position - piece.start
        end = piece.data.find(HEADER_END, start)
        if end < 0:
            piece = _Piece(position, self.after(position), 0, 0, False)
            start, end = 0, piece.data.find(HEADER_END)
            if end < 0:
                return None
        if piece.data.count(b"\n", start, end) != piece.data.count(b"\r\n", start, end):
            return None
        return piece.start + end + len(HEADER_END)

    def skip_blank(self, position: int) -> int:
        """Return the first text position from `position` on that is not part of a line end."""
        position = max(position, self._pieces[0].start) if self._pieces else self.num_bytes
        rest = self.after(position)
        return position + len(rest) - len(rest.lstrip(b"\r\n"))

    def begins_record(self, position: int) -> bool:
        """Return whether there is text at `position` that could begin a record."""
        rest = self.after(position)
        if any(rest[: len(magic)] == magic[: len(rest)] for magic in RECORD_MAGICS):
            return bool(rest)
        return self.holds_arc and (ARC_START.match(rest) is not None or b"\n" not in rest)

    def why_lost(self, position: int) -> str:
        """Return why no record could be read at `position`."""
        rest = self.after(position)
        header_ends = (HEADER_END, b"\n\n") if rest.startswith(b"WARC/") else (b"\n",)
        has_header = any(end in rest for end in header_ends)
        if self.begins_record(position) and self.ended and not has_header:
            return self.damage or "truncated"
        return "malformed"

    def after(self, position: int) -> bytes:
        """Return the text from `position` on, as far as it is read and kept."""
        parts = [
            piece.data[max(position - piece.start, 0) :]
            for piece in self._pieces
            if piece.start + len(piece.data) > position
        ]
        return b"".join(parts)

    def _piece(self, position: int) -> _Piece:
        for piece in reversed(self._pieces):
            if piece.start <= position:
                return piece
        raise AssertionError(f"text position {position} is not kept any more")


class PlainText(Text):
    """The text of an uncompressed file: the bytes themselves."""

    def _next(self, size: int) -> _Piece | None:
        data = self.stream.read(size)
        offset = self.base + self.num_bytes
        return _Piece(self.num_bytes, data, offset, offset, True) if data else None

    def locate(self, position: int) -> tuple[int, bool]:
        return self.base + position, True

    def damage_offset(self, position: int) -> int:
        return self.base + position


class InflatedText(Text):
    """The text of the gzip members of a file."""

    def __init__(self, stream: BinaryIO, offset: int) -> None:
        super().__init__(stream, offset)
        self._inflater: Any = None  # of the member being read; its type is not exported
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
                self._inflater = zlib_ng.decompressobj(GZIP_WBITS)
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
        inflater = self._inflater
        try:
            data: bytes = inflater.decompress(self._block, size)
        except InflateError:
            self.damage = "corrupt"
            return self._inflate_again(size)
        if inflater.eof:
            self._block = inflater.unused_data
            self._inflater = None
        else:
            self._block = inflater.unconsumed_tail
        return data

    def _inflate_again(self, size: int) -> bytes:
        """Return what a broken member gives behind the text that it has given already."""
        inflater = zlib_ng.decompressobj(GZIP_WBITS)
        num_given = self.num_bytes - self._member_start
        self.stream.seek(self.member_offset)
        block = b""
        while num_given:
            block = block or self.stream.read(READ_BYTES)
            part = inflater.decompress(block, min(num_given, READ_BYTES))
            if not block and not part:
                raise OSError("the file changed while it was read")
            num_given -= len(part)
            block = inflater.unconsumed_tail
        return inflate_to_error(inflater, block + self.stream.read(READ_BYTES), size)

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


def first_record(stream: BinaryIO) -> tuple[bool, int | None]:
    """Return whether the file is compressed, and where its first record starts, if anywhere."""
    stream.seek(0)
    head = stream.read(max(map(len, RECORD_MAGICS)))
    if head.startswith(GZIP_MAGIC):
        return True, 0
    if head.startswith(RECORD_MAGICS):
        return False, 0
    start = find_record(stream, 0, compressed=True)
    return (True, start) if start is not None else (False, find_record(stream, 0, False))


def find_record(
    stream: BinaryIO, offset: int, compressed: bool, *, any_arc: bool = True
) -> int | None:
    """Return the first offset from `offset` on at which a record starts: in a compressed file the
    gzip member whose text starts with one, else the line. In an uncompressed file the lines of ARC
    records other than the first count only with `any_arc`."""
    lines = ARC_RECORD_LINE if any_arc else RECORD_LINE
    overlap = MEMBER_HEAD_BYTES if compressed else MAX_HEADER_BYTES  # longer than what is matched
    window, size = b"", READ_BYTES
    while True:
        stream.seek(offset + len(window))
        block = stream.read(size)
        window += block
        for match in (GZIP_MEMBER if compressed else lines).finditer(window):
            if not compressed:
                return offset + match.end()
            if _starts_record(window[match.start() : match.start() + MEMBER_HEAD_BYTES]):
                return offset + match.start()
        if not block:
            return None
        offset += max(len(window) - overlap, 0)
        window = window[-overlap:]
        size = min(2 * size, SCAN_BYTES)  # the next record is mostly near


def _starts_record(member: bytes) -> bool:
    try:
        text = zlib_ng.decompressobj(GZIP_WBITS).decompress(member, MEMBER_HEAD_BYTES)
    except InflateError:
        return False
    return text.startswith(RECORD_MAGICS) or ARC_START.match(text) is not None

"""HTTP transfer and content codings, undone as browsers do: chunked, gzip, deflate, br, zstd."""

import re
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, BinaryIO, cast

from fastwarc.stream_io import BrotliReader, ZstdReader
from zlib_ng import zlib_ng

MAX_CODINGS = 5  # as in curl; a longer list can only be an attack
READ_BYTES = 64 << 10  # decoded at a time: a bomb costs no more than this above the limit
CAREFUL_BYTES = 64

InflateError = cast(type[Exception], zlib_ng.error)  # its stub calls it an instance
CHUNK_HEAD = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]{0,4096})?\r?\n")
GZIP_MAGIC = b"\x1f\x8b\x08"
GZIP_WBITS, ZLIB_WBITS, RAW_WBITS = 31, 15, -15


class TooLarge(Exception):
    """The decoded payload exceeds the limit."""


def decode(payload: bytes, codings: Sequence[str], max_bytes: int) -> bytes:
    """Undo `codings`, given in the order in which they were applied.

    What is cut or broken half-way keeps its decoded part, what follows the end of a stream is
    ignored. What does not decode at all stays as it is: many archivers decode a payload and keep
    the header. Names that are no known coding are skipped.

    Raises TooLarge when the payload, between or after codings, exceeds `max_bytes`, and ValueError
    for more than MAX_CODINGS codings. Memory: max_bytes and what decodes to it.
    """
    decoders = [decoder for name in reversed(codings) if (decoder := DECODERS.get(name))]
    if len(decoders) > MAX_CODINGS:
        raise ValueError(f"{len(decoders)} codings, more than {MAX_CODINGS}")
    for decoder in decoders:
        decoded = decoder(payload, max_bytes)
        payload = payload if decoded is None else decoded
    return payload


def _chunked(payload: bytes, max_bytes: int) -> bytes | None:
    """A chunk: its size in hexadecimal digits, perhaps extensions, a line end, the bytes, a line
    end. The last has size 0; trailers behind it are ignored."""
    decoded = bytearray()
    position = 0
    while head := CHUNK_HEAD.match(payload, position):
        start, position = head.end(), head.end() + int(head[1], 16)
        if start == position:
            return bytes(decoded)
        chunk = payload[start:position]
        if payload.startswith(b"\r\n", position):
            position += 2
        elif payload.startswith(b"\n", position):
            position += 1
        elif position < len(payload):  # the size is wrong
            if decoded:
                decoded += chunk
            break  # or else this is a text that happens to begin with such a line
        decoded += chunk
    return bytes(decoded) or None


def _gzip(payload: bytes, max_bytes: int) -> bytes | None:
    decoded = bytearray()
    is_intact, position = False, 0
    while payload.startswith(GZIP_MAGIC, position):
        is_intact, position = _inflate(GZIP_WBITS, payload, position, decoded, max_bytes)
        if not is_intact:
            break
    return bytes(decoded) if decoded or is_intact else None


def _deflate(payload: bytes, max_bytes: int) -> bytes | None:
    """RFC 9110 says zlib; servers also send raw deflate, and gzip."""
    if payload.startswith(GZIP_MAGIC):
        return _gzip(payload, max_bytes)
    is_zlib = (
        len(payload) >= 2 and payload[0] & 15 == 8 and (payload[0] << 8 | payload[1]) % 31 == 0
    )
    decoded = bytearray()
    wbits = ZLIB_WBITS if is_zlib else RAW_WBITS
    is_intact, position = _inflate(wbits, payload, 0, decoded, max_bytes)
    # raw deflate has no checksum: a text may well inflate a little before it fails
    is_cut = position == len(payload)
    return bytes(decoded) if is_intact or (decoded and (is_zlib or is_cut)) else None


def _inflate(
    wbits: int, payload: bytes, start: int, decoded: bytearray, max_bytes: int
) -> tuple[bool, int]:
    """Append what one stream inflates to; return whether its end was reached, and where: where the
    stream ends, or where `payload` does (the stream is cut), or before that (it is broken)."""
    inflater: Any = zlib_ng.decompressobj(wbits)
    for block_start in range(start, len(payload), READ_BYTES):
        block = payload[block_start : block_start + READ_BYTES]
        part = b""
        while not inflater.eof and (block or part):
            before = inflater.copy()
            try:
                part = inflater.decompress(block, READ_BYTES)
            except InflateError:
                decoded += inflate_to_error(before, block, READ_BYTES)
                return False, block_start
            decoded += part
            if len(decoded) > max_bytes:
                raise TooLarge
            block = inflater.unconsumed_tail
        if inflater.eof:
            end = min(block_start + READ_BYTES, len(payload)) - len(inflater.unused_data)
            return True, end
    return False, len(payload)


def inflate_to_error(inflater: Any, block: bytes, size: int) -> bytes:
    """Return what can be inflated of a broken block, at most `size` bytes: zlib drops the output
    of the call in which it fails, so the calls get shorter towards the error."""
    decoded = bytearray()
    for start in range(0, len(block), CAREFUL_BYTES):
        before = inflater.copy()
        try:
            part = inflater.decompress(block[start : start + CAREFUL_BYTES], size - len(decoded))
        except InflateError:
            break
        decoded += part
        if len(decoded) >= size:
            return bytes(decoded)
    else:
        return bytes(decoded)
    rest = block[start : start + CAREFUL_BYTES]
    try:
        while len(decoded) < size:
            decoded += before.decompress(rest, 1)
            rest = before.unconsumed_tail
    except InflateError:
        pass  # as expected
    return bytes(decoded)


def _streamed(reader: Callable[[BinaryIO], Any], payload: bytes, max_bytes: int) -> bytes | None:
    """Decode with a reader of FastWARC, which gives nothing of the read in which it fails."""
    decoded = bytearray()
    try:
        stream = reader(BytesIO(payload))
        while part := stream.read(READ_BYTES):
            decoded += part
            if len(decoded) > max_bytes:
                raise TooLarge
        return bytes(decoded)
    except OSError:
        pass
    num_good = len(decoded)  # a whole number of reads; the next is repeated byte by byte
    try:
        stream = reader(BytesIO(payload))
        for _ in range(0, num_good, READ_BYTES):
            stream.read(READ_BYTES)
        for _ in range(READ_BYTES):
            decoded += stream.read(1)
    except OSError:
        pass  # as expected
    return bytes(decoded) or None


DECODERS: dict[str, Callable[[bytes, int], bytes | None]] = {
    "chunked": _chunked,
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": lambda payload, max_bytes: _streamed(BrotliReader, payload, max_bytes),
    "zstd": lambda payload, max_bytes: _streamed(ZstdReader, payload, max_bytes),
}

"""HTTP codings against encoders that are not ours; and what is wrong, cut or hostile."""

import gzip
import io
import random
import time
import zlib
from itertools import product

import brotli
import pyarrow as pa
import pytest
from fastwarc.stream_io import ChunkedWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.ingest.codings import MAX_CODINGS, TooLarge, decode

LIMIT = 64 << 20
PAGE = b"<p>hello world, this is the body</p>\n"
NOISE = random.Random(1).randbytes(150_000)  # does not compress: a cut or a bad byte always hits
TEXT = b"".join(b"<li>%d %s</li>\n" % (i, NOISE[i : i + 20].hex().encode()) for i in range(9000))


def raw_deflate(data):
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


def chunked(data, sizes=(7, 1, 300, 5000), end=b"\r\n", extension=b"", last=b"0\r\n\r\n"):
    parts, position = [], 0
    while position < len(data):
        part = data[position : position + sizes[len(parts) % len(sizes)]]
        parts.append(b"%x%s%s%s%s" % (len(part), extension, end, part, end))
        position += len(part)
    return b"".join(parts) + last


def fastwarc_chunked(data):
    stream = io.BytesIO()
    writer = ChunkedWriter(stream)
    writer.write(data)
    writer.finish()
    return stream.getvalue()


ENCODERS = {
    ("gzip",): [gzip.compress, lambda data: gzip.compress(data, 1)],
    ("x-gzip",): [gzip.compress],
    ("deflate",): [zlib.compress, raw_deflate, gzip.compress],
    ("br",): [brotli.compress, lambda data: brotli.compress(data, quality=1)],
    ("zstd",): [lambda data: pa.compress(data, "zstd", asbytes=True)],
    ("chunked",): [chunked, fastwarc_chunked],
}
PAIRS = [(names[0], encode) for names, encoders in ENCODERS.items() for encode in encoders]


@settings(deadline=None, max_examples=30)
@pytest.mark.parametrize(("name", "encode"), PAIRS)
@given(data=st.binary(max_size=3000))
def test_what_an_encoder_made_is_undone(name, encode, data):
    assert decode(encode(data), [name], LIMIT) == data


@pytest.mark.parametrize(("name", "encode"), PAIRS)
def test_what_is_larger_than_every_buffer_is_undone(name, encode):
    assert decode(encode(TEXT), [name], LIMIT) == TEXT


@pytest.mark.parametrize(("first", "second"), list(product(PAIRS, PAIRS)))
def test_two_codings_are_undone_in_reverse_order(first, second):
    stored = second[1](first[1](TEXT[:5000]))
    assert decode(stored, [first[0], second[0]], LIMIT) == TEXT[:5000]


@pytest.mark.parametrize("name", [name for name, _ in PAIRS])
@pytest.mark.parametrize("payload", [PAGE, b"", b"\n", b"\xef\xbb\xbf<html>", b"GIF89a", b"x"])
def test_a_payload_that_is_not_encoded_stays(name, payload):
    assert decode(payload, [name], LIMIT) == payload


def test_names_that_are_no_coding_are_skipped():
    names = ["", "identity", "utf-8", "gzip", "sdch"]
    assert decode(gzip.compress(PAGE), names, LIMIT) == PAGE


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("gzip", gzip.compress(PAGE, mtime=0) + b"trailing bytes"),
        ("gzip", gzip.compress(PAGE[:9], mtime=0) + gzip.compress(PAGE[9:], mtime=0)),
        ("gzip", gzip.compress(PAGE, mtime=0) + bytes(1000)),
        ("deflate", zlib.compress(PAGE) + b"trailing bytes"),
        ("deflate", raw_deflate(PAGE) + b"trailing bytes"),
        ("br", brotli.compress(PAGE) + b"trailing bytes"),
        ("chunked", chunked(PAGE) + b"trailing bytes"),
        ("chunked", chunked(PAGE, last=b"0\r\nX-Trailer: a\r\nX-Other: b\r\n\r\n")),
        ("chunked", chunked(PAGE, last=b"000\r\n\r\n")),
        ("chunked", chunked(PAGE, last=b"")),
        ("chunked", chunked(PAGE, extension=b";name=value")),
        ("chunked", chunked(PAGE, extension=b' ; name="v"; other')),
        ("chunked", chunked(PAGE, extension=b"     ")),
        ("chunked", chunked(PAGE, end=b"\n", last=b"0\n\n")),
        ("chunked", chunked(PAGE).replace(b"7\r\n", b"0007\r\n")),
        ("chunked", b"1F\r\n" + PAGE[:31] + b"\r\n6\r\n" + PAGE[31:] + b"\r\n0\r\n\r\n"),
    ],
)
def test_what_browsers_take_is_taken(name, stored):
    assert decode(stored, [name], LIMIT) == PAGE


@pytest.mark.parametrize(
    ("stored", "decoded"),
    [
        (b"ff\r\n" + PAGE, PAGE),  # the size is too large: cut
        (b"5\r\n<p>ab\r\nff\r\ncdef", b"<p>abcdef"),
        (b"5\r\n<p>ab\r\n2\r\ncdef\r\n0\r\n\r\n", b"<p>abcd"),  # too small
        (b"5\r\n<p>ab\r\nzz\r\ncdef\r\n0\r\n\r\n", b"<p>ab"),  # no size
        (b"5\r\n<p>ab\r\n-3\r\ncdef\r\n0\r\n\r\n", b"<p>ab"),
        (b"5\r\n<p>ab\r\n" + b"f" * 40 + b"\r\ncdef", b"<p>ab"),
        (b"5\r\n" + PAGE, b"5\r\n" + PAGE),  # from the start: taken for a text
        (b"beef\nis what this page is about", b"is what this page is about"),
    ],
)
def test_wrong_chunk_sizes_keep_what_was_decoded(stored, decoded):
    assert decode(stored, ["chunked"], LIMIT) == decoded


@pytest.mark.parametrize(("name", "encode"), [pair for pair in PAIRS if pair[0] != "zstd"])
def test_a_cut_stream_keeps_its_decoded_part(name, encode):
    stored = encode(TEXT)
    for cut in (len(stored) // 3, len(stored) - 5):
        decoded = decode(stored[:cut], [name], LIMIT)
        assert TEXT.startswith(decoded)
        assert len(decoded) > len(TEXT) * cut // len(stored) * 0.8


@pytest.mark.parametrize(
    ("name", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)  # fmt: skip
def test_a_broken_stream_keeps_what_zlib_gives_before_the_break(name, encode):
    stored = encode(NOISE[:50_000])
    at = len(stored) // 2
    stored = stored[:at] + bytes(60) + stored[at + 60 :]
    one_by_one, inflater = bytearray(), zlib.decompressobj(47)
    try:
        for byte in stored:
            one_by_one += inflater.decompress(bytes([byte]))
    except zlib.error:
        pass
    decoded = decode(stored, [name], LIMIT)
    # to within the last symbol, which is a byte or a match of up to 258
    assert abs(len(decoded) - len(one_by_one)) <= 258
    assert decoded.startswith(one_by_one[: len(decoded)])
    assert decoded[:20_000] == NOISE[:20_000]


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=400), st.lists(st.sampled_from([n for n, _ in PAIRS]), max_size=4))
def test_any_bytes_under_any_codings_give_bytes(data, names):
    assert isinstance(decode(data, names, 1000), bytes)


# --- hostile -------------------------------------------------------------------------------------


def bomb(num_bytes, compressor, finish):
    return b"".join(compressor(bytes(1 << 20)) for _ in range(num_bytes >> 20)) + finish()


@pytest.mark.parametrize("name", ["gzip", "deflate", "br"])
def test_a_bomb_costs_no_more_than_the_limit(name):
    if name == "br":
        encoder = brotli.Compressor(quality=3)  # the default takes 20 s to make it
        stored = bomb(1 << 30, encoder.process, encoder.finish)
    else:
        encoder = zlib.compressobj(9, wbits=31 if name == "gzip" else 15)
        stored = bomb(1 << 30, encoder.compress, encoder.flush)
    assert len(stored) < 1_100_000
    start = time.process_time()
    with pytest.raises(TooLarge):
        decode(stored, [name], LIMIT)
    # 64 MB decode in 0.1 s, all of the gigabyte in ten times that
    assert time.process_time() - start < 5


def test_a_bomb_in_a_bomb_is_one():
    stored = gzip.compress(gzip.compress(bytes(100 << 20)))
    assert len(stored) < 1000
    with pytest.raises(TooLarge):
        decode(stored, ["gzip", "gzip"], LIMIT)


def test_too_many_codings_are_refused():
    stored = PAGE
    for _ in range(MAX_CODINGS):
        stored = gzip.compress(stored)
    assert decode(stored, ["gzip"] * MAX_CODINGS, LIMIT) == PAGE
    with pytest.raises(ValueError, match="6 codings"):
        decode(stored, ["gzip"] * (MAX_CODINGS + 1), LIMIT)


def test_the_limit_is_exact():
    stored = gzip.compress(bytes(100_000))
    assert decode(stored, ["gzip"], 100_000) == bytes(100_000)
    with pytest.raises(TooLarge):
        decode(stored, ["gzip"], 99_999)

"""Memory and time stay bounded on archives of any size. Each case is a process of its own, which
reads a small archive first and then says how much its peak memory grew over the large one."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PRELUDE = '''
import gzip, io, json, random, resource, sys, zlib
from curation.ingest.warc import BATCH_BYTES, read_records

class Assembled(io.RawIOBase):
    """A file of (bytes, repeats) parts that is nowhere as a whole."""

    def __init__(self, *parts):
        self.parts, self.position = parts, 0
        self.size = sum(len(data) * repeats for data, repeats in parts)

    def readable(self): return True
    def seekable(self): return True
    def tell(self): return self.position

    def seek(self, offset, whence=0):
        self.position = offset + (0, self.position, self.size)[whence]
        return self.position

    def read(self, size=-1):
        start = 0
        for data, repeats in self.parts:
            if self.position < start + len(data) * repeats:
                at = (self.position - start) % len(data)
                part = data[at:] if size < 0 else data[at : at + size]
                self.position += len(part)
                return part
            start += len(data) * repeats
        return b""

def header(num_bytes, i=0):
    return (
        f"WARC/1.0\\r\\nWARC-Type: response\\r\\nWARC-Target-URI: http://e.com/{i}\\r\\n"
        f"Content-Type: application/http\\r\\nContent-Length: {num_bytes}\\r\\n\\r\\n"
    ).encode()

def record(payload, i=0, headers=""):
    block = f"HTTP/1.1 200 OK\\r\\n{headers}\\r\\n".encode() + payload
    return header(len(block), i) + block + b"\\r\\n\\r\\n"

def count(stream):
    found, largest = {}, 0
    for batch in read_records(stream):
        largest = max(largest, batch.nbytes)
        for error in batch["error"].to_pylist():
            found[str(error)] = found.get(str(error), 0) + 1
    return found, largest

def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

def gzip_zeros(head, num_bytes, tail):
    deflater = zlib.compressobj(9, wbits=31)
    parts = [deflater.compress(head)]
    parts += [deflater.compress(bytes(1 << 20)) for _ in range(num_bytes >> 20)]
    return b"".join([*parts, deflater.compress(tail), deflater.flush()])

page = record(random.Random(1).randbytes(100_000))
member = gzip.compress(page, 1)
'''

FINISH = """
small = peak()
found, largest = count(stream)
print(json.dumps({"found": found, "grown_mb": peak() - small, "largest": largest}))
"""


def measure(setup, warm_up="count(Assembled((member, 300)))"):
    """Return what was found and by how many MB the peak grew, and CPU seconds."""
    program = "\n".join([PRELUDE, setup, warm_up, FINISH])
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"seconds": time.monotonic() - start}


SMALL_MB = 24  # room for a batch and for the allocator; no archive below fits into it


@pytest.mark.parametrize("piece", ["member", "page"])
def test_memory_does_not_grow_over_five_gigabytes(piece):
    result = measure(f"n = -(-5 * 10**9 // len({piece})); stream = Assembled(({piece}, n))")
    assert result["found"] == {"None": result["found"]["None"]}
    assert result["found"]["None"] > 49_000
    assert result["grown_mb"] < SMALL_MB


@pytest.mark.slow
def test_memory_does_not_grow_over_one_member_of_five_gigabytes():
    """All records of the file lie in one gzip member: 5 GB of text from 20 MB."""
    setup = """
deflater = zlib.compressobj(1, wbits=31)
text = record(bytes(100_000)) * 100
parts = [deflater.compress(text) for _ in range(500)]
stream = io.BytesIO(b"".join([*parts, deflater.flush()]))
del parts, text
"""
    result = measure(setup)
    assert result["found"] == {"None": 50_000}
    assert result["grown_mb"] < SMALL_MB


RECORDS_OF_200_MB = {
    "plain": """
size = 200 << 20
stream = Assembled((header(size), 1), (bytes(1 << 20), size >> 20), (b"\\r\\n\\r\\n", 1), (page, 2))
""",
    "gzip": """
size = 200 << 20
stream = io.BytesIO(gzip_zeros(header(size), size, b"\\r\\n\\r\\n") + member * 2)
""",
    "arc": """
size = 200 << 20
line = b"http://e.com/ 192.0.2.1 20210304050607 text/html %d\\n"
first = b"filedesc://t.arc 0.0.0.0 20210304050607 text/plain 4\\n1 0\\n\\n"
stream = Assembled((first + line % size, 1), (bytes(1 << 20), size >> 20), (b"\\n", 1), (page, 2))
""",
}


@pytest.mark.parametrize("form", RECORDS_OF_200_MB)
def test_a_record_of_200_mb_is_a_reject_and_never_in_memory(form):
    result = measure(RECORDS_OF_200_MB[form])
    counted = {"None": 1} if form == "arc" else {}  # the row that counts the arc_header
    assert result["found"] == {"record_too_large": 1, "None": 2 + counted.get("None", 0)}
    assert result["grown_mb"] < SMALL_MB


def test_a_cut_record_of_200_mb_is_one_lost_range():
    setup = """
size = 200 << 20
stream = Assembled((page, 2), (header(size), 1), (bytes(1 << 20), 199))
"""
    result = measure(setup)
    assert result["found"] == {"None": 2, "truncated": 1}
    assert result["grown_mb"] < SMALL_MB


def test_a_gigabyte_of_record_in_a_megabyte_of_member():
    setup = """
size = 1 << 30
bomb = gzip_zeros(header(size), size, b"\\r\\n\\r\\n")
assert len(bomb) < 1_100_000
stream = io.BytesIO(bomb + member * 2)
"""
    result = measure(setup)
    assert result["found"] == {"record_too_large": 1, "None": 2}
    assert result["grown_mb"] < SMALL_MB
    assert result["seconds"] < 60  # making it takes most of them


def test_a_gigabyte_of_page_in_a_megabyte_of_record():
    setup = """
bomb = record(gzip_zeros(b"", 1 << 30, b""), 0, "Content-Encoding: gzip\\r\\n")
assert len(bomb) < 1_100_000
stream = io.BytesIO(bomb * 5 + page * 2)
"""
    result = measure(setup)
    assert result["found"] == {"record_too_large": 5, "None": 2}
    assert result["grown_mb"] < SMALL_MB + 2 * 64  # the limit, and what growing to it copies
    assert result["seconds"] < 60


def test_a_batch_holds_what_it_may_and_one_record():
    setup = "big = record(bytes(20 << 20)); stream = Assembled((big, 6), (page, 400))"
    result = measure(setup)
    assert result["found"] == {"None": 406}
    assert result["largest"] < (16 << 20) + (21 << 20)


@pytest.mark.parametrize(
    "junk",
    [
        "b'WARC/1.0\\r\\nA: b\\r\\n\\r\\n' * 20_000",  # a header without length, again and again
        "member[:40] * 3_000",  # members that break off
        "b'\\x1f\\x8b\\x08\\x00' * 400_000",  # what looks like members
        "b'http://e.com/' + b' 1.2.3.4 20210304050607' * 50_000",  # nearly a line of ARC
        "bytes(20 << 20)",
        "b'WARC/1.0\\r\\n' + b'A' * (20 << 20)",
        "b'WARC/1.0\\r\\n' + b'A: b\\r\\n' * (3 << 20)",
    ],
)
@pytest.mark.parametrize("good", ["member", "page"])
def test_junk_costs_bounded_time(junk, good):
    result = measure(f"junk = {junk}; stream = io.BytesIO({good} + junk + b'\\n' + {good})")
    assert result["found"].pop("None") == 2
    assert sum(result["found"].values()) == 1
    assert result["grown_mb"] < 64 + SMALL_MB
    assert result["seconds"] < 60

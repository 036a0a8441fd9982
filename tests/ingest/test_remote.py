"""Remote files are read whole or refused, whatever a server does; and over few requests."""

import dataclasses
import gzip
import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopback import (
    BYTES,
    PATH,
    Handler,
    Server,
    Waits,
    chunked,
    compress,
    cut,
    serve,
    stall,
    status,
    whole,
)

from curation import __version__
from curation.config import Config, RemoteConfig, load
from curation.engine import doctor
from curation.engine.lake import Lake
from curation.engine.run import Selection, _freeze, run
from curation.engine.stages import plan
from curation.errors import (
    ConfigError,
    InputChanged,
    InputInvalid,
    InputMissing,
    InputRefused,
    InputUnreachable,
    InputVanished,
    PrerequisiteMissing,
)
from curation.ingest import remote, warc
from curation.ingest.listing import InputFile, group_files, list_inputs
from curation.ingest.remote import Clock, Facts, Pace, RemoteFailure, open_url, read_url
from udfs.sources import WarcDataSource, WarcReader

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "tests" / "data" / "dumps" / "DUMP-2021-bullseye-00000.warc.gz"
DUMP = "DUMP-2021-bullseye"


SETTINGS = RemoteConfig(attempts=4, timeout_seconds=10.0)


# ---- a good server -----------------------------------------------------------------------------


def test_a_file_costs_one_request(server, waits):
    with open_url(server.url(), SETTINGS, clock=waits.clock) as stream:
        assert stream.seek(0, os.SEEK_END) == len(BYTES)
        stream.seek(0)
        assert b"".join(iter(lambda: stream.read(64 << 10), b"")) == BYTES
        stream.seek(1000)
        assert stream.read(10) == BYTES[1000:1010]  # from the window
        assert stream.read(0) == b""
    assert server.ranges == ["bytes=0-"]
    assert waits.slept == []


def test_requests_name_the_program_or_what_is_configured(server):
    read_url(server.url(), SETTINGS)
    read_url(server.url(), dataclasses.replace(SETTINGS, user_agent="crawl-lab (a@example.org)"))
    agents = [headers["User-Agent"] for _, headers in server.requests]
    assert agents == [f"curation/{__version__}", "crawl-lab (a@example.org)"]
    assert {headers["Accept-Encoding"] for _, headers in server.requests} == {"identity"}


def test_an_empty_file_is_empty(server):
    server.content["/empty"] = b""
    assert read_url(server.url("/empty"), SETTINGS) == b""
    server.always(whole)
    assert read_url(server.url("/empty"), SETTINGS) == b""


def test_a_long_file_passes_through_a_bounded_window(server, monkeypatch):
    monkeypatch.setattr(remote, "WINDOW_BYTES", 64 << 10)
    monkeypatch.setattr(remote, "READ_BYTES", 16 << 10)
    monkeypatch.setattr(remote, "SKIP_BYTES", 4 << 10)
    with open_url(server.url(), SETTINGS) as stream:
        most = 0
        for start in range(0, len(BYTES), 5000):
            assert stream.read(5000) == BYTES[start : start + 5000]
            most = max(most, len(stream._window))
        assert most <= 2 * (64 << 10) + (16 << 10)
        assert len(server.requests) == 1
        stream.seek(100)  # no longer in the window
        assert stream.read(8) == BYTES[100:108]
        stream.seek(100 + 8 + (2 << 10))  # a gap that is read through
        assert stream.read(8) == BYTES[2156:2164]
        assert server.ranges == ["bytes=0-", "bytes=100-"]


def test_nothing_is_read_behind_the_end(server, monkeypatch):
    monkeypatch.setattr(remote, "SKIP_BYTES", 1000)
    with open_url(server.url(), SETTINGS) as stream:
        stream.seek(len(BYTES) + 5)
        assert stream.read(10) == b""
        stream.seek(-3, os.SEEK_END)
        assert stream.read(10) == BYTES[-3:]
    assert server.ranges == ["bytes=0-", f"bytes={len(BYTES) - 3}-"]


# ---- failures that another request mends -------------------------------------------------------


SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>!</Message></Error>"


@pytest.mark.parametrize(
    "act",
    [
        status(500),
        status(502),
        status(503, SLOW_DOWN),
        status(400, SLOW_DOWN.replace(b"SlowDown", b"RequestTimeout")),
        status(429),
        status(408),
        status(206, BYTES),  # no Content-Range
        status(206, BYTES, Content_Range=f"bytes 5-{len(BYTES) + 4}/{len(BYTES) + 5}"),
        status(206, BYTES[:-9], Content_Range=f"bytes 0-{len(BYTES) - 1}/{len(BYTES)}"),
        status(200, BYTES, Content_Length="many"),
        status(
            206,
            b"%x\r\n%s\r\n0\r\n\r\n" % (len(BYTES) - 5, BYTES[5:]),
            Content_Length=None,
            Transfer_Encoding="chunked",
            Content_Range=f"bytes 5-{len(BYTES) - 1}/{len(BYTES)}",
        ),
        cut(0),
        cut(0, reset=True),
    ],
)
def test_a_transient_failure_is_asked_again(server, waits, act):
    server.play(act, act)
    assert read_url(server.url(), SETTINGS, waits.clock) == BYTES
    assert server.ranges == ["bytes=0-"] * 3
    assert waits.slept == [1.0 + 0.5 * 1, 1.0 + 0.5 * 2]


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_answer_is_resumed_at_the_byte_reached(server, waits, reset):
    server.play(cut(100_000, reset), cut(50_000, reset))
    with open_url(server.url(), SETTINGS, clock=waits.clock) as stream:
        assert stream.read() == BYTES
    first, second, third = (int(r.removeprefix("bytes=")[:-1]) for r in server.ranges)
    # a reset may take bytes with it that had come already; without one all that came is kept
    assert first == 0 < second <= 100_000
    assert second < third <= second + 50_000
    if not reset:
        assert (second, third) == (100_000, 150_000)
    assert [headers.get("If-Match") for _, headers in server.requests] == [None, '"v1"', '"v1"']
    assert waits.slept == [1.5, 2.0]


def test_waits_double_up_to_the_bound_with_full_jitter(server):
    server.always(status(503))
    patient = dataclasses.replace(SETTINGS, attempts=9, max_wait_seconds=20.0)
    for jitter in (0.0, 0.25, 0.999):
        waits = Waits(jitter)
        with pytest.raises(InputUnreachable):
            read_url(server.url(), patient, waits.clock)
        bounds = [1, 2, 4, 8, 16, 20, 20, 20]
        assert waits.slept == [1.0 + jitter * bound for bound in bounds]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (format_datetime(datetime(2024, 1, 1, 0, 0, 30, tzinfo=UTC), usegmt=True), 30.0),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 1.0),  # over: the shortest wait
        ("soon", 1.0),
    ],
)
def test_retry_after_is_honoured(server, waits, value, seconds):
    server.play(status(429, Retry_After=value))
    assert read_url(server.url(), SETTINGS, waits.clock) == BYTES
    assert waits.slept == [seconds + 0.5]


def test_a_server_that_wants_hours_is_not_waited_for(server, waits):
    server.play(status(503, Retry_After="7200"))
    with pytest.raises(InputUnreachable, match=r"503 .* come back in 7200 s"):
        read_url(server.url(), SETTINGS, waits.clock)
    assert waits.slept == []


def test_a_server_that_stays_down_is_given_up_by_name(server, waits):
    server.always(status(503, SLOW_DOWN))
    with pytest.raises(
        InputUnreachable, match=rf"{server.url()} .* byte 0 .* 4 requests.*503 SlowDown"
    ):
        read_url(server.url(), SETTINGS, waits.clock)
    assert len(server.requests) == 4


def test_progress_counts_failures_anew(server, waits, monkeypatch):
    monkeypatch.setattr(remote, "PROGRESS_BYTES", 30_000)
    server.play(*[cut(40_000)] * 9)
    assert read_url(server.url(), SETTINGS, waits.clock) == BYTES
    assert server.ranges == [f"bytes={n * 40_000}-" for n in range(10)]
    assert waits.slept == [1.5] * 9
    server.play(*[cut(20_000)] * 9)  # too little for progress
    with pytest.raises(InputUnreachable, match="from byte 80000"):
        read_url(server.url(), SETTINGS, waits.clock)


def test_no_one_listens(waits):
    with Server() as closed:
        url = closed.url()
    with pytest.raises(InputUnreachable, match="ConnectionError"):
        read_url(url, SETTINGS, waits.clock)
    assert len(waits.slept) == 3


def test_a_stalled_answer_times_out_and_is_resumed(server, waits):
    server.play(stall(10_000))
    impatient = dataclasses.replace(SETTINGS, timeout_seconds=0.2)
    assert read_url(server.url(), impatient, waits.clock) == BYTES
    assert server.ranges == ["bytes=0-", "bytes=10000-"]


def test_an_answer_that_drips_is_dropped_and_resumed(server):
    """Bytes come, so no read times out, but one a minute (by the clock of the first two reads)."""
    waits = Waits(slow_reads=2)
    server.play(stall(1), stall(1))
    assert read_url(server.url(), SETTINGS, waits.clock) == BYTES
    assert server.ranges == ["bytes=0-", "bytes=1-", "bytes=2-"]
    assert waits.slept == [1.5, 2.0]
    server.play(*[stall(1)] * 9)
    with pytest.raises(InputUnreachable, match="only 1 bytes came in 60 s"):
        read_url(server.url(), SETTINGS, Waits(slow_reads=9).clock)


# ---- servers without ranges --------------------------------------------------------------------


def test_a_server_without_ranges_costs_one_request_too(server):
    server.always(whole)
    with open_url(server.url(), SETTINGS) as stream:
        assert stream.seek(0, os.SEEK_END) == len(BYTES)
        stream.seek(0)
        assert stream.read() == BYTES
    assert len(server.requests) == 1


def test_a_200_to_a_resumed_range_is_skipped_to_its_place(server, waits):
    server.play(cut(100_000), whole)
    assert read_url(server.url(), SETTINGS, waits.clock) == BYTES
    assert server.ranges == ["bytes=0-", "bytes=100000-"]
    server.always(cut(100_000, base=whole))  # never gets further
    with pytest.raises(InputUnreachable, match=r"byte 100000 .* 4 requests"):
        read_url(server.url(), SETTINGS, waits.clock)


def test_a_body_without_a_length_is_known_to_be_whole_by_its_last_chunk(server, waits):
    server.play(chunked(70_000), chunked(), chunked())
    with open_url(server.url(), SETTINGS, clock=waits.clock) as stream:
        assert stream.seek(0, os.SEEK_END) == len(BYTES)
        stream.seek(0)
        assert stream.read() == BYTES
    assert len(server.requests) == 2  # one was cut; all fits into the window


def test_a_file_without_a_length_that_shrank_is_not_taken_for_whole(server, waits):
    server.play(chunked(70_000), *[lambda h, c: chunked()(h, c[:50_000])] * 9)
    with pytest.raises(InputUnreachable, match="ends before the byte that was reached earlier"):
        read_url(server.url(), SETTINGS, waits.clock)


def test_a_body_that_ends_with_the_connection_is_refused(server):
    def close_delimited(handler: Handler, content: bytes | None) -> None:
        handler.answer(200, content, Content_Length=None)
        handler.hang_up()

    server.play(close_delimited)
    with pytest.raises(InputInvalid, match="states no length"):
        read_url(server.url(), SETTINGS)


def test_parts_smaller_than_asked_are_joined(server, waits):
    def part(handler: Handler, content: bytes | None) -> None:
        start = handler.asked
        body = content[start : start + 150_000]
        where = f"bytes {start}-{start + len(body) - 1}/{len(content)}"
        handler.answer(206, body, ETag='"v1"', Content_Range=where)

    server.always(part)
    assert read_url(server.url(), SETTINGS, waits.clock) == BYTES
    assert server.ranges == ["bytes=0-", "bytes=150000-", "bytes=300000-"]
    assert waits.slept == []


def test_a_range_of_an_unknown_whole_is_asked_without_a_range(server):
    server.play(status(206, BYTES, Content_Range=f"bytes 0-{len(BYTES) - 1}/*"))
    assert read_url(server.url(), SETTINGS) == BYTES
    assert server.ranges == ["bytes=0-", None]


# ---- content encodings -------------------------------------------------------------------------


def test_gzip_added_on_the_way_is_undone(server, waits):
    server.always(compress)
    assert read_url(server.url(), SETTINGS, waits.clock) == BYTES
    assert server.ranges == ["bytes=0-", None]
    server.content["/a.warc.gz"] = packed = gzip.compress(BYTES)
    assert read_url(server.url("/a.warc.gz"), SETTINGS, waits.clock) == packed


def test_gzip_added_on_the_way_is_resumed_after_a_cut(server, waits):
    server.play(compress, cut(40_000, base=compress), compress)
    with open_url(server.url(), SETTINGS, clock=waits.clock) as stream:
        assert stream.seek(0, os.SEEK_END) == len(BYTES)
        stream.seek(17)
        assert stream.read(5) == BYTES[17:22]
    assert len(server.requests) == 3


def test_an_encoding_that_was_cut_behind_the_proxy_is_asked_again(server, waits):
    half = gzip.compress(BYTES)[:50_000]
    broken = status(200, half, Content_Encoding="gzip")
    server.play(broken, broken, compress)  # the second is asked without a range
    assert read_url(server.url(), SETTINGS, waits.clock) == BYTES
    assert server.ranges == ["bytes=0-", None, None]


def test_gzip_that_labels_the_file_itself_stays(server):
    server.content["/a.warc.gz"] = packed = gzip.compress(BYTES)
    server.always(lambda handler, content: serve(handler, content, Content_Encoding="gzip"))
    with open_url(server.url("/a.warc.gz"), SETTINGS) as stream:
        assert stream.read() == packed
        stream.seek(0)
        assert stream.read(3) == packed[:3]
    assert server.ranges == ["bytes=0-"]


def test_a_bomb_in_a_content_encoding_is_inflated_in_small_parts(server):
    server.content["/bomb"] = bytes(50 << 20)
    server.always(compress)
    with open_url(server.url("/bomb"), SETTINGS) as stream:
        while part := stream.read(1 << 20):
            assert len(stream._window) <= 2 * remote.WINDOW_BYTES + (1 << 20)
            assert part.count(0) == len(part)
        assert stream.tell() == 50 << 20


def test_another_encoding_is_refused(server):
    server.play(status(200, BYTES, Content_Encoding="br"))
    with pytest.raises(InputInvalid, match="Content-Encoding br"):
        read_url(server.url(), SETTINGS)


# ---- errors that last --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (404, InputMissing, "404 .* no such file; correct the address"),
        (410, InputMissing, "410 .* no such file"),
        (403, InputRefused, "403 .*; put credentials into ~/.netrc"),
        (401, InputRefused, "401"),
        (400, InputInvalid, "400 .* open the address with curl"),
        (501, InputInvalid, "501"),
    ],
)
def test_an_error_that_lasts_is_named_at_once(server, waits, code, kind, message):
    server.always(status(code))
    with pytest.raises(kind, match=message) as raised:
        open_url(server.url(), SETTINGS, clock=waits.clock)
    assert server.url() in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(server.requests) == 1
    assert waits.slept == []


def test_a_file_that_changes_between_two_requests_is_refused(server, waits):
    other_etag = lambda handler, content: serve(handler, content, etag='"v2"')  # noqa: E731
    server.play(cut(100_000), other_etag)  # honours If-Match: 412
    with pytest.raises(InputChanged, match=r'ETag "v1".* and now has another ETag \(412\)'):
        read_url(server.url(), SETTINGS, waits.clock)
    assert len(server.requests) == 2

    server.play(cut(100_000), lambda h, c: h.answer(200, c, ETag='"v2"'))  # ignores If-Match
    with pytest.raises(InputChanged, match=r'ETag "v1".*ETag "v2"'):
        read_url(server.url(), SETTINGS, waits.clock)

    server.play(cut(100_000, base=lambda h, c: h.answer(200, c)), lambda h, c: h.answer(200, c[1:]))
    with pytest.raises(InputChanged, match=r"400000 bytes.*399999 bytes"):
        read_url(server.url(), SETTINGS, waits.clock)


def test_a_file_that_shrank_is_refused(server, waits):
    def shrunk(handler: Handler, content: bytes | None) -> None:
        serve(handler, content[:1000])

    server.play(cut(100_000), shrunk)
    with pytest.raises(InputChanged, match=r"400000 bytes.*1000 bytes"):
        read_url(server.url(), SETTINGS, waits.clock)


@pytest.mark.parametrize(
    ("known", "is_same"),
    [
        (Facts(len(BYTES), '"v1"', None), True),
        (Facts(None, 'W/"v1-gzip"', "whenever"), True),
        (Facts(None, None, None), True),
        (Facts(len(BYTES) - 1, '"v1"', None), False),
        (Facts(len(BYTES), '"v0"', None), False),
    ],
)
def test_a_file_is_compared_with_what_it_was(server, known, is_same):
    if is_same:
        with open_url(server.url(), SETTINGS, expected=known) as stream:
            assert stream.read() == BYTES
    else:
        with pytest.raises(InputChanged, match="must not change"):
            open_url(server.url(), SETTINGS, expected=known)


def test_without_an_etag_the_time_decides():
    old, new = Facts(5, None, "Mon"), Facts(5, None, "Tue")
    assert old.differs(new)
    assert not old.differs(old)
    assert not Facts(5, '"a"', "Mon").differs(Facts(5, '"a"', "Tue"))


def test_a_failure_in_the_middle_is_an_error_of_the_medium(server, waits):
    server.play(cut(300_000), *[status(500)] * 9)
    with open_url(server.url(), SETTINGS, clock=waits.clock) as stream:
        assert stream.read(300_000) == BYTES[:300_000]
        with pytest.raises(RemoteFailure, match="byte 300000") as raised:
            stream.read(1)
    assert isinstance(raised.value.error, InputUnreachable)
    assert raised.value.errno is not None  # which is how curation.ingest.warc tells it from damage


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://ann:secret@h.example/a.warc", "put them into ~/.netrc"),
        ("https://h.example/a.warc?X-Amz-Signature=secret&X-Amz-Date=1", "X-Amz-Signature.*s3://"),
        ("https:///a.warc", "names no host"),
        ("s3:///key", "names no host or bucket"),
        ("gopher://h.example/a.warc", "nothing here reads gopher://"),
    ],
)
def test_a_url_that_cannot_be_an_input_is_refused(url, message):
    with pytest.raises(InputInvalid, match=message) as raised:
        open_url(url, SETTINGS)
    assert "secret" not in str(raised.value)


def test_refusals_say_what_to_do():
    def said(url: str, status: int, region: str = "") -> str:
        return str(remote._explain(url, status, f"{status}", region))

    assert "use https://data.commoncrawl.org/crawl-data/x" in said(
        "s3://commoncrawl/crawl-data/x", 403
    )
    assert "run fewer tasks" in said("https://data.commoncrawl.org/crawl-data/x", 403)
    assert "credentials may read it" in said("s3://mine/x", 403)
    assert "AWS_REGION=eu-west-1" in said("s3://mine/x", 301, "eu-west-1")


def test_a_signature_is_not_shown():
    shown = remote._line(OSError("GET /k?X-Amz-Algorithm=A&X-Amz-Signature=5ec2e7 (refused)"))
    assert "5ec2e7" not in shown
    assert "refused" in shown


# ---- how many at once --------------------------------------------------------------------------


def test_streams_beyond_the_limit_take_turns(server, waits):
    """The one unused for longest is hung up, and goes on where it was: no deadlock, right bytes."""
    server.content[PATH] = content = os.urandom(8 << 20)  # larger than what sockets hold
    two = dataclasses.replace(SETTINGS, connections=2)
    streams = [open_url(server.url(), two, clock=waits.clock) for _ in range(3)]
    step = 1 << 20
    for start in range(0, len(content), step):
        for stream in streams:
            assert stream.read(step) == content[start : start + step]
            assert sum(s._body is not None for s in streams) <= 2
    for stream in streams:
        stream.close()
    assert len(server.requests) > 3
    assert waits.slept == []
    assert remote._process.connections._open == []


def test_threads_wait_for_a_free_connection(server, waits):
    one = dataclasses.replace(SETTINGS, connections=1)
    running, most, lock = 0, 0, threading.Lock()

    def counted(handler: Handler, content: bytes | None) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:  # before the last byte is sent, or the next request could be counted with it
            running -= 1
        serve(handler, content)

    server.always(counted)
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(read_url(server.url(), one, waits.clock)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [BYTES] * 6
    assert most == 1


# ---- how fast -----------------------------------------------------------------------------------


class Runs:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.time = 0.0
        self.clock = Clock(now=lambda: self.time, sleep=self.sleep, jitter=lambda: 0.0)

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.time += seconds


@given(
    st.lists(st.tuples(st.integers(1, 50), st.floats(0, 5)), min_size=1, max_size=30),
    st.floats(0.5, 20),
)
def test_no_stretch_of_time_takes_more_than_the_rate_and_one_amount(steps, rate):
    runs, pace, taken = Runs(), Pace(), []
    for amount, pause in steps:
        pace.take(amount, rate, runs.clock)
        taken.append((runs.time, amount))
        runs.time += pause
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            before = sum(amount for _, amount in taken[first:last])
            assert before <= rate * (taken[last][0] - taken[first][0]) * (1 + 1e-9) + 1e-6


def test_who_rests_saves_nothing_up_and_no_rate_waits_for_nothing():
    runs, pace = Runs(), Pace()
    pace.take(1, 2.0, runs.clock)
    runs.time = 100.0
    for _ in range(3):
        pace.take(1, 2.0, runs.clock)
    assert runs.time == 101.0
    for _ in range(9):
        pace.take(10**9, 0.0, runs.clock)
    assert runs.time == 101.0


def test_requests_and_bytes_keep_the_configured_pace(server):
    runs = Runs()
    slow = dataclasses.replace(SETTINGS, requests_per_second=0.25, timeout_seconds=3600.0)
    for _ in range(4):
        read_url(server.url(), slow, runs.clock)
    assert runs.time == 12.0  # the first at once, then one every 4 s
    server.play(cut(100_000))  # a request that repeats another counts too
    read_url(server.url(), slow, runs.clock)
    assert runs.time == 20.0
    remote._process.forget()
    runs.time = 0.0
    slow = dataclasses.replace(SETTINGS, bytes_per_second=len(BYTES) / 100)
    for num_files in range(1, 4):
        assert read_url(server.url(), slow, runs.clock) == BYTES
        # a part of one second is paid by whoever reads next
        assert num_files * 100 - 1 - 1e-6 <= runs.time <= num_files * 100


# ---- any reads over any failures ---------------------------------------------------------------

SMALL = bytes(itertools.chain.from_iterable((n >> 8, n & 255) for n in range(1500)))
FAILURES = st.one_of(
    st.none(),
    st.sampled_from([status(500), status(429), whole, cut(0), chunked(), chunked(700)]),
    st.sampled_from([status(206, SMALL), compress, cut(500, base=compress)]),
    st.integers(0, len(SMALL)).map(cut),
    st.integers(0, len(SMALL)).map(lambda n: cut(n, base=whole)),
)
STEPS = st.one_of(
    st.tuples(st.just("read"), st.integers(-1, 1200)),
    st.tuples(st.just("set"), st.integers(0, len(SMALL) + 50)),
    st.tuples(st.just("end"), st.integers(-len(SMALL), 20)),
)


@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(failures=st.lists(FAILURES, max_size=12), steps=st.lists(STEPS, max_size=12))
def test_any_seeks_and_reads_over_any_failures_give_the_bytes(server, failures, steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "WINDOW_BYTES", 300)
        patch.setattr(remote, "SKIP_BYTES", 100)
        patch.setattr(remote, "READ_BYTES", 128)
        server.content["/small"] = SMALL
        server.play(*failures)
        patient = dataclasses.replace(SETTINGS, attempts=30)
        truth = io.BytesIO(SMALL)
        with open_url(server.url("/small"), patient, clock=Waits().clock) as stream:
            for kind, number in steps:
                if kind == "read":
                    assert stream.read(number) == truth.read(number)
                elif kind == "set":
                    assert stream.seek(number) == truth.seek(number)
                else:
                    assert stream.seek(number, os.SEEK_END) == truth.seek(number, os.SEEK_END)
                assert stream.tell() == truth.tell()


# ---- archives ----------------------------------------------------------------------------------


def test_a_damaged_archive_reads_like_the_local_file(server, waits, tmp_path):
    """Seeks to the end, back to the start, and behind the damage; over a server that cuts."""
    content = bytearray(DEMO.read_bytes())
    content[200_000:200_100] = bytes(100)
    local = tmp_path / "a.warc.gz"
    local.write_bytes(content)
    server.content["/a.warc.gz"] = bytes(content)
    server.play(cut(300_000), cut(90_000))
    with open_url(server.url("/a.warc.gz"), SETTINGS, clock=waits.clock) as stream:
        remote_rows = [row for batch in warc.read_records(stream) for row in batch.to_pylist()]
    local_rows = [row for batch in warc.read_records(local) for row in batch.to_pylist()]
    assert any(row["error"] == "corrupt" for row in local_rows)
    assert remote_rows == local_rows
    assert server.ranges == ["bytes=0-", "bytes=300000-", "bytes=390000-"]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl.gz"])
def test_rows_of_other_formats_read_like_local_ones(server, waits, tmp_path, name):
    texts = [f"text {n}" for n in range(500)]
    local = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.table({"text": texts}), local, row_group_size=100)
    else:
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        local.write_bytes(gzip.compress(lines.encode()))
    server.content[f"/{name}"] = local.read_bytes()
    remote.configure(SETTINGS)
    contents = name.split(".")[1]
    found = [b.to_pylist() for b in warc.read_rows(server.url(f"/{name}"), contents)]
    assert found == [b.to_pylist() for b in warc.read_rows(local, contents)]
    assert remote.facts_of(server.url(f"/{name}")).size == local.stat().st_size
    assert len(server.requests) <= 2


def test_a_failing_medium_is_never_damage(server):
    """A server that dies in the middle of an archive or of rows raises; no row becomes a reject."""
    remote.configure(dataclasses.replace(SETTINGS, attempts=1))
    server.content["/a.warc.gz"] = DEMO.read_bytes()
    lines = "".join(json.dumps({"text": f"{n} {os.urandom(64).hex()}"}) + "\n" for n in range(5000))
    server.content["/a.jsonl.gz"] = gzip.compress(lines.encode())
    table = pa.table({"text": [os.urandom(500).hex() for _ in range(2000)]})
    pq.write_table(table, sink := io.BytesIO(), row_group_size=200)
    server.content["/a.parquet"] = sink.getvalue()
    for path, read in [
        ("/a.warc.gz", warc.read_records),
        ("/a.jsonl.gz", lambda url: warc.read_rows(url, "jsonl")),
        ("/a.parquet", lambda url: warc.read_rows(url, "parquet")),
    ]:
        # Parquet is opened at its end first
        opening = [None, None] if path.endswith("parquet") else []
        server.play(*opening, cut(150_000), *[status(500)] * 9)
        rows = []
        with pytest.raises(RemoteFailure, match=r"could not be read from byte 15000\d"):
            rows += [row for batch in read(server.url(path)) for row in batch.to_pylist()]
        assert [row for row in rows if row["record_type"] == "lost"] == []


# ---- S3 ----------------------------------------------------------------------------------------


PLANTED = ("AKIAPLANTEDKEY", "planted/secret+key", "planted-session-token")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """moto's S3 at a loopback port, with a bucket `crawl` that holds BYTES; the endpoint."""
    moto = pytest.importorskip("moto.server", reason="moto[s3,server] is not installed")
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", PLANTED[0])
        patch.setenv("AWS_SECRET_ACCESS_KEY", PLANTED[1])
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        files = s3fs.S3FileSystem(endpoint_url=endpoint, skip_instance_cache=True)
        files.mkdir("crawl")
        files.pipe("crawl/data/file.bin", BYTES)
        files.chmod("crawl/data/file.bin", "public-read")
        listing = gzip.compress(b"data/file.bin\n")
        files.pipe("crawl/data/warc.paths.gz", listing)
        yield endpoint
        remote._s3.cache_clear()
    running.stop()


class Throttle:
    """Answers SlowDown in front of an S3 server, then lets its answers through."""

    def __init__(self, endpoint: str, server: Server, num_slow: int) -> None:
        def forward(handler: Handler, content: bytes | None) -> None:
            headers = {k: v for k, v in handler.headers.items() if k not in ("Host", "Connection")}
            got = requests.get(endpoint + handler.path, headers=headers, timeout=10)
            kept = ("ETag", "Content-Range", "Last-Modified")
            passed = {name: got.headers[name] for name in kept if name in got.headers}
            handler.answer(got.status_code, got.content, **passed)
            got.close()

        server.requests.clear()
        slow = [status(503, SLOW_DOWN)] * num_slow
        server.script = itertools.chain(slow, itertools.repeat(forward))


def s3_settings(endpoint: str, **more: Any) -> RemoteConfig:
    return dataclasses.replace(SETTINGS, s3_endpoint=endpoint, **more)


def test_s3_is_read_and_seeked(s3):
    with open_url("s3://crawl/data/file.bin", s3_settings(s3)) as stream:
        assert stream.seek(0, os.SEEK_END) == len(BYTES)
        stream.seek(123_456)
        assert stream.read(100) == BYTES[123_456:123_556]
        stream.seek(0)
        assert stream.read() == BYTES
        facts = stream.facts  # S3's ETag of a plain upload is the MD5 of its bytes
    assert facts.etag == f'"{hashlib.md5(BYTES).hexdigest()}"'
    assert read_url("s3a://crawl/data/file.bin", s3_settings(s3)) == BYTES


def test_byte_ranges_of_s3(s3):
    with open_url("s3://crawl/data/file.bin#bytes=5-9,100-199", s3_settings(s3)) as stream:
        assert stream.read() == BYTES[5:10] + BYTES[100:200]


def test_s3_slow_down_is_waited_for(s3, server, waits):
    Throttle(s3, server, num_slow=2)
    found = read_url("s3://crawl/data/file.bin", s3_settings(server.url("")), waits.clock)
    assert found == BYTES
    assert server.ranges == ["bytes=0-"] * 3
    assert waits.slept == [1.5, 2.0]


def test_s3_names_what_is_missing(s3):
    with pytest.raises(InputMissing, match=r"s3://crawl/none: the server answers 404 NoSuchKey"):
        open_url("s3://crawl/none", s3_settings(s3))


def test_s3_without_signature(s3, server, waits):
    Throttle(s3, server, num_slow=0)
    public = s3_settings(server.url(""), anonymous=True)
    assert read_url("s3://crawl/data/file.bin", public, waits.clock) == BYTES
    anonymous = server.queries[-1]
    read_url("s3://crawl/data/file.bin", s3_settings(server.url("")), waits.clock)
    assert "X-Amz-Signature" not in anonymous
    assert "X-Amz-Signature" in server.queries[-1]


def test_s3_without_credentials_says_where_to_put_them(s3, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    remote._s3.cache_clear()
    with pytest.raises(InputRefused, match=r"give AWS credentials .* remote\.anonymous"):
        open_url("s3://crawl/data/file.bin", s3_settings(s3))
    remote._s3.cache_clear()


def test_s3_without_its_package_says_how_to_install_it(monkeypatch):
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(remote.fsspec, "filesystem", missing)
    remote._s3.cache_clear()
    with pytest.raises(PrerequisiteMissing, match=r"pip install 'curation\[s3\]'"):
        open_url("s3://crawl/data/file.bin", SETTINGS)


def test_a_listing_in_a_bucket_names_files_of_the_bucket(s3):
    found = list_inputs(["s3://crawl/data/warc.paths.gz"], settings=s3_settings(s3))
    assert found == [("s3://crawl/data/file.bin", None, None)]


# ---- runs --------------------------------------------------------------------------------------

CRAWL = "/crawl-data/CC-MAIN-2021-00"


@pytest.fixture
def crawl(server: Server, cut: Path) -> Server:
    """The first dump of the cut as Common Crawl would serve it: a listing, relative to the host."""
    archives = sorted(cut.glob(f"{DUMP}-*.warc.gz"))
    names = [f"crawl-data/CC-MAIN-2021-00/segments/1/warc/{path.name}" for path in archives]
    for name, path in zip(names, archives, strict=True):
        server.content[f"/{name}"] = path.read_bytes()
    server.content[f"{CRAWL}/warc.paths.gz"] = gzip.compress(
        "".join(f"{n}\n" for n in names).encode()
    )
    return server


def configured(folder: Path, server: Server, *overrides: str) -> Config:
    path = folder / "remote.toml"
    path.write_text(
        f'lake = "lake"\n[[dumps]]\nname = "{DUMP}"\n'
        f'inputs = ["{server.url(f"{CRAWL}/warc.paths.gz")}"]\n'
    )
    return load(path, overrides)


@pytest.mark.spark
def test_a_dump_over_http_gives_the_documents_of_local_files(spark, crawl, configure, tmp_path):

    ingest = Selection(last="ingest")

    def rows(lake, table):
        found = lake.table(table).to_table().drop_columns(["archive"])
        return sorted(map(str, found.to_pylist()))

    local = run(configure("ingest.extractor=blocks", dumps=1, lake="local"), ingest)
    config = configured(tmp_path, crawl, "engine.group_bytes=1")
    lake = run(config, ingest)
    for table in ("documents", "rejects"):
        assert rows(lake, table) == rows(local, table)
    assert lake.table("documents").to_table()["archive"][0].as_py().startswith("http://127.0.0.1")

    # 1. one request a file; the listing is read by the plan and when it is frozen, then never again
    archives = [path for path, _ in crawl.requests if path.endswith(".warc.gz")]
    assert sorted(archives) == sorted(p for p in crawl.content if p.endswith(".warc.gz"))
    assert len(crawl.requests) - len(archives) == 2

    # 2. the run record says what was read, and nothing is fetched when all is committed
    record = lake.record("ingest", DUMP, "0000")
    sizes = [record.sources[str(file.ordinal)]["size"] for file in lake.inputs(DUMP)]
    assert sizes == [len(crawl.content[path]) for path in sorted(archives)]
    crawl.requests.clear()
    assert all(unit.committed for unit in plan(config, lake, last="ingest"))
    run(config, ingest)
    assert crawl.requests == []

    # 3. other settings read the files again: they must be what they were
    crawl.always(lambda handler, content: serve(handler, content, etag='"v2"'))
    with pytest.raises(InputChanged, match=r'"v1".* and now has another ETag'):
        run(configured(tmp_path, crawl, "ingest.min_chars=50"), ingest)

    # 4. what is gone is one message of ours
    crawl.always(status(404))
    with pytest.raises(InputMissing, match=r"segments/1/warc/.* answers 404"):
        run(configured(tmp_path, crawl, "ingest.min_chars=51"), ingest)


@pytest.mark.spark
def test_credentials_are_in_no_lake_log_report_or_error(s3, cut, tmp_path):
    """A run over S3 that succeeds, and one that fails; every byte that they leave is looked at."""
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    files = s3fs.S3FileSystem(endpoint_url=s3, skip_instance_cache=True)
    archive = min(cut.glob(f"{DUMP}-*.warc.gz"))
    files.put(str(archive), "crawl/dump/a.warc.gz")
    toml = tmp_path / "s3.toml"
    toml.write_text(
        f'lake = "lake"\nreport = "report.html"\n[remote]\ns3_endpoint = "{s3}"\nattempts = 1\n'
        f'[[dumps]]\nname = "{DUMP}"\ninputs = ["s3://crawl/dump/a.warc.gz"]\n'
    )
    environment = os.environ | {"HF_TOKEN": PLANTED[2], "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", "from curation.cli import main; main()", "run", str(toml)]

    def told(*more: str) -> tuple[int, str]:
        done = subprocess.run(
            [*command, "--to", "ingest", *more], capture_output=True, text=True, env=environment
        )
        return done.returncode, done.stdout + done.stderr

    code, said = told()
    assert code == 0, said
    files.rm("crawl/dump/a.warc.gz")
    code, refused = told("--set", "ingest.min_chars=51")
    assert code == 1
    assert "s3://crawl/dump/a.warc.gz" in refused
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"spark.log", "report.html"} <= {path.name for path in left}
    texts = [said, refused, *(path.read_text(errors="replace") for path in left)]
    assert any("s3://crawl/dump" in text for text in texts)
    for secret in PLANTED:
        assert not any(secret in text for text in texts)


@pytest.mark.spark
def test_the_data_source_reads_a_remote_listing(spark, crawl, cut):
    spark.dataSource.register(WarcDataSource)
    url = crawl.url(f"{CRAWL}/warc.paths.gz")
    options = {"remote": json.dumps({"user_agent": "notebook/1"})}
    found = spark.read.format("warc").options(**options).load(url).select("url").collect()
    local = spark.read.format("warc").load(f"{cut}/{DUMP}-*.warc.gz").select("url").collect()
    assert sorted(found) == sorted(local)
    assert {headers["User-Agent"] for _, headers in crawl.requests} == {"notebook/1"}


def test_the_data_source_refuses_settings_that_are_none():
    for text, message in (
        ('{"attempt": 5}', "did you mean 'attempts'"),
        ("5 attempts", "give the settings of"),
        ("[5]", r"remote must be a table, got \[5\]"),
    ):
        with pytest.raises(ConfigError, match=message):
            WarcReader({"remote": text, "path": "a"})


def test_a_remote_file_is_a_partition_of_its_own(tmp_path):
    listing = tmp_path / "l.paths"
    listing.write_text("https://h.invalid/a\nhttps://h.invalid/b\n")
    assert [[path for _, path in group] for group in WarcReader({"path": str(listing)}).groups] == [
        ["https://h.invalid/a"], ["https://h.invalid/b"],
    ]  # fmt: skip
    files = [InputFile(n, f"https://h.invalid/{n}", None, None) for n in range(3)]
    assert group_files(files, 10**9) == [[file] for file in files]


def test_a_frozen_dump_is_planned_without_network(crawl, tmp_path):

    config = configured(tmp_path, crawl)
    lake = Lake.create(config.lake)
    _freeze(config, lake, ())
    assert [file.size for file in lake.inputs(DUMP)] == [None] * 3
    crawl.requests.clear()
    crawl.content.clear()
    lake = Lake(config.lake)
    (unit,) = plan(config, lake, last="ingest")
    assert unit.name == f"ingest/{DUMP}/0000"
    before = (tmp_path / "lake" / "_inputs" / f"{DUMP}.jsonl").read_text()
    _freeze(config, lake, ())
    assert (tmp_path / "lake" / "_inputs" / f"{DUMP}.jsonl").read_text() == before
    assert crawl.requests == []
    listing = json.loads(before.splitlines()[0])["listings"][0]
    assert (listing["ordinals"], len(listing["sha256"])) == ([[0, 2]], 64)


def test_a_second_listing_of_a_dump_gets_the_next_ordinals(crawl, tmp_path):

    config = configured(tmp_path, crawl)
    lake = Lake.create(config.lake)
    _freeze(config, lake, ())
    first = lake.inputs(DUMP)
    crawl.content["/more.paths"] = b"/a.warc.gz\n" + first[0].path.encode() + b"\n"
    inputs = (*config.dumps[0].inputs, crawl.url("/more.paths"))
    grown = dataclasses.replace(
        config, dumps=(dataclasses.replace(config.dumps[0], inputs=inputs),)
    )
    _freeze(grown, lake, ())
    assert lake.inputs(DUMP)[:3] == first
    assert lake.inputs(DUMP)[3].path == crawl.url("/a.warc.gz")
    paths = lake.listings(DUMP)[crawl.url("/more.paths")].paths
    assert paths == tuple(sorted([crawl.url("/a.warc.gz"), first[0].path]))
    with pytest.raises(InputVanished, match=r"a\.warc\.gz was frozen, and is no longer among"):
        _freeze(config, lake, ())


def test_the_doctor_reads_listings_and_says_what_to_do(crawl, tmp_path, monkeypatch):

    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)
    config = configured(tmp_path, crawl)

    def found() -> dict[str, doctor.Finding]:
        return {finding.what: finding for finding in doctor._remote_inputs(config)}

    listing, first = f"listing of {DUMP}", f"first file of {DUMP}"
    assert found()[listing].ok
    assert "names 3 files" in found()[listing].found
    assert found()[first].ok

    crawl.always(status(403))
    assert not found()[listing].ok
    assert "InputRefused" in found()[listing].found
    assert first not in found()
    assert "HTTPS_PROXY" in found()[listing].mend

    crawl.play(None, status(404))
    found_now = found()
    assert found_now[listing].ok
    assert "dumps.base" in found_now[first].found

    crawl.play()
    _freeze(config, Lake.create(config.lake), ())
    assert found()[listing].ok
    crawl.content[f"{CRAWL}/warc.paths.gz"] = gzip.compress(b"crawl-data/other.warc.gz\n")
    assert "has changed since it was frozen" in found()[listing].found

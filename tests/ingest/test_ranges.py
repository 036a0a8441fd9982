"""Byte ranges of remote archives: how listings name them, and what is read of them."""

import dataclasses
import io
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopback import BYTES, PATH, Handler, Server, Waits, compress, cut, serve, status, whole

from curation.config import RemoteConfig
from curation.errors import InputChanged, InputInvalid, InputUnreachable
from curation.ingest import ranges, remote, warc
from curation.ingest.files import read_files
from curation.ingest.listing import InputFile, group_files, list_inputs
from curation.ingest.ranges import Span, join_ranges, split_ranges
from curation.ingest.remote import open_url

DEMO = Path(__file__).resolve().parents[1] / "data" / "dumps" / "DUMP-2021-bullseye-00000.warc.gz"
SETTINGS = RemoteConfig(attempts=4, timeout_seconds=10.0)
URL = "https://h.invalid/a.warc.gz"
SPANS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 30)), min_size=1, max_size=12
)  # (gap before, length)


def spans_of(steps) -> list[Span]:
    spans, start = [], 0
    for gap, length in steps:
        spans.append(Span(start + gap, start + gap + length))
        start = spans[-1].stop
    return spans


# ---- names -------------------------------------------------------------------------------------


@given(SPANS, st.randoms(), st.integers(1, 5))
def test_names_hold_the_bytes_of_the_ranges_and_no_others(steps, random, most):
    spans = spans_of(steps)
    mixed = random.sample(spans * 2, 2 * len(spans))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "MAX_RANGES", most)
        named = [split_ranges(name) for name in join_ranges(URL, mixed)]
    assert {url for url, _ in named} == {URL}
    assert all(len(each) <= most for _, each in named)
    found = [span for _, each in named for span in each]
    covered = [byte for span in found for byte in range(*span)]
    assert covered == sorted({byte for span in spans for byte in range(*span)})
    assert all(left.stop < right.start for left, right in itertools.pairwise(found))


@pytest.mark.parametrize("text", ["", "5", "5-4", "0-9,9-12", "8-9,0-3", "-5", "0-9,", "0-9 "])
def test_ranges_that_are_none_are_refused(text):
    with pytest.raises(InputInvalid, match="are no byte ranges; write them ascending"):
        list_inputs([f"{URL}#bytes={text}"])


def test_a_listing_groups_the_ranges_of_a_file(tmp_path):
    listing = tmp_path / "pages.paths"
    lines = ["x/b.warc.gz\t500\t113", "x/a.warc.gz\t7\t3", "x/b.warc.gz\t0\t100"]
    lines += ["x/b.warc.gz\t613\t10", "x/c.warc.gz", "x/b.warc.gz\t0\t100"]
    listing.write_text("".join(f"{line}\n" for line in lines))
    assert [path for path, _, _ in list_inputs([str(listing)], base="https://h.invalid/")] == [
        "https://h.invalid/x/a.warc.gz#bytes=7-9",
        "https://h.invalid/x/b.warc.gz#bytes=0-99,500-622",
        "https://h.invalid/x/c.warc.gz",
    ]


def test_a_remote_listing_may_name_ranges(server):
    server.content["/cc/pages.paths"] = b"a.warc.gz\t5\t10\na.warc.gz\t20\t1\n"
    found = list_inputs([server.url("/cc/pages.paths")], settings=SETTINGS)
    assert found == [(server.url("/cc/a.warc.gz#bytes=5-14,20-20"), None, None)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{URL}\t5", "line 2 is .* a path, an offset and a length"),
        (f"{URL}\t5\t0", "an offset and a length"),
        (f"{URL}\t5\t-7", "an offset and a length"),
        (f"{URL}\t5\t7\t9", "an offset and a length"),
        (f"{URL}\t5\t7", "the ranges 0-9 and 5-11 overlap"),
        ("local.warc.gz\t5\t7", "local.warc.gz: byte ranges are read from"),
        ("file:///local.warc.gz\t5\t7", "local.warc.gz: byte ranges are read from"),
        (
            "ftp://h.invalid/a.warc.gz\t5\t7",
            "byte ranges are read from https://, http:// and s3:// alone",
        ),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path, line, message):
    (tmp_path / "local.warc.gz").write_bytes(b"x")
    listing = tmp_path / "pages.paths"
    listing.write_text(f"{URL}\t0\t10\n{line}\n")
    with pytest.raises(InputInvalid, match=message):
        list_inputs([str(listing)])


def test_ranges_of_other_formats_are_refused():
    with pytest.raises(InputInvalid, match="name whole files where the format is jsonl"):
        list_inputs(["https://h.invalid/a.jsonl.gz#bytes=0-9"], "jsonl")


def test_ranges_share_a_task_up_to_its_size():
    files = [InputFile(n, f"{URL}#bytes=0-49", None, None) for n in range(4)]
    assert [len(group) for group in group_files(files, 100)] == [2, 2]
    assert [len(group) for group in group_files([*files, InputFile(4, URL, None, None)], 1000)] == [
        5
    ]


# ---- bytes -------------------------------------------------------------------------------------


def test_each_range_costs_one_request_for_its_bytes(server, waits):
    with open_url(
        server.url(f"{PATH}#bytes=10-19,300000-300999"), SETTINGS, None, waits.clock
    ) as f:
        assert f.read() == BYTES[10:20] + BYTES[300_000:301_000]
    assert server.ranges == ["bytes=10-19", "bytes=300000-300999"]
    assert {path for path, _ in server.requests} == {PATH}
    assert waits.slept == []


FAILURES = st.one_of(
    st.none(),
    st.sampled_from([status(500), status(429), cut(0), cut(0, reset=True)]),
    st.sampled_from(
        [status(206, BYTES), status(206, BYTES[:3], Content_Range="bytes 9999-10001/400000")]
    ),
    st.integers(0, 40).map(cut),
)
STEPS = st.one_of(
    st.tuples(st.just("read"), st.integers(-1, 120)),
    st.tuples(st.just("set"), st.integers(0, 400)),
    st.tuples(st.just("end"), st.integers(-10, 20)),
)


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    steps=SPANS,
    failures=st.lists(FAILURES, max_size=8),
    reads=st.lists(STEPS, max_size=8),
    read_bytes=st.sampled_from([7, 1 << 18]),
)
def test_any_reads_over_any_failures_give_the_ranges_end_to_end(
    server, steps, failures, reads, read_bytes
):
    spans = spans_of(steps)
    (name,) = join_ranges(server.url(), spans)
    truth = io.BytesIO(b"".join(BYTES[span.start : span.stop] for span in spans))
    places = [byte for span in spans for byte in range(*span)]
    patient = dataclasses.replace(SETTINGS, attempts=30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "READ_BYTES", read_bytes)
        patch.setattr(remote, "WINDOW_BYTES", 50)
        server.play(*failures)
        with open_url(name, patient, clock=Waits().clock) as stream:
            for kind, number in reads:
                if kind == "read":
                    assert stream.read(number) == truth.read(number)
                elif kind == "set":
                    assert stream.seek(number) == truth.seek(number)
                elif number >= -len(places):
                    assert stream.seek(number, 2) == truth.seek(number, 2)
                assert stream.tell() == truth.tell()
            assert [stream.locate(at) for at in range(len(places))] == places
    allowed = {byte for span in spans for byte in range(*span)}
    for asked in server.ranges:
        first, last = map(int, asked.removeprefix("bytes=").split("-"))
        assert allowed.issuperset(range(first, last + 1))


def test_parts_give_what_is_read_and_ask_for_nothing_else(server, waits):
    with open_url(server.url(), SETTINGS, None, waits.clock, in_parts=True) as stream:
        assert stream.seek(-8, 2) == len(BYTES) - 8
        assert stream.read(100) == BYTES[-8:]
        assert stream.read(1) == b""
        stream.seek(1000)
        assert stream.read(10) + stream.read(5) == BYTES[1000:1015]
        stream.seek(len(BYTES) + 10)
        assert stream.read(5) == b""
    assert server.ranges == [
        "bytes=0-0", f"bytes={len(BYTES) - 8}-{len(BYTES) - 1}", "bytes=1000-1009",
        "bytes=1010-1014",
    ]  # fmt: skip


def longer(handler: Handler, content: bytes | None) -> None:
    """A server that sends more than was asked for."""
    where = f"bytes {handler.asked}-{len(content) - 1}/{len(content)}"
    handler.answer(206, content[handler.asked :], Content_Range=where)


@pytest.mark.parametrize(
    ("act", "kind", "message", "num_asked"),
    [
        (whole, InputInvalid, "answers a byte range with 200, the whole file; name the whole", 1),
        (compress, InputInvalid, "with 200, the whole file", 1),
        (longer, InputUnreachable, r"where bytes 500-599 were asked for", 4),
        (status(206, BYTES[500:600], Content_Range="bytes 500-599/*"),
         InputInvalid, "206 without the length", 1),
        (lambda h, c: serve(h, c[:550]), InputInvalid, "ends at 600, .* has 550 bytes", 1),
        (lambda h, c: serve(h, c[:400]), InputInvalid, "ends at 600, .* has 400 bytes", 1),
        (status(206, BYTES[500:590], Content_Range="bytes 500-599/400000"),
         InputUnreachable, "Content-Length 90 for bytes 500-599", 4),
    ],
)  # fmt: skip
def test_a_server_that_sends_no_ranges_is_refused(server, waits, act, kind, message, num_asked):
    server.always(act)
    with pytest.raises(kind, match=message):
        open_url(server.url(f"{PATH}#bytes=500-599"), SETTINGS, clock=waits.clock)
    assert len(server.requests) == num_asked


def test_a_later_range_behind_the_end_is_refused(server, waits):
    name = server.url(f"{PATH}#bytes=5-9,{len(BYTES) + 5}-{len(BYTES) + 9}")
    with (
        open_url(name, SETTINGS, clock=waits.clock) as stream,
        pytest.raises(remote.RemoteFailure, match="fetch the index again"),
    ):
        stream.read()


def test_a_file_that_changes_between_two_ranges_is_refused(server, waits):
    server.play(None, lambda handler, content: serve(handler, content, etag='"v2"'))
    stream = open_url(server.url(f"{PATH}#bytes=5-9,90-99"), SETTINGS, clock=waits.clock)
    with stream, pytest.raises(remote.RemoteFailure, match="must not change") as raised:
        stream.read()
    assert isinstance(raised.value.error, InputChanged)


# ---- records -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pages():
    """The responses of a demo dump, read from the whole file."""
    rows = [row for batch in warc.read_records(DEMO) for row in batch.to_pylist()]
    return [row for row in rows if row["record_type"] == "response"]


def read(server: Server, spans) -> list[dict]:
    (name,) = join_ranges(server.url("/a.warc.gz"), spans)
    remote.configure(SETTINGS)
    return [row for batch in warc.read_records(name) for row in batch.to_pylist()]


def span_of(page) -> Span:
    return Span(page["offset"], page["offset"] + page["length"])


def test_records_of_ranges_are_those_of_the_whole_file(server, pages):
    server.content["/a.warc.gz"] = DEMO.read_bytes()
    chosen = pages[3:6] + pages[40:90:7]
    found = read(server, map(span_of, chosen))
    assert [row.pop("record_ordinal") for row in found] == list(range(len(chosen)))
    assert found == [{k: v for k, v in row.items() if k != "record_ordinal"} for row in chosen]


def test_a_wrong_offset_or_length_costs_its_record_alone(server, pages):
    server.content["/a.warc.gz"] = DEMO.read_bytes()
    first, short, late, last = pages[10], pages[20], pages[30], pages[40]
    cut_off = Span(short["offset"], short["offset"] + short["length"] - 20)
    begun = Span(late["offset"] + 9, late["offset"] + late["length"])
    found = read(server, [span_of(first), cut_off, begun, span_of(last)])
    good = [row for row in found if row["record_type"] == "response"]
    lost = [row for row in found if row["record_type"] == "lost"]
    assert [row["url"] for row in good] == [first["url"], last["url"]]
    assert [row["offset"] for row in good] == [first["offset"], last["offset"]]
    assert [row["offset"] for row in lost] == [short["offset"]]  # both: one behind the other
    alone = read(server, [cut_off])
    assert [(row["error"], row["offset"]) for row in alone] == [("truncated", short["offset"])]


def test_what_a_task_reads_names_the_file_and_keeps_the_facts(server, pages):
    server.content["/a.warc.gz"] = content = DEMO.read_bytes()
    (name,) = join_ranges(server.url("/a.warc.gz"), [span_of(page) for page in pages[:2]])
    rows = [row for batch in read_files([(4, name)], "warc") for row in batch.to_pylist()]
    assert {row["file_ordinal"] for row in rows} == {4}
    assert {row["archive"] for row in rows} == {server.url("/a.warc.gz")}
    assert [row["offset"] for row in rows[:2]] == [page["offset"] for page in pages[:2]]
    assert json.loads(rows[-1]["metadata"])["size"] == len(content)

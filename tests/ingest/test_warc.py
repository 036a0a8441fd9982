"""Archives, whole and broken: each record that is there is read, each lost range is named."""

import errno
import gzip
import hashlib
import io
import json
import math
import random
import time
import zlib
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warcio.archiveiterator import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from curation.errors import InputInvalid, InputMissing
from curation.ingest import warc
from curation.ingest.warc import RECORD_SCHEMA, read_records, read_rows

DUMPS = Path(__file__).parents[1] / "data" / "dumps"

HTML_HEADERS = [("Content-Type", "text/html; charset=utf-8")]


def rows(source, **options):
    """Record rows and other-type counts of one archive."""
    source = io.BytesIO(source) if isinstance(source, bytes) else source
    batches = list(read_records(source, **options))
    assert all(batch.schema == RECORD_SCHEMA for batch in batches)
    found = [row for batch in batches for row in batch.to_pylist()]
    records = [row for row in found if row["num_other"] is None]
    counts = {row["record_type"]: row["num_other"] for row in found[len(records) :]}
    return records, counts


def archive(num_records=5, *, compressed=True, types=("response",), size=3000, seed=0):
    """A WARC written by warcio, its payloads, and where its records start and end."""
    draw = random.Random(seed)
    stream, starts, payloads = io.BytesIO(), [], []
    writer = WARCWriter(stream, gzip=compressed)
    for i in range(num_records):
        payload = f"<title>{i}</title>".encode() + draw.randbytes(size // 2).hex().encode()
        record_type = types[i % len(types)]
        headers = {
            "response": StatusAndHeaders("200 OK", HTML_HEADERS, protocol="HTTP/1.1"),
            "request": StatusAndHeaders(
                "GET / HTTP/1.1", [("Host", "e.com")], is_http_request=True
            ),
        }.get(record_type)
        starts.append(stream.tell())
        record = writer.create_warc_record(
            f"http://e.com/{i}",
            record_type,
            payload=io.BytesIO(payload),
            http_headers=headers,
            warc_headers_dict={
                "WARC-Date": "2023-04-05T06:07:08Z",
                "WARC-Record-ID": f"<urn:uuid:{i}>",
            },
        )
        writer.write_record(record)
        payloads.append(payload)
    return stream.getvalue(), payloads, [*starts, stream.tell()]


def one_record(block, record_type="response", content_type="application/http", **headers):
    """One uncompressed WARC record, written by hand so that it can be wrong."""
    fields = {
        "WARC-Type": record_type,
        "WARC-Date": "2023-04-05T06:07:08Z",
        "WARC-Target-URI": "http://e.com/",
        "Content-Type": content_type,
        "Content-Length": str(len(block)),
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join(["WARC/1.0", *lines, "", ""]).encode() + block + b"\r\n\r\n"


def summary(records):
    return [(row["record_ordinal"], row["offset"], row["length"], row["error"]) for row in records]


# --- whole archives ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(DUMPS.glob("*.warc.gz")), ids=lambda path: path.name)
def test_demo_dumps_read_as_warcio_reads_them(path):
    expected, others = [], Counter()
    with path.open("rb") as stream:
        iterator = ArchiveIterator(stream)
        for ordinal, record in enumerate(iterator):
            if record.rec_type != "response":
                others[record.rec_type] += 1
                continue
            payload = record.content_stream().read()
            place = (ordinal, iterator.get_record_offset(), iterator.get_record_length())
            url = record.rec_headers.get_header("WARC-Target-URI")
            expected.append((*place, url, int(record.http_headers.get_statuscode()), payload))
    records, counts = rows(str(path))
    names = ("record_ordinal", "offset", "length", "url", "http_status", "payload")
    assert [tuple(row[name] for name in names) for row in records] == expected
    assert counts == dict(others)
    assert all(row["error"] is None for row in records)


def test_demo_payloads_are_the_published_pages():
    with gzip.open(DUMPS / "docs.jsonl.gz", "rt") as lines:
        published = Counter(json.loads(line)["html_sha1"] for line in lines)
    found = Counter(
        hashlib.sha1(row["payload"]).hexdigest()
        for path in DUMPS.glob("*.warc.gz")
        for row in rows(str(path))[0]
    )
    assert found == published


@pytest.mark.parametrize("compressed", [True, False])
def test_ordinals_count_all_record_headers(compressed):
    data, payloads, starts = archive(
        9, compressed=compressed, types=("request", "response", "metadata")
    )
    records, counts = rows(data)
    assert [row["record_ordinal"] for row in records] == [1, 4, 7]
    assert [row["payload"] for row in records] == payloads[1::3]
    assert [row["offset"] for row in records] == starts[1:-1:3]
    assert [row["length"] for row in records] == [starts[i + 1] - starts[i] for i in (1, 4, 7)]
    assert counts == {"metadata": 3, "request": 3}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 20_000), st.booleans())
def test_rows_do_not_depend_on_the_batch_size(batch_rows, batch_bytes, damaged):
    data, _, starts = archive(8)
    if damaged:
        data = data[: starts[3] + 50] + b"\xff" * 40 + data[starts[3] + 90 : -30]
    expected = rows(data)
    assert rows(data, batch_rows=batch_rows, batch_bytes=batch_bytes) == expected
    sizes = [
        batch.num_rows
        for batch in read_records(io.BytesIO(data), batch_rows=batch_rows, batch_bytes=batch_bytes)
    ]
    assert max(sizes) <= batch_rows


def test_one_gzip_member_for_the_whole_file():
    data, payloads, _ = archive(60, compressed=False)
    records, _ = rows(gzip.compress(data))
    assert [row["payload"] for row in records] == payloads
    # a record inside a member cannot be addressed by itself
    assert {(row["offset"], row["length"]) for row in records} == {(0, 0)}


def test_records_may_span_gzip_members():
    data, payloads, _ = archive(4, compressed=False)
    members = b"".join(gzip.compress(data[i : i + 1000]) for i in range(0, len(data), 1000))
    records, _ = rows(members)
    assert [row["payload"] for row in records] == payloads


def test_a_record_larger_than_every_buffer_keeps_its_place():
    data, payloads, starts = archive(3, size=800_000)
    records, _ = rows(data)
    assert [row["payload"] for row in records] == payloads
    assert [row["offset"] for row in records] == starts[:-1]


def test_wet_records_are_conversions():
    text = "正文 text".encode()
    data = one_record(text, "conversion", "text/plain; charset=x")
    (row,), _ = rows(data)
    assert (row["record_type"], row["payload"]) == ("conversion", text)
    assert (row["content_type"], row["charset"], row["http_status"]) == (
        "text/plain", "utf-8", None,
    )  # fmt: skip


# --- damage --------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.booleans(), st.data())
def test_a_cut_file_keeps_every_record_before_the_cut(compressed, data):
    whole, payloads, starts = archive(5, compressed=compressed, size=900)
    cut = data.draw(st.integers(1, len(whole) - 1))
    records, _ = rows(whole[:cut])
    num_whole = sum(end <= cut for end in starts[1:])
    kept = [row for row in records if row["error"] is None]
    lost = [row for row in records if row["error"] is not None]
    assert [row["payload"] for row in kept[:num_whole]] == payloads[:num_whole]
    if not compressed and len(kept) > num_whole:  # only the line end behind the payload was cut
        assert kept[num_whole]["payload"] == payloads[num_whole]
        assert lost == []
    else:
        assert len(kept) == num_whole
        assert len(lost) == (cut != starts[num_whole])
    for row in lost:
        # below five bytes there is nothing that says a WARC file was meant
        assert row["error"] == "truncated" or cut < 5
        assert (row["offset"], row["length"]) == (starts[num_whole], cut - starts[num_whole])
        assert row["payload"] is None
    assert [row["record_ordinal"] for row in records] == list(range(len(records)))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 5), st.binary(min_size=1, max_size=200), st.data())
def test_damage_costs_only_the_members_it_hits(seed, junk, data):
    whole, payloads, starts = archive(6, size=900, seed=seed)
    at = data.draw(st.integers(0, len(whole) - len(junk)))
    broken = whole[:at] + junk + whole[at + len(junk) :]
    records, _ = rows(broken)
    kept = {row["offset"]: row["payload"] for row in records if row["error"] is None}
    for i, payload in enumerate(payloads):
        if starts[i + 1] <= at or starts[i] >= at + len(junk):
            assert kept[starts[i]] == payload
    # nothing is counted twice, and nothing wrong is passed off as a record
    assert set(kept.values()) <= set(payloads)
    lost = [(row["offset"], row["length"]) for row in records if row["error"] is not None]
    assert all(length > 0 and offset + length <= len(broken) for offset, length in lost)
    ordinals = [row["record_ordinal"] for row in records]
    assert ordinals == sorted(set(ordinals))


def test_a_corrupt_member_is_one_range_and_the_next_member_is_read():
    data, payloads, starts = archive(5)
    broken = bytearray(data)
    broken[starts[2] + 600 : starts[2] + 620] = b"\xff" * 20
    records, _ = rows(bytes(broken))
    assert summary(records) == [
        (i, starts[i], starts[i + 1] - starts[i], "corrupt" if i == 2 else None) for i in range(5)
    ]
    assert [row["payload"] for row in records] == [*payloads[:2], None, *payloads[3:]]
    assert records[2]["url"] == "http://e.com/2"  # its header could still be read


def test_a_cut_off_checksum_loses_the_member():
    data, _, starts = archive(3)
    records, _ = rows(data[:-4])
    assert summary(records)[2] == (2, starts[2], len(data) - 4 - starts[2], "truncated")


def test_a_large_member_that_is_cut_keeps_its_complete_records():
    data, payloads, starts = archive(50, compressed=False)
    member = gzip.compress(data)
    for cut in (300, len(member) // 2, len(member) - 3):
        text = zlib.decompressobj(31).decompress(member[:cut])
        num_whole = sum(end <= len(text) for end in starts[1:])
        records, _ = rows(member[:cut])
        assert [row["payload"] for row in records] == [*payloads[:num_whole], None]
        assert records[-1]["error"] == "truncated"
        assert records[-1]["offset"] + records[-1]["length"] == cut


def test_a_failed_checksum_loses_the_member():
    data, _, starts = archive(3)
    broken = bytearray(data)
    broken[starts[2] - 6] ^= 1  # CRC32 of the second member: everything inflates
    assert [row["error"] for row in rows(bytes(broken))[0]] == [None, "corrupt", None]


def test_neighbouring_corrupt_members_are_one_range():
    data, _, starts = archive(5)
    broken = bytearray(data)
    for i in (1, 2):
        broken[starts[i] : starts[i] + 10] = bytes(10)
    records, _ = rows(bytes(broken))
    assert summary(records)[1] == (1, starts[1], starts[3] - starts[1], "corrupt")
    assert [row["record_ordinal"] for row in records] == [0, 1, 2, 3]


def test_damage_far_into_a_large_member_keeps_the_records_before_it():
    data, payloads, starts = archive(200, compressed=False, size=20_000)
    member = gzip.compress(data)
    at = len(member) // 2
    records, _ = rows(member[:at] + b"\xff" * 50 + member[at + 50 :])
    intact = zlib.decompressobj(31).decompress(member[:at])
    num_whole = sum(end <= len(intact) for end in starts[1:])
    kept = [row["payload"] for row in records if row["error"] is None]
    # up to the break all text is good; zlib may go on for a while with some that is not, so that
    # FastWARC meets nonsense before zlib fails
    assert kept[:num_whole] == payloads[:num_whole]
    assert len(kept) <= num_whole + 1
    (error,) = [row["error"] for row in records if row["error"] is not None]
    assert error in ("corrupt", "malformed")


def test_bytes_behind_the_last_record_are_one_range():
    for compressed, error in ((True, "corrupt"), (False, "malformed")):
        data, payloads, _ = archive(2, compressed=compressed)
        records, _ = rows(data + b"trailing garbage\n" * 9)
        assert [row["payload"] for row in records] == [*payloads, None]
        assert summary(records)[-1] == (2, len(data), 17 * 9, error)


def test_a_broken_first_record_does_not_hide_the_others():
    for compressed in (True, False):
        data, payloads, starts = archive(3, compressed=compressed)
        records, _ = rows(bytes(8) + data[8:])
        assert summary(records)[0] == (0, 0, starts[1], "malformed")
        assert [row["payload"] for row in records[1:]] == payloads[1:]


@pytest.mark.parametrize("head", [b"WARC/1.0\r\n", b"\x1f\x8b\x08\x00"])
@pytest.mark.parametrize("compressed", [True, False])
def test_damage_that_looks_like_the_other_form_hides_nothing(compressed, head):
    data, payloads, _ = archive(3, compressed=compressed)
    records, _ = rows(head + data[len(head) :])
    assert [row["payload"] for row in records][-2:] == payloads[1:]


@pytest.mark.parametrize("length", ["abc", "-5", str(10**30), None])
def test_a_record_without_a_usable_length_is_lost(length):
    good = one_record(b"text", "conversion")
    bad = one_record(b"text", "conversion", Content_Length=length)
    records, _ = rows(good + bad + good)
    assert summary(records) == [
        (0, 0, len(good), None),
        (1, len(good), len(bad), "malformed"),
        (2, len(good + bad), len(good), None),
    ]


def test_a_record_that_announces_more_than_the_file_holds_is_lost():
    good = one_record(b"text", "conversion")
    bad = one_record(b"text", "conversion", Content_Length=str(10**15))
    records, _ = rows(good + bad, max_record_bytes=1 << 62)
    assert summary(records)[1:] == [(1, len(good), len(bad), "truncated")]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "empty"),
        (gzip.compress(b"", mtime=0), "empty"),
        (b"hello world\n" * 100, "not_warc"),
        (gzip.compress(b"hello world\n" * 100, mtime=0), "not_warc"),
        (bytes(range(256)) * 50, "not_warc"),
    ],
)
def test_a_file_without_any_record_is_one_range(data, error):
    assert summary(rows(data)[0]) == [(0, 0, len(data), error)]


def test_an_error_of_the_medium_is_raised_and_no_damage():
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 3000:
                raise OSError(errno.EIO, "input/output error")
            return super().read(min(size, 1000))

    with pytest.raises(OSError, match="input/output error"):
        rows(Failing(archive(20)[0]))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputMissing, match=r"gone\[1\]\.warc\.gz"):
        rows(str(tmp_path / "gone[1].warc.gz"))


# --- HTTP ----------------------------------------------------------------------------------------

BODY = b"<p>hello world, this is the body"
LONG = BODY * 5000


def chunked(body):
    parts = [body[i : i + 7] for i in range(0, len(body), 7)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("headers", "stored", "payload"),
    [
        ("", BODY, BODY),
        ("Transfer-Encoding: chunked", chunked(BODY), BODY),
        ("Transfer-Encoding: chunked", BODY, BODY),  # decoded by the archiver, header kept
        ("Content-Encoding: gzip", gzip.compress(BODY, mtime=0), BODY),
        ("Content-Encoding: gzip", BODY, BODY),
        ("Content-Encoding: deflate", zlib.compress(BODY), BODY),
        (
            "Content-Encoding: gzip\r\nTransfer-Encoding: chunked",
            chunked(gzip.compress(BODY, mtime=0)),
            BODY,
        ),
        ("Content-Encoding: unheard-of", BODY, BODY),
    ],
)
def test_http_encodings_are_undone(headers, stored, payload):
    head = "\r\n".join(["HTTP/1.1 200 OK", *filter(None, [headers]), "", ""]).encode()
    follower = one_record(b"text", "conversion")
    (row, following), _ = rows(one_record(head + stored) + follower)
    assert (row["payload"], row["error"]) == (payload, None)
    assert following["payload"] == b"text"  # a payload that does not decode harms no other record


def test_http_header_fields():
    head = b'HTTP/1.1 404 Gone\r\nContent-Type: Text/HTML; charset="GBK"\r\n\r\n'
    (row,), _ = rows(one_record(head + BODY, WARC_Target_URI="<http://e.com/x>"))
    assert row["http_status"] == 404
    assert (row["content_type"], row["charset"].lower()) == ("text/html", "gbk")
    assert row["url"] == "http://e.com/x"
    assert row["date"].isoformat() == "2023-04-05T06:07:08+00:00"


def test_dates_that_do_not_parse_are_null():
    (row,), _ = rows(one_record(b"text", "conversion", WARC_Date="yesterday"))
    assert (row["date"], row["payload"]) == (None, b"text")


def test_a_response_without_a_status_line_has_an_error():
    (row,), _ = rows(one_record(b"no HTTP at all"))
    assert (row["error"], row["payload"]) == ("http_invalid", None)


def test_responses_of_other_protocols_are_counted():
    assert rows(one_record(b"1.2.3.4", content_type="text/dns")) == ([], {"response_not_http": 1})


def test_records_above_the_limit_have_an_error_and_cost_no_memory():
    bomb = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(10_000_000))
    large = b"HTTP/1.1 200 OK\r\n\r\n" + BODY * 1000
    records, _ = rows(
        one_record(large) + one_record(bomb) + one_record(b"ok", "conversion"),
        max_record_bytes=20_000,
    )
    assert [row["error"] for row in records] == ["record_too_large", "record_too_large", None]
    assert [row["payload"] for row in records] == [None, None, b"ok"]


# --- Parquet, JSONL and text ---------------------------------------------------------------------


def documents(path, source_format, **options):
    batches = list(read_rows(path, source_format, **options))
    assert all(batch.schema == RECORD_SCHEMA for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()]


def test_parquet_rows(tmp_path):
    path = tmp_path / "part.parquet"
    texts = [f"text {i} 文" for i in range(700)]
    texts[3] = None
    urls = [f"http://e.com/{i}" for i in range(700)]
    pq.write_table(
        pa.table({"id": range(700), "url": urls, "text": texts}), path, row_group_size=300
    )
    found = documents(path, "parquet", batch_rows=100)
    assert [row["record_ordinal"] for row in found] == list(range(700))
    assert [row["url"] for row in found] == urls
    assert [row["payload"] for row in found] == [text and text.encode() for text in texts]
    assert [row["error"] for row in found] == [None if text else "no_text" for text in texts]
    assert {row["record_type"] for row in found} == {"document"}


def test_parquet_without_url_takes_the_id(tmp_path):
    path = tmp_path / "part.parquet"
    pq.write_table(pa.table({"id": [7], "text": ["a"]}), path)
    assert documents(path, "parquet")[0]["url"] == "7"
    pq.write_table(pa.table({"text": ["a"]}), path)
    assert documents(path, "parquet")[0]["url"] is None


def test_other_columns_pass_through_as_json(tmp_path):
    """Origin and licence of a source survive; what JSON has no type for is written out."""
    path = tmp_path / "part.parquet"
    columns = {
        "id": [7],
        "url": ["http://e.com/"],
        "text": ["a"],
        "licence": ["CC-BY-4.0"],
        "added": [datetime(2024, 5, 6, 7, tzinfo=UTC)],
        "sha1": [b"\xff\x00"],
        "scores": [[0.5, math.nan]],
        "origin": [{"archive": "文", "part": None}],
        "price": [Decimal("1.50")],
    }
    pq.write_table(pa.table(columns), path)
    wanted = {
        "id": 7,
        "licence": "CC-BY-4.0",
        "added": "2024-05-06T07:00:00+00:00",
        "sha1": "/wA=",
        "scores": [0.5, None],
        "origin": {"archive": "文", "part": None},
        "price": "1.50",
    }
    assert json.loads(documents(path, "parquet")[0]["metadata"]) == wanted

    path = tmp_path / "part.jsonl"
    path.write_text(
        '{"id": 1, "text": "a"}\n{"id": 2, "text": "b", "n": NaN, "z": 1, "a": "\\ud800"}'
    )
    assert [row["metadata"] for row in documents(path, "jsonl")] == [
        None,
        '{"a":"?","n":null,"z":1}',  # sorted, so that equal metadata has equal bytes
    ]


def test_a_broken_parquet_row_group_is_one_range_and_the_next_is_read(tmp_path):
    path = tmp_path / "part.parquet"
    texts = pa.array([f"{i} {random.Random(i).randbytes(50).hex()}" for i in range(300)])
    pq.write_table(pa.table({"text": texts}), path, row_group_size=100, use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    broken = bytearray(path.read_bytes())
    start = column.data_page_offset
    broken[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(broken)
    found = documents(path, "parquet")
    assert [row["record_ordinal"] for row in found] == [*range(101), *range(200, 300)]
    assert [i for i, row in enumerate(found) if row["error"] == "corrupt"] == [100]


def test_a_file_that_is_no_parquet_is_one_range(tmp_path):
    path = tmp_path / "part.parquet"
    path.write_bytes(b"PAR1 but no more")
    assert summary(documents(path, "parquet")) == [(0, 0, 16, "corrupt")]


@pytest.mark.parametrize(
    ("table", "message"),
    [({"body": ["a"]}, "no column 'text'.*body"), ({"text": [1]}, "'text'.*int64, not string")],
)
def test_parquet_without_a_text_column_is_refused(tmp_path, table, message):
    path = tmp_path / "part.parquet"
    pq.write_table(pa.table(table), path)
    with pytest.raises(InputInvalid, match=message):
        documents(path, "parquet")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_jsonl_rows_and_bad_lines(tmp_path, suffix):
    lines = [
        b'{"id": 1, "url": "http://e.com/a", "text": "one \\u6587"}\n',
        b"{broken\n",
        b"\n",
        b'["no object"]\n',
        b'{"id": 5, "text": null}\n',
        b'{"id": 6, "text": "lone \\ud800 surrogate"}',
    ]
    path = tmp_path / f"part.jsonl{suffix}"
    content = b"".join(lines)
    path.write_bytes(gzip.compress(content) if suffix else content)
    found = documents(path, "jsonl")
    assert [(row["record_ordinal"], row["url"], row["error"]) for row in found] == [
        (0, "http://e.com/a", None),
        (1, None, "malformed:line 2"),
        (3, None, "malformed:line 4"),
        (4, "5", "no_text"),
        (5, "6", None),
    ]
    assert found[0]["payload"].decode() == "one 文"
    assert found[4]["payload"].decode() == "lone ? surrogate"
    if not suffix:
        assert [content[row["offset"]:][: row["length"]] for row in found] == [
            lines[i] for i in (0, 1, 3, 4, 5)
        ]  # fmt: skip


def test_jsonl_lines_above_the_limit_have_an_error(tmp_path):
    path = tmp_path / "part.jsonl"
    path.write_text('{"text": "a"}\n{"text": "' + "b" * 5000 + '"}\n{"text": "c"}\n')
    found = documents(path, "jsonl", max_record_bytes=1000)
    assert [row["error"] for row in found] == [None, "record_too_large", None]
    assert [row["payload"] for row in found] == [b"a", None, b"c"]


def test_cut_gzip_jsonl_keeps_lines_before_the_cut(tmp_path):
    path = tmp_path / "part.jsonl.gz"
    lines = [json.dumps({"text": random.Random(i).randbytes(200).hex()}) for i in range(3000)]
    path.write_bytes(gzip.compress("\n".join(lines).encode())[:-2000])
    found = documents(path, "jsonl")
    assert found[-1]["error"] == "corrupt"
    texts = [row["payload"].decode() for row in found[:-1]]
    assert len(texts) > 2000
    assert texts == [json.loads(line)["text"] for line in lines[: len(texts)]]


def test_jsonl_without_a_text_key_is_refused(tmp_path):
    path = tmp_path / "part.jsonl"
    path.write_text('{"body": "a"}\n')
    with pytest.raises(InputInvalid, match=r"line 1 has no key 'text'.*body"):
        documents(path, "jsonl")


def test_a_text_file_is_one_document(tmp_path):
    path = tmp_path / "a b.txt"
    path.write_bytes("正文\n".encode())
    (row,) = documents(path, "text")
    assert (row["payload"], row["url"]) == ("正文\n".encode(), path.as_uri())
    assert summary([row]) == [(0, 0, 7, None)]
    (row,) = documents(path, "text", max_record_bytes=3)
    assert (row["payload"], row["error"]) == (None, "record_too_large")


@pytest.mark.parametrize(
    ("path", "codec"),
    [
        ("a.jsonl.gz", "gzip"),
        ("a.JSONL.GZ", "gzip"),
        ("https://e.com/a.jsonl.gz?signature=a/b.zst", "gzip"),
        ("s3://b/a.txt.zst", "zstd"),
        ("https://e.com/a.jsonl?of=b.gz", None),
    ],
)
def test_compression_is_told_by_the_path_without_its_query(path, codec):
    assert warc._codec(path) == codec


@pytest.mark.parametrize("with_warcio", [False, True])
def test_a_content_type_of_space_takes_linear_time(with_warcio):
    """Its search runs outside the sandbox: a quadratic one took minutes."""
    kind = b"text/html; charset=" + b" " * 200_000 + b";"
    http = b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\n\r\n<p>text"
    head = f"http://e.com/ 1.2.3.4 20200102030405 text/html {len(http)}\n".encode()
    version = b"filedesc://a.arc 0.0.0.0 20200102030405 text/plain 73\n"
    version += b"1 0 A\nURL IP-address Archive-date Content-type Archive-length\n"
    version += b" " * (73 - len(version.split(b"\n", 1)[1]))
    start = time.process_time()
    records, counts = rows(version + b"\n" + head + http + b"\n", with_warcio=with_warcio)
    assert time.process_time() - start < 10
    assert [(row["url"], row["content_type"]) for row in records] == [
        ("http://e.com/", "text/html")
    ], counts

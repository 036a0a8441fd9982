"""Archives of every kind and in every state, ours and real ones, against what is known of them."""

import importlib.util
import io
import json
import os
from collections import Counter
from datetime import UTC, datetime
from hashlib import sha1
from pathlib import Path

import pytest
from warcio.archiveiterator import ArchiveIterator

from curation.ingest.warc import read_records

DATA = Path(__file__).parents[1] / "data"
GOLD = os.environ.get("CURATION_GOLD_DATA")
needs_gold = pytest.mark.skipif(not GOLD, reason="CURATION_GOLD_DATA names no folder of gold data")

spec = importlib.util.spec_from_file_location("make_archives", DATA / "make_archives.py")
make_archives = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_archives)
CASES = make_archives.cases()


def read(source, **options):
    """Record rows and other-type counts of one archive."""
    source = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    found = [row for batch in read_records(source, **options) for row in batch.to_pylist()]
    records = [row for row in found if row["num_other"] is None]
    return records, {row["record_type"]: row["num_other"] for row in found[len(records) :]}


def brief(records):
    names = ("record_ordinal", "offset", "length", "record_type", "url", "error", "payload")
    return [tuple(row[name] for name in names) for row in records]


# --- ours ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_warcio", [False, True], ids=["fastwarc", "warcio"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_record_is_read_and_every_loss_is_named(case, with_warcio):
    records, counts = read(case.data, with_warcio=with_warcio)
    assert brief(records) == case.rows
    assert counts == case.counts


def test_the_archives_hold_what_their_makers_name():
    """The generator is judged by another reader where that one reads on."""
    agreed = 0
    for case in CASES:
        found = []
        try:
            with io.BytesIO(case.data) as stream:
                for record in ArchiveIterator(stream):
                    if record.rec_type == "response" and record.http_headers:
                        found.append(record.content_stream().read())
        except Exception:  # of any kind: this reader stops here
            continue
        wanted = [row[6] for row in case.rows if row[6] is not None and row[6] != b""]
        agreed += found == wanted
    assert agreed >= 15


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_cut_of_any_of_them_raises(case):
    size = len(case.data)
    whole = {row[1]: row for row in case.rows if row[6] is not None and row[1] and row[2]}
    for cut in {size * i // 23 for i in range(23)}:
        records, _ = read(case.data[:cut])
        kept = {row["offset"]: row["payload"] for row in records if row["error"] is None}
        for offset, row in whole.items():
            if offset + row[2] <= cut:
                assert kept[offset] == row[6]
        assert all(row["offset"] + row["length"] <= cut for row in records)


def test_arc_dates_and_headers():
    case = next(case for case in CASES if case.name == "plain.arc")
    row = read(case.data)[0][0]
    assert row["date"] == datetime(2021, 3, 4, 5, 6, 7, tzinfo=UTC)
    assert (row["http_status"], row["content_type"]) == (200, "text/html")


# --- real ones -----------------------------------------------------------------------------------


def gold(*folders):
    for folder in folders:
        root = Path(GOLD) / folder
        for line in (root / "expected.jsonl").read_text().splitlines():
            expected = json.loads(line)
            yield root / expected["file"], expected


# Where a reader of expected.jsonl differs from ours: (who, our types, why). Everywhere else the
# three agree on the number of records of every type.
EXCEPTIONS = {
    "chatnoir-eu__chatnoir-resiliparse__clipped.warc.gz": (
        "both", {"lost": ["truncated"]},
        "the file ends inside its only record; both readers pass off what is left as the record",
    ),
    "iipc__webarchive-commons__abcd.gz": (
        "both", {"lost": ["not_warc"]}, "gzip of 'abcd'; both readers raise",
    ),
    "iipc__webarchive-commons__double-single-inflate-error.gz": (
        "both", {"lost": ["corrupt"]}, "gzip that does not inflate; both readers raise",
    ),
    "iipc__webarchive-commons__empty.gz": (
        "both", {"lost": ["empty"]}, "no record, which both readers do not mention",
    ),
    "iipc__webarchive-commons__hi.gz": (
        "both", {"lost": ["not_warc"]}, "gzip of 'hi'; both readers raise",
    ),
    "iipc__webarchive-commons__hi-2.gz": (
        "both", {"lost": ["not_warc"]}, "twice gzip of 'hi'; both readers raise",
    ),
    "toimik__WarcProtocol__incorrect_content_length.warc": (
        "both", {"resource": 3, "lost": ["malformed", "malformed"]},
        "a length too short, then one too long that swallows a header: FastWARC takes LF lines for "
        "one record, warcio stops behind the first; the second and the last are readable",
    ),
    "toimik__WarcProtocol__malformed_header.warc": (
        "both", {"lost": ["not_warc"]}, "no header names a length; both readers raise",
    ),
    "toimik__WarcProtocol__missing_header_field.warc": (
        "both", {"resource": 2, "unknown": 1, "lost": ["truncated"]},
        "FastWARC takes LF lines for one record; the last header is cut before its length, which "
        "warcio keeps as a record without end",
    ),
    "toimik__WarcProtocol__multiline_header_values.warc": (
        "both", {"lost": ["not_warc"]},
        "the version in lower case, and a length that ends with the header: FastWARC raises, "
        "warcio finds a record without a type and then raises",
    ),
    "toimik__WarcProtocol__premature_w_trailing_newline.warc": (
        "both", {"lost": ["truncated"]}, "the header is cut; both readers make a record of it",
    ),
    "toimik__WarcProtocol__premature_wo_trailing_newline.warc": (
        "both", {"lost": ["truncated"]}, "the header is cut; both readers make a record of it",
    ),
    "toimik__WarcProtocol__short_content_block.warc": (
        "both", {"lost": ["truncated"]},
        "3 of 11 bytes are there: FastWARC makes a record of it, warcio raises",
    ),
    "webrecorder__warcio__bad.arc": (
        "both", {"response": 1, "lost": ["malformed", "malformed"], "errors": ["http_invalid"]},
        "lengths -1, -1, 1 and 'abc': warcio takes a bad length for 0, FastWARC reads no ARC; the "
        "one with a length holds one line end",
    ),
    "webrecorder__warcio__example-bad-non-chunked.warc.gz": (
        "warcio", {"warcinfo": 2, "response": 1, "request": 2, "revisit": 1},
        "several records in a member, for which warcio raises",
    ),
    "webrecorder__warcio__example-bad.warc.gz.bad": (
        "warcio", {"warcinfo": 1, "response": 2, "request": 2, "revisit": 1},
        "several records in a member, for which warcio raises",
    ),
    "webrecorder__warcio__example-space-in-url.arc": (
        "both", {"arc_header": 1, "lost": ["truncated"]},
        "line ends were converted after it was written, so that the file ends before the length "
        "that its record announces; warcio keeps it, FastWARC reads no ARC",
    ),
    "webrecorder__warcio__example-trunc.warc": (
        "both", {"warcinfo": 2, "response": 1, "request": 1, "lost": ["malformed"]},
        "six bytes too many behind the response: FastWARC stops, warcio skips them silently",
    ),
    "webrecorder__warcio__example-wrong-chunks.warc.gz": (
        "warcio", {"response": 1, "request": 1},
        "chunked it says and is not: warcio reads past it and raises",
    ),
    "archivesunleashed__aut__example.arc.gz": (
        "fastwarc", {"arc_header": 1, "response": 261, "response_not_http": 38},
        "FastWARC reads no ARC",
    ),
    "webrecorder__warcio__example.arc.gz": (
        "fastwarc", {"arc_header": 1, "response": 1}, "FastWARC reads no ARC",
    ),
}  # fmt: skip


def found_types(records, counts):
    types = Counter(row["record_type"] for row in records) + Counter(counts)
    if lost := [row["error"] for row in records if row["record_type"] == "lost"]:
        types["lost"] = lost
    if errors := [row["error"] for row in records if row["error"] and row["record_type"] != "lost"]:
        types["errors"] = errors
    return dict(types)


@needs_gold
def test_real_archives_hold_what_other_readers_find_or_it_is_known_why_not():
    num_files = 0
    explained = set()
    for path, expected in gold("warc-crawls", "warc-commoncrawl", "warc-bad"):
        num_files += 1
        records, counts = read(path)
        ours = found_types(records, counts)
        who, wanted, _ = EXCEPTIONS.get(path.name, ("", None, ""))
        if wanted is not None:
            assert ours == wanted, path.name
            explained.add(path.name)
        # like the readers, count responses of other protocols as responses
        plain = dict(ours)
        if "response_not_http" in plain:
            plain["response"] = plain.get("response", 0) + plain.pop("response_not_http")
        for reader in ("fastwarc", "warcio"):
            differs = who in (reader, "both")
            agrees = plain == expected[reader]["types"] and not expected[reader]["error"]
            assert agrees != differs, (path.name, reader)
        html = sum(
            row["payload"] is not None
            and (row["content_type"] or "") in ("text/html", "application/xhtml+xml")
            for row in records
        )
        if who not in ("both", "warcio"):
            assert html == expected["warcio"]["html_responses"], path.name
    assert explained == set(EXCEPTIONS)
    assert num_files == 22 + 5 + 22


@needs_gold
def test_one_crawl_written_as_arc_and_as_warc_gives_the_same_pages():
    def pages(name):
        records, _ = read(Path(GOLD) / "warc-crawls" / name)
        return [
            (row["url"], row["http_status"], row["content_type"], row["charset"], row["payload"])
            for row in records
        ]

    found = pages("archivesunleashed__aut__example.arc.gz")
    assert len(found) == 261
    assert found == pages("archivesunleashed__aut__example.warc.gz")


# --- FastWARC and warcio -------------------------------------------------------------------------


def comparable():
    found = [(path.name, path) for path in sorted((DATA / "dumps").glob("*.warc.gz"))]
    if GOLD:
        folders = ("warc-crawls", "warc-commoncrawl", "warc-bad")
        found += [(path.name, path) for path, _ in gold(*folders)]
    return found


@pytest.mark.parametrize("path", [path for _, path in comparable()], ids=lambda path: path.name)
def test_ordinals_and_rows_are_the_same_from_fastwarc_and_from_warcio(path):
    def digest(records):
        return [
            {**row, "payload": row["payload"] and sha1(row["payload"]).hexdigest()}
            for row in records
        ]

    records, counts = read(path)
    again, again_counts = read(path, with_warcio=True)
    assert digest(records) == digest(again)
    assert counts == again_counts


@pytest.mark.parametrize(
    "path",
    [path for name, path in comparable() if EXCEPTIONS.get(name, ("fastwarc",))[0] == "fastwarc"],
    ids=lambda path: path.name,
)
def test_rows_are_those_of_warcio_by_itself(path):
    """Not our use of warcio: its own iterator, in every file that it reads to the end."""
    expected, others = [], Counter()
    with path.open("rb") as stream:
        iterator = ArchiveIterator(stream)
        for ordinal, record in enumerate(iterator):
            if record.rec_type not in ("response", "conversion"):
                others[record.rec_type] += 1
                continue
            headers = record.rec_headers
            url = headers.get_header("WARC-Target-URI") or headers.get_header("uri")
            if record.rec_type == "response" and not url.startswith("http"):
                others["response_not_http"] += 1
                continue
            payload = sha1(record.content_stream().read()).hexdigest()
            place = (ordinal, iterator.get_record_offset(), iterator.get_record_length())
            # in a file that is not compressed, its length leaves out the line ends behind a record
            length = place[2] if path.suffix == ".gz" else None
            expected.append((*place[:2], length, url, payload))
    records, counts = read(path)
    assert counts == others
    assert [
        (
            row["record_ordinal"],
            row["offset"],
            row["length"] if path.suffix == ".gz" else None,
            row["url"],
            sha1(row["payload"]).hexdigest(),
        )
        for row in records
    ] == expected

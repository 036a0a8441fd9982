"""Listings and pages of Common Crawl, over a server of the same layout that fails on purpose."""

import contextlib
import dataclasses
import gzip
import io
import json
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import Server, Waits, cut, serve, stall, status, whole

from curation import cli
from curation.config import RemoteConfig, load
from curation.engine.run import Selection, run
from curation.errors import ConfigError, InputInvalid, InputMissing, InputUnreachable
from curation.ingest import warc
from curation.ingest.commoncrawl import Site, _key_bounds, fetch_index, fetch_listing, sample_lines
from curation.ingest.listing import list_inputs

ROOT = Path(__file__).resolve().parents[2]
DUMP = "CC-MAIN-2023-14"
FILES = [f"crawl-data/{DUMP}/segments/{n % 7}.1/wet/part-{n:05d}.warc.wet.gz" for n in range(500)]
YEARS = ("2023-23", "2023-14", "2023-06", "2022-49", "2012", "2008-2009")
CRAWLS = [f"CC-MAIN-{name}" for name in YEARS]
SETTINGS = RemoteConfig(attempts=4, timeout_seconds=10.0)


@pytest.fixture
def site(server: Server, waits: Waits) -> Site:
    """The lists of a dump as Common Crawl serves them."""
    listing = "".join(f"{path}\n" for path in FILES).encode()
    server.content[f"/crawl-data/{DUMP}/wet.paths.gz"] = gzip.compress(listing)
    server.content["/collinfo.json"] = json.dumps(
        [{"id": name, "name": "an index", "cdx-api": f"/{name}-index"} for name in CRAWLS]
    ).encode()
    return Site(server.url("/"), server.url("/collinfo.json"), SETTINGS, waits.clock)


# ---- listings ----------------------------------------------------------------------------------


def test_a_listing_has_all_files_of_the_dump(site, server):
    found = fetch_listing(site, DUMP, "wet")
    assert found.lines == [server.url(f"/{path}") for path in FILES]
    assert found.num_listed == len(FILES)
    assert [path for path, _ in server.requests] == [
        "/collinfo.json", f"/crawl-data/{DUMP}/wet.paths.gz",
    ]  # fmt: skip


def test_a_sample_is_nested_keeps_the_order_and_follows_the_seed(site):
    def sample(num, seed):
        return fetch_listing(site, DUMP, "wet", sample=num, seed=seed).lines

    ten, hundred = sample(10, 7), sample(100, 7)
    assert (len(ten), len(hundred)) == (10, 100)
    assert set(ten) < set(hundred)
    assert hundred == sorted(hundred, key=fetch_listing(site, DUMP, "wet").lines.index)
    assert sample(10, 7) == ten
    assert sample(10, 8) != ten
    assert len(sample(9999, 7)) == len(FILES)


@given(st.lists(st.text(max_size=8)), st.integers(0, 40), st.integers(0, 5), st.randoms())
def test_a_sample_depends_on_no_order(lines, num, seed, random):
    found = sample_lines(lines, num, seed)
    assert len(found) == len(set(found)) == min(num, len(set(lines)))
    mixed = random.sample(lines, len(lines))
    assert set(sample_lines(mixed, num, seed)) == set(found)
    assert set(found) <= set(sample_lines(lines, num + 1, seed))


def test_the_listing_is_an_input(site, tmp_path):
    found = fetch_listing(site, DUMP, "wet", sample=5)
    path = tmp_path / "five.paths"
    path.write_text("".join(f"{line}\n" for line in found.lines))
    assert list_inputs([str(path)]) == [(line, None, None) for line in sorted(found.lines)]


@pytest.mark.parametrize(
    ("dump", "nearest"),
    [
        ("CC-MAIN-2023-15", "CC-MAIN-2023-14"),
        ("cc-main-2022-49", "CC-MAIN-2022-49"),
        ("2023-06", "CC-MAIN-2023-06"),
    ],
)
def test_an_unknown_dump_names_the_nearest(site, server, dump, nearest):
    with pytest.raises(ConfigError, match=rf"'{dump}' is none of the 6 crawls .*{nearest}"):
        fetch_listing(site, dump, "wet")
    assert len(server.requests) == 1  # nothing of a crawl that there is not


def test_another_kind_is_refused_before_anything_is_asked(site, server):
    with pytest.raises(ConfigError, match="kind is 'wat'; there are warc, wet"):
        fetch_listing(site, DUMP, "wat")
    assert server.requests == []


@pytest.mark.parametrize("content", [b"<html>", b'{"id": "x"}', b"[1]", b'[{"name": 1}]'])
def test_a_list_of_crawls_that_is_none_is_refused(site, server, content):
    server.content["/collinfo.json"] = content
    with pytest.raises(InputInvalid, match=r"collinfo\.json is no list of crawls"):
        fetch_listing(site, DUMP, "wet")


def test_failures_are_asked_again_and_what_lasts_is_named(site, server, waits):
    impatient = site._replace(
        settings=dataclasses.replace(SETTINGS, attempts=30, timeout_seconds=0.2)
    )
    server.play(
        status(503, Retry_After="7"), cut(20), None,  # the list of crawls
        stall(30), status(200, b"x", Content_Length="many"), cut(30, reset=True), None,
    )  # fmt: skip
    assert len(fetch_listing(impatient, DUMP, "wet").lines) == len(FILES)
    assert waits.slept[0] == 7.5
    assert len(waits.slept) >= 5  # all acts were played
    with pytest.raises(InputMissing, match=r"/warc\.paths\.gz: the server answers 404"):
        fetch_listing(site, DUMP, "warc")
    server.play(None, lambda handler, content: serve(handler, content[:-9]))
    with pytest.raises(InputInvalid, match=r"wet\.paths\.gz cannot be read"):
        fetch_listing(site, DUMP, "wet")


# ---- the columnar index ------------------------------------------------------------------------

DEMO = ROOT / "tests" / "data" / "dumps" / "DUMP-2021-bullseye-00000.warc.gz"
ARCHIVE = f"crawl-data/{DUMP}/segments/1.1/warc/part-00000.warc.gz"
GROUP_ROWS = 10


def surt(url: str) -> str:
    """The key of a URL: "com,example)/path" for https://www.example.com/path."""
    parts = urlsplit(url)
    host = re.sub(r"^www\d*\.", "", parts.hostname)
    port = f":{parts.port}" if parts.port else ""
    return ",".join(reversed(host.split("."))) + port + ")" + parts.path


def index_row(page: str, file: str, offset: int, length: int, **more: str | None) -> dict:
    return {
        "url_surtkey": surt(page),
        "url_host_name": urlsplit(page).hostname,
        "content_languages": "eng",
        "content_mime_detected": "text/html",
        "content_mime_type": "application/octet-stream",
        "warc_filename": file,
        "warc_record_offset": offset,
        "warc_record_length": length,
        **more,
    }


def index_path(number: int, subset: str = "warc") -> str:
    return f"cc-index/table/cc-main/warc/crawl={DUMP}/subset={subset}/part-{number:05d}.gz.parquet"


def publish(server: Server, rows: list[dict], num_parts: int = 2, **options: object) -> None:
    """Serve rows as the parts of the index, sorted, in small row groups."""
    rows = sorted(rows, key=lambda row: row["url_surtkey"])
    per_part = -(-len(rows) // num_parts)
    listing = [index_path(0, "robotstxt")]
    for number in range(num_parts):
        part = rows[number * per_part : (number + 1) * per_part]
        sink = io.BytesIO()
        options = {"row_group_size": GROUP_ROWS, "compression": "zstd"} | options
        pq.write_table(pa.Table.from_pylist(part), sink, **options)
        server.content[f"/{index_path(number)}"] = sink.getvalue()
        listing.append(index_path(number))
    packed = gzip.compress("".join(f"{path}\n" for path in listing).encode())
    server.content[f"/crawl-data/{DUMP}/cc-index-table.paths.gz"] = packed
    server.requests.clear()


@pytest.fixture(scope="module")
def archive() -> bytes:
    """Every 8th page of a demo dump, each a gzip member of its own."""
    whole_file = DEMO.read_bytes()
    rows = [row for batch in warc.read_records(DEMO) for row in batch.to_pylist()]
    chosen = [row for row in rows if row["record_type"] == "response"][::8]
    return b"".join(whole_file[row["offset"] : row["offset"] + row["length"]] for row in chosen)


@pytest.fixture(scope="module")
def pages(archive: bytes) -> list[dict]:
    """What the archive holds, in its order."""
    return [row for batch in warc.read_records(io.BytesIO(archive)) for row in batch.to_pylist()]


@pytest.fixture
def crawl(site: Site, server: Server, archive: bytes, pages: list[dict]) -> Site:
    """The archive as all of a crawl, with its index."""
    server.content[f"/{ARCHIVE}"] = archive
    packed = gzip.compress(f"{ARCHIVE}\n".encode())
    server.content[f"/crawl-data/{DUMP}/warc.paths.gz"] = packed
    publish(server, [index_row(p["url"], ARCHIVE, p["offset"], p["length"]) for p in pages])
    return site


def lines(server: Server, pages: list[dict]) -> list[str]:
    url = server.url(f"/{ARCHIVE}")
    return [f"{url}\t{page['offset']}\t{page['length']}" for page in pages]


def test_the_index_gives_the_pages_of_a_host(crawl, server, pages):
    for host in {urlsplit(page["url"]).hostname for page in pages}:
        chosen = [page for page in pages if urlsplit(page["url"]).hostname == host]
        found = fetch_index(crawl, DUMP, hosts=[host.upper()])
        assert found.lines == lines(server, chosen)
        assert found.num_listed == len(pages)
    everything = fetch_index(crawl, DUMP, mimes=["text/html"], limit=len(pages) + 1)
    assert everything.lines == lines(server, pages)


def test_row_groups_of_other_hosts_are_not_read(crawl, server):
    rows = [
        index_row(f"https://h{n:03d}.example/", ARCHIVE, n, 1, url=os.urandom(500).hex())
        for n in range(400)
    ]
    publish(server, rows)
    found = fetch_index(crawl, DUMP, hosts=["h123.example"])
    assert [line.split("\t")[1] for line in found.lines] == ["123"]
    parts = {f"/{index_path(number)}" for number in range(2)}
    asked = [path for path, _ in server.requests if path in parts]
    # of both: a byte that tells the size, and the end of the file; of one group: the column that
    # decides, and the three that say where, which are neighbours
    assert len(asked) == 2 * 2 + 2
    assert all(re.fullmatch(r"bytes=\d+-\d+", each) for each in server.ranges[2:])
    server.requests.clear()
    publish(server, rows, write_statistics=False)
    assert fetch_index(crawl, DUMP, hosts=["h123.example"]).lines == found.lines
    assert len([path for path, _ in server.requests if path in parts]) > 30


LABELS = st.sampled_from(["a", "b", "www", "www2", "a-b", "1", "xn--a"])
NAMES = st.lists(LABELS, min_size=2, max_size=4).map(".".join)


@given(NAMES, NAMES, st.sampled_from(["", ":8080"]), st.sampled_from(["", "/", "/~x", "/zz"]))
def test_keys_of_a_host_and_below_it_lie_between_its_bounds(host, other, port, path):
    low, high = _key_bounds(host)
    for name in (host, f"{other}.{host}"):
        assert low <= surt(f"https://{name}{port}{path}") < high


@pytest.mark.parametrize("url", ["https://b.org/", "https://ab.org/", "https://a.org.b/"])
def test_keys_of_other_hosts_lie_outside(url):
    low, high = _key_bounds("a.org")
    assert not low <= surt(url) < high


def test_pages_are_chosen_by_all_that_is_asked(crawl, server):
    a, b = "https://a.example/1", "https://www.b.a.example/2"
    publish(
        server,
        [
            index_row(a, "f", 0, 1),
            index_row(b, "f", 1, 1, content_languages="zho,eng"),
            index_row(b, "f", 2, 1, content_languages=None),
            index_row(a, "e", 3, 1, content_mime_detected=None, content_mime_type="text/plain"),
            index_row("https://ba.example/", "f", 4, 1),
            index_row("https://a.example.org/", "f", 5, 1, content_mime_detected="text/plain"),
            index_row("https://a.example/", "f", 6, 1, content_languages="deu"),
        ],
    )

    def offsets(**wanted):
        return [int(line.split("\t")[1]) for line in fetch_index(crawl, DUMP, **wanted).lines]

    assert offsets(hosts=["a.example"]) == [3, 0, 1, 2, 6]  # by file and offset
    assert offsets(hosts=["b.a.example"]) == [1, 2]
    assert offsets(hosts=["ba.example", "b.a.example"]) == [1, 2, 4]
    assert offsets(languages=["zho", "deu"]) == [1, 6]
    assert offsets(mimes=["text/plain"]) == [3, 5]
    assert offsets(hosts=["a.example"], languages=["eng"], mimes=["text/html"]) == [0]
    assert len(offsets(hosts=["a.example"], limit=2)) == 2


@pytest.mark.parametrize(
    ("wanted", "kind", "message"),
    [
        ({}, ConfigError, "would give every page of the dump; name hosts"),
        ({"hosts": ["a.org/x"]}, ConfigError, "host 'a.org/x' is no name of a host"),
        ({"hosts": [""]}, ConfigError, "host '' is no name"),
        ({"languages": ["en"]}, ConfigError, r"language 'en' is none .* ISO 639-3 \(eng"),
        ({"mimes": ["html"]}, ConfigError, "media type 'html' is none"),
        ({"hosts": ["no.example"], "mimes": ["text/html"]}, InputMissing,
         "no page of hosts no.example, types text/html"),
    ],
)  # fmt: skip
def test_a_choice_that_cannot_be_is_refused(crawl, wanted, kind, message):
    with pytest.raises(kind, match=message):
        fetch_index(crawl, DUMP, **wanted)


def test_an_index_that_cannot_be_read_is_named(crawl, server, waits):
    old = [index_row("https://a.example/", "f", 0, 1)]
    del old[0]["content_languages"]
    publish(server, old, num_parts=1)
    assert fetch_index(crawl, DUMP, hosts=["a.example"]).num_listed == 1
    with pytest.raises(InputInvalid, match=r"no column content_languages .*CC-MAIN-2018-39"):
        fetch_index(crawl, DUMP, languages=["eng"])
    server.content[f"/{index_path(0)}"] = b"no Parquet at all"
    with pytest.raises(InputInvalid, match="cannot be read as Parquet"):
        fetch_index(crawl, DUMP, hosts=["a.example"])
    publish(server, old, num_parts=1)
    server.play(None, None, None, *[status(503)] * 9)
    with pytest.raises(InputUnreachable, match="in 4 requests; the last failed with: 503"):
        fetch_index(crawl, DUMP, hosts=["a.example"])
    server.play(None, None, None, whole)
    with pytest.raises(InputInvalid, match="answers a byte range with 200"):
        fetch_index(crawl, DUMP, hosts=["a.example"])


def test_the_index_is_read_over_a_server_that_fails(crawl, server, pages, waits):
    host = urlsplit(pages[0]["url"]).hostname
    expected = fetch_index(crawl, DUMP, hosts=[host]).lines
    server.play(
        None, status(429), None, cut(0), status(503, Retry_After="3"), None, cut(1000), cut(100),
        None, status(206, b"x" * 5, Content_Range="bytes 0-4/9"), cut(30, reset=True),
    )  # fmt: skip
    patient = crawl._replace(settings=dataclasses.replace(SETTINGS, attempts=30))
    assert fetch_index(patient, DUMP, hosts=[host]).lines == expected
    assert 4.0 in waits.slept  # 3 s, and half of 2: the second failure of that file


# ---- runs --------------------------------------------------------------------------------------


@pytest.mark.spark
def test_both_commands_lead_to_the_documents(spark, crawl, server, archive, tmp_path, monkeypatch):
    """fetch-listing gives those of the local file, fetch-index those of one host of it."""
    host = "www.postgresql.org"
    own = ["--data-url", crawl.data_url, "--collinfo-url", crawl.collinfo_url]
    for arguments in (
        ["fetch-listing", DUMP, "--to", str(tmp_path / "files.paths"), "--sample", "10", *own],
        ["fetch-index", DUMP, "--to", str(tmp_path / "host.paths"), "--host", host, *own],
    ):
        monkeypatch.setattr("sys.argv", ["curation", *arguments])
        with contextlib.suppress(SystemExit):
            cli.main()

    (tmp_path / "local.warc.gz").write_bytes(archive)
    entries = ("local.warc.gz", "files.paths", "host.paths")
    dumps = [f'[[dumps]]\nname = "{entry}"\ninputs = ["{entry}"]\n' for entry in entries]
    (tmp_path / "c.toml").write_text('lake = "lake"\n' + "".join(dumps))
    config = load(tmp_path / "c.toml", ["ingest.extractor=resiliparse"])
    lake = run(config, Selection(last="ingest"))
    columns = ["url", "text", "archive", "offset"]
    local, whole_file, chosen = (
        sorted(
            lake.table("documents", dump=entry).to_table(columns=columns).to_pylist(),
            key=lambda row: row["offset"],
        )
        for entry in entries
    )
    url = server.url(f"/{ARCHIVE}")
    assert len(local) > len(chosen) > 0
    assert whole_file == [row | {"archive": url} for row in local]
    assert chosen == [row for row in whole_file if urlsplit(row["url"]).hostname == host]


# ---- the shipped configuration -----------------------------------------------------------------


def test_the_shipped_dumps_are_the_91_in_order():
    """The years' numbers of crawls are those of Common Crawl's statistics (crawlsize/monthly)."""
    dumps = load(ROOT / "jobs" / "conf" / "commoncrawl.toml").dumps
    names = [dump.name for dump in dumps]
    assert len(names) == len(set(names)) == 91
    assert (names[0], names[-1]) == ("CC-MAIN-2013-20", "CC-MAIN-2023-14")
    assert names == sorted(names)
    assert all(re.fullmatch(r"CC-MAIN-20\d\d-[0-5]\d", name) for name in names)
    years = [name[8:12] for name in names]
    assert [years.count(str(year)) for year in range(2013, 2024)] == [
        2, 8, 10, 9, 12, 12, 12, 9, 9, 6, 2,
    ]  # fmt: skip
    for dump in dumps:
        (entry,) = dump.inputs
        assert Path(entry).name == f"{dump.name}.paths"

"""Listings and pages of Common Crawl, over a server of the same layout that fails on purpose."""

import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import Server, Waits, cut, serve, status

from curation.config import RemoteConfig, load
from curation.errors import ConfigError, InputInvalid, InputMissing
from curation.ingest.commoncrawl import Site, fetch_listing, sample_lines
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
    server.play(
        status(503, Retry_After="7"), cut(20), None,  # the list of crawls
        status(429), cut(30, reset=True), None,
    )  # fmt: skip
    assert len(fetch_listing(site, DUMP, "wet").lines) == len(FILES)
    assert waits.slept[0] == 7.5
    with pytest.raises(InputMissing, match=r"/warc\.paths\.gz: the server answers 404"):
        fetch_listing(site, DUMP, "warc")
    server.play(None, lambda handler, content: serve(handler, content[:-9]))
    with pytest.raises(InputInvalid, match=r"wet\.paths\.gz cannot be read"):
        fetch_listing(site, DUMP, "wet")


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

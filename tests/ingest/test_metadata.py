"""Title, author and date that a page states, and nothing where it states none."""

import datetime
import email.utils
import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.ingest.metadata import FIRST_YEAR, LAST_YEAR, Stated, parse_date, read
from curation.ingest.text import words

GOLD = os.environ.get("CURATION_GOLD_DATA")
needs_gold = pytest.mark.skipif(not GOLD, reason="CURATION_GOLD_DATA names no folder of gold data")


def at(*when):
    return datetime.datetime(*when, tzinfo=datetime.UTC)


def json_ld(value):
    return f'<script type="application/ld+json">{json.dumps(value)}</script>'


ARTICLE = {
    "@context": "https://schema.org",
    "@graph": [
        {"@type": "WebSite", "name": "Site"},
        {
            "@type": "NewsArticle",
            "headline": "Headline &amp; more",
            "datePublished": "2024-05-20T08:30:00+08:00",
            "author": [{"@type": "Person", "name": "Ann Lee"}, {"name": "Bo Li"}],
        },
    ],
}


@pytest.mark.parametrize(
    ("page", "stated"),
    [
        ("<html><head></head><body>By Ann Lee, 2024-05-20</body></html>", Stated()),
        (json_ld(ARTICLE), Stated("Headline & more", "Ann Lee, Bo Li", at(2024, 5, 20, 0, 30))),
        (
            '<head><meta property="og:title" content="A &amp; B"><META NAME=author CONTENT="Bo Li">'
            '<meta content="2024-05-20" property="article:published_time"><title>x</title></head>',
            Stated("A & B", "Bo Li", at(2024, 5, 20)),
        ),
        (
            '<meta property="og:title" content="Cats -> dogs"><meta name=author content="<Bo> Li">',
            Stated("Cats -> dogs", "<Bo> Li"),
        ),
        # the heading, where the title adds the name of the site
        ("<title>On bridges | The Site</title></head><h1> On <b>bridges</b></h1>", ("On bridges",)),
        ("<title>On bridges</title></head><body><h1>The Site</h1>", ("On bridges",)),
        ("<title>T</title></head><body><h1></h1>", ("T",)),
        # a link is no name, a reader is no author
        ('<meta name="article:author" content="https://a.org/ann"></head>', Stated()),
        (json_ld({"@type": "Review", "author": "Bo", "datePublished": "2024-05-20"}), Stated()),
        (json_ld({"author": "Bo"}), Stated(author="Bo")),
        (
            '<body><span itemprop="datePublished" content="2024-05-20T10:00Z">yesterday</span>',
            Stated(published_at=at(2024, 5, 20, 10)),
        ),
        (
            '<body><time datetime="2019-01-01">old</time>'
            '<time class="entry-date published" datetime="2024-05-20">May</time>',
            Stated(published_at=at(2024, 5, 20)),
        ),
        ('<body><time datetime="2024-05-20">a comment</time>', Stated()),
        # what cannot be read is passed over
        ('<meta name="date" content="soon"><meta name="dc.date" content="1970-01-01">', Stated()),
        ('<script type="application/ld+json">{"headline": </script><title>T</title>', ("T",)),
        ('<script type="application/ld+json">' + "[" * 9_999 + "</script>", Stated()),
        (json_ld({"headline": 5, "author": {"name": None}, "datePublished": {"a": 1}}), Stated()),
    ],
)
def test_read(page, stated):
    assert read(page) == Stated(*stated)


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("2024-05-20", at(2024, 5, 20)),
        ("20240520", at(2024, 5, 20)),
        ("2024/5/2 13:30", at(2024, 5, 2, 13, 30)),
        ("2024年5月20日 13:30:05", at(2024, 5, 20, 13, 30, 5)),
        ("2024年5月20日", at(2024, 5, 20)),
        ("2024-05-20T13:30:05Z", at(2024, 5, 20, 13, 30, 5)),
        ("2024-05-20T13:30:05.123+02:00", at(2024, 5, 20, 11, 30, 5)),
        ("2024-05-20T23:30:05-0500", at(2024, 5, 21, 4, 30, 5)),
        ("2024-05-20 13:30:05 UTC", at(2024, 5, 20, 13, 30, 5)),
        ("Mon, 20 May 2024 13:30:05 +0200", at(2024, 5, 20, 11, 30, 5)),
        ("2024-13-01", None),
        ("0001-01-01T00:00:00Z", None),
        ("1970-01-01T00:00:00Z", None),
        ("20240520123456", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_parse_date(text, when):
    assert parse_date(text) == when


ZONES = st.integers(-14 * 60, 14 * 60).map(
    lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes))
)


@given(
    st.datetimes(
        datetime.datetime(FIRST_YEAR, 1, 3),
        datetime.datetime(LAST_YEAR - 1, 12, 29),
        timezones=ZONES,
    )
)
def test_dates_of_the_standards_are_read(when):
    when = when.replace(microsecond=0)
    assert parse_date(when.isoformat()) == when
    assert parse_date(when.isoformat(" ", "minutes")) == when.replace(second=0)
    assert parse_date(email.utils.format_datetime(when)) == when
    assert parse_date(when.date().isoformat()) == at(when.year, when.month, when.day)


@given(st.text(max_size=40) | st.from_regex(r"\d{4}-\d{1,2}-\d{1,2}[T ]\d\d:\d\d.{0,8}"))
def test_any_text_is_a_date_or_none(text):
    when = parse_date(text)
    assert when is None or FIRST_YEAR <= when.year < LAST_YEAR


PIECES = ["<meta ", 'name="author" ', 'content="', '"', ">", "<title>", "<h1>", "</h1>", "<time "]
PIECES += ['<script type="application/ld+json">', '{"author":', "[", "</script>", "datePublished"]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_any_markup_gives_strings_without_line_breaks(page):
    for value in read(page)[:2]:
        assert value is None or (value == " ".join(value.split()) != "")


@needs_gold
def test_what_the_pages_of_wcxb_state():
    folder = Path(GOLD) / "extraction-wcxb-dev"
    right = {"title": 0, "author": 0, "date": 0}
    found = dict(right)
    with gzip.open(folder / "ground-truth.jsonl.gz", "rt") as lines:
        for row in map(json.loads, lines):
            octets = gzip.decompress((folder / "html" / f"{row['id']}.html.gz").read_bytes())
            stated = read(octets.decode("utf-8", "replace"))
            date = stated.published_at and stated.published_at.date().isoformat()
            for key, ours, gold in (
                ("title", stated.title, row["title"]),
                ("author", stated.author, row["author"]),
                ("date", date, row["publish_date"]),
            ):
                if gold and ours:
                    found[key] += 1
                    right[key] += words(ours) == words(gold)
    # trafilatura's own reader: 176 of 370 titles, 70 of 108 authors, 114 of 146 dates
    assert right["title"] > 220
    assert right["author"] > 0.8 * found["author"] > 50
    assert right["date"] > 0.8 * found["date"] > 80

"""Limits of pages: counts against a tokenizer and a tree of others, laws, and hostile pages."""

import dataclasses
from html.parser import HTMLParser

import hostile
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree

from curation.ingest.limits import VERDICT_TYPE, PageLimits, check_pages, check_texts, scan
from curation.ingest.text import utf8_buffers

NO_LIMITS = PageLimits(
    max_html_bytes=1 << 40,
    max_html_tags=1 << 40,
    max_html_depth=2_000,
    max_html_attributes=1 << 40,
    max_tag_attributes=1 << 40,
    max_chars=1 << 40,
)


def counts(html: str, encoding: str = "utf-8") -> dict[str, int]:
    """Measure a page through the public function: every limit at 0 gives every value."""
    found = {}
    for field in dataclasses.fields(PageLimits):
        if field.name in ("max_html_bytes", "max_chars", "max_html_depth"):
            continue
        limits = dataclasses.replace(NO_LIMITS, **{field.name: 0})
        (row,) = check_pages(pa.array([html.encode(encoding)]), limits).to_pylist()
        found[field.name.removeprefix("max_")] = int(row["value"] or 0)
    found["html_depth"] = depth(html, encoding)
    return found


def depth(html: str, encoding: str = "utf-8") -> int:
    """The least max_html_depth that lets a page pass."""
    payload = pa.array([html.encode(encoding)])
    low, high = 0, 2_000
    while low < high:
        middle = (low + high) // 2
        verdict = check_pages(payload, dataclasses.replace(NO_LIMITS, max_html_depth=middle))
        if verdict.field("rule")[0].as_py() is None:
            high = middle
        else:
            low = middle + 1
    return low


# --- oracles -------------------------------------------------------------------------------------

NAMES = ("div", "p", "IMG", "x-y", "section", "h1", "td", "b")
ATTRIBUTES = ("a=1", 'b="x > y"', "c='<p>'", "d", "e = f", 'g=""')
PIECES = st.one_of(
    st.builds(
        lambda name, attributes, slash: f"<{' '.join([name, *attributes])}{slash}>",
        st.sampled_from(NAMES),
        st.lists(st.sampled_from(ATTRIBUTES), max_size=4, unique=True),
        st.sampled_from(["", " ", " /", "\n"]),
    ),
    st.builds("</{}>".format, st.sampled_from(NAMES)),
    st.sampled_from(
        (
            *("text ", "a < b ", "<!-- <p> - -- -->", "<!DOCTYPE html>", "文", "<?php x ?>"),
            *("<script>if (a<b) '<p>'</script>", "<STYLE>p > a </style >"),
            "<textarea><p></textarea>",
        )
    ),
)


class Tokens(HTMLParser):
    """Counts tags and attributes with the parser of the standard library."""

    CDATA_CONTENT_ELEMENTS = ("script", "style", "textarea")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.num_tags = self.num_attributes = self.most_attributes = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.num_tags += 1
        self.num_attributes += len(attrs)
        self.most_attributes = max(self.most_attributes, len(attrs))

    def handle_endtag(self, tag):
        self.num_tags += 1

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)


@given(st.lists(PIECES, max_size=30).map("".join))
def test_tags_and_attributes_are_those_of_the_standard_library(html):
    expected = Tokens(html)
    found = counts(html)
    assert found["html_tags"] == expected.num_tags
    assert found["html_attributes"] == expected.num_attributes
    assert found["tag_attributes"] == expected.most_attributes


def trees(names):
    return st.recursive(
        st.just("x"),
        lambda inner: st.builds(
            lambda name, children: f"<{name}>{''.join(children)}</{name}>",
            st.sampled_from(names),
            st.lists(inner, max_size=4),
        ),
        max_leaves=30,
    )


@given(st.lists(trees(["div", "section", "span", "ul", "x-y", "blockquote"]), max_size=4))
def test_the_depth_of_closed_elements_is_that_of_the_tree(parts):
    html = "<!DOCTYPE html><html><head></head><body>" + "".join(parts)
    assert depth(html) == tree_depth(HTMLTree.parse(html).body)


def tree_depth(node) -> int:
    """Levels of elements below a node of Resiliparse's tree."""
    children = [child for child in node.child_nodes if child.type == node.type]
    return max((1 + tree_depth(child) for child in children), default=0)


@pytest.mark.parametrize(
    "html",
    [
        "<p>x" * 50,
        "<ul>" + "<li><div>x" * 50 + "</ul>",
        "<dl>" + "<dt><span>x<dd><div>y" * 50,
        "<table>" + "<tr><td><div>x<td>y" * 50 + "</table>",
        "<div><span>x</div>" * 50,
        "<img><br><input>" * 50,
        "<svg>" + "<path/><g><circle /></g>" * 50 + "</svg>",
        "<font color=red>x" * 50,
        "<div></p></span></div>" * 50,
        "<script>" + "<div>" * 50 + "</script>",
        "<!--" + "<div>" * 50 + "-->",
        "<div" * 50,
    ],
)
def test_what_pages_leave_open_is_not_depth(html):
    assert depth(html) <= 4


@pytest.mark.parametrize(
    "html",
    [
        "<span><div></span>" * 50,  # </span> does not close the block
        "<div><table><td></div>" * 50,  # nor </div> the table
        "<div></DIVA>" * 50,
        "<div/>" * 50,
        "<svg></svg>" + "<g/>" * 50,
        "<script></script><!-- --!><title></title>" + "<div>" * 50,
        "<!-->" + "<div>" * 50,
        "<!---->" + "<DIV class='>'>" * 50,
        "<scripty>" + "<div>" * 50,
    ],
)
def test_what_is_nested_is_depth_however_it_hides(html):
    assert depth(html) >= 50


# --- laws ----------------------------------------------------------------------------------------

TIGHT = PageLimits(
    max_html_bytes=120,
    max_html_tags=8,
    max_html_depth=3,
    max_html_attributes=5,
    max_tag_attributes=2,
    max_chars=20,
)


@given(st.lists(st.none() | st.lists(PIECES, max_size=9).map(lambda p: "".join(p).encode())))
def test_pages_do_not_influence_each_other(pages):
    whole = check_pages(pa.array([b"<p>", *pages], pa.binary())[1:], TIGHT)
    assert whole.type == VERDICT_TYPE
    assert whole.is_valid().to_pylist() == [page is not None for page in pages]
    parts = [check_pages(pa.array([page], pa.binary()), TIGHT).to_pylist() for page in pages]
    assert whole.to_pylist() == [row for part in parts for row in part]


def test_each_limit_names_its_value_and_threshold():
    pages = {
        "max_html_bytes": "x" * 121,
        "max_html_tags": "<br>" * 9,
        "max_html_depth": "<div>" * 4,
        "max_html_attributes": "<p a b><p a b><p a b>",
        "max_tag_attributes": "<p a b c>",
        None: "<div a b>x</div>",
    }
    found = check_pages(pa.array([page.encode() for page in pages.values()]), TIGHT).to_pylist()
    assert [row["rule"] for row in found] == list(pages)
    assert [row["value"] for row in found] == ["121", "9", "4", "6", "3", None]
    assert [row["threshold"] for row in found] == ["120", "8", "3", "5", "2", None]


def test_a_limit_is_the_last_value_that_passes():
    for name in ("html_tags", "html_attributes", "tag_attributes", "html_depth"):
        html = "<div a b><span c>x</span></div>"
        value = counts(html)[name]
        for limit, rule in ((value, None), (value - 1, f"max_{name}")):
            limits = dataclasses.replace(NO_LIMITS, **{f"max_{name}": limit})
            assert check_pages(pa.array([html.encode()]), limits).field("rule")[0].as_py() == rule


def test_the_length_of_texts():
    found = check_texts(pa.array(["文" * 21, "文" * 20, "", None]), TIGHT)
    assert found.field("rule").to_pylist() == ["max_chars", None, None, None]
    assert found[0].as_py() == {"rule": "max_chars", "value": "21", "threshold": "20"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "gb18030", "shift_jis"])
def test_encodings_give_the_same_counts(encoding):
    html = "<html><body><div a='文'><p b>文字 <b>x</b></div>" + "<div>" * 9
    assert counts(html, encoding) == counts(html)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_first_character_does_not_hide_utf_16(encoding):
    """The header may name the encoding, whatever the page begins with."""
    html = "文字" * 1_000 + "<div a=1>" * 9
    assert counts(html, encoding) == counts(html)


@given(st.binary(max_size=200))
def test_any_bytes_are_counted(payload):
    limits = dataclasses.replace(TIGHT, max_html_bytes=1_000)
    check_pages(pa.array([payload]), limits)
    data, offsets = utf8_buffers(pa.array([payload + b">>", payload]))
    measured = scan(data, offsets, np.ones(2, np.bool_), 100)
    assert (measured[0] >= measured[1]).all()  # nothing is read behind the end


# --- hostile pages -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", hostile.PAGES)
def test_hostile_pages_break_the_limit_they_attack(name):
    payload = pa.array([hostile.page(name)])
    (found,) = check_pages(payload, hostile.LIMITS).to_pylist()
    assert found["rule"] == hostile.REJECTED.get(name)

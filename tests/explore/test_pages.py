"""HTML of pages: escaped, bounded, and with the words that differ."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from curation.explore import pages

HOSTILE = "<script>alert(1)</script>"
WORDS = st.lists(
    st.sampled_from(["a", " ", "\n", "<c>", "&d;", "\u732b", HOSTILE]), max_size=12
).map("".join)


@given(WORDS, WORDS)
def test_differences_hold_both_texts_and_nothing_else(before: str, after: str) -> None:
    for shown, text in zip(pages.differences(before, after), (before, after), strict=True):
        assert set(re.findall("<[^>]*>", shown)) <= {
            f'<span style="{pages.REMOVED}">',
            f'<span style="{pages.ADDED}">',
            "</span>",
        }
        assert html.unescape(re.sub("<[^>]*>", "", shown)) == text.lstrip()


@pytest.mark.parametrize(
    ("before", "after", "old", "new"),
    [
        ("one two three", "one 2 three four", ["two "], ["2 ", "four"]),
        ("the  same\n\nwords", "the same words", [], []),
        ("\u6211\u7684\u732b\u3002", "\u6211\u7684\u72d7\u3002", ["\u732b"], ["\u72d7"]),
    ],
)
def test_only_words_that_differ_are_highlighted(
    before: str, after: str, old: list[str], new: list[str]
) -> None:
    left, right = pages.differences(before, after)
    assert re.findall(f'<span style="{pages.REMOVED}">([^<]*)</span>', left) == old
    assert re.findall(f'<span style="{pages.ADDED}">([^<]*)</span>', right) == new


def test_texts_are_cut() -> None:
    left, _ = pages.differences("word " * 10_000, "")
    assert len(re.sub("<[^>]*>", "", left)) <= pages.MAX_COMPARED_CHARS + 10
    assert pages.excerpt("x" * 700, 600) == "x" * 600 + "..."
    assert pages.excerpt("short", 600) == "short"


def test_cells_are_escaped_unless_they_are_markup() -> None:
    shown = pages.table([HOSTILE], [[HOSTILE, Markup("<b>ours</b>")]])._repr_html_()
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;") == 2
    assert "<b>ours</b>" in shown

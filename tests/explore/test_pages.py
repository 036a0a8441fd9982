"""HTML of pages: escaped, bounded, and with the words that differ."""

import html
import re

from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from curation.explore import pages

HOSTILE = "<script>alert(1)</script>"
WORDS = st.lists(st.sampled_from(["a", "b", "<c>", "&d;", HOSTILE]), max_size=12).map(" ".join)


@given(WORDS, WORDS)
def test_differences_hold_both_texts_and_nothing_else(before: str, after: str) -> None:
    for shown, text in zip(pages.differences(before, after), (before, after), strict=True):
        assert set(re.findall("<[^>]*>", shown)) <= {
            f'<span style="{pages.REMOVED}">',
            f'<span style="{pages.ADDED}">',
            "</span>",
        }
        assert html.unescape(Markup(shown).striptags()).split() == text.split()


def test_only_words_that_differ_are_highlighted() -> None:
    left, right = pages.differences("one two three", "one 2 three four")
    assert left == f'one <span style="{pages.REMOVED}">two</span> three '
    assert right == (
        f'one <span style="{pages.ADDED}">2</span> three <span style="{pages.ADDED}">four</span> '
    )


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

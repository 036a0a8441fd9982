"""Which blocks are kept, by a forest and by the best expected F1, and how they are written."""

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import ArtifactInvalid
from curation.ingest.block_features import FEATURES, SECOND_FEATURES, describe
from curation.ingest.blocks import BLOCK_END, BLOCK_START, parse
from curation.ingest.main_text import (
    LOGIT,
    TABLE_SIZE,
    Extractor,
    Forest,
    Model,
    arrays_of,
    choose,
    least_expected,
    likelihood,
    load,
    main_text,
    probabilities,
    read,
    written,
)
from curation.ingest.warc import read_records

DUMPS = Path(__file__).parents[1] / "data" / "dumps"
SENTENCE = "The quick brown fox jumps over the lazy dog while seven wizards watch in silence."
TABLE = np.linspace(0, 1, TABLE_SIZE, dtype=np.float32)


def forest(name: str, threshold: float, below: float, above: float, *, names=FEATURES) -> Forest:
    """One tree of one split; logits."""
    return Forest(
        np.array([[names.index(name)]], np.int16),
        np.array([[threshold]], np.float32),
        np.array([[round(below * LOGIT), round(above * LOGIT)]], np.int32),
        0,
    )


def model(name: str, threshold: float, below: float, above: float) -> Model:
    """Both forests are the same tree."""
    return Model(
        forest(name, threshold, below, above),
        forest(name, threshold, below, above, names=FEATURES + SECOND_FEATURES),
        (1 / (1 + np.exp(-np.linspace(-16, 16, TABLE_SIZE)))).astype(np.float32),
    )


LONG_TEXTS = model("own_words", 5, -8, 8)


def all_of(page: str) -> str:
    """A page with all its blocks kept."""
    blocks = parse(np.frombuffer(page.encode(), np.uint8))
    return written(blocks, np.ones(len(blocks.blocks), np.bool_))


def texts_of(blocks) -> list[str]:
    return [
        blocks.text[row[BLOCK_START] : row[BLOCK_END]].tobytes().decode() for row in blocks.blocks
    ]


# --- forests -------------------------------------------------------------------------------------


@given(st.data(), st.integers(0, 4), st.integers(1, 3), st.integers(0, 2**32))
def test_a_forest_is_the_sum_of_the_leaves_of_its_trees(data, num_trees, depth, seed):
    rng = np.random.default_rng(seed)
    num_features, num_blocks = 5, 6
    x = rng.integers(-3, 4, (num_features, num_blocks)).astype(np.float32)  # many ties
    made = Forest(
        rng.integers(0, num_features, (num_trees, depth)).astype(np.int16),
        rng.integers(-3, 4, (num_trees, depth)).astype(np.float32),
        rng.integers(-(1 << 19), 1 << 19, (num_trees, 1 << depth)).astype(np.int32),
        data.draw(st.integers(-(1 << 21), 1 << 21)),
    )
    found = likelihood(x, made, TABLE)
    assert found.dtype == np.float32
    for b in range(num_blocks):
        total = made.bias
        for t in range(num_trees):
            leaf = sum(
                2**k
                for k in range(depth)
                if float(x[made.features[t, k], b]) > float(made.thresholds[t, k])
            )
            total += int(made.leaves[t, leaf])
        step = total * 64 // LOGIT + 1024  # 64 steps a logit, from -16 on
        assert found[b] == TABLE[max(0, min(step, 2047))]


def test_a_value_at_a_threshold_is_below_and_none_is_above_infinity():
    x = np.array([[1.0, np.nextafter(np.float32(1), np.float32(2)), np.inf]], np.float32)
    one = Forest(
        np.zeros((1, 1), np.int16), np.ones((1, 1), np.float32), np.array([[0, 1 << 20]], "i4"), 0
    )
    assert likelihood(x, one, TABLE).tolist() == [TABLE[1024], TABLE[2047], TABLE[2047]]
    never = one._replace(thresholds=np.full((1, 1), np.inf, np.float32))
    assert set(likelihood(x, never, TABLE).tolist()) == {float(TABLE[1024])}


def test_the_second_forest_sees_what_the_first_said():
    """By itself the short block between long ones looks as the other short ones do."""
    page = "".join(f"<p>{text}" for text in ("Menu", "Login", SENTENCE, "Indeed.", SENTENCE))
    two = Model(
        LONG_TEXTS.first,
        forest("first_at_-1", 0.5, -8, 8, names=FEATURES + SECOND_FEATURES),
        LONG_TEXTS.probabilities,
    )
    data = np.frombuffer(page.encode(), np.uint8)
    likely = probabilities(*describe(data, parse(data)), two)
    assert (likely > 0.5).tolist() == [False, False, False, True, False]


# --- the best set --------------------------------------------------------------------------------


def expected_f1(likely: list[float], words: list[int], kept: tuple[int, ...]) -> float:
    """2 sum_K(p w) / (sum_K(w) + sum(p w))."""
    shared = sum(likely[k] * words[k] for k in kept)
    total = sum(words[k] for k in kept) + sum(p * w for p, w in zip(likely, words, strict=True))
    return 2 * shared / total if total else 0.0


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 0.01, 0.2, 0.25, 0.5, 0.5, 0.51, 0.75, 0.9, 1]) |
                  st.floats(0, 1, width=32), st.sampled_from([0, 0, 1, 2, 7, 40, 1000])),
        max_size=9,
    )
)  # fmt: skip
def test_no_other_set_of_blocks_has_a_higher_expected_f1(blocks):
    likely = [float(np.float32(p)) for p, _ in blocks]
    words = [n for _, n in blocks]
    kept, found = choose(np.array(likely, np.float32), np.array(words, np.int32))
    best = max(
        expected_f1(likely, words, each)
        for size in range(len(blocks) + 1)
        for each in combinations(range(len(blocks)), size)
    )
    assert found == pytest.approx(best, abs=1e-9)
    chosen = tuple(np.flatnonzero(kept).tolist())
    assert expected_f1(likely, words, chosen) == pytest.approx(best, abs=1e-9)


def test_nothing_likely_keeps_nothing():
    kept, found = choose(np.zeros(3, np.float32), np.array([5, 6, 7], np.int32))
    assert (kept.tolist(), found) == ([False] * 3, 0.0)
    kept, found = choose(np.ones(2, np.float32), np.zeros(2, np.int32))
    assert (kept.tolist(), found) == ([False] * 2, 0.0)


def test_what_is_sure_is_kept_whole():
    kept, found = choose(np.array([1, 0, 1], np.float32), np.array([5, 6, 7], np.int32))
    assert (kept.tolist(), found) == ([True, False, True], 1.0)


# --- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("", ""),
        ("<p>a<p>b", "a\n\nb"),
        ("a<p>b<div>c</div>d", "a\n\nb\n\nc\n\nd"),
        ("<p>a<br>b<br><br>c<br> <br><br>d<br>e", "a\nb\n\nc\n\nd\ne"),
        ("<p>a<br>b</p><p>c", "a\nb\n\nc"),
        ("<div>a<br><p>b</p></div>", "a\n\nb"),
        # lists
        ("<ul><li>a<li>b</ul>", "- a\n- b"),
        ("<p>x<ul><li>a</ul><p>y", "x\n\n- a\n\ny"),
        ("<ol><li>a<ul><li>b<li>c<ol><li>d</ol></ul><li>e</ol>",
         "- a\n  - b\n  - c\n    - d\n- e"),
        ("<ul><li>a<ul><li>b</ul>c</ul>", "- a\n  - b\n  c"),
        ("<ul><li><p>a<p>b</ul>", "- a\n  b"),
        ("<ul><li>a<br>b</ul>", "- a\n  b"),
        ("<li>a", "- a"),
        ("<ul>" * 20 + "<li>a", " " * 16 + "- a"),
        ("<ul><li>a<pre>b\n  c</pre></ul>", "- a\n\nb\n  c"),
        ("<dl><dt>a<dd>b<dt>c<dd>d</dl>", "a\nb\nc\nd"),
        # tables
        ("<table><tr><td>a<td>b<tr><td>c<td>d</table>", "| a | b |\n| c | d |"),
        ("<p>x<table><tr><th>a<td>b</table><p>y", "x\n\n| a | b |\n\ny"),
        ("<table><tr><td>a<td><td>b</table>", "| a | | b |"),
        ("<table><tr><th><th>a<th>b<tr><td>c<td><td><tr><td><td>d<td></table>",
         "| | a | b |\n| c | | |\n| | d | |"),
        ("<table><tr><td><td>a<tr><td>b<td></table>", "a\n\nb"),  # no row has two
        ("<table><tr><td>a<td>b<tr><td>c</table>", "| a | b |\n\nc"),
        ("<table><tr><td>a</table>", "a"),  # a row of one cell is none
        ("<table><tr><td>a<tr><td>b</table>", "a\n\nb"),
        ("<table><tr><td>a<p>b<td>c</table>", "a\n\nb\n\nc"),  # nor one with a cell of several
        ("<table><tr><td>a<br>b<td>c</table>", "| a b | c |"),
        ("<table><tr><td><table><tr><td>a<td>b</table><td>c</table>", "| a | b |\n\nc"),
        ("<table><tr><td>a<td><pre>b\nc</pre></table>", "a\n\nb\nc"),
        ("<table><tr><td>a<td><ul><li>b</ul></table>", "| a | b |"),
        ("<ul><li><table><tr><td>a<td>b</table></ul>", "| a | b |"),
        ("<table><tr>a<td>b<td>c</table>", "a\n\n| b | c |"),
        # code
        ("<pre>a\n\n  b\t&lt;</pre>", "a\n\n  b\t<"),
        ("<p>x<pre>a</pre>y", "x\n\na\n\ny"),
        ("<pre>a</pre><pre>b</pre>", "a\n\nb"),
        ("<pre>a<div>b</div></pre>", "a\nb"),
        ("<pre><div>a\n</div><div>  b\n</div><div>\n</div><div>c</div></pre>", "a\n  b\n\nc"),
        ("<pre>a\n</pre><p>b", "a\n\nb"),
        # characters
        ("<p>caf&eacute; &#x6771; &#x1F600;", "café 東 😀"),
    ],
)  # fmt: skip
def test_blocks_are_written(page, text):
    assert all_of(page) == text


def test_text_between_cells_begins_no_row_again():
    """Each time with the bars of all cells: more than there is room for."""
    assert all_of("<table><tr>" + "<td>a</td>x" * 300) == "\n\n".join("ax" * 300)
    assert all_of("<table><tr>x<td>a<td>b<tr><td>c<td>d") == "x\n\n| a | b |\n| c | d |"


def test_only_what_is_kept_is_written():
    blocks = parse(np.frombuffer(b"<p>a<p>b<ul><li>c<li>d</ul><p>e<br>f<br>g", np.uint8))
    texts = texts_of(blocks)

    def kept(wanted: str) -> str:
        return written(blocks, np.array([text in wanted for text in texts]))

    assert kept("") == ""
    assert kept("bd") == "b\n\n- d"
    assert kept("eg") == "e\n\ng"  # no line of one paragraph any more: something stood between
    assert kept("fg") == "f\ng"


def test_a_row_is_judged_by_the_cells_that_are_kept():
    blocks = parse(np.frombuffer(b"<table><tr><td>a<td>b<td>c</table>", np.uint8))
    assert written(blocks, np.array([True, False, True])) == "| a | | c |"
    assert written(blocks, np.array([True, False, False])) == "a"


PARTS = (
    "<ul> <ol> <li> </li> </ul> <table> <tr> <td> </table> <p> <br> <pre> </pre> <dl> <dd> </dl> "
    "<div> </div> <a> </a> aa <pre>b\nb</pre> ccc"
)


@given(
    st.lists(st.sampled_from(PARTS.split(" ")), max_size=40).map("".join),
    st.integers(0, 2**40),
)
def test_each_kept_text_is_written_once_and_in_order(page, seed):
    blocks = parse(np.frombuffer(page.encode(), np.uint8))
    kept = np.array([seed >> b & 1 for b in range(len(blocks.blocks))], np.bool_)
    expected = "".join(t for t, is_kept in zip(texts_of(blocks), kept, strict=True) if is_kept)
    found = written(blocks, kept)
    assert [c for c in found if c not in "-| \n"] == [c for c in expected if c not in " \n"]


# --- pages ---------------------------------------------------------------------------------------


def test_a_page_by_a_model():
    page = f"<nav><a href=/>Home</a></nav><h1>Foxes</h1><p>{SENTENCE}</p><p>{SENTENCE} Again.</p>"
    found = main_text(page, LONG_TEXTS)
    assert found.text == f"{SENTENCE}\n\n{SENTENCE} Again."
    assert 0.99 < found.expected_f1 <= 1


@pytest.mark.parametrize("page", ["", "   ", "<p></p>", "<script>x</script>", "<!-- x"])
def test_a_page_without_text(page):
    assert main_text(page, LONG_TEXTS) == ("", 0.0)


def test_a_lone_surrogate_does_no_harm():
    assert main_text(f"<p>{SENTENCE} \ud800!", LONG_TEXTS).text == f"{SENTENCE} ?!"


def test_of_two_copies_the_hidden_one_is_dropped():
    for hidden_first in (True, False):
        copies = [f"<div hidden><p>{SENTENCE}</p></div>", f"<div><p>{SENTENCE} Yes.</p></div>"]
        page = "".join(copies if hidden_first else copies[::-1])
        assert main_text(page, LONG_TEXTS).text == f"{SENTENCE} Yes."


def test_two_hidden_copies_do_not_drop_each_other():
    """A page that a script shows, in two widths, or with a text twice."""
    for page in (
        f"<div hidden><p>{SENTENCE}</div><div hidden><p>{SENTENCE}</div>",
        f"<div hidden><p>{SENTENCE}<p>{SENTENCE}</div><p>And what is shown is something else.",
    ):
        assert main_text(page, LONG_TEXTS).text.count(SENTENCE) == 2


def test_hidden_text_that_stands_nowhere_else_may_be_kept():
    page = f"<div hidden><p>{SENTENCE}</p></div><p>Some other words that are not at all the same."
    assert SENTENCE in main_text(page, LONG_TEXTS).text


def test_copies_that_are_both_shown_are_kept():
    assert main_text(f"<p>{SENTENCE}<p>{SENTENCE}", LONG_TEXTS).text == f"{SENTENCE}\n\n{SENTENCE}"


def test_comments_may_be_left_out():
    page = f"<p>{SENTENCE}</p><div class=comment-list><p>{SENTENCE} So I say.</p></div>"
    assert main_text(page, LONG_TEXTS).text == f"{SENTENCE}\n\n{SENTENCE} So I say."
    assert main_text(page, LONG_TEXTS, comments=False).text == SENTENCE


def test_the_shipped_model_tells_a_text_from_a_menu():
    links = "".join(f"<li><a href=/{i}>Page {i}</a></li>" for i in range(9))
    article = "".join(f"<p>{SENTENCE} It is paragraph {i}.</p>" for i in range(9))
    page = f"<nav><ul>{links}</ul></nav><article><h1>Foxes</h1>{article}</article>"
    found = main_text(page, load().model)
    assert "Page 3" not in found.text
    assert found.text.count(SENTENCE) == 9


def test_a_page_gives_the_same_text_after_any_other():
    (batch, *_) = read_records(str(sorted(DUMPS.glob("*.warc.gz"))[0]))
    payloads = [payload for payload in batch["payload"].to_pylist() if payload][:40]
    pages = [payload.decode("utf-8", "replace") for payload in payloads]
    model = load().model
    before = [main_text(page, model) for page in pages]
    assert sum(len(found.text) > 100 for found in before) > 30
    assert [main_text(page, model) for page in reversed(pages)] == before[::-1]


# --- files ---------------------------------------------------------------------------------------


def contents_of(**changed) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **{**arrays_of(LONG_TEXTS), **changed})
    return file.getvalue()


def test_a_model_is_read_as_it_was_written():
    found = read(contents_of())
    for name in ("first", "second"):
        for ours, theirs in zip(getattr(found, name), getattr(LONG_TEXTS, name), strict=True):
            assert np.array_equal(ours, theirs)
            assert np.asarray(ours).dtype == np.asarray(theirs).dtype
    assert np.array_equal(found.probabilities, LONG_TEXTS.probabilities)


def test_a_model_of_other_features_is_refused():
    """Or of other words that they count: their digest is not that of this version."""
    with pytest.raises(ArtifactInvalid, match=r"other features.*jobs/train_extractor\.py"):
        read(contents_of(meaning=np.array("0" * 64)))


def test_comments_can_be_left_out():
    text = (
        "<p>The committee published a long report about rivers, and nobody disagreed with it.</p>"
    )
    reply = "<p>I read that report twice, and I still have several questions about the rivers.</p>"
    model = load().model
    page = f"<main>{text * 3}<div class=comment-list>{reply}</div></main>"
    assert "several questions" not in main_text(page, model, comments=False).text
    assert "committee" in main_text(page, model, comments=False).text
    for name in ("has-comments", "no-comments", "commentary"):  # a name of the commented text
        page = f"<main><p>In short, {text[3:]}<div class='post {name}'>{text * 3}</div></main>"
        assert main_text(page, model, comments=False) == main_text(page, model)
    whole = f"<main class='post comments'>{text * 3}</main>"  # nothing else is there
    assert main_text(whole, model, comments=False) == main_text(whole, model)
    assert "committee" in main_text(whole, model).text


def test_the_shipped_model_fits_the_features():
    model = load().model
    for made, num_features in (
        (model.first, len(FEATURES)),
        (model.second, len(FEATURES) + len(SECOND_FEATURES)),
    ):
        num_trees, depth = made.features.shape
        assert made.thresholds.shape == (num_trees, depth)
        assert made.leaves.shape == (num_trees, 2**depth)
        assert made.features.dtype == np.int16
        assert made.thresholds.dtype == np.float32
        assert made.leaves.dtype == np.int32
        assert made.features.min() >= 0
        assert made.features.max() < num_features
    table = model.probabilities
    assert table.shape == (TABLE_SIZE,)
    assert (np.diff(table) >= 0).all()
    assert 0 <= table[0] <= table[-1] <= 1


def test_pages_go_to_trafilatura_by_the_quantiles_of_the_card():
    extractor = Extractor(LONG_TEXTS, tuple(i / 100 for i in range(101)))
    assert least_expected(extractor, 0.0) == 0
    assert least_expected(extractor, 0.1) == pytest.approx(0.1)
    assert least_expected(extractor, 1.0) > 1  # all, however sure
    assert least_expected(Extractor(LONG_TEXTS, (0.2, 0.8, 1.0)), 0.25) == pytest.approx(0.5)

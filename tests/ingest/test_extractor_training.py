"""Training of the extractor: alignment, labels, folds, gold sets, and a model of made sites."""

import gzip
import importlib.util
import json
import random
import sys
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.engine.train_models import train_extractor
from curation.errors import (
    ConfigError,
    InputInvalid,
    InputMissing,
    PrerequisiteMissing,
    explained,
)
from curation.ingest import extractor_training
from curation.ingest.block_features import FEATURES, SECOND_FEATURES
from curation.ingest.extractor_training import (
    GOLD,
    NUM_FOLDS,
    Page,
    contents_of,
    example,
    f1,
    interval,
    make,
    read_gold,
    text_of,
    train,
)
from curation.ingest.main_text import LOGIT, TABLE_SIZE, Forest, Model, load, read

needs_catboost = pytest.mark.skipif(
    not importlib.util.find_spec("catboost"),
    reason="needs CatBoost: pip install 'curation[extractor]'",
)


# --- alignment -----------------------------------------------------------------------------------


def aligned(page: list[int], gold: list[int]) -> list[bool]:
    found = extractor_training._align(np.array(page, np.int64), np.array(gold, np.int64))
    return found.tolist()


def best_score(page: tuple[int, ...], gold: tuple[int, ...]) -> int:
    """The best that any alignment reaches: 1 a word, 3 where it goes on a run."""

    @cache
    def best(i: int, j: int, in_run: bool) -> int:
        if i == len(page) or j == len(gold):
            return 0
        found = max(best(i + 1, j, False), best(i, j + 1, False))
        if page[i] == gold[j]:
            found = max(found, (3 if in_run else 1) + best(i + 1, j + 1, True))
        return found

    return best(0, 0, False)


def score_of(page: list[int], gold: list[int], kept: list[bool]) -> int:
    """The best of the alignments that have just these words of the page."""

    @cache
    def best(i: int, j: int, in_run: bool) -> float:
        if i == len(page):
            return 0
        found = -np.inf
        if not kept[i]:
            return best(i + 1, j, False)
        if j == len(gold):
            return found
        if page[i] == gold[j]:
            found = (3 if in_run else 1) + best(i + 1, j + 1, True)
        return max(found, best(i, j + 1, False))

    return int(max(best(0, 0, False), -1))


few_words = st.lists(st.integers(0, 3), max_size=9)


@given(few_words, few_words)
def test_no_alignment_is_better(page, gold):
    found = aligned(page, gold)
    assert len(found) == len(page)
    assert score_of(page, gold, found) == best_score(tuple(page), tuple(gold))


@given(st.lists(st.integers(0, 5), max_size=30))
def test_a_page_that_is_its_gold_text_is_aligned_whole(page):
    assert aligned(page, page) == [True] * len(page)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 20))
def test_a_part_of_distinct_words_is_aligned_and_nothing_else(before, size, after):
    page = list(range(before + size + after))
    gold = page[before : before + size]
    assert aligned(page, gold) == [word in gold for word in page]
    assert aligned(gold, page) == [True] * size


def test_words_in_another_order_are_not_aligned_both():
    assert sum(aligned([1, 2], [2, 1])) == 1
    assert aligned([1, 2, 3, 4], [3, 4, 1]) == [False, False, True, True]


def test_runs_count_more_than_single_words():
    """The words of the text, once in a menu and once as they stand in it."""
    menu, text = [1, 9, 2, 9, 3, 9, 4, 8], [1, 2, 3, 4]
    assert aligned(menu + text, text) == [False] * 8 + [True] * 4
    assert aligned(text + menu, text) == [True] * 4 + [False] * 8


def test_nothing_is_aligned_to_nothing():
    assert aligned([], [1]) == []
    assert aligned([1, 1], []) == [False, False]


# --- labels --------------------------------------------------------------------------------------


def labels(html: str, gold: str) -> list[float]:
    made = example(Page("a", "1", "a.org", html.encode(), gold))
    return made.labels.tolist()


def test_labels_are_shares_of_words():
    html = "<nav>Home News</nav><p>One two three four.</p><p>Five six</p><p>—</p><p>The end</p>"
    assert labels(html, "One two three four. Five") == [0, 1, 0.5, 0, 0]
    assert labels(html, "") == [0] * 5
    assert labels(html, "Nothing of it") == [0] * 5
    assert labels("<p>one<p>TWO, <b>Thrée</b>", "One two: three") == [1, 1]


def test_words_behind_the_longest_page_are_not_main_text(monkeypatch):
    monkeypatch.setattr(extractor_training, "MAX_WORDS", 3)
    assert labels("<p>a b<p>c d<p>e", "a b c d e") == [1, 0.5, 0]


def test_an_example_is_the_page_as_the_engine_reads_it():
    html = "<meta charset=latin1><p>café \x01naïve".encode("latin-1")
    made = example(Page("a", "1", "a.org", html, "café naïve"))
    assert made.blocks.text.tobytes().decode() == "café naïve"
    assert made.labels.tolist() == [1]
    assert made.features.shape == (len(FEATURES), 1)


@pytest.mark.parametrize("html", [b"", b"<p></p>", b"<script>x</script>"])
def test_a_page_without_blocks_is_no_example(html):
    assert example(Page("a", "1", "a.org", html, "x")) is None


def test_a_site_is_in_one_fold():
    html = b"<p>Some words."
    sites = [f"site{i % 40}.org" for i in range(200)]
    examples = [example(Page("a", "1", site, html, "")) for site in sites]
    folds = extractor_training._folds(examples)
    assert len(set(zip(sites, folds, strict=True))) == 40
    assert set(folds) == set(range(NUM_FOLDS))
    # whatever else there is
    assert extractor_training._folds(examples[7:8]) == folds[7:8]
    other = [example(Page("b", "1", site, b"<p>Other.", "x")) for site in sites[:40]]
    assert extractor_training._folds(other) == folds[:40]


def test_a_site_is_the_registered_domain():
    for url, site in (
        ("https://www.example.org/a?b", "example.org"),
        ("https://docs.python.org/3/", "python.org"),
        ("http://127.0.0.1/x", "127.0.0.1"),
    ):
        assert extractor_training._site(url) == site


# --- gold sets -----------------------------------------------------------------------------------


def gold_set(folder, lines: list[object], pages: dict[str, bytes]):
    (folder / "html" / "part").mkdir(parents=True)
    with gzip.open(folder / GOLD, "wt", encoding="utf-8") as file:
        file.writelines(
            (line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines
        )
    for i, (name, html) in enumerate(pages.items()):
        parent = folder / "html" / ("part" if i % 2 else ".")
        (parent / f"{name}.html.gz").write_bytes(gzip.compress(html))
    return folder


def test_a_gold_set_is_read_in_its_order(tmp_path):
    lines = [
        {"id": "b", "text": "Té", "url": "https://www.example.org/x"},
        {"id": "a", "main_content": "M", "url": None},
        {"id": 7, "articleBody": None},
        {"id": "d.e", "content": "C"},
    ]
    pages = {"a": b"<p>a", "b": b"<p>b", "7": b"<p>\xff", "d.e": b""}
    folder = gold_set(tmp_path / "news", lines, pages)
    assert read_gold(folder) == [
        Page("news", "b", "example.org", b"<p>b", "Té"),
        Page("news", "a", "a.invalid", b"<p>a", "M"),
        Page("news", "7", "7.invalid", b"<p>\xff", ""),
        Page("news", "d.e", "e.invalid", b"", "C"),
    ]


def test_a_folder_without_gold_is_told(tmp_path):
    with pytest.raises(InputMissing, match=rf"{GOLD} is missing; name a folder with"):
        read_gold(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "7",
        "null",
        {"text": "x"},
        {"id": "a"},
        {"id": "a", "body": "x"},
        {"id": "absent", "text": "x"},
        {"id": "torn", "text": "x"},
        {"id": "plain", "text": "x"},
    ],
)
def test_a_line_that_is_no_gold_is_told(tmp_path, line):
    folder = gold_set(tmp_path / "a", [{"id": "a", "text": "x"}, line], {"a": b"<p>a"})
    whole = gzip.compress(b"<p>a page that is cut off")
    (folder / "html" / "torn.html.gz").write_bytes(whole[:-12])
    (folder / "html" / "plain.html.gz").write_bytes(b"<p>no gzip")
    with pytest.raises(InputInvalid, match=rf"a/{GOLD}, line 2: needs JSON with id, one of text"):
        read_gold(folder)


# --- figures and files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "gold", "expected"),
    [
        ("a b c", "a b c", 1.0),
        ("A, b. C", "c b a", 1.0),  # bags: order and case do not matter
        ("a b", "c d", 0.0),
        ("", "a", 0.0),
        ("a a a", "a", 0.5),  # precision 1/3, recall 1
        ("a", "a b c", 0.5),
        ("a", "", None),
        ("a", "—", None),
    ],
)
def test_f1_of_two_texts(found, gold, expected):
    assert f1(found, gold) == expected


def test_an_interval_holds_the_mean():
    scores = random.Random(1).choices([0.0, 0.5, 1.0], k=400)
    mean, low, high = interval(scores)
    assert mean == pytest.approx(sum(scores) / 400)
    deviation = float(np.std(scores)) / 20
    assert low == pytest.approx(mean - 1.96 * deviation, abs=deviation / 2)
    assert high == pytest.approx(mean + 1.96 * deviation, abs=deviation / 2)
    assert interval([0.25]) == (0.25, 0.25, 0.25)


def test_the_table_of_probabilities_is_the_logistic_function():
    table = extractor_training._probabilities()
    logits = (np.arange(TABLE_SIZE) - TABLE_SIZE / 2 + 0.5) / 64
    assert np.allclose(table, 1 / (1 + np.exp(-logits)))
    assert np.allclose(table + table[::-1], 1)


def test_a_forest_of_catboost_is_read():
    """Two trees of one and two splits; the leaf of a tree has the bit of each split that holds."""
    made = extractor_training._forest(
        {
            "features_info": {
                "float_features": [
                    {"feature_index": 0, "flat_feature_index": 3},
                    {"feature_index": 1, "flat_feature_index": 8},
                ]
            },
            "oblivious_trees": [
                {"splits": [{"float_feature_index": 1, "border": 0.5}], "leaf_values": [1.0, -2.0]},
                {
                    "splits": [
                        {"float_feature_index": 0, "border": 2.5},
                        {"float_feature_index": 1, "border": 7.5},
                    ],
                    "leaf_values": [0.5, 0.25, 0.0, -1.0],
                },
                {"splits": None, "leaf_values": [3.0]},
            ],
            "scale_and_bias": [2.0, [0.125]],
        }
    )
    assert made.features[:, :2].tolist() == [[8, 0], [3, 8], [0, 0]]
    assert made.thresholds[0].tolist() == [0.5] + [np.inf] * (made.thresholds.shape[1] - 1)
    assert made.thresholds[1, :2].tolist() == [2.5, 7.5]
    assert made.leaves[0, :2].tolist() == [2 * LOGIT, -4 * LOGIT]
    assert made.leaves[1, :4].tolist() == [LOGIT, LOGIT // 2, 0, -2 * LOGIT]
    assert made.leaves[2, 0] == 6 * LOGIT
    assert made.bias == LOGIT // 8


def test_a_model_is_the_same_bytes_twice():
    rng = np.random.default_rng(1)
    one, two = (
        Forest(
            rng.integers(0, 50, (20, 6)).astype(np.int16),
            rng.normal(size=(20, 6)).astype(np.float32),
            rng.integers(-99, 99, (20, 64)).astype(np.int32),
            7,
        )
        for _ in range(2)
    )
    made = Model(one, two, extractor_training._probabilities())
    contents = contents_of(made)
    assert contents == contents_of(read(contents))
    assert contents != contents_of(made._replace(second=one))


def test_training_without_catboost_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "catboost", None)
    made = example(Page("a", "1", "a.org", b"<p>x", "x"))
    with pytest.raises(PrerequisiteMissing, match=r"pip install 'curation\[extractor\]'"):
        train([made])


# --- a model of made sites -----------------------------------------------------------------------

NOUNS = ("fox", "dog", "wizard", "river", "mountain", "engine", "letter", "window", "garden")


def sentence(rng: random.Random) -> str:
    words = [rng.choice(NOUNS) for _ in range(rng.randrange(8, 20))]
    return f"The {' and the '.join(words)} were seen by {rng.choice(NOUNS)}s."


def made_page(site: int, number: int) -> Page:
    """A page of a made site: a menu, a text, links to others, a foot; each site has its markup."""
    rng = random.Random(100 * site + number)
    title = f"{rng.choice(NOUNS).title()} {number}"
    text = [" ".join(sentence(rng) for _ in range(3)) for _ in range(rng.randrange(3, 9))]
    links = [f"<a href=/{i}>{rng.choice(NOUNS).title()} of {i}</a>" for i in range(8)]
    foot = "Copyright 2024, all rights reserved. Terms and privacy."
    if site == 0:
        html = (
            f"<ul class=nav><li>{'<li>'.join(links)}</ul><article><h1>{title}</h1>"
            f"<p>{'<p>'.join(text)}</article><div class=footer>{foot}</div>"
        )
    elif site == 1:
        html = (
            f"<nav>{' '.join(links)}</nav><div class=post><h2>{title}</h2>"
            f"<div>{'</div><div>'.join(text)}</div></div>"
            f"<aside><h3>Related</h3>{'<br>'.join(links[:4])}</aside><footer>{foot}</footer>"
        )
    else:
        html = (
            f"<table><tr><td>{'<br>'.join(links)}<td><h1>{title}</h1>{'<br><br>'.join(text)}"
            f"</table><p>{foot} {' | '.join(links[:3])}"
        )
    return Page(
        "made", f"{site}-{number}", f"site{site}.org", html.encode(), "\n\n".join([title, *text])
    )


@needs_catboost
def test_a_model_of_two_sites_knows_the_text_of_a_third(monkeypatch):
    monkeypatch.setattr(extractor_training, "NUM_TREES", 40)
    pages = [made_page(site, number) for site in range(3) for number in range(10)]
    examples = [example(page) for page in pages]
    for site in range(3):
        known = [each for each in examples if each.page.site != f"site{site}.org"]
        model = train(known)
        scores = [
            f1(text_of(each, model)[0], each.page.gold)
            for each in examples
            if each.page.site == f"site{site}.org"
        ]
        assert len(scores) == 10
        assert sum(scores) / 10 > 0.9, site
    assert model.first.features.max() < len(FEATURES)
    assert model.second.features.max() < len(FEATURES) + len(SECOND_FEATURES)
    assert contents_of(train(known)) == contents_of(model)  # deterministic


@needs_catboost
def test_a_forest_is_what_catboost_predicts(monkeypatch):
    """Its probabilities, to a step of the table."""
    from catboost import CatBoostClassifier

    from curation.ingest.main_text import likelihood

    monkeypatch.setattr(extractor_training, "NUM_TREES", 20)
    fitted = []

    class Recorded(CatBoostClassifier):
        def fit(self, *arguments, **options):
            fitted.append(self)
            return super().fit(*arguments, **options)

    monkeypatch.setattr("catboost.CatBoostClassifier", Recorded)
    examples = [example(made_page(site, number)) for site in range(3) for number in range(4)]
    forest = extractor_training._fit(examples, [each.features for each in examples], 0)
    features = np.concatenate([each.features for each in examples], axis=1)
    expected = fitted[0].predict_proba(features.T)[:, 1]
    found = likelihood(features, forest, extractor_training._probabilities())
    assert np.abs(found - expected).max() < 1 / 64  # a step of a logit is at most 1/256
    assert found.max() - found.min() > 0.5


@needs_catboost
def test_a_model_and_its_card_are_written(monkeypatch, tmp_path):
    monkeypatch.setattr(extractor_training, "NUM_TREES", 8)
    pages = [made_page(site, number) for site in range(3) for number in range(3)]
    pages.append(
        Page("made", "empty", "empty.org", b"<p></p>", "Some text that is not in the page")
    )
    to = tmp_path / "main-text.json"
    told = []
    held_out = tmp_path / "held-out.jsonl"
    card = extractor_training.make(pages, to, sources=["made"], held_out=held_out, tell=told.append)
    assert json.loads(to.read_text()) == json.loads(json.dumps(card))
    assert told[0] == "10 pages, 9 of them with text"
    score = card["cross_validation"]["made"]
    assert score["num_pages"] == 10
    assert 0.3 < score["low"] <= score["f1"] <= score["high"] <= 1
    rows = [json.loads(line) for line in held_out.read_text().splitlines()]
    assert [(row["set"], row["id"]) for row in rows] == [(page.set, page.id) for page in pages]
    scores = [f1(row["text"], page.gold) for row, page in zip(rows, pages, strict=True)]
    assert score["f1"] == pytest.approx(sum(scores) / 10, abs=1e-4)
    assert scores[-1] == 0
    quantiles = card["expected_f1_quantiles"]
    assert len(quantiles) == 101
    assert quantiles == sorted(quantiles)
    found = load(str(to))
    assert found.model.first.features.shape == (8, 6)
    assert found.expected_f1_quantiles == tuple(quantiles)


def test_too_few_pages_are_an_error_of_the_user(tmp_path):
    with pytest.raises(InputInvalid, match=r"0 pages with text in 0 of 5 folds.*more pages"):
        make([], tmp_path / "card.json")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "main-text.npz"], "a name that ends in .json"),
        (["--to", "no/such/main-text.json"], "no/such/main-text.json cannot be written"),
        (["--held-out", "no/texts.jsonl"], "no/texts.jsonl cannot be written"),
        (["--teacher-weight", "0"], "--teacher-weight is 0; a weight is a number above 0"),
        (["--teacher-weight", "nan"], "--teacher-weight is nan"),
        (["--teacher-weight", "inf"], "--teacher-weight is inf"),
        (["--held-out", "."], r"\. cannot be written; name a file"),
    ],
)
def test_options_are_checked_before_the_long_work(
    options: list[str], message: str, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message) as caught:
        train_extractor(["--gold", "none", "--to", "main-text.json", *options])
    assert explained(caught.value).endswith("#extraction)")

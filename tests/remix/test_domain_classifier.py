import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation import models
from curation.errors import ArtifactChanged, ArtifactInvalid, ConfigError, InputMissing
from curation.quality.scores import score
from curation.quality.segmentation import segment
from curation.remix.domain_classifier import (
    MAX_WORDS,
    Training,
    classify,
    features,
    load,
    metrics,
    train,
)

HAS_FASTTEXT = shutil.which("fasttext") or os.access(
    Path(sys.executable).parent / "fasttext", os.X_OK
)
needs_fasttext = pytest.mark.skipif(
    not HAS_FASTTEXT, reason="needs fastText's program: make fasttext-tool"
)
WORDS = {
    "code": ["compile", "function", "pointer", "struct", "loop", "variable", "return", "buffer"],
    "maths": ["theorem", "ring", "ideal", "proof", "polynomial", "integral", "group", "field"],
    "prose": ["river", "garden", "morning", "friend", "letter", "window", "winter", "bread"],
}


def texts(label, num):
    rng = np.random.default_rng(len(label))
    return [" ".join(rng.choice([*WORDS[label], "the", "of", "a"], 30)) for _ in range(num)]


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    if not HAS_FASTTEXT:
        pytest.skip("needs fastText's program: make fasttext-tool")
    path = tmp_path_factory.mktemp("domains") / "domains.json"
    train({label: [texts(label, 60)] for label in WORDS}, path, training=Training(epoch=30))
    return path


def test_it_tells_the_labels_it_was_shown(card):
    classifier = load(str(card))
    for label in WORDS:
        found = classify(pa.array(texts(label, 90)[60:]), classifier)
        assert found.label.to_pylist() == [label] * 30
        assert all(0.34 < value <= 1 for value in found.score.to_pylist())


def test_the_card_says_what_was_done(card):
    found = models.card(str(card), models.sha256(str(card)), "domains")
    assert found["labels"] == ["code", "maths", "prose"]
    assert found["held_out"]["macro_f1"] == 1.0
    for label in WORDS:
        data = found["data"][label]
        assert data["num_texts"] == 60
        assert found["held_out"]["taken_for"][label] == {label: data["num_held_out"]}


def test_nulls_and_texts_without_a_word(card):
    found = classify(pa.array([None, "", "\u4e2d"]), load(str(card)))
    assert found.label.to_pylist()[:2] == [None, None]
    assert found.score.to_pylist()[:2] == [None, None]


def test_annotate_scores_with_it_in_any_language(card):
    text = pa.array(["theorem proof of a ring", "theorem proof of a ring", None])
    cards = {str(card): models.sha256(str(card))}
    found = score(text, pa.array(["en", "de", "en"]), cards)
    assert found["domain_label"].to_pylist() == ["maths", "maths", None]
    assert found["quality_score"].null_count == 3


def test_an_altered_model_is_refused(card, tmp_path):
    for file in card.parent.iterdir():
        shutil.copy(file, tmp_path)
    with (tmp_path / "domains.bin").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArtifactChanged, match=r"domains\.bin has sha256"):
        load(str(tmp_path / "domains.json"))
    (tmp_path / "domains.json").write_text("{}")
    with pytest.raises(ArtifactInvalid, match="train-domains"):
        load(str(tmp_path / "domains.json"))


@pytest.mark.parametrize(
    ("found", "to", "training", "message"),
    [
        ({"a": [["x"]]}, "d.json", Training(), "1 labels; .* at least two"),
        ({"a": [["x"]], "b c": [["y"]]}, "d.json", Training(), "label 'b c' has a space"),
        ({"a": [["x"]], "b": [["y"]]}, "d.txt", Training(), "ends in .json"),
        ({"a": [["x"]], "b": [["y"]]}, "d.json", Training(dim=0), "dim is 0"),
    ],
)
def test_mistakes(found, to, training, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        train(found, tmp_path / to, training=training)


@needs_fasttext
def test_too_few_texts_are_named(tmp_path):
    with pytest.raises(InputMissing, match=r"2 texts are labelled b; .* needs 20 of each"):
        train({"a": [texts("code", 30)], "b": [texts("maths", 2)]}, tmp_path / "d.json")


TEXTS = st.lists(st.none() | st.text("ab c,;(1\n\u4e2d", max_size=30), max_size=5)


@given(TEXTS, st.integers(0, 5))
def test_features_are_the_distinct_words_after_the_steps(found, split):
    whole = features(pa.array(["pad", *found], pa.string())[1:]).to_pylist()
    parts = [
        features(pa.array(part, pa.string())).to_pylist() for part in (found[:split], found[split:])
    ]
    assert parts[0] + parts[1] == whole
    for text, line in zip(found, whole, strict=True):
        if text is None:
            assert line is None
            continue
        if not line:
            assert not segment(pa.array([text], pa.large_string())).text[0].as_py()
            continue
        steps, words = line.split(" ")[:8], [word for word in line.split(" ")[8:] if word]
        assert [len(set(steps[:4])), len(set(steps[4:]))] == [1, 1]
        expected = segment(pa.array([text], pa.large_string())).text[0].as_py().split()
        assert words == list(dict.fromkeys(expected))


def test_a_long_text_is_known_by_its_first_words():
    def name(i):
        return "".join(chr(97 + int(digit)) for digit in str(i))

    text = " ".join(f"w{name(i)}" for i in range(MAX_WORDS + 100))
    assert len(features(pa.array([text, "after it"]))[0].as_py().split()) == MAX_WORDS + 8
    assert features(pa.array([text, "after it"]))[1].as_py().endswith("after it")


def test_metrics_by_hand():
    found = metrics({"a": {"a": 8, "b": 2}, "b": {"b": 5, "a": 1, None: 4}})
    assert found["by_label"]["a"] == pytest.approx(
        {"precision": 8 / 9, "recall": 0.8, "f1": 16 / 19}
    )
    assert found["by_label"]["b"] == pytest.approx(
        {"precision": 5 / 7, "recall": 0.5, "f1": 10 / 17}
    )
    assert found["macro_f1"] == pytest.approx((16 / 19 + 10 / 17) / 2)

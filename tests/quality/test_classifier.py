"""The classifier: scores are fastText's own, training learns what it is shown, cards say it."""

import json
import random
from pathlib import Path

import fasttext
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import models
from curation.errors import (
    ArtifactChanged,
    ArtifactInvalid,
    ConfigError,
    InputMissing,
    PrerequisiteMissing,
)
from curation.quality import tools
from curation.quality.classifier import Training, auc, load, metrics, score, threshold, train
from curation.quality.segmentation import segment


def has_fasttext() -> bool:
    try:
        return bool(tools.find_tool("fasttext"))
    except PrerequisiteMissing:
        return False


needs_fasttext = pytest.mark.skipif(
    not has_fasttext(), reason="fasttext is missing: make fasttext-tool"
)
SMALL = Training(dim=8, bucket=1000, lr=0.5, epoch=20, held_out=0.2)


def texts(kind: str, num: int, language: str = "en") -> list[str]:
    """Texts of two kinds that share most of their words; Chinese ones have no spaces."""
    pick = random.Random(kind + language)
    shared = [f"word{i}" for i in range(40)] if language == "en" else list("天地玄黄宇宙洪荒日月")
    own = {"good": ["lemma", "proof", "theorem"], "bad": ["casino", "bonus", "click"]}[kind]
    if language == "zh":
        own = {"good": ["定理", "证明"], "bad": ["赌场", "彩金"]}[kind]
    joined = " " if language == "en" else ""
    return [joined.join(pick.choices(shared, k=30) + pick.choices(own, k=4)) for _ in range(num)]


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("model") / "quality-en.json"
    good, bad = texts("good", 200), texts("bad", 200)
    sources = {"hq": ["good.jsonl"], "cc": ["bad.jsonl"]}
    train([good[:50], good[50:]], [bad], to, language="en", training=SMALL, sources=sources)
    return to


@needs_fasttext
def test_scores_are_those_of_fasttext(card: Path) -> None:
    raw = fasttext.load_model(str(card.with_suffix(".bin")))
    model = load(str(card))
    chosen = [*texts("good", 5), *texts("bad", 5), "", "...", None, "A Lemma!", "click\nBONUS"]
    lines = segment(pa.array(chosen)).text.to_pylist()
    expected = []
    for line in lines:
        if not line:
            expected.append(None)
            continue
        found = {label: p for p, label in raw.f.predict(line, 2, 0.0, "strict")}
        known = found.get("__label__hq")  # nothing is said of words that were never seen
        expected.append(None if known is None else pytest.approx(known, abs=1e-4))
    found = score(pa.array(chosen), model)
    assert found.to_pylist() == expected
    assert found.type == pa.float64()


@needs_fasttext
@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.none() | st.text(max_size=40) | st.sampled_from(texts("good", 3)), max_size=6),
    st.integers(0, 6),
)
def test_scores_do_not_depend_on_the_batch(
    card: Path, chosen: list[str | None], split: int
) -> None:
    model, array = load(str(card)), pa.array(chosen, pa.string())
    parts = [score(array[:split], model), score(array[split:], model)]
    assert pa.concat_arrays(parts).equals(score(array, model))
    assert all(0 <= value <= 1 for value in parts[0].drop_null().to_pylist())


@needs_fasttext
@pytest.mark.parametrize("language", ["en", "zh"])
def test_it_tells_the_kinds_it_was_shown(language: str, tmp_path: Path) -> None:
    to = tmp_path / "quality.json"
    good, bad = texts("good", 300, language), texts("bad", 300, language)
    shown = train([good], [bad], to, language=language, training=SMALL)
    assert shown["held_out"]["auc"] > 0.95
    unseen = texts("good", 340, language)[300:], texts("bad", 340, language)[300:]
    scores = [np.asarray(score(pa.array(each), load(str(to)))) for each in unseen]
    assert auc(*scores) > 0.95


@needs_fasttext
def test_the_card_says_what_was_done(card: Path) -> None:
    said = json.loads(card.read_text())
    assert (said["kind"], said["language"]) == ("classifier", "en")
    assert said["files"] == {"quality-en.bin": models.sha256(str(card.with_suffix(".bin")))}
    assert said["data"]["hq"]["sources"] == ["good.jsonl"]
    for label in ("hq", "cc"):
        assert said["data"][label]["num_texts"] == 200
        assert 20 <= said["data"][label]["num_held_out"] <= 60  # a fifth, by hash
    assert said["training"]["dim"] == 8
    assert set(said["thresholds"]["by_share"]) >= {"0.1", "0.5"}


@needs_fasttext
def test_the_threshold_keeps_the_wished_share_of_the_reference(tmp_path: Path) -> None:
    to = tmp_path / "q.json"
    good, bad = texts("good", 100), texts("bad", 100)
    reference = texts("good", 30)[:10] + texts("bad", 30)
    training = Training(**{**vars(SMALL), "keep_share": 0.25})
    said = train([good], [bad], to, language="en", training=training, reference=[reference])
    scores = np.asarray(score(pa.array(reference), load(str(to))))
    kept = (scores >= said["thresholds"]["threshold"]).mean()
    assert kept == pytest.approx(0.25)
    assert said["thresholds"]["of"] == "reference"


@needs_fasttext
def test_an_altered_model_is_refused(card: Path, tmp_path: Path) -> None:
    for path in card.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with (tmp_path / "quality-en.bin").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ArtifactChanged, match=r"quality-en.bin has sha256"):
        load(str(tmp_path / card.name))


@needs_fasttext
def test_too_few_texts_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match=r"3 texts are labelled cc.*needs 20"):
        train([texts("good", 50)], [["a b", "c d", "e f"]], tmp_path / "q.json", language="en")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (Training(dim=0), r"dim is 0; it must be between 1 and 1000"),
        (Training(keep_share=0), r"keep_share is 0"),
        (Training(held_out=1.0), r"held_out is 1.0"),
        (Training(word_ngrams=9), r"word_ngrams is 9"),
    ],
)
def test_numbers_out_of_range_are_named(training: Training, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        train([["a"]], [["b"]], tmp_path / "q.json", language="en", training=training)


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrerequisiteMissing, match=r"fasttext.*make fasttext-tool"):
        train([["a"]], [["b"]], tmp_path / "q.json", language="en")


def test_what_fasttext_says_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "fasttext"
    program.write_text("#!/bin/sh\necho 'Encountered NaN.' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(ArtifactInvalid, match=r"fastText ended with 1: Encountered NaN"):
        train([texts("good", 60)], [texts("bad", 60)], tmp_path / "q.json", language="en")
    assert [path.name for path in tmp_path.iterdir()] == ["fasttext"]


SCORES = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=12)


@given(SCORES, SCORES)
def test_auc_is_the_share_of_ordered_pairs(high: list[float], low: list[float]) -> None:
    pairs = [(h > x) + 0.5 * (h == x) for h in high for x in low]
    assert auc(np.array(high), np.array(low)) == pytest.approx(sum(pairs) / len(pairs))


@given(SCORES, st.floats(0.01, 1))
def test_threshold_is_the_highest_that_keeps_the_share(scores: list[float], share: float) -> None:
    found = threshold(np.array(scores), share)
    kept = sum(score >= found for score in scores)
    above = sum(score > found for score in scores)
    assert kept >= share * len(scores) - 1e-9
    assert above < share * len(scores)


def test_metrics_by_hand() -> None:
    found = metrics(np.array([0.9, 0.8, 0.2]), np.array([0.7, 0.1]))
    assert found == pytest.approx(
        {"auc": 5 / 6, "precision": 2 / 3, "recall": 2 / 3, "accuracy": 3 / 5}
    )

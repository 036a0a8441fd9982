"""Which model scores which text; and what is said of models and lists that are not as they were."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from curation import models
from curation.errors import ArtifactInvalid, ConfigError, PrerequisiteMissing
from curation.quality import perplexity, tools
from curation.quality.scores import check_models, score
from curation.quality.signals import SCORES

QUALITY = Path(perplexity.__file__).parent
CARDS = {
    str(path): models.sha256(str(path)) for path in sorted((QUALITY / "models").glob("*.json"))
}


def test_each_language_is_scored_by_its_model() -> None:
    text = pa.array(
        ["The host is installed.", "安装主机。", "Der Rechner.", "x", None, "。。。", "a"]
    )
    lang = pa.array(["en", "zh", "de", None, "en", "zh", "en"])
    found = score(text, lang, CARDS)
    for path, rows in zip(CARDS, ([0, 6], [1, 5]), strict=True):
        own = perplexity.score(text.take(pa.array(rows)), perplexity.load(path))
        for name in ("perplexity", "perplexity_char", "perplexity_bin"):
            assert found[name].take(pa.array(rows)).equals(own.field(name))
    others = pa.array([2, 3, 4])
    assert all(column.take(others).null_count == 3 for column in found.values())
    assert found["quality_score"].null_count == len(text)  # there is no classifier


@pytest.mark.parametrize("split", [0, 1, 3])
def test_scores_do_not_depend_on_the_batch(split: int) -> None:
    text = pa.array(["The host.", "主机。", "the disk", None])
    lang = pa.array(["en", "zh", "en", "en"])
    whole = score(text, lang, CARDS)
    parts = [score(text[a:b], lang[a:b], CARDS) for a, b in ((0, split), (split, 4))]
    for name, column in whole.items():
        assert pa.concat_arrays([part[name] for part in parts]).equals(column)


ELSEWHERE = ("num_private_spans", "code_share", "math_share")  # measured without a model


def test_columns_are_those_of_the_schema() -> None:
    expected = {s.name: s.type for s in SCORES if s.name not in ELSEWHERE}
    for cards, num_texts in (({}, 3), (CARDS, 0), (CARDS, 2)):
        found = score(pa.array(["a"] * num_texts, pa.string()), pa.array(["en"] * num_texts), cards)
        assert {name: column.type for name, column in found.items()} == expected
        assert all(len(column) == num_texts for column in found.values())


def test_two_models_of_a_kind_for_a_language_are_refused(tmp_path: Path) -> None:
    for path in (QUALITY / "models").glob("perplexity-en.*"):
        shutil.copy(path, tmp_path)
    cards = [(path, "") for path in (*CARDS, str(tmp_path / "perplexity-en.json"))]
    with pytest.raises(ConfigError, match=r"two perplexity models for en"):
        check_models(cards)
    assert check_models(cards[:2]) == 2


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps({"kind": "oracle", "language": "en", "files": {}}))
    with pytest.raises(ConfigError, match=r"c.json, a oracle; known kinds are classifier, perp"):
        check_models([(str(tmp_path / "c.json"), "")])


def test_lists_of_bad_words_are_read_once_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "en.txt"
    path.write_text("darn\n\n holy cow \n")
    files = {"en": (str(path), models.sha256(str(path)))}
    assert models.bad_words(files) is models.bad_words(files)
    assert models.bad_words(files).languages == ("en",)
    assert len(models.bad_words(files).terms) == 2
    assert models.bad_words({}).languages == ()
    for contents, message in ((b"\n\n", "holds no bad word"), (b"\xff", "is not UTF-8")):
        path.write_bytes(contents)
        with pytest.raises(ArtifactInvalid, match=message):
            models.bad_words({"en": (str(path), models.sha256(str(path)))})


def test_no_regular_expression_reads_a_text() -> None:
    """So none can take time that grows faster than the text; kernels have tests of their own."""
    sources = [path.read_text(encoding="utf-8") for path in QUALITY.glob("*.py")]
    assert len(sources) > 10
    assert not any(
        "import re\n" in source or "match_substring_regex" in source for source in sources
    )


def test_a_program_beside_python_comes_before_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("own", "path"):
        (tmp_path / folder).mkdir()
        program = tmp_path / folder / "lmplz"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr("sys.executable", str(tmp_path / "own" / "python"))
    assert tools.find_tool("lmplz") == tmp_path / "own" / "lmplz"
    (tmp_path / "own" / "lmplz").unlink()
    assert tools.find_tool("lmplz") == tmp_path / "path" / "lmplz"


@pytest.mark.parametrize(
    ("package", "missing", "apt"),
    [("kenlm", "g++", "libboost-thread-dev"), ("fasttext", "g++", "install g++")],
)
def test_what_a_build_needs_is_named_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, missing: str, apt: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(PrerequisiteMissing, match=rf"{missing.replace('+', '.')} is needed.*{apt}"):
        tools.build(package, tmp_path)

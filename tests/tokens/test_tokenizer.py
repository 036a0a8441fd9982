import hashlib
import json
import unicodedata

import pyarrow as pa
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from curation.errors import (
    ArtifactChanged,
    ArtifactError,
    ArtifactMissing,
    ConfigError,
    InputMissing,
)
from curation.tokens import tokenizer as kernel

CORPUS = [
    "The value is 12345 and the other value is 12345, said the house by the river.\n",
    "The river runs by the house; the house stands by the river, by 12345 rivers.\n\n\n",
    "\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c\u6211\u4eec\u53bb\u516c\u56ed\u3002"
    "\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c\u6211\u4eec\u53bbriver\u3002\r\n\r\n",
    "if value == 12345:\n        return house[12345]  # --------------------\n",
    "caf\u00e9 na\u00efve caf\u00e9 na\u00efve \u30b3\u30fc\u30d2\u30fc \u30b3\u30fc\u30d2\u30fc\n",
] * 3
VOCAB_SIZE = 500

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
MIXED = st.lists(st.sampled_from([*"".join(CORPUS), " ", "\n", "\r", "7"]), max_size=60).map(
    "".join
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    return path, kernel.train(iter([CORPUS]), VOCAB_SIZE, path)


@pytest.fixture(scope="module")
def tokenizer(trained):
    path, card = trained
    return kernel.load(path, card["sha256"])


def tokens_of(text, tokenizer):
    """The bytes of every token of a text."""
    byte_of = {char: byte for byte, char in byte_alphabet().items()}
    ids = kernel.encode(pa.array([text]), tokenizer)[0].as_py()
    return [bytes(byte_of[c] for c in tokenizer.model.id_to_token(i)) for i in ids]


def byte_alphabet():
    """GPT-2's bytes as characters: printable Latin-1 stands for itself, the rest from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(0x100 + i) for i, byte in enumerate(others)
    }


def test_digits_are_split_one_by_one(tokenizer):
    tokens = tokens_of("The value is 12345", tokenizer)
    assert tokens[-5:] == [b"1", b"2", b"3", b"4", b"5"]
    assert b"".join(tokens) == b"The value is 12345"
    assert len(tokens) < len("The value is 12345")  # and the words were merged


def test_no_token_of_the_vocabulary_crosses_a_boundary(tokenizer):
    byte_of = {char: byte for byte, char in byte_alphabet().items()}
    num_checked = 0
    for token in tokenizer.model.get_vocab():
        if token in kernel.SPECIAL_TOKENS:
            continue
        raw = bytes(byte_of[c] for c in token)
        if len(raw) > 1:
            assert b"\n" not in raw and b"\r" not in raw
            text = raw.decode(errors="ignore").strip()
            assert len(text) == 1 or not any(unicodedata.category(c)[0] == "N" for c in text)
            kinds = {
                "cjk" if c >= "\u3040" else "letter" if c.isalpha() else "punctuation" for c in text
            }
            assert len(kinds) <= 1, text
            num_checked += 1
    assert num_checked > 100


def test_pieces_of_hard_cases():
    split = pre_tokenizers.Split(tokenizers.Regex(kernel.PIECES), behavior="isolated")

    def pieces(text):
        return [piece for piece, _ in split.pre_tokenize_str(text)]

    assert pieces("don't  stop") == ["don", "'", "t", " ", " stop"]
    assert pieces("x = 3.14;") == ["x", " =", " ", "3", ".", "1", "4", ";"]
    assert pieces("a\r\n\n  b") == ["a", "\r", "\n", "\n", " ", " b"]
    assert pieces("caf\u00e9 e\u0301t\u00e9") == ["caf\u00e9", " e\u0301t\u00e9"]
    assert pieces("\u5929\u6c14abc\u30b3\u30fc\u30d2\u30fc\u3002") == [
        "\u5929\u6c14",
        "abc",
        "\u30b3\u30fc\u30d2\u30fc",
        "\u3002",
    ]
    assert pieces("\u00b2\u2167\u0663") == ["\u00b2", "\u2167", "\u0663"]


@settings(deadline=None)
@given(st.one_of(TEXT, MIXED))
def test_pieces_cover_the_text(text):
    split = pre_tokenizers.Split(tokenizers.Regex(kernel.PIECES), behavior="isolated")
    pieces = split.pre_tokenize_str(text)
    assert "".join(piece for piece, _ in pieces) == text
    # Splitting a piece again changes nothing: none was left over between two matches. Only spaces
    # depend on what follows them.
    for piece, _ in pieces:
        if not piece.isspace():
            assert len(split.pre_tokenize_str(piece)) == 1, pieces


@settings(deadline=None)
@given(st.lists(st.one_of(TEXT, MIXED), max_size=8))
def test_round_trip(tokenizer, texts):
    array = pa.array(texts, pa.string())
    assert kernel.decode(kernel.encode(array, tokenizer), tokenizer).to_pylist() == texts


@settings(deadline=None)
@given(st.one_of(TEXT, MIXED))
def test_no_token_crosses_a_line_break_and_bytes_are_kept(tokenizer, text):
    tokens = tokens_of(text, tokenizer)
    assert b"".join(tokens) == text.encode()
    assert all(len(t) == 1 for t in tokens if b"\n" in t or b"\r" in t)


def test_every_byte_is_a_token(tokenizer):
    vocabulary = tokenizer.model.get_vocab()
    assert all(char in vocabulary for char in byte_alphabet().values())
    assert len({vocabulary[char] for char in byte_alphabet().values()}) == 256


@settings(deadline=None)
@given(st.lists(st.none() | MIXED, max_size=8), st.data())
def test_batch_invariant_nulls_and_slices(tokenizer, texts, data):
    array = pa.array(texts, pa.string())
    whole = kernel.encode(array, tokenizer)
    assert whole.type == pa.list_(pa.int32()) and len(whole) == len(texts)
    assert [ids is None for ids in whole.to_pylist()] == [text is None for text in texts]
    split = data.draw(st.integers(0, len(texts)))
    parts = kernel.encode(array[:split], tokenizer), kernel.encode(array[split:], tokenizer)
    assert pa.concat_arrays(parts).equals(whole)
    assert kernel.encode(array.cast(pa.large_string()), tokenizer).equals(whole)
    counts = kernel.num_tokens(array, tokenizer)
    assert counts.type == pa.int32()
    assert counts.to_pylist() == [None if i is None else len(i) for i in whole.to_pylist()]
    assert kernel.decode(whole[split:], tokenizer).to_pylist() == texts[split:]


def test_a_special_token_written_in_a_page_is_text(tokenizer):
    text = "before<|end_of_text|>after<|begin_of_text|>"
    ids = kernel.encode(pa.array([text]), tokenizer)
    assert tokenizer.eos_id not in ids[0].as_py()
    assert kernel.decode(ids, tokenizer).to_pylist() == [text]


def test_training_depends_on_the_texts_only(trained, tmp_path):
    path, card = trained
    one_by_one = ([text] for text in reversed(CORPUS))
    again = kernel.train(one_by_one, VOCAB_SIZE, tmp_path / "deep" / "tokenizer.json")
    assert again == card
    assert (tmp_path / "deep" / "tokenizer.json").read_bytes() == path.read_bytes()
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["tokenizer.json"]


def test_card(trained, tokenizer):
    path, card = trained
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest() == tokenizer.sha256
    assert card["num_texts"] == len(CORPUS)
    assert card["num_bytes"] == sum(len(text.encode()) for text in CORPUS)
    assert card["vocab_size"] == tokenizer.vocab_size <= card["vocab_size_requested"] == VOCAB_SIZE
    assert card["special_tokens"]["<|end_of_text|>"] == tokenizer.eos_id
    assert len(json.loads(path.read_text())["model"]["vocab"]) == card["vocab_size"]


def test_too_small_a_vocabulary(tmp_path):
    with pytest.raises(ConfigError, match=r"vocab_size is 257.*271"):
        kernel.train(iter([CORPUS]), 257, tmp_path / "tokenizer.json")
    assert kernel.train(iter([CORPUS]), 271, tmp_path / "tokenizer.json")["vocab_size"] == 271


def test_no_text(tmp_path):
    with pytest.raises(InputMissing, match="no text"):
        kernel.train(iter([[], [""]]), VOCAB_SIZE, tmp_path / "tokenizer.json")
    assert not list(tmp_path.iterdir())


def test_load_refuses_what_is_not_pinned(trained, tmp_path):
    path, _ = trained
    with pytest.raises(ArtifactChanged, match="0000"):
        kernel.load(path, "0" * 64)
    with pytest.raises(ArtifactMissing, match=r"nowhere\.json"):
        kernel.load(tmp_path / "nowhere.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    with pytest.raises(ArtifactError, match=r"broken\.json is not a tokenizer"):
        kernel.load(broken)
    endless = tmp_path / "endless.json"
    tokenizers.Tokenizer(tokenizers.models.BPE()).save(str(endless))
    with pytest.raises(ArtifactError, match="no end-of-text token"):
        kernel.load(endless)


def test_truncation_and_padding_of_a_foreign_file_are_off(trained, tmp_path):
    model = tokenizers.Tokenizer.from_file(str(trained[0]))
    model.enable_truncation(2)
    model.enable_padding(length=50)
    model.save(str(tmp_path / "foreign.json"))
    foreign = kernel.load(tmp_path / "foreign.json")
    texts = pa.array(["The house by the river runs", "a"])
    own = kernel.load(trained[0])
    assert kernel.encode(texts, foreign).equals(kernel.encode(texts, own))

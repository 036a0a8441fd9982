"""Signatures against datasketch and plain Python."""

import datasketch
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from curation.dedup.minhash import (
    MinHashSpec,
    fingerprint,
    hash_shingle,
    permutations,
    shingle_hashes,
    shingles,
)
from curation.ingest.text import words

SPECS = (
    MinHashSpec(),
    MinHashSpec(bands=3, rows=2, ngram=1, seed=7),
    MinHashSpec(bands=1, rows=1, ngram=3, seed=0),
    MinHashSpec(bands=20, rows=20, ngram=13, seed=2**32 - 1),
)
TEXT = st.one_of(
    st.text(max_size=80),
    st.lists(
        st.sampled_from(["der", "Ärger", "数据", "naïve", "12", "\uff21\uff22", "ที่", "\u0301"]),
        max_size=30,
    ).map(" ".join),
)
ROWS = st.lists(st.one_of(TEXT, st.none()), max_size=8)
SPEC = MinHashSpec()


def by_datasketch(text: str, spec: MinHashSpec) -> np.ndarray:
    sketch = datasketch.MinHash(
        num_perm=spec.num_perm, seed=spec.seed, scheme="affine32", hashfunc=hash_shingle
    )
    for shingle in shingles(text, spec):
        sketch.update(shingle)
    return sketch.hashvalues


@pytest.mark.parametrize("spec", SPECS, ids=str)
@given(texts=st.lists(TEXT, max_size=4))
@example(texts=["\u037a one", "\ufe70 two"])  # marks on a space in Unicode's own folding
def test_bit_identical_to_datasketch(spec: MinHashSpec, texts: list[str]) -> None:
    got = fingerprint(pa.array(texts, pa.string()), spec)
    for i, text in enumerate(texts):
        signature = got.field("signature")[i].as_py()
        if not words(text):
            assert signature is None and got.field("content_hash")[i].as_py() is None
            assert got.field("num_shingles")[i].as_py() == 0
            continue
        assert np.array_equal(np.frombuffer(signature, "<u4"), by_datasketch(text, spec))
        assert got.field("num_shingles")[i].as_py() == len(shingles(text, spec))


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_permutations_are_those_of_datasketch(spec: MinHashSpec) -> None:
    theirs = datasketch.MinHash(
        num_perm=spec.num_perm, seed=spec.seed, scheme="affine32"
    ).permutations
    assert np.array_equal(np.array(permutations(spec.num_perm, spec.seed)), theirs)


def test_shingles_are_runs_of_words() -> None:
    spec = MinHashSpec(ngram=2)
    assert shingles("A b, c", spec) == [b"a b", b"b c"]
    assert shingles("A!", spec) == [b"a"], "fewer words than a shingle make one"
    assert shingles("...", spec) == []


@pytest.mark.parametrize("data_type", [pa.string(), pa.large_string()], ids=str)
def test_a_text_without_words_has_no_signature(data_type: pa.DataType) -> None:
    null = {"content_hash": None, "signature": None, "num_shingles": 0}
    texts = pa.array([None, "", " ...\n", "\u0301", "a"], data_type)
    *empty, word = fingerprint(texts, SPEC).to_pylist()
    assert empty == [null] * 4
    assert word["num_shingles"] == 1 and len(word["signature"]) == SPEC.num_signature_bytes
    assert fingerprint(pa.array([], data_type), SPEC).to_pylist() == []
    assert fingerprint(pa.nulls(2), SPEC).to_pylist() == [null] * 2


@given(ROWS, st.integers(0, 8))
def test_batches_and_slices_do_not_matter(texts: list[str | None], at: int) -> None:
    whole = pa.array(texts, pa.string())
    for kernel in (fingerprint, shingle_hashes):
        rows = kernel(whole, SPEC).to_pylist()
        assert len(rows) == len(texts)
        assert kernel(whole[:at], SPEC).to_pylist() == rows[:at]
        assert kernel(whole[at:], SPEC).to_pylist() == rows[at:]
        assert kernel(whole.cast(pa.large_string()), SPEC).to_pylist() == rows


@given(TEXT, st.data())
def test_content_hash_is_of_the_words(text: str, draw: st.DataObject) -> None:
    """Equal where words are; noise that changes no word, and other words, are both drawn."""
    noise = draw.draw(st.sampled_from([", ", "\n", "  ", " \u0301", "-", " 。"]))
    again = noise.join(words(text)).swapcase()
    for other in (again, draw.draw(TEXT), text + " x", "".join(words(text))):
        left, right = fingerprint(pa.array([text, other]), SPEC).field("content_hash").to_pylist()
        assert (left == right) == (words(text) == words(other))


@given(st.lists(TEXT, min_size=1, max_size=6))
def test_equal_content_has_equal_signatures(texts: list[str]) -> None:
    """Or an exact copy would not be a near copy."""
    rows = fingerprint(pa.array(texts + [text.upper() for text in texts]), SPEC).to_pylist()
    by_content: dict[bytes, set[bytes]] = {}
    for row in rows:
        by_content.setdefault(row["content_hash"], set()).add(row["signature"])
    assert all(len(signatures) == 1 for signatures in by_content.values())


def test_words_cut_elsewhere_are_other_content() -> None:
    texts = ["ab cd", "abc d", "abcd", "a b c d", "cd ab", "数 据", "ab cd ab"]
    hashes = fingerprint(pa.array(texts), SPEC).field("content_hash").to_pylist()
    assert len(set(hashes)) == len(texts)
    same = fingerprint(pa.array(["数据", "数 据", "数，据"]), SPEC)  # noqa: RUF001
    assert len(set(same.field("content_hash").to_pylist())) == 1, "a character is a word"


@pytest.mark.parametrize(
    "text",
    [
        "muller LIEST, das — \uff42uch: heute!",
        "mu\u0308ller liest das buch heute",
        "MÜLLER LIEST DAS BUCH HEUTE",
        "mül\u00adler\u200b liest\n\ndas\tbuch “heute”",
        "Ｍüller ｌｉｅｓｔ ｄａｓ Ｂｕｃｈ ｈｅｕｔｅ",  # noqa: RUF001
    ],
)
def test_case_width_diacritics_and_punctuation_do_not_count(text: str) -> None:
    a, b = fingerprint(pa.array(["Müller liest das Buch heute", text]), SPEC).to_pylist()
    assert a == b


@given(st.lists(TEXT, max_size=4))
def test_shingle_hashes_are_the_sets_of_shingles(texts: list[str]) -> None:
    """By size, order and Jaccard: a hash stands for a shingle, in any text."""
    spec = MinHashSpec(ngram=2)
    hashes = shingle_hashes(pa.array(texts, pa.string()), spec).to_pylist()
    sets = [set(shingles(text, spec)) for text in texts]
    for row, own in zip(hashes, sets, strict=True):
        assert len(row) == len(set(row)) == len(own)
        assert row == sorted(row, key=lambda h: h % 2**64), "unsigned order"
    for i in range(len(texts)):
        for j in range(i):
            assert len(set(hashes[i]) & set(hashes[j])) == len(sets[i] & sets[j])


def test_shingle_hashes_of_null_and_of_no_words() -> None:
    assert shingle_hashes(pa.array(["...", None, ""]), SPEC).to_pylist() == [[], None, []]
    assert shingle_hashes(pa.array([], pa.string()), SPEC).to_pylist() == []


@given(TEXT)
def test_hash_of_a_shingle_is_the_upper_half(text: str) -> None:
    """What datasketch gets is the upper 32 bits of what exact comparisons get."""
    row = shingle_hashes(pa.array([text]), SPEC)[0].as_py()
    assert {h % 2**64 >> 32 for h in row} == {hash_shingle(s) for s in shingles(text, SPEC)}

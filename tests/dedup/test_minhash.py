"""Signatures against datasketch and plain Python."""

import datasketch
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.dedup.lsh import band_keys, signature_matrix
from curation.dedup.minhash import (
    MinHashSpec,
    fingerprint,
    hash_shingle,
    permutations,
    shingle_hashes,
    shingles,
)
from curation.ingest.text import words

SPECS = (MinHashSpec(), MinHashSpec(bands=3, rows=2, ngram=1, seed=7))
TEXT = st.one_of(
    st.text(max_size=80),
    st.lists(
        st.sampled_from(["der", "Ärger", "数据", "naïve", "12", "\uff21\uff22"]), max_size=30
    ).map(" ".join),
)


def by_datasketch(text: str, spec: MinHashSpec) -> np.ndarray:
    sketch = datasketch.MinHash(
        num_perm=spec.num_perm, seed=spec.seed, scheme="affine32", hashfunc=hash_shingle
    )
    for shingle in shingles(text, spec):
        sketch.update(shingle)
    return sketch.hashvalues


@pytest.mark.parametrize("spec", SPECS)
@given(texts=st.lists(TEXT, max_size=4))
def test_bit_identical_to_datasketch(spec: MinHashSpec, texts: list[str]) -> None:
    got = fingerprint(pa.array(texts, pa.string()), spec)
    for i, text in enumerate(texts):
        signature = got.field("signature")[i].as_py()
        if not words(text):
            assert signature is None and got.field("content_hash")[i].as_py() is None
            continue
        assert np.array_equal(np.frombuffer(signature, "<u4"), by_datasketch(text, spec))
        assert got.field("num_shingles")[i].as_py() == len(shingles(text, spec))


def test_permutations_are_those_of_datasketch() -> None:
    theirs = datasketch.MinHash(num_perm=112, seed=1, scheme="affine32").permutations
    assert np.array_equal(np.array(permutations(112, 1)), theirs)


@given(st.lists(st.one_of(TEXT, st.none()), max_size=8), st.integers(0, 8))
def test_batches_and_slices_do_not_matter(texts: list[str | None], at: int) -> None:
    spec = MinHashSpec()
    whole = pa.array(texts, pa.string())
    parts = [fingerprint(whole[:at], spec), fingerprint(whole[at:], spec)]
    assert fingerprint(whole, spec).to_pylist() == [row for p in parts for row in p.to_pylist()]
    large = fingerprint(whole.cast(pa.large_string()), spec)
    assert large.to_pylist() == fingerprint(whole, spec).to_pylist()


@given(TEXT, TEXT)
def test_content_hash_is_of_the_words(left: str, right: str) -> None:
    a, b = fingerprint(pa.array([left, right], pa.string()), MinHashSpec()).field("content_hash")
    assert (a.as_py() == b.as_py()) == (words(left) == words(right))


@given(TEXT)
def test_shingle_hashes_are_the_set_of_shingles(text: str) -> None:
    spec = MinHashSpec(ngram=2)
    hashes = shingle_hashes(pa.array([text], pa.string()), spec)[0].as_py()
    assert hashes is not None and len(hashes) == len(set(hashes)) == len(set(shingles(text, spec)))


def test_case_width_and_diacritics_do_not_count() -> None:
    spec = MinHashSpec()
    texts = ["Müller liest das Buch heute", "muller LIEST, das — \uff42uch: heute!"]
    a, b = fingerprint(pa.array(texts), spec).to_pylist()
    assert a == b


def test_estimate_tracks_jaccard() -> None:
    """Within 4 standard errors of sqrt(j (1 - j) / 112), over 200 pairs of word sets."""
    spec = MinHashSpec(ngram=1)
    rng = np.random.default_rng(3)
    for _ in range(200):
        shared, own = int(rng.integers(50, 300)), int(rng.integers(1, 200))
        base = [f"s{i}" for i in range(shared)]
        tag = int(rng.integers(1 << 30))
        pair = [" ".join(base + [f"{side}{tag}x{i}" for i in range(own)]) for side in "ab"]
        matrix = signature_matrix(fingerprint(pa.array(pair), spec).field("signature"), spec)
        jaccard = shared / (shared + 2 * own)
        error = abs((matrix[0] == matrix[1]).mean() - jaccard)
        assert error <= 4 * np.sqrt(jaccard * (1 - jaccard) / spec.num_perm) + 1e-9


def test_band_keys_are_equal_where_bands_are() -> None:
    spec = MinHashSpec(bands=4, rows=2)
    signatures = np.arange(16, dtype=np.uint32).reshape(2, 8)
    signatures[1, 2:4] = signatures[0, 2:4]
    keys = band_keys(signatures, spec)
    assert (keys[0] == keys[1]).tolist() == [False, True, False, False]
    same = band_keys(np.zeros((1, 8), np.uint32), spec)[0]
    assert len(set(same.tolist())) == 4, "bands do not meet"

"""Buckets and similarity: what must be equal is, what is chance stays within its bounds."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from curation.dedup.lsh import band_keys, content_keys, num_equal_slots, signature_matrix
from curation.dedup.minhash import MinHashSpec, fingerprint, shingles
from curation.dedup.steps import key_range

SPEC = MinHashSpec()
SMALL = MinHashSpec(bands=4, rows=2)


def pair(rng: np.random.Generator, num_shared: int, num_own: int) -> tuple[str, str]:
    """Draw two texts with so many words in common and so many each of its own."""
    names = [f"w{n}" for n in rng.integers(1 << 62, size=num_shared + 2 * num_own)]
    shared, own = names[:num_shared], names[num_shared:]
    return " ".join(shared + own[:num_own]), " ".join(shared + own[num_own:])


def signatures_of(texts: list[str], spec: MinHashSpec) -> np.ndarray:
    return signature_matrix(fingerprint(pa.array(texts), spec).field("signature"), spec)


@given(
    hnp.arrays(np.uint32, (2, SMALL.num_perm)),
    st.lists(st.booleans(), min_size=SMALL.num_perm, max_size=SMALL.num_perm),
)
def test_band_keys_are_equal_where_bands_are(signatures: np.ndarray, equal: list[bool]) -> None:
    signatures[1, equal] = signatures[0, equal]
    bands = signatures.reshape(2, SMALL.bands, SMALL.rows)
    keys = band_keys(signatures, SMALL)
    assert keys.shape == (2, SMALL.bands) and keys.dtype == np.int64
    assert ((keys[0] == keys[1]) == (bands[0] == bands[1]).all(axis=1)).all()


@given(st.integers(0, 2**32 - 1))
def test_keys_of_different_bands_do_not_meet(slot: int) -> None:
    keys = band_keys(np.full((1, SPEC.num_perm), slot, np.uint32), SPEC)[0]
    assert len(set(keys.tolist())) == SPEC.bands


def test_the_order_of_rows_in_a_band_counts() -> None:
    spec = MinHashSpec(bands=1, rows=2)
    left, right = band_keys(np.array([[1, 2], [2, 1]], np.uint32), spec)
    assert left != right


def test_keys_depend_on_their_own_row_alone() -> None:
    rng = np.random.default_rng(0)
    signatures = rng.integers(1 << 32, size=(50, SPEC.num_perm), dtype=np.uint32)
    whole = band_keys(signatures, SPEC)
    assert np.array_equal(whole[20:], band_keys(signatures[20:], SPEC))
    assert band_keys(signatures[:0], SPEC).shape == (0, SPEC.bands)


@given(st.lists(st.binary(min_size=16, max_size=16), min_size=2, max_size=2))
def test_content_keys_are_equal_where_contents_are(hashes: list[bytes]) -> None:
    rows = np.frombuffer(b"".join([*hashes, hashes[0]]), np.uint8).reshape(3, 16)
    keys = content_keys(rows)
    assert keys[0] == keys[2]
    assert (keys[0] == keys[1]) == (hashes[0] == hashes[1])


@pytest.mark.parametrize("data_type", [pa.binary(), pa.large_binary()], ids=str)
def test_a_matrix_is_the_signatures_as_stored(data_type: pa.DataType) -> None:
    rng = np.random.default_rng(0)
    expected = rng.integers(1 << 32, size=(5, SMALL.num_perm), dtype=np.uint32)
    column = pa.array([row.astype("<u4").tobytes() for row in expected], data_type)
    assert np.array_equal(signature_matrix(column, SMALL), expected)
    assert np.array_equal(signature_matrix(column[2:4], SMALL), expected[2:4])
    chunks = pa.chunked_array([column[:2], column[2:]])
    assert np.array_equal(signature_matrix(chunks[1:], SMALL), expected[1:])
    assert signature_matrix(column[:0], SMALL).shape == (0, SMALL.num_perm)


def test_a_signature_of_another_spec_is_refused() -> None:
    signatures = fingerprint(pa.array(["a b c"]), SPEC).field("signature")
    with pytest.raises(ValueError, match=f"must have {SMALL.num_signature_bytes} bytes"):
        signature_matrix(signatures, SMALL)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20), st.integers(1, 4096))
def test_key_ranges_are_in_order_of_the_unsigned_key(keys: list[int], num_ranges: int) -> None:
    keys = sorted(keys, key=lambda key: key % 2**64)
    ranges = key_range(np.array(keys, np.int64), num_ranges).tolist()
    assert ranges == sorted(ranges)
    assert all(0 <= n < num_ranges for n in ranges)


@pytest.mark.parametrize("num_ranges", [1, 2, 3, 16, 1000, 4096])
def test_key_ranges_cover_evenly(num_ranges: int) -> None:
    """Of keys spread evenly over all 2^64, ranges get the same number, give or take one."""
    num_keys = 50_021
    spread = [k * 2**64 // num_keys for k in range(num_keys)]
    keys = np.array(spread, np.uint64).view(np.int64)
    counts = np.bincount(key_range(keys, num_ranges), minlength=num_ranges)
    assert len(counts) == num_ranges
    assert counts.max() - counts.min() <= 1
    ends = np.array([0, -1], np.int64)  # the least and the largest unsigned key
    assert key_range(ends, num_ranges).tolist() == [0, num_ranges - 1]


def test_estimate_tracks_jaccard() -> None:
    """Within 4 standard errors of sqrt(j (1 - j) / 112), over 200 pairs of texts."""
    rng = np.random.default_rng(3)
    spec = MinHashSpec(ngram=3)
    for _ in range(200):
        texts = pair(rng, int(rng.integers(50, 300)), int(rng.integers(1, 200)))
        left, right = (set(shingles(text, spec)) for text in texts)
        jaccard = len(left & right) / len(left | right)
        estimate = num_equal_slots(*signatures_of(list(texts), spec)) / spec.num_perm
        error = np.sqrt(jaccard * (1 - jaccard) / spec.num_perm)
        assert abs(estimate - jaccard) <= 4 * error


@pytest.mark.parametrize(("num_shared", "num_own"), [(60, 20), (70, 15), (80, 10), (90, 5)])
def test_probability_of_a_shared_bucket(num_shared: int, num_own: int) -> None:
    """1 - (1 - s^8)^14 (Leskovec et al., Mining of Massive Datasets, 3.4), within 5 deviations."""
    spec = MinHashSpec(ngram=1)
    s = num_shared / (num_shared + 2 * num_own)
    expected = 1 - (1 - s**spec.rows) ** spec.bands
    rng = np.random.default_rng(num_shared)
    num_pairs = 2_000
    texts = [text for _ in range(num_pairs) for text in pair(rng, num_shared, num_own)]
    keys = band_keys(signatures_of(texts, spec), spec)
    met = (keys[::2] == keys[1::2]).any(axis=1).mean()
    assert abs(met - expected) <= 5 * np.sqrt(expected * (1 - expected) / num_pairs)

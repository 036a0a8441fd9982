"""Percentiles from histograms against sorting, and their bins against logarithms of decimals."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.quality.percentiles import (
    bin_start,
    bucket,
    cutoff,
    percentiles,
    perplexity_bin,
)

BINS = st.lists(st.integers(0, 12), min_size=1, max_size=60)


def histogram(bins: list[int]) -> dict[int, int]:
    return {number: bins.count(number) for number in set(bins)}


@given(BINS)
def test_percentile_is_the_smallest_that_reaches_the_document(bins: list[int]) -> None:
    lang = pa.array(["en"] * len(bins))
    found = percentiles(pa.array(bins, pa.int32()), lang, {"en": histogram(bins)}).to_pylist()
    ordered = sorted(bins)
    for number, percentile in zip(bins, found, strict=True):
        reached = [
            p for p in range(1, 101)
            # the lowest bin up to which p % of the documents lie
            if ordered[-(-p * len(bins) // 100) - 1] >= number
        ]  # fmt: skip
        assert percentile == reached[0]


@given(BINS, st.integers(1, 100))
def test_cutoff_is_the_lowest_bin_that_holds_the_share(bins: list[int], percentile: int) -> None:
    found = cutoff(histogram(bins), percentile)
    share = sum(number <= found for number in bins)
    below = sum(number < found for number in bins)
    assert 100 * share >= percentile * len(bins) > 100 * below


def test_languages_have_percentiles_of_their_own() -> None:
    lang = pa.array(["en", "zh", "en", None, "de"])
    bins = pa.array([1, 9, 3, 1, None], pa.int32())
    found = percentiles(bins, lang, {"en": {1: 1, 3: 1}, "zh": {9: 4}})
    assert found.to_pylist() == [1, 1, 51, 0, None]


def test_buckets_are_those_of_ccnet() -> None:
    percentile = pa.array([1, 30, 31, 60, 61, 100, None], pa.int32())
    assert bucket(percentile, 30, 60).to_pylist() == [
        *["head"] * 2,
        *["middle"] * 2,
        *["tail"] * 2,
        None,
    ]


@given(st.floats(-1e6, -1e-3, allow_nan=False), st.integers(1, 10**6))
def test_bins_are_256_times_the_binary_logarithm(log10_prob: float, num_units: int) -> None:
    found = perplexity_bin(pa.array([log10_prob]), pa.array([num_units]))[0].as_py()
    exact = Decimal(-log10_prob) / num_units * Decimal(10).ln() / Decimal(2).ln() * 256
    assert found <= exact + Decimal("1e-6")
    assert exact - Decimal("1e-6") < found + 1


def test_bins_of_nulls_are_null() -> None:
    found = perplexity_bin(pa.array([None, -1.0], pa.float64()), pa.array([1, 1]))
    assert found.to_pylist() == [None, int(np.floor(256 * np.log2(10)))]


def test_bin_start_is_the_lowest_perplexity_of_a_bin() -> None:
    assert bin_start(256) == 2.0
    assert bin_start(0) == 1.0
    assert bin_start(384) == pytest.approx(2**1.5)

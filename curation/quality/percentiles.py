"""Percentiles of perplexity by language and dump, from a histogram of integer bins.

A bin counts exactly and sums over files in any order, so percentiles are those of all documents,
whatever the partitioning; approximate quantiles of Spark are not. Bins are 1/256 of an octave wide:
0.3 % of perplexity.

Perplexity is that by character. CCNet's is by pieces of words, which are about equally long; that
by word would rank texts by the length of their words.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

BINS_PER_OCTAVE = 256
_BINS_PER_DECADE = 850.4135922911647  # 256 log2(10)
BUCKETS = HEAD, MIDDLE, TAIL = "head", "middle", "tail"

Histograms = Mapping[str, Mapping[int, int]]


def perplexity_bin(log10_prob: pa.Array, num_units: pa.Array) -> pa.Int32Array:
    """Return floor(256 log2 perplexity), where perplexity is 10 ** (-log10_prob / num_units).

    Products and quotients only, which every processor rounds alike. Null where one of both is.
    """
    decades = pc.negate(pc.divide(log10_prob, num_units.cast(pa.float64())))
    return pc.floor(pc.multiply(decades, _BINS_PER_DECADE)).cast(pa.int32())


def bin_start(number: int) -> float:
    """Return the lowest perplexity of a bin."""
    return float(2.0 ** (number / BINS_PER_OCTAVE))


def percentiles(bins: pa.Array, lang: pa.Array, histograms: Histograms) -> pa.Int32Array:
    """Return the percentile of every document among those of its language, 1 to 100.

    It is the smallest p for which p % of the documents reach up to the document's bin:
    floor(100 x documents in lower bins / all) + 1, in integers. Null where the bin is null.
    """
    numbers = np.asarray(bins.fill_null(0), np.int64)
    found = np.zeros(len(numbers), np.int64)
    for language, histogram in histograms.items():
        ours = np.asarray(pc.fill_null(pc.equal(lang, language), False))
        known, below, total = _cumulated(histogram)
        if total:
            place = np.searchsorted(known, numbers[ours], side="left")
            found[ours] = 100 * below[place] // total + 1
    return pa.array(np.minimum(found, 100).astype(np.int32), mask=np.asarray(bins.is_null()))


def cutoff(histogram: Mapping[int, int], percentile: int) -> int:
    """Return the smallest bin up to which at least `percentile` % of the documents lie."""
    known, below, total = _cumulated(histogram)
    return int(known[int(np.argmax(100 * below[1:] >= percentile * total))])


def bucket(percentile: pa.Array, head: int, middle: int) -> pa.StringArray:
    """Return head, middle or tail, as CCNet calls them; null for null."""
    return pc.if_else(
        pc.less_equal(percentile, head),
        HEAD,
        pc.if_else(pc.less_equal(percentile, middle), MIDDLE, TAIL),
    )


def _cumulated(
    histogram: Mapping[int, int],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """Return the bins, ascending, the documents below each and in the end all, and their number."""
    known = np.array(sorted(histogram), np.int64)
    counts = np.array([histogram[int(number)] for number in known], np.int64)
    below = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return known, below, int(below[-1])

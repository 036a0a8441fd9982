"""The mixture: how many tokens of which domain, filled with documents up to the exact token.

A domain with A tokens and a budget of B gives every document B // A times, and the B % A tokens
that are left go to documents in the order of (sampling_hash, doc_id): one copy more for each below
the cut, and a part of the document at the cut. The cut is found without sorting the domain:

    1. histogram   on every part of the domain, summed: tokens by the top bits of the hash
    2. locate      the bucket that holds the cut
    3. cut         on the documents of that bucket alone
    4. copies      on every part again

A document's tokens are what it takes in a shard: num_tokens + 1, with its end-of-text token.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from curation.errors import ConfigError, MixtureInfeasible
from curation.tokens.shards import document_hash

HISTOGRAM_BITS = 16  # 65,536 buckets, 512 KiB: a bucket of 10 billion documents has 150,000

SHARES_TOLERANCE = Fraction(1, 10**6)  # shares are written by hand: 0.333, 0.333, 0.334

# The number of a copy that no document has: sampling draws from another hash than the order of
# the shards, else the documents of a thin domain would all come first in every shard.
SAMPLING_COPY = -1

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
UInt64Array = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Budget:
    """What a release takes of one domain: `tokens` of the `available` ones."""

    tokens: int
    available: int

    @property
    def epochs(self) -> float:
        """How often the domain is seen."""
        return self.tokens / self.available

    @property
    def full_copies(self) -> int:
        """Whole copies of every document."""
        return self.tokens // self.available

    @property
    def remainder(self) -> int:
        """Tokens beyond the whole copies; fewer than `available`."""
        return self.tokens % self.available


class Cut(NamedTuple):
    """Where a domain's remainder ends: at a document, and how many of its tokens still belong."""

    hash: int
    doc_id: int
    tokens: int


def plan(
    available_tokens: Mapping[str, int],
    shares: Mapping[str, float],
    max_epochs: float,
    num_tokens: int | None,
) -> dict[str, Budget]:
    """Return the budget of every domain that has a share; the budgets sum to the total exactly.

    The total is `num_tokens`, or with None the largest that no domain's share exceeds
    floor(available * max_epochs). Shares become whole tokens by largest remainder, ties to the
    domain first by name. Raises ConfigError for a share of an unknown domain, a share that is not
    positive, shares that do not sum to 1, and numbers out of range; MixtureInfeasible, naming the
    domain and how many tokens it lacks.
    """
    for name in shares:
        if name not in available_tokens:
            raise ConfigError(
                f"shares name the domain {name!r}, but there are only "
                f"{', '.join(sorted(available_tokens)) or 'none'}; add documents of it or drop it"
            )
    exact = exact_shares(shares)
    if not (math.isfinite(max_epochs) and max_epochs > 0):
        raise ConfigError(f"max_epochs is {max_epochs}, but must be above 0; 1 repeats nothing")
    if num_tokens is not None and num_tokens < 1:
        raise ConfigError(f"num_tokens is {num_tokens}, but a release has at least 1 token")
    most = {name: math.floor(available_tokens[name] * Fraction(str(max_epochs))) for name in exact}
    largest = min(math.floor(most[name] / share) for name, share in exact.items())
    total = largest if num_tokens is None else num_tokens
    tokens = _apportion(total, exact)
    for name in exact:
        if most[name] == 0:
            raise MixtureInfeasible(
                f"domain {name!r} lacks at least 1 token: it has a share of {shares[name]:g}, but "
                f"{available_tokens[name]} tokens, at most {max_epochs:g} times; "
                "drop the share, raise max_epochs or add documents"
            )
        lacking = tokens[name] - most[name]
        if lacking > 0:
            raise MixtureInfeasible(
                f"domain {name!r} lacks {lacking} tokens: its share of {shares[name]:g} is "
                f"{tokens[name]} of {total}, but it has {available_tokens[name]}, at most "
                f"{max_epochs:g} times; at most {largest} tokens are possible with these shares: "
                "ask for fewer, lower this share, raise max_epochs or add documents"
            )
    return {name: Budget(tokens[name], available_tokens[name]) for name in shares}


def exact_shares(shares: Mapping[str, float], key: str = "shares") -> dict[str, Fraction]:
    """Return the shares as exact numbers that sum to 1; 0.1 is a tenth, not its nearest double.

    Raises ConfigError, naming the setting `key`, for a share that is not positive and for shares
    that do not sum to 1.
    """
    exact = {}
    for name, share in shares.items():
        if not (math.isfinite(share) and share > 0):
            raise ConfigError(
                f"{key}: the share of domain {name!r} is {share}, but must be above 0; "
                "leave the domain out to take nothing of it"
            )
        exact[name] = Fraction(str(share))
    total = sum(exact.values(), Fraction(0))
    if abs(total - 1) > SHARES_TOLERANCE:
        raise ConfigError(
            f"{key} sum to {float(total):g}, but must sum to 1; they are "
            + (", ".join(f"{name} {share:g}" for name, share in shares.items()) or "none")
        )
    return {name: share / total for name, share in exact.items()}


def sampling_hash(doc_ids: Int64Array, seed: int) -> UInt64Array:
    """Return the hash that orders the documents of a domain for its remainder."""
    return document_hash(doc_ids, np.full(len(doc_ids), SAMPLING_COPY, np.int32), seed)


@njit(cache=True, nogil=True)
def buckets(hashes: UInt64Array, bits: int = HISTOGRAM_BITS) -> Int64Array:
    """Return the bucket of every hash: its top bits."""
    return (hashes >> np.uint64(64 - bits)).astype(np.int64)


@njit(cache=True, nogil=True)
def histogram(
    hashes: UInt64Array, num_tokens: Int64Array, bits: int = HISTOGRAM_BITS
) -> Int64Array:
    """Return the tokens of every bucket; histograms of parts add up to that of the whole."""
    tokens = np.zeros(1 << bits, np.int64)
    bucket = buckets(hashes, bits)
    for i in range(len(hashes)):
        tokens[bucket[i]] += num_tokens[i]
    return tokens


def locate(histogram_sum: Int64Array, remainder: int) -> tuple[int, int]:
    """Return the bucket that holds token number `remainder`, and the tokens before that bucket.

    Raises ValueError unless 0 <= remainder < all tokens.
    """
    ends = np.cumsum(histogram_sum)
    if not 0 <= remainder < (ends[-1] if len(ends) else 0):
        raise ValueError(f"a remainder of {remainder} of {ends[-1] if len(ends) else 0} tokens")
    bucket = int(np.searchsorted(ends, remainder, side="right"))
    return bucket, int(ends[bucket] - histogram_sum[bucket])


def cut(hashes: UInt64Array, doc_ids: Int64Array, num_tokens: Int64Array, tokens_left: int) -> Cut:
    """Return where `tokens_left` tokens end in the documents of the bucket, in any order.

    `tokens_left` is the remainder less the tokens before the bucket. Raises ValueError unless
    0 <= tokens_left < the bucket's tokens.
    """
    order = np.lexsort((doc_ids, hashes))
    sorted_tokens = np.asarray(num_tokens, np.int64)[order]
    position, before = locate(sorted_tokens, tokens_left)
    document = order[position]
    return Cut(int(hashes[document]), int(doc_ids[document]), tokens_left - before)


def copies(
    hashes: UInt64Array, doc_ids: Int64Array, full_copies: int, cut: Cut
) -> tuple[Int32Array, Int32Array]:
    """Return the whole copies of every document, and the tokens of one more, partial copy."""
    cut_hash = np.uint64(cut.hash)
    same_hash = hashes == cut_hash
    below = (hashes < cut_hash) | (same_hash & (doc_ids < cut.doc_id))
    at_cut = same_hash & (doc_ids == cut.doc_id)
    num_copies = np.int32(full_copies) + below.astype(np.int32)
    return num_copies, np.where(at_cut, np.int32(cut.tokens), np.int32(0))


def _apportion(total: int, shares: Mapping[str, Fraction]) -> dict[str, int]:
    """Split `total` by shares into whole numbers that sum to it."""
    tokens = {name: math.floor(total * share) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: (tokens[name] - total * shares[name], name))
    for name in by_remainder[: total - sum(tokens.values())]:
        tokens[name] += 1
    return tokens

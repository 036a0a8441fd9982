"""The mixture: how many tokens of which component, filled with documents up to the exact token.

A component is a domain (`code`), or a domain in one language (`web/zh`); a document belongs to the
narrowest that is named. With A tokens available and a budget of B, every document comes B // A
times, and the B % A tokens that are left go to documents in the order of their hash: one copy more
for each below the cut, and a part of the document at the cut. A document of weight w counts as w
documents, each with a hash of its own. The cut is found without sorting the component:

    1. units       documents by their weight, with hashes
    2. histogram   on every part of the component, summed: tokens by the top bits of the hash
    3. locate      the bucket that holds the cut
    4. cut         on the units of that bucket alone
    5. copies      on every part again

A document's tokens are what it takes in a shard: num_tokens + 1, with its end-of-text token.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from curation.errors import ConfigError, MixtureInfeasible
from curation.remix.domains import encoded
from curation.tokens.packing import document_hash

HISTOGRAM_BITS = 16  # 65,536 buckets, 512 KiB: a bucket of 10 billion documents has 150,000

SHARES_TOLERANCE = Fraction(1, 10**6)  # shares are written by hand: 0.333, 0.333, 0.334

# Digits of a share that follows from a temperature. Decimal powers are the same on every machine.
SHARE_DIGITS = 30

# The number of a copy that no document has, and the next ones below it for documents of a weight:
# sampling draws from another hash than the order of the shards, else the documents of a thin
# component would all come first in every shard.
SAMPLING_COPY = -1

# FineWeb-2's rehydration (huggingface/fineweb-2, README): how often to take the one document that
# dedup left of a cluster, by the size of the cluster. (smallest size, weight), ascending.
REHYDRATION = ((1, 1), (2, 2), (3, 3), (5, 5), (100, 8), (1000, 1))

HELD_OUT = "*held out"
"""The component of documents of the validation hosts; no domain can have this name."""

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
UInt64Array = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Budget:
    """What a release takes of one component: `tokens` of the `available` ones, by weight."""

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


def components(domain: pa.Array, lang: pa.Array, named: Sequence[str]) -> pa.StringArray:
    """Return the component of every document: `domain/lang` where named, else `domain`, else null.

    Cost: one look at each distinct domain and language.
    """
    known = set(named)
    (domains, domain_codes), (langs, lang_codes) = encoded(domain), encoded(lang)
    pairs, pair_of_row = np.unique(domain_codes * len(langs) + lang_codes, return_inverse=True)
    names = [
        _component(domains[pair // len(langs)], langs[pair % len(langs)], known)
        for pair in pairs.tolist()
    ]
    return pa.array(names, pa.string()).take(pa.array(pair_of_row))


def plan(
    available_tokens: Mapping[str, int],
    shares: Mapping[str, float | Fraction],
    max_epochs: float | Mapping[str, float],
    num_tokens: int | None,
    *,
    redistribute: bool = False,
) -> dict[str, Budget]:
    """Return the budget of every component that has a share; they sum to the total exactly.

    The total is `num_tokens`, or with None the largest that no component's share exceeds
    floor(available * max_epochs). Shares become whole tokens by largest remainder, ties to the
    component first by name. With `redistribute`, what a component lacks goes to the others by their
    shares, until all have theirs. Raises ConfigError for a share of an unknown component, a share
    that is not positive, shares that do not sum to 1, and numbers out of range; MixtureInfeasible,
    naming each component and how many tokens it lacks.
    """
    for name in shares:
        if name not in available_tokens:
            raise ConfigError(
                f"shares name the domain {name!r}, but there are only "
                f"{', '.join(sorted(available_tokens)) or 'none'}; add documents of it or drop it"
            )
    exact = exact_shares(shares)
    epochs = max_epochs if isinstance(max_epochs, Mapping) else dict.fromkeys(exact, max_epochs)
    for name in exact:
        if not (math.isfinite(epochs[name]) and epochs[name] > 0):
            raise ConfigError(
                f"max_epochs is {epochs[name]} for {name!r}, but must be above 0; 1 repeats nothing"
            )
    if num_tokens is not None and num_tokens < 1:
        raise ConfigError(f"num_tokens is {num_tokens}, but a release has at least 1 token")
    most = {
        name: math.floor(available_tokens[name] * Fraction(str(epochs[name]))) for name in exact
    }
    for name in exact:
        if most[name] == 0:
            raise MixtureInfeasible(
                f"domain {name!r} lacks at least 1 token: it has a share of "
                f"{float(exact[name]):g}, but {available_tokens[name]} tokens, at most "
                f"{epochs[name]:g} times; drop the share, raise max_epochs or add documents"
            )
    largest = min(math.floor(most[name] / share) for name, share in exact.items())
    if redistribute and num_tokens is not None:
        tokens = _redistributed(num_tokens, exact, most)
    else:
        tokens = _apportion(largest if num_tokens is None else num_tokens, exact)
    lacking = {name: tokens[name] - most[name] for name in exact if tokens[name] > most[name]}
    if lacking:
        reasons = "; ".join(
            f"domain {name!r} lacks {count} tokens: its share of {float(exact[name]):g} is "
            f"{tokens[name]} of {sum(tokens.values())}, but it has {available_tokens[name]}, at "
            f"most {epochs[name]:g} times"
            for name, count in lacking.items()
        )
        possible = sum(most.values()) if redistribute else largest
        raise MixtureInfeasible(
            f"{reasons}; at most {possible} tokens are possible with these "
            "shares: ask for fewer, lower this share, raise max_epochs, add documents"
            + ("" if redistribute else ', or set shortage = "redistribute"')
        )
    return {name: Budget(tokens[name], available_tokens[name]) for name in shares}


def exact_shares(
    shares: Mapping[str, float | Fraction], key: str = "shares"
) -> dict[str, Fraction]:
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
        exact[name] = share if isinstance(share, Fraction) else Fraction(str(share))
    total = sum(exact.values(), Fraction(0))
    if abs(total - 1) > SHARES_TOLERANCE:
        raise ConfigError(
            f"{key} sum to {float(total):g}, but must sum to 1; they are "
            + (", ".join(f"{name} {float(share):g}" for name, share in shares.items()) or "none")
        )
    return {name: share / total for name, share in exact.items()}


def shares_by_temperature(
    available_tokens: Mapping[str, int], temperature: float
) -> dict[str, Fraction]:
    """Return shares in proportion to available ** (1 / temperature), exact and summing to 1.

    1 takes everything as often; the higher, the more alike the components become (mT5, Xue et al.
    2021, samples languages so with 1 / temperature = 0.3). Components without tokens have no share.
    """
    context = Context(prec=SHARE_DIGITS)
    exponent = context.divide(Decimal(1), Decimal(str(temperature)))
    powers = {
        name: Fraction(context.power(Decimal(count), exponent))
        for name, count in sorted(available_tokens.items())
        if count > 0
    }
    total = sum(powers.values(), Fraction(0))
    return {name: power / total for name, power in powers.items()}


def weights(
    num_duplicates: Int64Array,
    bucket: pa.Array,
    score: pa.Array,
    *,
    duplicates: bool,
    buckets: Mapping[str, int],
    score_steps: Sequence[float],
) -> Int32Array:
    """Return how many documents each document counts for: the product of what is asked for.

    duplicates: by REHYDRATION, of the documents that dedup removed for it. buckets: by the bucket
    of perplexity; null and what is not named count 1. score_steps: 1, and one more for every step
    that the quality score reaches; null counts 1.
    """
    found = np.ones(len(num_duplicates), np.int32)
    if duplicates:
        sizes = np.array([size for size, _ in REHYDRATION])
        table = np.array([weight for _, weight in REHYDRATION], np.int32)
        found *= table[np.searchsorted(sizes, num_duplicates + 1, side="right") - 1]
    if buckets:
        names, codes = encoded(bucket)
        found *= np.array([buckets.get(name or "", 1) for name in names], np.int32)[codes]
    if score_steps:
        values = np.asarray(score.fill_null(-math.inf), np.float64)
        found *= 1 + np.searchsorted(np.sort(score_steps), values, side="right").astype(np.int32)
    return found


def sampling_hash(doc_ids: Int64Array, seed: int) -> UInt64Array:
    """Return the hash of the first unit of every document: what samples of them are drawn by."""
    return document_hash(doc_ids, np.full(len(doc_ids), SAMPLING_COPY, np.int32), seed)


def units(
    doc_ids: Int64Array, weight: Int32Array, seed: int
) -> tuple[npt.NDArray[np.intp], UInt64Array]:
    """Return the units of documents: the row of each, and the hash that orders them.

    A document of weight w has w units; of weight 0 none.
    """
    rows = np.repeat(np.arange(len(doc_ids)), weight)
    nth = np.arange(len(rows)) - (np.cumsum(weight) - weight)[rows]
    copies = (SAMPLING_COPY - nth).astype(np.int32)
    return rows, document_hash(doc_ids[rows], copies, seed)


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


def copies_of_documents(
    num_documents: int,
    rows: npt.NDArray[np.intp],
    hashes: UInt64Array,
    doc_ids: Int64Array,
    full_copies: int,
    cut: Cut,
) -> tuple[Int32Array, Int32Array]:
    """Return `copies` by document, of the units of documents: their rows and hashes."""
    whole, partial = copies(hashes, doc_ids[rows], full_copies, cut)
    by_document = np.bincount(rows, whole, num_documents).astype(np.int32)
    return by_document, np.bincount(rows, partial, num_documents).astype(np.int32)


def _component(domain: str | None, lang: str | None, named: set[str]) -> str | None:
    narrow = f"{domain}/{lang}"
    return narrow if narrow in named else domain if domain in named else None


def _redistributed(
    total: int, shares: Mapping[str, Fraction], most: Mapping[str, int]
) -> dict[str, int]:
    """Split `total` by shares; a component that would get more than its most gets that."""
    if total > sum(most.values()):
        return _apportion(total, shares)  # which lacks what is said by the caller
    full: dict[str, int] = {}
    while True:
        left = {name: share for name, share in shares.items() if name not in full}
        rest = total - sum(full.values())
        if not left:
            return full
        weight = sum(left.values(), Fraction(0))
        tokens = _apportion(rest, {name: share / weight for name, share in left.items()})
        over = [name for name in left if tokens[name] > most[name]]
        if not over:
            return {name: full.get(name, tokens.get(name, 0)) for name in shares}
        full |= {name: most[name] for name in over}


def _apportion(total: int, shares: Mapping[str, Fraction]) -> dict[str, int]:
    """Split `total` by shares into whole numbers that sum to it."""
    tokens = {name: math.floor(total * share) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: (tokens[name] - total * shares[name], name))
    for name in by_remainder[: total - sum(tokens.values())]:
        tokens[name] += 1
    return tokens

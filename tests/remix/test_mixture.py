from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import ConfigError, MixtureInfeasible
from curation.remix.mixture import (
    Budget,
    buckets,
    copies,
    cut,
    histogram,
    locate,
    plan,
    sampling_hash,
)
from curation.tokens.shards import DOCUMENTS_SCHEMA, document_hash, pack, repeat_documents

# Hashes of few values, so that documents share buckets and hashes.
HASHES = st.sampled_from([0, 1, 2**48 - 1, 2**48, 2**63 - 1, 2**63, 2**64 - 1])
DOCUMENTS = st.lists(st.tuples(HASHES, st.integers(0, 40)), min_size=1, max_size=30).filter(
    lambda documents: sum(n for _, n in documents) > 0
)


def columns(documents):
    hashes = np.array([h for h, _ in documents], np.uint64)
    num_tokens = np.array([n for _, n in documents], np.int64)
    doc_ids = np.arange(len(documents))[::-1] * 7  # order of ids is not order of rows
    return hashes, doc_ids, num_tokens


def test_shares_of_a_total():
    budgets = plan({"web": 1000, "code": 300}, {"web": 0.75, "code": 0.25}, 1.0, 400)
    assert budgets == {"web": Budget(300, 1000), "code": Budget(100, 300)}
    assert budgets["web"].epochs == 0.3


def test_the_largest_total_repeats_the_scarce_domain():
    # 100 tokens of code, at most twice, are a tenth of 2,000.
    budgets = plan({"web": 5000, "code": 100}, {"web": 0.9, "code": 0.1}, 2.0, None)
    assert budgets == {"web": Budget(1800, 5000), "code": Budget(200, 100)}
    assert (budgets["code"].full_copies, budgets["code"].remainder) == (2, 0)


def test_a_decimal_share_is_that_decimal():
    # As doubles 0.1 + 0.2 + 0.7 is not 1, and 0.1 * 3 rounds up.
    budgets = plan(dict.fromkeys("abc", 10**18), {"a": 0.1, "b": 0.2, "c": 0.7}, 1.0, 10**18)
    assert [b.tokens for b in budgets.values()] == [10**17, 2 * 10**17, 7 * 10**17]


SHARES = st.lists(st.integers(1, 999), min_size=1, max_size=6)


@settings(deadline=None)
@given(SHARES, st.integers(1, 10**15))
def test_budgets_sum_to_the_total_and_are_a_token_from_their_share(parts, total):
    shares = {f"d{i}": part / sum(parts) for i, part in enumerate(parts)}
    budgets = plan(dict.fromkeys(shares, total), shares, 1.0, total)
    assert sum(budget.tokens for budget in budgets.values()) == total
    for name, part in zip(shares, parts, strict=True):
        error = abs(budgets[name].tokens - Fraction(part, sum(parts)) * total)
        assert error < 1 + total * Fraction(1, 10**14)  # a double's share of the total


@settings(deadline=None)
@given(SHARES, st.data(), st.sampled_from([0.5, 1.0, 1.7, 4.0]))
def test_none_is_the_largest_feasible_total(parts, data, max_epochs):
    # Shares in 1/1024: exact as doubles.
    scaled = [p * 1024 // sum(parts) + 1 for p in parts[1:]]
    if sum(scaled) >= 1024:
        return
    shares = {f"d{i}": p / 1024 for i, p in enumerate([1024 - sum(scaled), *scaled])}
    available = {name: data.draw(st.integers(2, 10**6)) for name in shares}
    budgets = plan(available, shares, max_epochs, None)
    total = sum(budget.tokens for budget in budgets.values())
    limit = {name: int(available[name] * Fraction(str(max_epochs))) for name in shares}
    assert all(budgets[name].tokens <= limit[name] for name in shares)
    assert any((total + 1) * Fraction(shares[name]) > limit[name] for name in shares)
    assert plan(available, shares, max_epochs, total) == budgets


def test_infeasible_names_the_domain_and_what_it_lacks():
    with pytest.raises(MixtureInfeasible, match=r"'code' lacks 50 tokens.*at most 800 tokens"):
        plan({"web": 9000, "code": 100}, {"web": 0.75, "code": 0.25}, 2.0, 1000)
    with pytest.raises(MixtureInfeasible, match=r"'code' lacks at least 1 token"):
        plan({"web": 9000, "code": 0}, {"web": 0.75, "code": 0.25}, 2.0, None)


@pytest.mark.parametrize(
    ("shares", "max_epochs", "num_tokens", "message"),
    [
        ({"web": 0.5, "cod": 0.5}, 1.0, None, "'cod'.*code, web"),
        ({"web": 1.0, "code": 0.0}, 1.0, None, "'code' is 0.0"),
        ({"web": 1.5, "code": -0.5}, 1.0, None, "'code' is -0.5"),
        ({"web": float("nan")}, 1.0, None, "'web' is nan"),
        ({"web": 0.5, "code": 0.4}, 1.0, None, "sum to 0.9"),
        ({}, 1.0, None, "sum to 0"),
        ({"web": 1.0}, 0.0, None, "max_epochs is 0"),
        ({"web": 1.0}, float("inf"), None, "max_epochs is inf"),
        ({"web": 1.0}, 1.0, 0, "num_tokens is 0"),
    ],
)
def test_mistakes(shares, max_epochs, num_tokens, message):
    with pytest.raises(ConfigError, match=message):
        plan({"web": 100, "code": 100}, shares, max_epochs, num_tokens)


@settings(deadline=None)
@given(DOCUMENTS, st.integers(1, 16), st.integers(0, 30))
def test_histograms_add_up(documents, bits, split):
    hashes, _, num_tokens = columns(documents)
    whole = histogram(hashes, num_tokens, bits)
    parts = [histogram(hashes[s], num_tokens[s], bits) for s in (slice(split), slice(split, None))]
    assert (parts[0] + parts[1] == whole).all()
    expected = [0] * 2**bits
    for h, n in documents:
        expected[h * 2**bits // 2**64] += n
    assert whole.tolist() == expected


@settings(deadline=None)
@given(DOCUMENTS, st.integers(0, 200), st.lists(st.integers(0, 30), max_size=3), st.data())
def test_the_budget_is_filled_to_the_token_for_any_split(documents, budget, splits, data):
    hashes, doc_ids, num_tokens = columns(documents)
    plan_of_domain = Budget(budget, int(num_tokens.sum()))
    shuffled = np.array(data.draw(st.permutations(range(len(documents)))), np.int64)
    parts = np.split(shuffled, sorted(splits))

    total = sum(histogram(hashes[p], num_tokens[p]) for p in parts)
    bucket, before = locate(total, plan_of_domain.remainder)
    inside = shuffled[buckets(hashes[shuffled]) == bucket]
    where = cut(
        hashes[inside], doc_ids[inside], num_tokens[inside], plan_of_domain.remainder - before
    )
    taken, order = 0, {}
    for p in parts:
        whole, partial = copies(hashes[p], doc_ids[p], plan_of_domain.full_copies, where)
        assert whole.dtype == partial.dtype == np.int32
        assert (partial < np.maximum(num_tokens[p], 1)).all()
        taken += int((whole * num_tokens[p]).sum() + partial.sum())
        order |= dict(zip(doc_ids[p].tolist(), zip(whole, partial, strict=True), strict=True))
    assert taken == budget

    # And by the definition: one document after the other in the order of (hash, doc_id).
    left = plan_of_domain.remainder
    for d in np.lexsort((doc_ids, hashes)):
        n = min(left, num_tokens[d])
        whole, partial = order[int(doc_ids[d])]
        assert (whole - plan_of_domain.full_copies) * num_tokens[d] + partial == n
        left -= n


def test_locate_refuses_more_than_there_is():
    with pytest.raises(ValueError, match="a remainder of 5 of 5 tokens"):
        locate(np.array([0, 2, 3]), 5)
    assert locate(np.array([0, 2, 0, 3]), 2) == (3, 2)
    assert locate(np.array([0, 2, 0, 3]), 0) == (1, 0)


def test_sampling_does_not_decide_the_order_in_a_shard():
    ids = np.arange(20_000)
    chosen = np.argsort(sampling_hash(ids, 3))[:2_000]
    places = document_hash(chosen, np.zeros(2_000, np.int32), 3) / 2**64
    # The mean of 2,000 uniform numbers: standard deviation 0.0065.
    assert abs(places.mean() - 0.5) < 0.03


def test_a_release_has_its_tokens_end_of_text_included():
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 50, 200)
    tokens = [list(range(2, n + 2)) for n in lengths]
    doc_ids = np.arange(200)
    num_tokens = lengths + 1
    budget = plan({"web": int(num_tokens.sum())}, {"web": 1.0}, 4.0, 12_345)["web"]
    hashes = sampling_hash(doc_ids, 0)
    bucket, before = locate(histogram(hashes, num_tokens), budget.remainder)
    inside = buckets(hashes) == bucket
    where = cut(hashes[inside], doc_ids[inside], num_tokens[inside], budget.remainder - before)
    whole, partial = copies(hashes, doc_ids, budget.full_copies, where)
    documents = repeat_documents(
        pa.array(doc_ids),
        pa.array(tokens, DOCUMENTS_SCHEMA.field("input_ids").type),
        whole,
        partial,
    )
    packed = [row for rows in pack([documents], 64, 1) for row in rows["num_tokens"].to_pylist()]
    assert sum(packed) == 12_345

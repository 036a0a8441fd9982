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
    components,
    copies,
    copies_of_documents,
    cut,
    histogram,
    locate,
    plan,
    shares_by_temperature,
    units,
    weights,
)
from curation.tokens.packing import DOCUMENTS_SCHEMA, document_hash, pack, repeat_documents

# Hashes of few values, so that documents share buckets and hashes.
HASHES = st.sampled_from([0, 1, 2**48 - 1, 2**48, 2**63 - 1, 2**63, 2**64 - 1])
DOCUMENTS = st.lists(st.tuples(HASHES, st.integers(0, 40)), min_size=1, max_size=30).filter(
    lambda documents: sum(n for _, n in documents) > 0
)

# (share, available tokens) and (weight, tokens)
PARTS = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 1000)), min_size=1, max_size=6)
WEIGHED = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 40)), min_size=1, max_size=20)


def columns(documents):
    hashes = np.array([h for h, _ in documents], np.uint64)
    num_tokens = np.array([n for _, n in documents], np.int64)
    doc_ids = np.arange(len(documents))[::-1] * 7  # order of ids is not order of rows
    return hashes, doc_ids, num_tokens


def sampling_hash(doc_ids, seed):
    return units(doc_ids, np.ones(len(doc_ids), np.int32), seed)[1]


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


def test_infeasible_names_every_domain():
    with pytest.raises(MixtureInfeasible, match=r"'a' lacks 40 tokens.*'b' lacks 30 tokens"):
        plan({"a": 10, "b": 20, "c": 900}, {"a": 0.25, "b": 0.25, "c": 0.5}, 1.0, 200)


def test_every_domain_has_its_own_epochs():
    budgets = plan({"a": 10, "b": 10}, {"a": 0.5, "b": 0.5}, {"a": 3.0, "b": 8.0}, None)
    assert [b.tokens for b in budgets.values()] == [30, 30]


def test_what_a_domain_lacks_goes_to_the_others_by_their_shares():
    available, shares = {"a": 10, "b": 1000, "c": 1000}, {"a": 0.5, "b": 0.1, "c": 0.4}
    budgets = plan(available, shares, 1.0, 510, redistribute=True)
    assert [b.tokens for b in budgets.values()] == [10, 100, 400]
    with pytest.raises(MixtureInfeasible, match=r"'a' lacks .*at most 2010 tokens are possible"):
        plan(available, shares, 1.0, 2011, redistribute=True)
    assert plan(available, shares, 1.0, 20, redistribute=True) == plan(available, shares, 1.0, 20)


@settings(deadline=None)
@given(PARTS, st.data())
def test_redistribution_is_the_fairest(parts, data):
    """No component with room has less, by its share, than one that is full."""
    available = {f"d{i}": n for i, (_, n) in enumerate(parts)}
    whole = sum(part for part, _ in parts)
    shares = {f"d{i}": Fraction(part, whole) for i, (part, _) in enumerate(parts)}
    total = data.draw(st.integers(1, sum(available.values())))
    budgets = plan(available, shares, 1.0, total, redistribute=True)
    assert sum(b.tokens for b in budgets.values()) == total
    level = {name: b.tokens / shares[name] for name, b in budgets.items()}
    for name, b in budgets.items():
        assert b.tokens <= available[name]
        if b.tokens < available[name]:
            # give or take the whole token that an apportionment rounds by
            highest = max(reached - 1 / shares[other] for other, reached in level.items())
            assert (b.tokens + 1) / shares[name] >= highest


def test_shares_by_temperature():
    available = {"a": 8000, "b": 1000, "none": 0}
    assert shares_by_temperature(available, 1.0) == {"a": Fraction(8, 9), "b": Fraction(1, 9)}
    third = shares_by_temperature(available, 3.0)  # cube roots: 20 and 10
    assert {name: round(float(share), 12) for name, share in third.items()} == {
        "a": round(2 / 3, 12),
        "b": round(1 / 3, 12),
    }
    assert sum(third.values()) == 1


def test_components_are_the_narrowest_that_is_named():
    domain = pa.array(["web", "web", "code", "code", None, "web"])
    lang = pa.array(["zh", "en", "zh", None, "zh", None])
    found = components(domain, lang, ["web", "web/zh", "code/zh"])
    assert found.to_pylist() == ["web/zh", "web", "code/zh", None, None, "web"]
    assert components(domain[1:3], lang[1:3], ["web"]).to_pylist() == ["web", None]


def test_weights_by_duplicates_are_those_of_fineweb_2():
    # 1:1, 2:2, 3:3, 4:3, 5-99:5, 100-999:8, 1000 and more:1, by the size of the cluster
    sizes = [1, 2, 3, 4, 5, 99, 100, 999, 1000, 5000]
    nulls = pa.nulls(len(sizes))
    found = weights(
        np.array(sizes) - 1, nulls, nulls.cast(pa.float64()),
        duplicates=True, buckets={}, score_steps=(),
    )  # fmt: skip
    assert found.tolist() == [1, 2, 3, 3, 5, 5, 8, 8, 1, 1]


def test_weights_multiply():
    found = weights(
        np.array([1, 0, 1, 0]), pa.array(["head", "tail", "middle", None]),
        pa.array([0.1, 0.95, 0.5, None]),
        duplicates=True, buckets={"head": 3, "tail": 0}, score_steps=(0.9, 0.5),
    )  # fmt: skip
    assert found.tolist() == [2 * 3 * 1, 0, 2 * 1 * 2, 1]


@settings(deadline=None)
@given(WEIGHED, st.data())
def test_a_document_of_weight_w_is_like_w_documents(documents, data):
    weight = np.array([w for w, _ in documents], np.int32)
    num_tokens = np.array([n for _, n in documents], np.int64)
    doc_ids = np.arange(len(documents)) * 3
    available = int((weight * num_tokens).sum())
    if available == 0:
        return
    budget = Budget(data.draw(st.integers(0, 3 * available)), available)
    rows, hashes = units(doc_ids, weight, 5)
    assert len(np.unique(hashes)) == len(hashes) == weight.sum()
    bucket, before = locate(histogram(hashes, num_tokens[rows]), budget.remainder)
    inside = buckets(hashes) == bucket
    where = cut(hashes[inside], doc_ids[rows[inside]], num_tokens[rows[inside]],
                budget.remainder - before)  # fmt: skip
    whole, partial = copies_of_documents(
        len(documents), rows, hashes, doc_ids, budget.full_copies, where
    )
    assert whole.dtype == partial.dtype == np.int32
    assert int((whole * num_tokens).sum() + partial.sum()) == budget.tokens
    assert (whole >= budget.full_copies * weight).all()
    assert (whole <= (budget.full_copies + 1) * weight).all()


def test_more_documents_move_few_others():
    """Of 10,000 documents, 1 % more: the others that come or go are about 1 % of those taken."""
    ids = np.arange(10_100)
    sizes = np.full(len(ids), 100)
    taken = []
    for count in (10_000, 10_100):
        hashes = sampling_hash(ids[:count], 0)
        bucket, before = locate(histogram(hashes, sizes[:count]), 500_000)
        inside = buckets(hashes) == bucket
        where = cut(hashes[inside], ids[:count][inside], sizes[:count][inside], 500_000 - before)
        taken.append(set(np.flatnonzero(copies(hashes, ids[:count], 0, where)[0]).tolist()))
    assert len(taken[0]) == len(taken[1]) == 5_000
    new = {d for d in taken[1] if d >= 10_000}
    assert 20 < len(new) < 90
    assert taken[1] - new < taken[0]
    assert len(taken[0] - taken[1]) == len(new)


@pytest.mark.parametrize(
    ("shares", "max_epochs", "num_tokens", "message"),
    [
        ({"web": 0.5, "cod": 0.5}, 1.0, None, "'cod'.*code, web"),
        ({"web": 1.0, "code": 0.0}, 1.0, None, "'code' is 0.0"),
        ({"web": 1.5, "code": -0.5}, 1.0, None, "'code' is -0.5"),
        ({"web": float("nan")}, 1.0, None, "'web' is nan"),
        ({"web": 0.5, "code": 0.4}, 1.0, None, "sum to 0.9"),
        ({}, 1.0, None, "sum to 0"),
        ({"web": 1.0}, 0.0, None, "max_epochs is 0.0 for 'web'"),
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

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.hashing import hash_strings
from curation.remix.split import Probe, held_out


def signatures(rows):
    return pa.array([np.array(row, "<u4").tobytes() for row in rows], pa.binary())


def test_documents_of_a_host_are_on_one_side():
    hosts = pa.array([f"h{i % 500}.org" for i in range(5000)])
    found = held_out(hosts, np.arange(5000), 0.1, 7)
    assert all(len(set(found[i::500])) == 1 for i in range(500))
    assert 25 < found[:500].sum() < 80  # of 500 hosts; standard deviation 6.7
    assert (found[13:90] == held_out(hosts[13:90], np.arange(13, 90), 0.1, 7)).all()


def test_a_larger_share_includes_a_smaller_one_and_seeds_differ():
    hosts = pa.array([f"h{i}.org" for i in range(2000)])
    ids = np.arange(2000)
    small, large = (held_out(hosts, ids, share, 1) for share in (0.05, 0.2))
    assert small.any()
    assert (large >= small).all()
    assert (held_out(hosts, ids, 0.2, 2) != large).any()
    assert not held_out(hosts, ids, 0.0, 1).any()


def test_documents_without_a_host_are_each_their_own():
    for hosts in (pa.nulls(4000, pa.string()), pa.array([""] * 4000)):
        assert 300 < held_out(hosts, np.arange(4000), 0.1, 0).sum() < 500


def test_hashes_of_strings_by_plain_integers():
    def fmix(h):
        for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            h = (h ^ (h >> 33)) * factor % 2**64
        return h ^ (h >> 33)

    def expected(text, seed):  # FNV-1a from a seeded start, mixed
        h = 0xCBF29CE484222325 ^ fmix((seed + 0x9E3779B97F4A7C15) % 2**64)
        for byte in text.encode():
            h = (h ^ byte) * 0x100000001B3 % 2**64
        return fmix(h)

    texts = ["", "example.org", "\u4e2d.cn", None, "a" * 300]
    found = hash_strings(pa.array(["x", *texts])[1:], 3)
    assert [int(h) for h in found] == [expected(text or "", 3) for text in texts]


SLOTS = st.integers(1, 12)


@settings(deadline=None)
@given(st.data(), SLOTS, st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_near_pairs_are_those_that_share_a_group_and_enough_slots(data, num_slots, threshold):
    values = st.lists(st.integers(0, 2), min_size=num_slots, max_size=num_slots)
    held = data.draw(st.lists(values, max_size=6))
    others = data.draw(st.lists(values, max_size=6))
    probe = Probe(np.arange(len(held)) + 100, signatures(held), threshold)
    held_ids, other_ids = probe.near(np.arange(len(others)), signatures(others))
    found = set(zip(held_ids.tolist(), other_ids.tolist(), strict=True))
    width = min(4, num_slots)
    groups = [slice(g * width, (g + 1) * width) for g in range(num_slots // width)]
    expected = {
        (100 + h, o)
        for h, a in enumerate(held)
        for o, b in enumerate(others)
        if any(a[g] == b[g] for g in groups)
        and sum(x == y for x, y in zip(a, b, strict=True)) >= threshold * num_slots - 1e-9
    }
    assert found == expected


def test_pairs_of_the_threshold_are_found_nearly_always():
    rng = np.random.default_rng(0)
    held = rng.integers(0, 2**32, (3000, 112), np.uint32)
    others = held.copy()
    for row in others:
        row[rng.choice(112, 22, replace=False)] ^= np.uint32(1)  # 90 of 112 slots are equal: 0.8036
    probe = Probe(np.arange(3000), signatures(held), 0.8)
    held_ids, other_ids = probe.near(np.arange(3000), signatures(others))
    assert (held_ids == other_ids).all()
    assert len(held_ids) == 3000  # one in 400,000 escapes


@pytest.mark.parametrize("rows", [[], [[1, 2, 3, 4]]])
def test_nothing_is_near_nothing(rows):
    probe = Probe(np.arange(len(rows)), signatures(rows), 0.5)
    assert [len(ids) for ids in probe.near(np.zeros(0, np.int64), signatures([]))] == [0, 0]


def test_slices_of_signatures():
    rows = [[i] * 8 for i in range(10)]
    whole = signatures(rows)
    probe = Probe(np.arange(4, 7), whole[4:7], 1.0)
    held_ids, other_ids = probe.near(np.arange(5, 9), whole[5:9])
    assert list(zip(held_ids.tolist(), other_ids.tolist(), strict=True)) == [(5, 5), (6, 6)]

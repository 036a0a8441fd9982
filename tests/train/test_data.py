"""Which rows a step has: the same for every number of processes, each once an epoch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import ConfigError
from curation.tokens.reader import open_shards
from curation.train.data import Samples
from curation.train.schedule import MultiStep


@pytest.fixture(scope="module")
def dataset(release):
    return open_shards(release)


@pytest.mark.parametrize("num_processes", [1, 2, 3, 6])
def test_processes_share_the_rows_of_a_step(dataset, num_processes):
    samples = Samples(dataset, 12, epochs=3, seed=5)
    for step in (0, 7, samples.num_steps - 1):
        parts = [samples.batch(step, rank, num_processes) for rank in range(num_processes)]
        assert np.concatenate([part.rows for part in parts]).tolist() == samples.rows(step).tolist()
        for part in parts:
            for i, row in enumerate(part.rows.tolist()):
                own = dataset.row(row)
                assert part.input_ids[i].tolist() == own["input_ids"].tolist()
                assert part.num_tokens[i] == own["num_tokens"]


def test_every_epoch_has_every_row_once(dataset):
    n = len(dataset)
    samples = Samples(dataset, 1, epochs=3, seed=5)
    order = [int(samples.rows(step)[0]) for step in range(3 * n)]
    epochs = [order[e * n : (e + 1) * n] for e in range(3)]
    assert epochs[0] == list(range(n))
    for epoch in epochs[1:]:
        assert sorted(epoch) == epochs[0]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    jumps = sum(b != a + 1 for a, b in zip(epochs[1], epochs[1][1:], strict=False))
    assert jumps < len(dataset.group_ends()), "rows of a group are read in their order"
    other = Samples(dataset, 1, epochs=2, seed=6)
    assert [int(other.rows(n + i)[0]) for i in range(n)] != epochs[1]


@given(st.lists(st.integers(0, 120), min_size=0, max_size=6, unique=True))
def test_skipped_positions_are_left_out_and_the_others_stay_in_order(dataset, bounds):
    bounds = sorted(bounds)[: len(bounds) // 2 * 2]
    skipped = list(zip(bounds[::2], bounds[1::2], strict=True))
    samples = Samples(dataset, 1, skipped=skipped)
    expected = [row for row in range(len(dataset)) if not any(a <= row < b for a, b in skipped)]
    assert samples.num_steps == len(expected)
    assert [int(samples.rows(step)[0]) for step in range(samples.num_steps)] == expected


def test_documents_of_a_row_are_numbered_and_padding_is_none(dataset):
    samples = Samples(dataset, 4)
    for step in range(samples.num_steps):
        batch = samples.batch(step)
        for i, row in enumerate(batch.rows.tolist()):
            own = dataset.row(row)
            expected = np.full(32, -1)
            for number, start in enumerate(own["doc_starts"].tolist()):
                expected[start : own["num_tokens"]] = number
            assert batch.documents[i].tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: Samples(d, 0), "a batch of 0 rows"),
        (lambda d: Samples(d, 8, epochs=0), "0 epochs"),
        (lambda d: Samples(d, 8, skipped=[(5, 5)]), "do not overlap"),
        (lambda d: Samples(d, 8, skipped=[(5, 9), (7, 12)]), "do not overlap"),
        (lambda d: Samples(d, 8).batch(0, 0, 3), "8 rows cannot be split among 3 processes"),
        (lambda d: Samples(d, 8).rows(10**6), r"step 1000000 of \d+: .* allow more epochs"),
    ],
)
def test_mistakes(dataset, make, message):
    with pytest.raises(ConfigError, match=message):
        make(dataset)


def test_the_schedule_of_the_paper():
    """2T tokens at 4.2e-4: 2,000 steps of warm-up, 31.6 % from 1.6T, 10 % from 1.8T."""
    schedule = MultiStep(4.2e-4, 2 * 10**12, 9_437_184)
    assert schedule.num_steps == 211_927
    at = {
        tokens: schedule.rate(tokens // 9_437_184 + 1)
        for tokens in (10**12, 16 * 10**11, 18 * 10**11)
    }
    assert schedule.rate(0) == pytest.approx(4.2e-4 / 2000)
    assert schedule.rate(999) == pytest.approx(2.1e-4)
    assert schedule.rate(1999) == schedule.rate(2000) == at[10**12] == 4.2e-4
    assert at[16 * 10**11] == pytest.approx(0.316 * 4.2e-4, rel=1e-3)
    assert at[18 * 10**11] == pytest.approx(4.2e-5)
    assert schedule.rate(16 * 10**11 // 9_437_184) == 4.2e-4, "the step before"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peak": 0.0}, "a peak of 0"),
        ({"warmup_steps": 900}, "900 warm-up steps reach into the first stage of 1000 steps"),
        ({"stages": ((0.9, 0.1), (0.8, 0.3))}, "ascending shares"),
    ],
)
def test_schedules_that_are_none(values, message):
    settings = {"peak": 1e-3, "total_tokens": 1000, "batch_tokens": 1, "warmup_steps": 10}
    with pytest.raises(ConfigError, match=message):
        MultiStep(**{**settings, **values})

"""The laws against the paper's numbers, the fitter against laws that it must find again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import ConfigError
from curation.train.presets import PRESETS, preset
from curation.train.scaling import (
    EXPONENTS,
    fit_allocation,
    fit_power_law,
    flops_per_token,
    growth,
    optimum,
    paper_flops_per_token,
    plan,
    step_flops_per_token,
)


@pytest.mark.parametrize(
    ("name", "total", "non_embedding"),
    [
        ("7b", 6_910_365_696, 6_071_504_896),
        ("67b", 67_425_001_472, 65_747_279_872),
    ],
)
def test_parameters_are_those_of_the_published_models(name, total, non_embedding):
    assert preset(name).num_parameters == total
    assert preset(name).num_non_embedding_parameters == non_embedding


def test_steps_of_the_paper():
    """2T tokens: 211,928 steps of 9,437,184 tokens, and 105,964 of 18,874,368."""
    assert preset("7b").batch_tokens == 9_437_184
    assert preset("67b").batch_tokens == 18_874_368
    assert [round(2e12 / preset(name).batch_tokens) for name in ("7b", "67b")] == [211_928, 105_964]


@pytest.mark.parametrize(
    ("compute", "learning_rate", "batch", "model", "data"),
    [
        (1e17, 2.338e-3, 1.062e5, 1.404e8, 7.123e8),
        (1e18, 1.753e-3, 2.255e5, 4.695e8, 2.130e9),
        (2e19, 1.206e-3, 6.008e5, 2.258e9, 8.857e9),
        (1e20, 9.86e-4, 1.017e6, 5.251e9, 1.905e10),
        (3e20, 8.595e-4, 1.457e6, 9.342e9, 3.212e10),
        (1e21, 7.394e-4, 2.160e6, 1.756e10, 5.695e10),
        (8.456e22, 4.25e-4, 9.22e6, 1.799e11, 4.702e11),
        (9.946e23, 3.12e-4, 2.07e7, 6.55e11, 1.519e12),
    ],
)
def test_the_laws(compute, learning_rate, batch, model, data):
    found = optimum(compute)
    assert found.learning_rate == pytest.approx(learning_rate, rel=3e-3)
    assert found.batch_tokens == pytest.approx(batch, rel=3e-3)
    assert found.model_flops_per_token == pytest.approx(model, rel=3e-3)
    assert found.data_tokens == pytest.approx(data, rel=3e-3)
    assert found.model_flops_per_token * found.data_tokens == pytest.approx(compute, rel=1e-3)


def test_what_the_paper_used_is_near_what_its_laws_say():
    for name, tokens in (("7b", 2e12), ("67b", 2e12)):
        model = preset(name)
        m = paper_flops_per_token(model.num_layers, model.hidden_size, model.sequence_length)
        found = optimum(m * tokens)
        assert found.learning_rate == pytest.approx(model.peak_learning_rate, rel=0.03)
        assert found.batch_tokens == pytest.approx(model.batch_tokens, rel=0.1)


@pytest.mark.parametrize(
    ("num_layers", "hidden_size", "n1", "m"),
    [  # table 3, at 4096 tokens
        (8, 512, 25.2e6, 352e6),
        (12, 768, 84.9e6, 963e6),
        (24, 1024, 302e6, 3.02e9),
        (24, 2048, 1.21e9, 9.66e9),
        (32, 4096, 6.44e9, 45.1e9),
        (40, 5120, 12.6e9, 85.6e9),
        (80, 8192, 64.4e9, 419e9),
    ],
)
def test_flops_per_token_of_table_3(num_layers, hidden_size, n1, m):
    assert 12 * num_layers * hidden_size**2 == pytest.approx(n1, rel=3e-3)
    assert paper_flops_per_token(num_layers, hidden_size, 4096) == pytest.approx(m, rel=3e-3)


@pytest.mark.parametrize(
    ("name", "exact", "paper"), [("7b", 4.247e10, 4.228e10), ("67b", 4.327e11, 4.973e11)]
)
def test_the_exact_count_is_below_the_papers_where_heads_share_keys(name, exact, paper):
    model = preset(name)
    assert flops_per_token(model) == pytest.approx(exact, rel=1e-3)
    m = paper_flops_per_token(model.num_layers, model.hidden_size, model.sequence_length)
    assert m == pytest.approx(paper, rel=1e-3)


def test_better_data_gives_more_to_the_model():
    for model, data in EXPONENTS.values():
        assert model + data == pytest.approx(1.0)
    early, current, web = (
        growth(name, 10.0)
        for name in ("deepseek early", "deepseek current", "openwebtext2 (DeepSeek)")
    )
    assert early[0] < current[0] < web[0]
    assert current[0] * current[1] == pytest.approx(10.0)


@given(
    st.floats(0.3, 0.7),
    st.floats(0.05, 1.0),
    st.lists(st.floats(17.0, 22.0), min_size=3, max_size=6, unique=True).filter(
        lambda logs: min(b - a for a, b in zip(sorted(logs), sorted(logs)[1:], strict=False)) > 0.1
    ),
)
def test_the_fitter_finds_the_law_that_made_the_losses(exponent, curvature, logs):
    factor = 0.2
    runs = []
    for log in logs:
        compute = 10.0**log
        best = np.log(factor * compute**exponent)
        for shift in (-1.5, -0.7, 0.1, 0.8, 1.6):
            model = np.exp(best + shift)
            runs.append((model, compute / model, 2.0 + curvature * shift**2))
    found = fit_allocation(runs)
    assert found.model_flops_per_token.exponent == pytest.approx(exponent, abs=1e-6)
    assert found.model_flops_per_token.factor == pytest.approx(factor, rel=1e-4)
    assert found.data_tokens.exponent == pytest.approx(1 - exponent, abs=1e-6)


def test_a_law_of_learning_rates_is_found_again():
    compute = [1e17, 3e17, 1e18, 2e19]
    found = fit_power_law(compute, [optimum(c).learning_rate for c in compute])
    assert (found.factor, found.exponent) == pytest.approx((0.3118, -0.125))
    assert found(1e20) == pytest.approx(optimum(1e20).learning_rate)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([(1e9, 1e9, 3.0)] * 3, "1 compute budgets; a law needs 2"),
        ([(1e9, 1e9, 3.0), (1e9, 1e10, 3.0)], "1 runs at 1e.18 FLOPs; a parabola needs 3"),
        ([(1e9, 0.0, 3.0)], "above 0"),
        (
            [(m, c / m, -abs(np.log(m / 1e9))) for c in (1e18, 1e19) for m in (1e8, 1e9, 2e9)],
            "above 0",
        ),
        (
            [
                (m, c / m, 9.0 - np.log(m / 1e9) ** 2 / 10)
                for c in (1e18, 1e19)
                for m in (1e8, 1e9, 1e10)
            ],
            "have no lowest point",
        ),
    ],
)
def test_runs_that_show_no_law(runs, message):
    with pytest.raises(ConfigError, match=message):
        fit_allocation(runs)


def test_a_plan_uses_what_there_is():
    """8 H100 at 45 % for a week."""
    found = plan(8, 168.0, 989e12, 0.45)
    total = 8 * 168 * 3600 * 989e12 * 0.45
    assert found.tokens * step_flops_per_token(found.preset) == pytest.approx(total)
    others = [abs(np.log(flops_per_token(p) / optimum(total).model_flops_per_token))
              for p in PRESETS.values()]  # fmt: skip
    own = abs(np.log(flops_per_token(found.preset) / optimum(total).model_flops_per_token))
    assert own == min(others)
    assert found.steps == round(found.tokens / found.optimum.batch_tokens)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optimum(0.0), "compute is 0 FLOPs"),
        (lambda: optimum(float("inf")), "compute is inf"),
        (lambda: plan(0, 1.0, 1e15, 0.4), "gpus is 0"),
        (lambda: plan(8, 1.0, 1e15, 1.4), "utilisation is 1.4"),
        (lambda: growth("c4", 10.0), "no data 'c4' in table 4"),
        (lambda: preset("8b"), "no preset '8b'; presets are tiny"),
        (lambda: fit_power_law([1.0], [1.0]), "two pairs"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(ConfigError, match=message):
        call()

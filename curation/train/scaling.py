"""DeepSeek LLM's scaling laws (arXiv 2401.02954, section 3): what to train with how much compute.

Compute C is M x D: non-embedding FLOPs per token times tokens. The laws of learning rate and batch
were fitted for C from 1e17 to 2e19, those of model and data from 1e17 to 3e20; the paper checked
them with its 7B and 67B models, a thousand times as much. No torch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from curation.errors import ConfigError
from curation.train.presets import PRESETS, Preset

LEARNING_RATE = (0.3118, -0.1250)  # equation 1: factor and exponent of C
BATCH_TOKENS = (0.2920, 0.3271)  # equation 1; in tokens: its 7B model has 2304 x 4096
MODEL_FLOPS_PER_TOKEN = (0.1715, 0.5243)  # equation 4
DATA_TOKENS = (5.8316, 0.4757)  # equation 4

# Table 4: how the best model and the best amount of data grow with C, by the data they were
# fitted on. Better data puts more of the compute into the model. Factors were not published but
# for DeepSeek's current data.
EXPONENTS: Mapping[str, tuple[float, float]] = {
    "openwebtext2 (OpenAI)": (0.73, 0.27),
    "massivetext (Chinchilla)": (0.49, 0.51),
    "deepseek early": (0.450, 0.550),
    "deepseek current": (0.524, 0.476),
    "openwebtext2 (DeepSeek)": (0.578, 0.422),
}

MIN_BUDGETS = 2
MIN_RUNS = 3  # of a budget: a parabola has three numbers


@dataclass(frozen=True)
class Optimum:
    """What the laws say for a compute budget."""

    compute: float  # FLOPs
    learning_rate: float
    batch_tokens: float
    model_flops_per_token: float
    data_tokens: float


def optimum(compute: float) -> Optimum:
    """Return the laws' values for a budget in FLOPs; raises ConfigError unless it is above 0."""
    if not (math.isfinite(compute) and compute > 0):
        raise ConfigError(f"compute is {compute:g} FLOPs, but must be above 0; DeepSeek's 7B: 8e22")
    return Optimum(
        compute,
        *(
            factor * compute**exponent
            for factor, exponent in (
                LEARNING_RATE,
                BATCH_TOKENS,
                MODEL_FLOPS_PER_TOKEN,
                DATA_TOKENS,
            )
        ),
    )


def growth(quality: str, factor: float) -> tuple[float, float]:
    """Return by how much model and data grow when compute grows by a factor, by data of EXPONENTS.

    Raises ConfigError for unknown data.
    """
    if quality not in EXPONENTS:
        raise ConfigError(f"no data {quality!r} in table 4; it has {', '.join(EXPONENTS)}")
    model, data = EXPONENTS[quality]
    return factor**model, factor**data


def paper_flops_per_token(num_layers: int, hidden_size: int, sequence_length: int) -> int:
    """Return M of equation 2: 72 L d^2 + 12 L d s, with full attention and an FFN of 8/3 d."""
    return 72 * num_layers * hidden_size**2 + 12 * num_layers * hidden_size * sequence_length


def flops_per_token(model: Preset) -> int:
    """Return M counted exactly: 6 for a non-embedding parameter, and attention.

    With grouped-query attention the paper's M is 15 % above this for 67B.
    """
    attention = 12 * model.num_layers * model.hidden_size * model.sequence_length
    return 6 * model.num_non_embedding_parameters + attention


def step_flops_per_token(model: Preset) -> int:
    """Return what a step computes for a token, the head included: for the share of a GPU used."""
    return flops_per_token(model) + 6 * model.vocab_size * model.hidden_size


@dataclass(frozen=True)
class Plan:
    """What a budget buys."""

    preset: Preset
    compute: float  # FLOPs, without the head
    tokens: float
    steps: int
    hours: float
    optimum: Optimum


def plan(gpus: int, hours: float, peak_flops: float, utilisation: float) -> Plan:
    """Return the preset whose M is nearest to the best one for GPUs that compute for some hours.

    `peak_flops` are FLOPs a second of a GPU, `utilisation` is the share of them that is used (MFU).
    Raises ConfigError for numbers out of range.
    """
    for name, value, high in (
        ("gpus", gpus, 1e7),
        ("hours", hours, 1e7),
        ("peak_flops", peak_flops, 1e20),
        ("utilisation", utilisation, 1.0),
    ):
        if not 0 < value <= high:
            raise ConfigError(f"{name} is {value:g}; it must be above 0 and at most {high:g}")
    total = gpus * hours * 3600 * peak_flops * utilisation
    found = optimum(total)
    wanted = math.log(found.model_flops_per_token)
    model = min(PRESETS.values(), key=lambda each: abs(math.log(flops_per_token(each)) - wanted))
    tokens = total / step_flops_per_token(model)
    compute = tokens * flops_per_token(model)
    best = optimum(compute)
    steps = max(1, round(tokens / best.batch_tokens))
    return Plan(model, compute, tokens, steps, hours, best)


@dataclass(frozen=True)
class PowerLaw:
    """factor x C^exponent."""

    factor: float
    exponent: float

    def __call__(self, compute: float) -> float:
        """Return the value for a budget."""
        return float(self.factor * compute**self.exponent)


@dataclass(frozen=True)
class Allocation:
    """How the best model and the best amount of data follow from compute."""

    model_flops_per_token: PowerLaw
    data_tokens: PowerLaw


def fit_allocation(runs: Sequence[tuple[float, float, float]]) -> Allocation:
    """Fit equation 4 to runs (FLOPs per token, tokens, loss) at equal compute (IsoFLOP profiles).

    Runs of one budget are those whose compute agrees to 5 %. For each, a parabola in the logarithm
    of M gives the best M (Hoffmann et al. 2022, approach 2); lines through the logarithms give the
    laws. Raises ConfigError for fewer than two budgets, fewer than three runs of one, and a budget
    whose losses have no lowest point.
    """
    budgets: list[list[tuple[float, float, float]]] = []
    for run in sorted(runs, key=lambda run: run[0] * run[1]):
        if any(not (math.isfinite(value) and value > 0) for value in run):
            raise ConfigError(f"a run is {run}; FLOPs per token, tokens and loss are above 0")
        start = budgets[-1][0][0] * budgets[-1][0][1] if budgets else 0.0
        if budgets and run[0] * run[1] <= 1.05 * start:
            budgets[-1].append(run)
        else:
            budgets.append([run])
    if len(budgets) < MIN_BUDGETS:
        raise ConfigError(f"{len(budgets)} compute budgets; a law needs {MIN_BUDGETS}: add runs")
    computes, models = [], []
    for own in budgets:
        compute = float(np.exp(np.mean([math.log(m * d) for m, d, _ in own])))
        computes.append(compute)
        models.append(_lowest(own, compute))
    law = fit_power_law(computes, models)
    data = fit_power_law(computes, [c / m for c, m in zip(computes, models, strict=True)])
    return Allocation(law, data)


def fit_power_law(compute: Sequence[float], value: Sequence[float]) -> PowerLaw:
    """Fit factor and exponent by least squares of logarithms: learning rates or batches, say."""
    if len(compute) < MIN_BUDGETS or len(compute) != len(value):
        raise ConfigError(f"{len(compute)} and {len(value)} numbers; a law needs two pairs or more")
    exponent, intercept = np.polyfit(np.log(compute), np.log(value), 1)
    return PowerLaw(float(np.exp(intercept)), float(exponent))


def _lowest(runs: Sequence[tuple[float, float, float]], compute: float) -> float:
    if len(runs) < MIN_RUNS:
        raise ConfigError(
            f"{len(runs)} runs at {compute:.3g} FLOPs; a parabola needs {MIN_RUNS} models"
        )
    logs = np.log([run[0] for run in runs])
    middle = float(np.mean(logs))
    curve, slope, _ = np.polyfit(logs - middle, [run[2] for run in runs], 2)
    if curve <= 0:
        raise ConfigError(
            f"the losses at {compute:.3g} FLOPs have no lowest point; add smaller and larger models"
        )
    return float(np.exp(middle - slope / (2 * curve)))

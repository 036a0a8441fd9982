"""What training runs say of themselves, and what the scaling laws say of a budget."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from curation.engine.pictures import COLORS, figure, label
from curation.train.scaling import optimum
from curation.train.settings import METRICS_NAME

MAX_RUNS = 12
MAX_POINTS = 2000  # of a run
SMOOTHING = 0.02  # of the points of a run: the window of the mean that is drawn
RUN_COLORS = ("dedup", "filter", "kept", "encode", "decontaminate", "lines", "muted")


def read_runs(folder: str | Path) -> pd.DataFrame:
    """Return the metrics of the runs in a folder and below it, by run and step; empty for none.

    Of the first twelve runs by name, and of a long one every n-th step: 2,000 at most. A line that
    a killed run left unfinished is left out.
    """
    folder = Path(folder)
    parts = []
    for path in sorted(folder.rglob(METRICS_NAME))[:MAX_RUNS]:
        with path.open(encoding="utf-8") as file:
            num_lines = sum(1 for _ in file)
            every = -(-num_lines // MAX_POINTS)
            file.seek(0)
            rows = [
                json.loads(line)
                for number, line in enumerate(file, 1)
                if line.endswith("\n") and (number % every == 0 or number == num_lines)
            ]
        name = path.parent.relative_to(folder).as_posix()
        parts.append(pd.DataFrame(rows).assign(run=folder.name if name == "." else name))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def summary(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return steps, tokens, the last loss and the median speed of every run."""
    return (
        metrics.groupby("run")
        .agg(
            num_steps=("step", "max"),
            num_tokens=("tokens", "max"),
            first_loss=("loss", "first"),
            last_loss=("loss", "last"),
            tokens_per_second=("tokens_per_second", "median"),
        )
        .reset_index()
    )


def loss_figure(metrics: pd.DataFrame) -> Figure:
    """Draw the loss by tokens: every step, and a mean over some of them."""
    return figure(7, lambda axes: _draw(axes, metrics, "loss", "loss, nats a token"))


def speed_figure(metrics: pd.DataFrame) -> Figure:
    """Draw tokens a second by tokens."""
    return figure(5, lambda axes: _draw(axes, metrics, "tokens_per_second", "tokens a second"))


def scaling_table(budgets: Sequence[float]) -> pd.DataFrame:
    """Return what DeepSeek's laws say of budgets in FLOPs: model, data, batch and learning rate."""
    return pd.DataFrame(
        [vars(optimum(budget)) for budget in budgets],
        columns=[
            "compute",
            "model_flops_per_token",
            "data_tokens",
            "batch_tokens",
            "learning_rate",
        ],
    )


def _draw(axes: Axes, metrics: pd.DataFrame, column: str, unit: str) -> None:
    for place, (name, run) in enumerate(metrics.groupby("run")):
        color = COLORS[RUN_COLORS[place % len(RUN_COLORS)]]
        window = max(1, round(SMOOTHING * len(run)))
        mean = run[column].rolling(window, min_periods=1).mean()
        axes.plot(run["tokens"], run[column], color=color, alpha=0.25, lw=0.8)
        axes.plot(run["tokens"], mean, color=color, label=label(str(name)))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter())  # 800 k, 2 T
    axes.set_xlabel("tokens")
    axes.set_ylabel(unit)
    if column == "tokens_per_second":
        axes.set_ylim(bottom=0)
    axes.figure.legend(loc="outside upper left", ncols=3)

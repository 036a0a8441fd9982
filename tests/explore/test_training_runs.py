"""Metrics of runs as notebooks read them; needs no torch."""

import json
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from curation.explore import training
from curation.train.scaling import DATA_TOKENS, LEARNING_RATE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of 3 steps that was killed while it wrote, and one of 5,001."""
    for name, num_steps, rest in (("short", 3, '{"step": 4, "lo'), ("a/long", 5001, "")):
        (tmp_path / name).mkdir(parents=True)
        lines = [
            json.dumps({"step": n, "tokens": 10 * n, "loss": 9 - n / 1000, "tokens_per_second": n})
            for n in range(1, num_steps + 1)
        ]
        (tmp_path / name / "metrics.jsonl").write_text("\n".join(lines) + f"\n{rest}")
    return tmp_path


def test_runs_are_read_in_bounded_memory(folder: Path) -> None:
    metrics = training.read_runs(folder)
    steps = {name: run["step"].tolist() for name, run in metrics.groupby("run")}
    assert steps == {"short": [1, 2, 3], "a/long": [*range(3, 5001, 3), 5001]}
    found = training.summary(metrics).set_index("run")
    assert found.loc["a/long", "last_loss"] == pytest.approx(9 - 5.001)
    assert found.loc["short"].tolist() == [3, 30, pytest.approx(8.999), pytest.approx(8.997), 2]
    for draw in (training.loss_figure, training.speed_figure):
        (axes,) = draw(metrics).axes
        assert [len(line.get_xdata()) for line in axes.lines] == [1667, 1667, 3, 3]
    assert training.read_runs(folder / "short")["run"].unique().tolist() == ["short"]


@pytest.mark.parametrize("num_tokens", [900, 819_200, 2 * 10**12])
def test_numbers_of_tokens_stand_apart(num_tokens: int) -> None:
    runs = pd.DataFrame({"run": "r", "tokens": [num_tokens // 200, num_tokens], "loss": [8.0, 5.0]})
    (axes,) = training.loss_figure(runs).axes
    axes.figure.canvas.draw()
    boxes = [tick.get_window_extent() for tick in axes.get_xticklabels()]
    assert len(boxes) > 3
    assert all(b.x0 - a.x1 > 8 for a, b in pairwise(boxes))  # pixels: a digit


def test_no_run_is_an_empty_table(tmp_path: Path) -> None:
    assert training.read_runs(tmp_path).empty
    assert training.read_runs(tmp_path / "nowhere").empty


def test_the_table_has_the_laws_of_the_paper() -> None:
    found = training.scaling_table([1e17, 8e22]).set_index("compute")
    for compute, row in found.iterrows():
        factor, exponent = LEARNING_RATE
        assert row["learning_rate"] == pytest.approx(factor * compute**exponent)
        factor, exponent = DATA_TOKENS
        assert row["data_tokens"] == pytest.approx(factor * compute**exponent)

"""The same small model on each arm of a lake: what its steps of curation are worth, in bits a byte.

Each run sees each row of its arm once. A seed decides the sample of an arm, its order and the first
weights, so arms are compared seed by seed: the difference has less noise than each side.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev

from scipy import stats

from curation.train import evaluate
from curation.train.loop import MODEL, train
from curation.train.settings import AblateConfig, EvaluateConfig, TrainConfig

CONFIDENCE = 0.95
RUNS_NAME = "runs.json"
REPORT_NAME = "report.md"


@dataclass(frozen=True)
class Run:
    """A model and what it costs it to say the held-out text."""

    arm: str
    seed: int
    loss: float  # of the last step
    bits_per_byte: Mapping[str, float]  # by held-out set


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, with half the width of its confidence interval (Student's t)."""

    mean: float
    half_width: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.half_width:.4f}"


def ablate(
    config: AblateConfig,
    arms: Mapping[str, Sequence[Path]],
    held_out: Mapping[str, Path],
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Run]:
    """Train on every arm with every seed, judge, and write runs.json and report.md into `to`.

    `arms` are releases by name, one a seed. A run that is there already is not done again. The
    first arm is what the others are compared with. Raises what `train` raises.
    """
    to = Path(config.to)
    runs = []
    for seed in range(config.num_seeds):
        for arm, releases in arms.items():
            run = _run(config, arm, seed, releases[seed], held_out)
            runs.append(run)
            shown = ", ".join(f"{name} {bits:.4f}" for name, bits in run.bits_per_byte.items())
            tell(f"{arm}, seed {seed}: loss {run.loss:.4f}; bits a byte: {shown}")
    rows = [asdict(run) for run in runs]
    (to / RUNS_NAME).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (to / REPORT_NAME).write_text(report(runs), encoding="utf-8")
    return runs


def _run(
    config: AblateConfig, arm: str, seed: int, release: Path, held_out: Mapping[str, Path]
) -> Run:
    to = Path(config.to) / "runs" / f"{arm}-{seed}"
    trained = train(
        TrainConfig(
            shards=str(release),
            to=str(to),
            preset=config.preset,
            batch_size=config.batch_size,
            micro_batch_size=config.micro_batch_size,
            learning_rate=config.learning_rate,
            warmup_steps=config.warmup_steps,
            seed=seed,
            keep_checkpoints=1,
        )
    )
    model = str(to / MODEL)
    judged = {
        name: evaluate.evaluate(
            EvaluateConfig(model=model, shards=str(shards), num_rows=config.held_out_rows)
        )["bits per byte"]
        for name, shards in held_out.items()
    }
    return Run(arm, seed, trained.loss, judged)


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of values and half the width of its confidence interval; needs two."""
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    return Interval(fmean(values), float(quantile) * stdev(values) / math.sqrt(len(values)))


def report(runs: Sequence[Run]) -> str:
    """Return a table in Markdown: bits a byte by arm, and what changes against the first arm."""
    return "\n".join(_lines(runs)) + "\n"


def _lines(runs: Sequence[Run]) -> Iterator[str]:
    arms = list(dict.fromkeys(run.arm for run in runs))
    num_seeds = len({run.seed for run in runs})
    yield f"Bits a byte of held-out hosts, {num_seeds} seeds, {CONFIDENCE:.0%} confidence."
    for name in runs[0].bits_per_byte:
        of = {(run.arm, run.seed): run.bits_per_byte[name] for run in runs}
        seeds = sorted({run.seed for run in runs})
        yield ""
        yield f"| {name} | bits a byte | less than {arms[0]} |"
        yield "|---|---|---|"
        for arm in arms:
            own = interval([of[arm, seed] for seed in seeds])
            saved = interval([of[arms[0], seed] - of[arm, seed] for seed in seeds])
            yield f"| {arm} | {own} | {'' if arm == arms[0] else saved} |"

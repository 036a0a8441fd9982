"""The command lines of jobs/{train,sft,dpo,evaluate}.py: options are settings of a dataclass."""

import argparse
import json
import os
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from curation.config import build
from curation.errors import CurationError, PrerequisiteMissing, explained
from curation.train.settings import AblateConfig, DpoConfig, EvaluateConfig, SftConfig, TrainConfig

MakeArms = Callable[
    [str, str, str, int, int], tuple[Mapping[str, Sequence[Path]], Mapping[str, Path]]
]


def train(arguments: Sequence[str] | None = None) -> None:
    """Pretrain as the options say."""
    text = "Pretrain a model on the rows of a release (DeepSeek LLM's recipe)."
    example = "torchrun --nproc-per-node 8 jobs/train.py --shards s3://b/main --preset 7b --to 7b"
    config = parser(TrainConfig, text, example).parse_args(arguments)

    def act() -> None:
        from curation.train import loop

        loaded: TrainConfig = _config(config, TrainConfig)
        found = loop.train(loaded, tell=_Progress())
        bits = "" if found.bits_per_byte is None else f", {found.bits_per_byte:.3f} bits a byte"
        if os.environ.get("RANK", "0") == "0":
            sys.stderr.write(f"\nstep {found.step}: loss {found.loss:.4f}{bits}: {loaded.to}\n")
            shares = [f"{part} {share:.1%}" for part, share in found.shares.items()]
            sys.stderr.write(f"time of the steps: {', '.join(shares)}\n" if shares else "")

    _guarded(act)


def sft(arguments: Sequence[str] | None = None) -> None:
    """Fine-tune on conversations as the options say."""
    text = "Fine-tune a model on the answers of conversations."
    example = "jobs/sft.py --model 7b/model --data conversations.jsonl --to 7b-sft"
    config = parser(SftConfig, text, example).parse_args(arguments)

    def act() -> None:
        from curation.train import align

        _say(align.sft(_config(config, SftConfig)), config.to)

    _guarded(act)


def dpo(arguments: Sequence[str] | None = None) -> None:
    """Tune on preferences as the options say."""
    text = "Tune a model on preferences (direct preference optimisation)."
    example = "jobs/dpo.py --model 7b-sft --data preferences.jsonl --to 7b-chat"
    config = parser(DpoConfig, text, example).parse_args(arguments)

    def act() -> None:
        from curation.train import align

        _say(align.dpo(_config(config, DpoConfig)), config.to)

    _guarded(act)


def evaluate(arguments: Sequence[str] | None = None) -> None:
    """Measure a model as the options say."""
    text = "Measure a model: GSM8K, CMMLU, HumanEval, bits per byte, answers that do not end."
    example = "jobs/evaluate.py --model 7b/model --gsm8k test.jsonl --cmmlu cmmlu/data"
    config = parser(EvaluateConfig, text, example).parse_args(arguments)

    def act() -> None:
        from curation.train import evaluate as measures

        found = measures.evaluate(_config(config, EvaluateConfig))
        for name, value in found.items():
            if name.endswith(measures.STDERR):
                continue
            error = found.get(name + measures.STDERR)
            paper = measures.PAPER.get(name, {})
            beside = ", ".join(f"{model} {number:.3f}" for model, number in paper.items())
            sys.stdout.write(
                f"{name:<20} {value:.4f}{'' if error is None else f' ± {error:.4f}'}"
                f"{f'   paper: {beside}' if beside else ''}\n"
            )
        if config.to:
            Path(config.to).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    _guarded(act)


def ablate(make: MakeArms, arguments: Sequence[str] | None = None) -> None:
    """Train on what `make` gives as the options say, and print the table.

    `make` takes config, release, to, num_tokens and num_seeds, and returns the releases of each
    arm, one a seed, and those that judge: Spark's work, of which this layer knows nothing.
    """
    text = "Train a small model on a lake raw, deduplicated, filtered and remixed."
    example = "jobs/ablate.py --config curation.toml --release main --to ablation"
    options = parser(AblateConfig, text, example).parse_args(arguments)

    def act() -> None:
        from curation.train import ablation

        config: AblateConfig = _config(options, AblateConfig)
        arms, held_out = make(
            config.config, config.release, config.to, config.num_tokens, config.num_seeds
        )
        runs = ablation.ablate(config, arms, held_out, tell=_tell)
        sys.stdout.write(ablation.report(runs))

    _guarded(act)


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")


def _guarded(act: Callable[[], None]) -> None:
    """Run; an error of the user is one message and exit code 1."""
    try:
        try:
            act()
        except ImportError as error:
            raise PrerequisiteMissing(
                f"training needs {error.name}, which is missing; pip install 'curation[train]'"
            ) from None
    except CurationError as error:
        sys.exit(f"error: {explained(error)}")


def _say(found: Any, to: str) -> None:
    right = "" if found.accuracy is None else f", {found.accuracy:.0%} of pairs ranked right"
    sys.stderr.write(
        f"{found.steps} steps: loss {found.first_loss:.4f} to {found.last_loss:.4f}{right}: {to}\n"
    )


def parser(settings: Any, description: str, example: str) -> argparse.ArgumentParser:
    """Return an option for every setting of a dataclass of settings."""
    found = argparse.ArgumentParser(description=description, epilog=f"Example: {example}")
    hints = typing.get_type_hints(settings)
    for field in fields(settings):
        hint, doc = hints[field.name], str(field.metadata["doc"])
        option = f"--{field.name.replace('_', '-')}"
        shown = "" if field.default is MISSING else f"; default {field.default!r}"
        options: dict[str, Any] = {"help": (doc + shown).replace("%", "%%")}
        if field.default is MISSING:
            options["required"] = True
        if hint is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif typing.get_origin(hint) is tuple:
            options["action"] = "append"
        else:
            options["type"] = hint
        found.add_argument(option, **options)
    return found


def _config(options: argparse.Namespace, settings: Any) -> Any:
    given = {name: value for name, value in vars(options).items() if value is not None}
    return build(settings, given)


class _Progress:
    """Shows a line a step: over itself on a terminal, every tenth elsewhere."""

    def __call__(self, metrics: Mapping[str, Any]) -> None:
        step, last = metrics["step"], metrics["num_steps"]
        mfu = "" if metrics["mfu"] is None else f", MFU {metrics['mfu']:.1%}"
        line = (
            f"step {step:,} of {last:,}: loss {metrics['loss']:.4f}, gradient "
            f"{metrics['gradient_norm']:.2f}, rate {metrics['learning_rate']:.2e}, "
            f"{metrics['tokens_per_second']:,.0f} tokens/s{mfu}"
        )
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{line}")
        elif step % 10 == 0 or step in (1, last):
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

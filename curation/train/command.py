"""The command line of jobs/train.py: options are the settings of `TrainConfig`."""

import argparse
import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from curation.config import build
from curation.errors import CurationError, PrerequisiteMissing
from curation.train.settings import TrainConfig


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the options say; an error of the user is one message and exit code 1."""
    try:
        config = _config(parser(TrainConfig).parse_args(arguments), TrainConfig)
        try:
            from curation.train.loop import train
        except ImportError as error:
            raise PrerequisiteMissing(
                f"training needs {error.name}, which is missing; pip install 'curation[train]'"
            ) from None
        found = train(config, tell=_Progress())
        bits = "" if found.bits_per_byte is None else f", {found.bits_per_byte:.3f} bits a byte"
        sys.stderr.write(f"\nstep {found.step}: loss {found.loss:.4f}{bits}: {config.to}\n")
    except CurationError as error:
        sys.exit(f"error: {error}")


def parser(settings: Any) -> argparse.ArgumentParser:
    """Return an option for every setting of a dataclass of settings."""
    found = argparse.ArgumentParser(
        description="Pretrain a model on the rows of a release (DeepSeek LLM's recipe).",
        epilog="Example: torchrun --nproc-per-node 8 jobs/train.py --shards s3://bucket/main "
        "--preset 7b --to runs/7b",
    )
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


def _config(options: argparse.Namespace, settings: Any) -> TrainConfig:
    given = {name: value for name, value in vars(options).items() if value is not None}
    config: TrainConfig = build(settings, given)
    return config


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

"""The command line of the scripts in jobs/: what spark-submit runs.

Errors of the user are one message and exit code 1; progress is JSON lines on stderr.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from curation.config import Config, load
from curation.engine import run
from curation.engine.progress import JsonLines, new_run_id
from curation.engine.stages import STAGES
from curation.errors import CurationError, explained


def run_stage(stage: str, arguments: Sequence[str] | None = None) -> None:
    """Run one stage on the dumps and slices that --dump and --slice name, or on all."""
    parser = _parser(f"Run the {stage} stage: {STAGES[stage].help}.")
    parser.add_argument("--dump", action="append", default=[], help="only this dump; repeatable")
    parser.set_defaults(slice=[])
    if not STAGES[stage].whole_dump:
        parser.add_argument("--slice", action="append", help="only this slice; repeatable")
    options = parser.parse_args(arguments)
    selection = run.Selection(tuple(options.dump), stage, stage, tuple(options.slice))
    _guarded(lambda: _run(options, selection))


def run_pipeline(arguments: Sequence[str] | None = None) -> None:
    """Run all stages, or a range of them."""
    parser = _parser("Run the pipeline.")
    parser.add_argument("--dump", action="append", default=[], help="only this dump; repeatable")
    parser.add_argument("--from", dest="first", default="ingest", help="first stage")
    parser.add_argument("--to", dest="last", default="encode", help="last stage")
    parser.add_argument("--max-minutes", type=float, help="stop between two slices after this time")
    options = parser.parse_args(arguments)
    selection = run.Selection(tuple(options.dump), options.first, options.last)
    _guarded(lambda: _run(options, selection, options.max_minutes))


def release(arguments: Sequence[str] | None = None) -> None:
    """Make a release."""
    from curation.engine.release import make_release

    parser = _parser("Make a release of token shards.")
    parser.add_argument("name", help="a [release.<name>] table of the configuration")
    options = parser.parse_args(arguments)

    def act() -> None:
        run_id = new_run_id()
        with JsonLines(run_id) as reporter:
            make_release(_config(options), options.name, reporter=reporter, run_id=run_id)

    _guarded(act)


def train_tokenizer(arguments: Sequence[str] | None = None) -> None:
    """Train a tokenizer; needs no Spark."""
    from curation.engine.train_tokenizer import Sample, named_paths, train

    parser = _parser("Train a byte-level BPE on the kept text of some dumps.")
    parser.add_argument("--dump", action="append", default=[], help="only this dump; repeatable")
    parser.add_argument("--to", type=Path, required=True, help="the tokenizer.json to write")
    parser.add_argument("--vocabulary", type=int, default=8192, help="tokens")
    parser.add_argument("--sample-bytes", type=int, default=0, help="to train on; 0: all")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="above 1, small domains have more"
    )
    parser.add_argument(
        "--compare", action="append", default=[], help="NAME=tokenizer.json; repeatable"
    )
    options = parser.parse_args(arguments)

    def act() -> None:
        card = train(
            _config(options),
            options.dump,
            options.to,
            options.vocabulary,
            sample=Sample(options.sample_bytes, options.temperature),
            compare=named_paths(options.compare),
        )
        sys.stdout.write(json.dumps(card, ensure_ascii=False) + "\n")

    _guarded(act)


def train_quality(arguments: Sequence[str] | None = None) -> None:
    """Train a quality classifier; needs no Spark."""
    from curation.engine import train_models

    _guarded(lambda: train_models.show(train_models.train_quality(arguments)))


def train_extractor(arguments: Sequence[str] | None = None) -> None:
    """Train the extractor; needs no Spark."""
    from curation.engine import train_models

    _guarded(lambda: train_models.show(train_models.train_extractor(arguments)))


def train_perplexity(arguments: Sequence[str] | None = None) -> None:
    """Train a language model; needs no Spark."""
    from curation.engine import train_models

    _guarded(lambda: train_models.show(train_models.train_perplexity(arguments)))


def export(arguments: Sequence[str] | None = None) -> None:
    """Write the kept documents of a lake."""
    from curation.engine.export import FORMATS
    from curation.engine.export import export as write
    from curation.engine.lake import Lake

    parser = argparse.ArgumentParser(description="Write the kept documents of a lake.")
    parser.add_argument("lake", type=Path, help="the folder of a lake")
    parser.add_argument("--to", type=Path, required=True, help="a new folder")
    parser.add_argument("--format", default=FORMATS[0], help=" or ".join(FORMATS))
    parser.add_argument("--release", default="", help="say how often this release takes each")
    options = parser.parse_args(arguments)
    _guarded(lambda: write(Lake(options.lake), options.to, options.format, options.release))


def train_domains(arguments: Sequence[str] | None = None) -> None:
    """Train a domain classifier; needs no Spark."""
    from curation.engine import train_models

    _guarded(lambda: train_models.show(train_models.train_domains(arguments)))


def recall_domain(arguments: Sequence[str] | None = None) -> None:
    """Find all pages of a domain from a few."""
    from curation.engine import recall_domain as engine

    _guarded(lambda: engine.recall_domain(arguments))


def _run(
    options: argparse.Namespace, selection: run.Selection, max_minutes: float | None = None
) -> None:
    config, run_id = _config(options), new_run_id()
    with JsonLines(run_id) as reporter:
        run.run(config, selection, max_minutes=max_minutes, reporter=reporter, run_id=run_id)


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", type=Path, required=True, help="the TOML file")
    parser.add_argument("--lake", type=Path, help="use this lake instead of the configured one")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], help="key=value; repeatable"
    )
    return parser


def _config(options: argparse.Namespace) -> Config:
    config = load(options.config, options.settings)
    return replace(config, lake=str(options.lake.resolve())) if options.lake else config


def _guarded(act: Callable[[], object]) -> None:
    try:
        act()
    except CurationError as error:
        sys.exit(f"error: {explained(error)}")

"""Train the models that `annotate` scores with, and the extractor.

The command line of jobs/train_*.py and `curation train-*`. All print the card that they write, as
JSON on one line.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curation.engine.training_texts import read_texts
from curation.errors import ConfigError
from curation.quality import classifier, perplexity
from curation.remix import domain_classifier

QUALITY_HELP = "Train a fastText classifier that tells wanted texts from others."
PERPLEXITY_HELP = "Train a KenLM language model."
DOMAINS_HELP = "Train a fastText classifier that names the domain of a text."
EXTRACTOR_HELP = "Train the extractor `blocks` on pages with their main text."
SOURCE_HELP = "a file, glob, or lake:FOLDER?QUERY; repeatable (curation.engine.training_texts)"


def quality_parser() -> argparse.ArgumentParser:
    """Return the options of training a classifier."""
    defaults = classifier.Training()
    parser = argparse.ArgumentParser(
        prog="train-quality",
        description=QUALITY_HELP,
        epilog="Example: curation train-quality --positive good.jsonl "
        "--negative lake:out/demo/lake?rule=* --language en --to quality-en.json",
    )
    _add_sources(parser, "--positive", f"texts to have more of: {SOURCE_HELP}")
    _add_sources(parser, "--negative", f"other texts: {SOURCE_HELP}")
    parser.add_argument(
        "--reference",
        action="append",
        default=[],
        help="texts of which --keep-share is to be kept; without it the held-out negatives",
    )
    _add_target(parser)
    add_numbers(
        parser,
        defaults,
        ("keep-share", "share of the reference texts at or above the threshold"),
        ("held-out", "share of the texts that only measure"),
        ("dim", "numbers of a word's vector"),
        ("lr", "learning rate"),
        ("epoch", "passes over the texts"),
        ("word-ngrams", "words of the longest run that is a feature"),
        ("min-count", "occurrences of a word that is a feature"),
        ("bucket", "slots for runs of words; memory is (words + slots) x dim x 4 bytes"),
        ("seed", "seed of fastText"),
    )
    return parser


def perplexity_parser() -> argparse.ArgumentParser:
    """Return the options of training a language model."""
    defaults = perplexity.Training()
    parser = argparse.ArgumentParser(
        prog="train-perplexity",
        description=PERPLEXITY_HELP,
        epilog="Example: curation train-perplexity --texts lake:out/demo/lake?lang=en "
        "--language en --to perplexity-en.json",
    )
    _add_sources(parser, "--texts", f"texts: {SOURCE_HELP}")
    _add_target(parser)
    add_numbers(
        parser,
        defaults,
        ("order", "tokens of the longest n-gram"),
        ("vocabulary", "words that are tokens; others are spelled"),
        ("min-count", "occurrences of a word of the vocabulary"),
        ("quantize-bits", "bits of a probability; 0 keeps floats"),
        ("held-out", "share of the texts that only measure"),
    )
    parser.add_argument(
        "--prune",
        type=int,
        nargs="+",
        default=list(defaults.prune),
        help=f"n-grams that occur so often or less, by order; default {defaults.prune}",
    )
    parser.add_argument("--memory", default=defaults.memory, help="of lmplz: 20%%, 4G")
    return parser


def domains_parser() -> argparse.ArgumentParser:
    """Return the options of training a domain classifier."""
    defaults = domain_classifier.Training()
    parser = argparse.ArgumentParser(
        prog="train-domains",
        description=DOMAINS_HELP,
        epilog="Example: curation train-domains --label code=code.jsonl --label maths=maths.jsonl "
        "--label prose=lake:out/demo/lake?domain=web --to domains.json",
    )
    parser.add_argument(
        "--label",
        action="append",
        required=True,
        metavar="LABEL=SOURCE",
        help=f"texts of a label, which may have several sources: {SOURCE_HELP}",
    )
    parser.add_argument("--language", default="*", help="of the texts: en, zh, ...; default any")
    parser.add_argument("--to", type=Path, required=True, help="the card to write, NAME.json")
    add_numbers(
        parser,
        defaults,
        ("held-out", "share of the texts that only measure"),
        ("dim", "numbers of a word's vector"),
        ("lr", "learning rate"),
        ("epoch", "passes over the texts"),
        ("min-count", "occurrences of a word that is a feature"),
        ("min-chars", "characters of the shortest part of a word that is a feature; 0: none"),
        ("max-chars", "characters of the longest part of a word that is a feature; 0: none"),
        ("bucket", "slots for parts of words"),
        ("seed", "seed of fastText"),
    )
    return parser


def train_domains(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Train a domain classifier; see `domain_classifier.train`."""
    options = domains_parser().parse_args(arguments)
    sources: dict[str, list[str]] = {}
    for given in options.label:
        label, equals, source = given.partition("=")
        if not equals or not source:
            raise ConfigError(
                f"--label {given!r} is not LABEL=SOURCE; write --label code=code.jsonl"
            )
        sources.setdefault(label, []).append(source)
    names = domain_classifier.Training.__dataclass_fields__
    return domain_classifier.train(
        {label: read_texts(own) for label, own in sources.items()},
        options.to,
        language=options.language,
        training=domain_classifier.Training(**{name: getattr(options, name) for name in names}),
        sources=sources,
    )


def train_quality(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Train a classifier; see `classifier.train`."""
    options = quality_parser().parse_args(arguments)
    names = classifier.Training.__dataclass_fields__
    return classifier.train(
        read_texts(options.positive),
        read_texts(options.negative),
        options.to,
        language=options.language,
        training=classifier.Training(**{name: getattr(options, name) for name in names}),
        reference=read_texts(options.reference),
        sources={classifier.HIGH: options.positive, classifier.LOW: options.negative},
    )


def train_perplexity(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Train a language model; see `perplexity.train`."""
    options = perplexity_parser().parse_args(arguments)
    names = perplexity.Training.__dataclass_fields__
    values = {name: getattr(options, name) for name in names}
    return perplexity.train(
        read_texts(options.texts),
        options.to,
        language=options.language,
        training=perplexity.Training(**{**values, "prune": tuple(values["prune"])}),
        sources=options.texts,
    )


def extractor_parser() -> argparse.ArgumentParser:
    """Return the options of training the extractor `blocks`."""
    parser = argparse.ArgumentParser(
        prog="train-extractor",
        description=EXTRACTOR_HELP,
        epilog="Example: curation train-extractor --gold data/extraction-wcxb-dev "
        "--teacher crawl.warc.gz --to main-text.json",
    )
    parser.add_argument(
        "--gold",
        action="append",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="pages with their main text: ground-truth.jsonl.gz and html/; repeatable",
    )
    parser.add_argument(
        "--teacher",
        action="append",
        default=[],
        type=Path,
        metavar="ARCHIVE",
        help="a WARC file whose pages get trafilatura's text; repeatable",
    )
    parser.add_argument(
        "--teacher-weight",
        type=float,
        default=0.3,
        help="weight of such a page beside one with a gold text; default 0.3",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of CatBoost; default 0")
    parser.add_argument(
        "--held-out",
        type=Path,
        metavar="FILE",
        help="write the texts of gold pages by models that had not seen their site (JSON lines)",
    )
    parser.add_argument("--to", type=Path, required=True, help="the card to write, NAME.json")
    return parser


def train_extractor(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Cross-validate and train the extractor; see `extractor_training.make`."""
    from curation.ingest import extractor_training

    options = extractor_parser().parse_args(arguments)
    extractor_training.check_before(options.to, options.held_out, options.teacher_weight)
    pages = [page for folder in options.gold for page in extractor_training.read_gold(folder)]
    for archive in options.teacher:
        pages += extractor_training.read_taught(archive, options.teacher_weight)
    return extractor_training.make(
        pages,
        options.to,
        seed=options.seed,
        sources=[path.name for path in (*options.gold, *options.teacher)],
        held_out=options.held_out,
        tell=lambda text: print(text, file=sys.stderr, flush=True),  # noqa: T201  # it takes long
    )


def show(card: dict[str, Any]) -> None:
    """Print a card on one line."""
    sys.stdout.write(json.dumps(card, ensure_ascii=False) + "\n")


def _add_sources(parser: argparse.ArgumentParser, name: str, help: str) -> None:
    parser.add_argument(name, action="append", required=True, metavar="SOURCE", help=help)


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--language", required=True, help="language of the texts: en, zh, ...")
    parser.add_argument("--to", type=Path, required=True, help="the card to write, NAME.json")


def add_numbers(
    parser: argparse.ArgumentParser, defaults: object, *wanted: tuple[str, str]
) -> None:
    """Add options that are numbers: (name, help), of the type and default of a setting."""
    for name, help in wanted:
        default = getattr(defaults, name.replace("-", "_"))
        parser.add_argument(
            f"--{name}", type=type(default), default=default, help=f"{help}; default {default:g}"
        )

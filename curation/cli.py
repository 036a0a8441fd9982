"""The `curation` command."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import pyarrow as pa
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from curation import __version__
from curation.cache import cache_dir
from curation.engine.checks import Bounds, judge
from curation.engine.lake import Lake, write_atomically
from curation.errors import (
    CurationError,
    InputInvalid,
    QualityAlarm,
    TimeBudgetSpent,
    explained,
)

if TYPE_CHECKING:
    from curation.config import Config, RemoteConfig
    from curation.engine.capacity import Plan
    from curation.engine.checks import Measured
    from curation.engine.progress import JsonLines, LiveView
    from curation.engine.query import Hit
    from curation.engine.stages import Unit
    from curation.engine.what_if import WhatIf
    from curation.tokens.reader import Shards
    from curation.tokens.shards import Manifest

app = typer.Typer(
    help="Distributed data curation: from Common Crawl dumps to token shards, "
    "every dropped document accounted for.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
console = Console(highlight=False)

ConfigPath = Annotated[Path, typer.Argument(help="The TOML file, for example jobs/conf/demo.toml.")]
ConfigOption = Annotated[Path, typer.Option("--config", help="The TOML file of the run.")]
LakePath = Annotated[Path, typer.Argument(help="The folder of a lake.")]
SetOption = Annotated[
    list[str], typer.Option("--set", help="A setting to change: key=value. Repeatable.")
]
LakeOption = Annotated[
    Path | None, typer.Option("--lake", help="Use this lake instead of the configured one.")
]
DumpArgument = Annotated[
    str, typer.Argument(help="A crawl of Common Crawl, for example CC-MAIN-2023-14.")
]
ListingOption = Annotated[Path, typer.Option("--to", help="The listing to write: *.paths.")]
RemoteOption = Annotated[
    Path | None, typer.Option("--config", help="A TOML file whose [remote] settings count.")
]
DataOption = Annotated[str, typer.Option("--data-url", help="Where its data are: a mirror.")]
CollinfoOption = Annotated[str, typer.Option("--collinfo-url", help="Where its crawls are listed.")]


def command() -> None:
    """Run `main` as a process, and end that at once where no Spark is to be closed.

    Tearing down what numba and Arrow have loaded takes a quarter of a second.
    """
    try:
        main()
    except SystemExit as done:
        if "pyspark" in sys.modules or not isinstance(done.code, int | None):
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(done.code or 0)


def main() -> None:
    """Run the command; an error of the user is one message and exit code 1, never a trace.

    A spent time budget exits with 75: EX_TEMPFAIL of sysexits.h, run again.
    """
    # Before the report imports matplotlib, which else makes a folder in the user's home.
    os.environ.setdefault("MPLCONFIGDIR", str(cache_dir("matplotlib")))
    try:
        app()
    except CurationError as error:
        _fail(explained(error), 75 if isinstance(error, TimeBudgetSpent) else 1)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        _fail(f"{name}{error.strerror or error}; check the path, its owner and the free space", 1)
    except pa.ArrowException as error:
        _fail(f"a file of the lake cannot be read ({error}); restore it from a backup", 1)


def _fail(message: str, code: int) -> NoReturn:
    Console(stderr=True, highlight=False).print(
        f"[bold red]error:[/] {escape(message)}", soft_wrap=True
    )
    sys.exit(code)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        console.print(__version__)
        raise typer.Exit


@app.command()
def run(
    config: ConfigPath,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show what is committed and what would run; do nothing.")
    ] = False,
    dump: Annotated[
        list[str] | None, typer.Option("--dump", help="Only this dump. Repeatable.")
    ] = None,
    first: Annotated[str, typer.Option("--from", help="First stage.")] = "ingest",
    last: Annotated[str, typer.Option("--to", help="Last stage.")] = "encode",
    releases: Annotated[
        list[str] | None, typer.Option("--release", help="Then make this release. Repeatable.")
    ] = None,
    settings: SetOption = [],  # noqa: B006  (typer copies it)
    lake: LakeOption = None,
    max_minutes: Annotated[
        float | None,
        typer.Option("--max-minutes", min=0, help="Stop between two slices after this time."),
    ] = None,
    progress: Annotated[
        str,
        typer.Option("--progress", help="live, or json: lines on stderr; else by the terminal."),
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="With --plan: the plan as one JSON object.")
    ] = False,
) -> None:
    """Bring a lake up to date: ingest, fingerprint, dedup, lines, annotate, filter, decontaminate,
    encode, report.

    Example: curation run jobs/conf/demo.toml --plan
    """
    from curation.engine import run as engine
    from curation.engine.progress import new_run_id

    if progress not in ("", "live", "json"):
        raise InputInvalid(f"--progress {progress!r}: it is live or json")
    if as_json and not plan:
        raise InputInvalid("--json goes with --plan; of a run, --progress json says how it goes")
    loaded = _load(config, settings, lake)
    for name in releases or ():
        loaded.release_named(name)
    selection = engine.Selection(tuple(dump or ()), first, last)
    if plan:
        units = engine.runnable(loaded, selection)
        if as_json:
            sys.stdout.write(json.dumps(_plan_values(loaded, units)) + "\n")
        else:
            console.print(_plan_table(units))
        return
    run_id = new_run_id()
    with _reporter(run_id, progress) as reporter:
        finished = engine.run(
            loaded, selection, max_minutes=max_minutes, reporter=reporter, run_id=run_id
        )
        manifests = _make_releases(loaded, releases or (), reporter, run_id)
    console.print(_funnel_table(finished))
    for manifest in manifests:
        _print_release(loaded, manifest)
    _write_report(loaded, finished)


@app.command("filter")
def filter_(
    config: ConfigPath,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would change; writes nothing.")
    ] = False,
    dump: Annotated[
        list[str] | None, typer.Option("--dump", help="Only this dump. Repeatable.")
    ] = None,
    settings: SetOption = [],  # noqa: B006
    lake: LakeOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: one JSON object.")
    ] = False,
) -> None:
    """Run the filter stage, or show in seconds what other rules would keep.

    Example: curation filter jobs/conf/demo.toml --dry-run --set quality.min_words=80
    """
    from curation.engine import run as engine
    from curation.engine.progress import new_run_id
    from curation.engine.what_if import what_if

    loaded = _load(config, settings, lake)
    for name in dump or ():
        loaded.dump_ordinal(name)
    if not dry_run:
        if as_json:
            raise InputInvalid("--json shows what --dry-run finds; add --dry-run, or drop it")
        run_id = new_run_id()
        with _reporter(run_id) as reporter:
            selection = engine.Selection(tuple(dump or ()), "filter", "filter")
            finished = engine.run(loaded, selection, reporter=reporter, run_id=run_id)
        console.print(_funnel_table(finished))
        _write_report(loaded, finished)
        return
    found = what_if(Lake(loaded.lake), loaded, tuple(dump or ()))
    if as_json:
        rows = [
            {**asdict(c), "tokens_before": c.tokens_before, "tokens_after": c.tokens_after}
            for c in found.changes
        ]
        lost = dict(found.lost_by_rule)
        sys.stdout.write(json.dumps({"changes": rows, "lost_by_rule": lost}) + "\n")
        return
    console.print(_changes_table(found))
    for rule, count in found.lost_by_rule.items():
        console.print(f"{count:>8,} would be lost by {escape(rule)}", soft_wrap=True)


@app.command()
def release(
    name: Annotated[str, typer.Argument(help="The release, a [release.<name>] table.")],
    config: ConfigOption,
    settings: SetOption = [],  # noqa: B006
    lake: LakeOption = None,
) -> None:
    """Make an immutable dataset of token shards from what is committed.

    Example: curation release demo --config jobs/conf/demo.toml
    """
    from curation.engine.progress import new_run_id

    loaded, run_id = _load(config, settings, lake), new_run_id()
    with _reporter(run_id) as reporter:
        (manifest,) = _make_releases(loaded, [name], reporter, run_id)
    _print_release(loaded, manifest)
    _write_report(loaded, Lake(loaded.lake))


@app.command()
def show(lake: LakePath) -> None:
    """Show the funnel of a lake by dump and stage, why documents left, and the duplicates.

    Example: curation show out/demo/lake
    """
    opened = Lake(lake)
    console.print(_funnel_table(opened))
    console.print(_rules_table(opened))
    _print_duplicates(opened)


@app.command()
def runs(
    lake: LakePath,
    run_id: Annotated[str, typer.Argument(help="Show what this run committed.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show the runs of a lake, newest first, or the stages and slices of one.

    Example: curation runs out/demo/lake
    """
    from curation.engine import runs as engine

    opened = Lake(lake)
    rows = (
        engine.run_of(opened, run_id).slices()
        if run_id
        else [run.summary() for run in engine.runs(opened)]
    )
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps(row) + "\n")
        return
    console.print(_slices_table(rows) if run_id else _runs_table(rows))


@app.command()
def check(
    lake: LakePath,
    dump: Annotated[
        list[str] | None, typer.Option("--dump", help="Only this dump. Repeatable.")
    ] = None,
    min_documents: Annotated[
        int, typer.Option(min=1, help="Of fewer documents no share and no distance is judged.")
    ] = Bounds.min_documents,
    min_kept: Annotated[
        int, typer.Option(min=0, help="Documents that a finished dump must keep.")
    ] = Bounds.min_kept,
    min_kept_share: Annotated[
        float, typer.Option(min=0, max=1, help="Of those that dedup leaves.")
    ] = Bounds.min_kept_share,
    max_rule_share: Annotated[
        float, typer.Option(min=0, max=1, help="One rule may reject of what comes to its stage.")
    ] = Bounds.max_rule_share,
    max_drift: Annotated[
        float,
        typer.Option(min=0, max=1, help="Distance of a language's perplexity to the dump before."),
    ] = Bounds.max_drift,
) -> None:
    """Hold what is committed of dumps to bounds; exits with 1 where one is not kept.

    Example: curation check out/demo/lake --max-drift 0.3
    """
    bounds = Bounds(min_documents, min_kept, min_kept_share, max_rule_share, max_drift)
    measured = judge(Lake(lake), dump or (), bounds)
    console.print(_checks_table(measured))
    found = [each.said for each in measured if each.is_alarm]
    if found:
        raise QualityAlarm(
            "; ".join(found) + ". Look at the report, the rules and the input; what is committed "
            "stays. If it is as it should be, give another bound"
        )


@app.command()
def capacity(
    lake: LakePath,
    dumps: Annotated[int, typer.Option("--dumps", help="Dumps to process.")],
    cores: Annotated[int, typer.Option("--cores", help="Cores to process them on.")],
    price: Annotated[float, typer.Option("--price", help="Of one core for an hour.")],
    dump_bytes: Annotated[
        int | None,
        typer.Option("--dump-bytes", help="Archive bytes of a dump; else as those of the lake."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Plan time, cost, bytes and memory of many dumps from the run records of a lake.

    Example: curation capacity out/demo/lake --dumps 91 --cores 4000 --price 0.04
    """
    from curation.engine import capacity as engine

    question = engine.Question(dumps, cores, price, dump_bytes)
    plan = engine.capacity(Lake(lake), question)
    if as_json:
        sys.stdout.write(json.dumps(plan.to_values()) + "\n")
        return
    for table in _capacity_tables(plan):
        console.print(table)
    console.print("Assumptions", style="bold")
    for line in plan.assumptions:
        console.print(f"- {line}", soft_wrap=True)


@app.command()
def why(
    lake: LakePath,
    document: Annotated[str, typer.Argument(help="A URL exactly as crawled, or a doc_id.")],
) -> None:
    """Show every decision about one document, down to archive, offset and twin.

    Example: curation why out/demo/lake https://docs.python.org/3/library/poplib.html
    """
    from curation.engine import ledger

    for history in ledger.why(Lake(lake), document):
        console.print(f"[bold]{history.doc_id}[/]  {escape(str(history.where['url']))}")
        console.print(
            f"  {history.where['dump']}  {escape(str(history.where['archive']))}\n"
            f"  record {history.where['record']} at offset {history.where['offset']}",
            soft_wrap=True,
        )
        for stage, decision in history.decisions:
            console.print(f"  [cyan]{stage}[/]: {escape(decision)}", soft_wrap=True)
        console.print()


@app.command()
def query(
    lake: LakePath,
    text: Annotated[
        Path | None, typer.Option("--text", help="A file of UTF-8 text, or - for standard input.")
    ] = None,
    url: Annotated[str, typer.Option("--url", help="A URL exactly as crawled.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Documents to show.")] = 10,
    min_similarity: Annotated[
        float, typer.Option("--min-similarity", min=0, max=1, help="Lowest share of equal slots.")
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a document.")] = False,
) -> None:
    """Show which retained documents are near a text or a page, from the index alone.

    Example: curation query out/demo/lake --text page.txt
    """
    from curation.engine import query as index

    if (text is None) == (not url):
        raise InputInvalid("name one of --text FILE and --url URL")
    opened = Lake(lake)
    if text is not None:
        hits = index.query(
            opened, index.read_text(text), limit=limit, min_similarity=min_similarity
        )
        _print_hits(hits, as_json)
        return
    for capture in index.query_url(opened, url, limit=limit, min_similarity=min_similarity):
        if not as_json:
            fate = f"removed for {capture.twin_id}" if capture.twin_id is not None else "retained"
            console.print(f"[bold]{capture.doc_id}[/]  {escape(capture.dump)}  {fate}")
        _print_hits(capture.hits, as_json)


def _print_hits(hits: "Sequence[Hit]", as_json: bool) -> None:
    if as_json:
        for hit in hits:
            sys.stdout.write(json.dumps(asdict(hit)) + "\n")
        return
    if not hits:
        console.print("no retained document is near")
    for hit in hits:
        exact = "" if hit.jaccard is None else f"  Jaccard {hit.jaccard:.3f}"
        console.print(
            f"{hit.similarity:.3f}  {hit.kind:<9}  {hit.doc_id}  {escape(hit.dump)}{exact}\n"
            f"       {escape(hit.url)}",
            soft_wrap=True,
        )


@app.command()
def report(config: ConfigPath, settings: SetOption = [], lake: LakeOption = None) -> None:  # noqa: B006
    """Write the report of a lake again.

    Example: curation report jobs/conf/demo.toml
    """
    loaded = _load(config, settings, lake)
    _write_report(loaded, Lake(loaded.lake), force=True)


@app.command("fetch-listing")
def fetch_listing(
    dump: DumpArgument,
    to: ListingOption,
    kind: Annotated[
        str, typer.Option("--kind", help="warc: pages; wet: text that Common Crawl extracted.")
    ] = "warc",
    sample: Annotated[
        int | None, typer.Option("--sample", min=1, help="Only so many files; all without it.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Which files a sample has.")] = 0,
    config: RemoteOption = None,
    data_url: DataOption = "https://data.commoncrawl.org/",
    collinfo_url: CollinfoOption = "https://index.commoncrawl.org/collinfo.json",
) -> None:
    """Write the files of a dump of Common Crawl, or a sample of them, as a listing for `inputs`.

    Example: curation fetch-listing CC-MAIN-2023-14 --kind wet --sample 100 --seed 7 --to a.paths
    """
    from curation.ingest import commoncrawl

    _check_listing(to)
    site = commoncrawl.Site(data_url, collinfo_url, _remote_settings(config))
    found = commoncrawl.fetch_listing(site, dump, kind, sample=sample, seed=seed)
    _write_listing(to, found.lines)
    console.print(
        f"{len(found.lines):,} of {found.num_listed:,} files of {dump}: {escape(str(to))}",
        soft_wrap=True,
    )


@app.command("fetch-index")
def fetch_index(
    dump: DumpArgument,
    to: ListingOption,
    host: Annotated[
        list[str], typer.Option("--host", help="Pages of this host and below it. Repeatable.")
    ] = [],  # noqa: B006  (typer copies it)
    language: Annotated[
        list[str], typer.Option("--language", help="With this main language: eng. Repeatable.")
    ] = [],  # noqa: B006
    mime: Annotated[
        list[str], typer.Option("--mime", help="Of this media type: text/html. Repeatable.")
    ] = [],  # noqa: B006
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only the first so many pages.")
    ] = None,
    config: RemoteOption = None,
    data_url: DataOption = "https://data.commoncrawl.org/",
    collinfo_url: CollinfoOption = "https://index.commoncrawl.org/collinfo.json",
) -> None:
    """Write the pages that Common Crawl's columnar index names as a listing of byte ranges.

    Example: curation fetch-index CC-MAIN-2023-14 --host example.org --language eng --to a.paths
    """
    from curation.ingest import commoncrawl

    _check_listing(to)
    site = commoncrawl.Site(data_url, collinfo_url, _remote_settings(config))
    found = commoncrawl.fetch_index(
        site,
        dump,
        hosts=host,
        languages=language,
        mimes=mime,
        limit=limit,
        track=lambda parts: track(parts, f"index of {dump}", console=console, transient=True),
    )
    _write_listing(to, found.lines)
    console.print(
        f"{len(found.lines):,} of {found.num_listed:,} pages looked through in {dump}: "
        f"{escape(str(to))}",
        soft_wrap=True,
    )


@app.command("train-tokenizer")
def train_tokenizer(
    config: ConfigPath,
    to: Annotated[Path, typer.Option("--to", help="The tokenizer.json to write.")],
    dump: Annotated[
        list[str] | None, typer.Option("--dump", help="Train on this dump. Repeatable.")
    ] = None,
    vocabulary: Annotated[int, typer.Option("--vocabulary", min=300, help="Tokens.")] = 8192,
    sample_bytes: Annotated[
        int, typer.Option("--sample-bytes", min=0, help="Bytes to train on; 0: all.")
    ] = 0,
    temperature: Annotated[
        float,
        typer.Option(help="Above 1, small domains and languages have more of the sample."),
    ] = 1.0,
    compare: Annotated[
        list[str] | None,
        typer.Option("--compare", help="NAME=tokenizer.json, measured beside it. Repeatable."),
    ] = None,
    settings: SetOption = [],  # noqa: B006
    lake: LakeOption = None,
) -> None:
    """Train a byte-level BPE on the kept text of some dumps; prints the digest to pin.

    Example: curation train-tokenizer jobs/conf/demo.toml --dump DUMP-2021-bullseye
    --to jobs/conf/demo-tokenizer.json
    """
    from curation.engine.train_tokenizer import Sample, named_paths, train

    loaded = _load(config, settings, lake)
    sample = Sample(sample_bytes, temperature)
    others = named_paths(compare or ())
    card = train(loaded, tuple(dump or ()), to, vocabulary, sample=sample, compare=others)
    table = Table(title="bytes a token, on texts that are held out", title_justify="left")
    for column in ("domain/language", "bytes", *(["this", *list(others)])):
        table.add_column(column, justify="left" if column == "domain/language" else "right")
    for name, row in card["bytes_per_token"].items():
        cells = [f"{row[each]:.2f}" for each in ("this", *others)]
        table.add_row(escape(name), f"{row['num_bytes']:,}", *cells)
    console.print(table)
    console.print(
        f"{escape(str(to))}: {card['vocab_size']} tokens from {card['num_texts']} documents, "
        f"{card['num_bytes']:,} bytes\n"
        f'pin it: encode.sha256 = "{card["sha256"]}"',
        soft_wrap=True,
    )


_PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True}  # to argparse


@app.command("train-extractor", add_help_option=False, context_settings=_PASSED_ON)
def train_extractor(context: typer.Context) -> None:
    """Train the extractor `blocks` on pages with their main text; --help lists the options.

    Example: curation train-extractor --gold data/extraction-wcxb-dev --to main-text.json
    """
    from curation.engine import train_models

    train_models.show(train_models.train_extractor(context.args))


@app.command("train-quality", add_help_option=False, context_settings=_PASSED_ON)
def train_quality(context: typer.Context) -> None:
    """Train a fastText classifier on two sets of texts; --help lists the options.

    Example: curation train-quality --positive good.jsonl --negative lake:out/demo/lake?rule=*
    --language en --to quality-en.json
    """
    from curation.engine import train_models

    train_models.show(train_models.train_quality(context.args))


@app.command("train-perplexity", add_help_option=False, context_settings=_PASSED_ON)
def train_perplexity(context: typer.Context) -> None:
    """Train a KenLM language model; --help lists the options.

    Example: curation train-perplexity --texts lake:out/demo/lake?lang=en --language en
    --to perplexity-en.json
    """
    from curation.engine import train_models

    train_models.show(train_models.train_perplexity(context.args))


@app.command("train-domains", add_help_option=False, context_settings=_PASSED_ON)
def train_domains(context: typer.Context) -> None:
    """Train a fastText domain classifier; --help lists the options.

    Example: curation train-domains --label code=code.jsonl --label maths=maths.jsonl
    --to domains.json
    """
    from curation.engine import train_models

    train_models.show(train_models.train_domains(context.args))


@app.command("recall", add_help_option=False, context_settings=_PASSED_ON)
def recall(context: typer.Context) -> None:
    """Find all pages of a domain from a few (DeepSeekMath's loop); --help lists the options.

    Example: curation recall --seed maths.jsonl --lake out/demo/lake --label maths --to out/maths
    """
    from curation.engine import recall_domain

    options = recall_domain.parser().parse_args(context.args)
    rounds = recall_domain.recall_domain(context.args)
    recall_domain.show(options.to, options.label, rounds)


@app.command()
def inspect(
    shards: Annotated[Path, typer.Argument(help="The folder of a release.")],
    sample: Annotated[int, typer.Option("--sample", min=1, help="Rows to show.")] = 3,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Which rows.")] = 0,
    split: Annotated[str, typer.Option("--split", help="train or validation.")] = "train",
    lake: Annotated[
        Path | None, typer.Option("--lake", help="The lake, where it was moved.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Show pieces whole.")] = False,
) -> None:
    """Decode rows of a release and show where each piece of them came from.

    Example: curation inspect out/demo/shards/demo --sample 2
    """
    from curation.engine.inspect_shards import EXCERPT_CHARS, inspect_rows

    dataset = _open_split(shards, split)
    folder = shards if shards.is_dir() else shards.parent
    manifest = dataset.manifest
    console.print(
        f"release {escape(manifest.name)}, {split}: {len(dataset):,} rows of "
        f"{manifest.sequence_length:,}, {manifest.packing}, fingerprint {manifest.fingerprint}",
        soft_wrap=True,
    )
    for each in inspect_rows(dataset, folder, sample, seed, lake):
        console.print(f"\n[bold]row {each.row}[/]: {each.num_tokens:,} tokens")
        for piece in each.pieces:
            console.print(
                f"[cyan]{piece.start:>6}[/] {piece.num_tokens:,} tokens from token "
                f"{piece.offset:,} of document {piece.doc_id}\n"
                f"       {escape(piece.url)}\n"
                f"       {escape(piece.dump)}, {escape(piece.archive)}, record {piece.record}",
                soft_wrap=True,
            )
            text = piece.text
            if not full and len(text) > EXCERPT_CHARS:
                half = EXCERPT_CHARS // 2
                text = f"{text[:half]} [...] {text[-half:]}"
            console.print(escape(text), style="dim", soft_wrap=True)


def _open_split(shards: Path, split: str) -> "Shards":
    from curation.tokens.reader import open_shards
    from curation.tokens.shards import SPLITS

    if split not in SPLITS:
        raise InputInvalid(f"--split {split}: there are {', '.join(SPLITS)}")
    return open_shards(shards, split)


@app.command()
def memmap(
    shards: Annotated[Path, typer.Argument(help="The folder of a release, or its URL.")],
    to: Annotated[Path, typer.Option("--to", help="Prefix of the .bin and the .idx file.")],
    split: Annotated[str, typer.Option("--split", help="train or validation.")] = "train",
) -> None:
    """Write a release as one array of ids and an index, which Megatron-LM reads too.

    Example: curation memmap out/demo/shards/demo --to out/demo/demo
    """
    from curation.tokens.memmap import export_memmap

    for path in export_memmap(_open_split(shards, split), to):
        console.print(f"{escape(str(path))}: {path.stat().st_size:,} bytes", soft_wrap=True)


@app.command()
def export(
    lake: LakePath,
    to: Annotated[Path, typer.Option("--to", help="A new folder.")],
    format: Annotated[str, typer.Option("--format", help="parquet or jsonl.")] = "parquet",
    release: Annotated[
        str, typer.Option("--release", help="Say how often this release takes each document.")
    ] = "",
) -> None:
    """Write the kept documents of a lake with their labels and scores, and a dataset card.

    Example: curation export out/demo/lake --to out/demo/text --format parquet
    """
    from curation.engine.export import export as write

    totals = write(Lake(lake), to, format, release)
    console.print(
        f"{totals['documents']:,} documents, {totals['bytes']:,} bytes of text: {escape(str(to))}",
        soft_wrap=True,
    )


@app.command()
def scaling(
    compute: Annotated[
        float | None, typer.Option("--compute", help="Budget in FLOPs: 1e20.")
    ] = None,
    gpus: Annotated[int, typer.Option("--gpus", help="In place of --compute: GPUs.")] = 0,
    hours: Annotated[float, typer.Option("--hours", help="Hours that they compute.")] = 24.0,
    peak: Annotated[
        float, typer.Option("--peak-flops", help="FLOPs a second of a GPU; H100, bf16: 989e12.")
    ] = 989e12,
    utilisation: Annotated[float, typer.Option("--mfu", help="Share of them that is used.")] = 0.4,
) -> None:
    """Show what DeepSeek LLM's scaling laws say for a compute budget, or for GPUs and hours.

    Example: curation scaling --compute 1e20
    """
    from curation.train import scaling as laws

    if (compute is None) == (gpus == 0):
        raise InputInvalid("name one of --compute FLOPS and --gpus NUMBER")
    if compute is None:
        found = laws.plan(gpus, hours, peak, utilisation)
        best, model = found.optimum, found.preset
        console.print(
            f"{gpus:,} GPUs, {hours:g} h at {utilisation:.0%} of {peak / 1e12:,.0f} TFLOP/s\n"
            f"preset {model.name}: {model.num_parameters:,} parameters, {found.tokens:.4g} tokens, "
            f"{found.steps:,} steps",
            soft_wrap=True,
        )
    else:
        best = laws.optimum(compute)
    table = Table(title=f"compute {best.compute:.4g} FLOPs", title_justify="left")
    for column in ("", "value", "unit"):
        table.add_column(column, justify="right" if column == "value" else "left")
    sequences = best.batch_tokens / 4096
    for name, value, unit in (
        ("learning rate", f"{best.learning_rate:.4g}", "peak"),
        ("batch", f"{best.batch_tokens:.4g}", f"tokens, {sequences:,.0f} sequences of 4,096"),
        ("model", f"{best.model_flops_per_token:.4g}", "non-embedding FLOPs a token"),
        ("data", f"{best.data_tokens:.4g}", "tokens"),
    ):
        table.add_row(name, value, unit)
    console.print(table)
    if not 1e17 <= best.compute <= 3e20:
        console.print(
            "The laws were fitted from 1e17 to 3e20 FLOPs (learning rate and batch to 2e19).",
            soft_wrap=True,
        )


@app.command()
def gc(lake: LakePath) -> None:
    """Remove the files that no run record lists: what dead runs left.

    Example: curation gc out/demo/lake
    """
    opened = Lake.create(Lake(lake).path)
    with opened.lock():
        removed = opened.gc()
    console.print(f"removed {len(removed)} files")


@app.command()
def doctor(
    config: Annotated[Path | None, typer.Argument(help="Also check this configuration.")] = None,
) -> None:
    """Check Java, Spark, models, write access and versions; say what is wrong and how to mend it.

    Example: curation doctor jobs/conf/demo.toml
    """
    from curation.engine.doctor import examine

    findings = examine(config)
    for finding in findings:
        mark = "[green]ok[/]  " if finding.ok else "[bold red]BAD[/] "
        console.print(f"{mark} {finding.what}: {escape(finding.found)}", soft_wrap=True)
        if not finding.ok:
            console.print(f"     mend: {escape(finding.mend)}", soft_wrap=True)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _load(path: Path, settings: Sequence[str], lake: Path | None) -> "Config":
    from curation.config import load

    config = load(path, settings)
    return config if lake is None else replace(config, lake=str(lake.resolve()))


def _remote_settings(config: Path | None) -> "RemoteConfig":
    from curation.config import RemoteConfig

    return RemoteConfig() if config is None else _load(config, (), None).remote


def _check_listing(to: Path) -> None:
    """Refuse a name under which `inputs` would not take a listing, before anything is fetched."""
    if to.suffix != ".paths":
        raise InputInvalid(f"--to {to}: the name of a path listing ends in .paths; name it so")


def _write_listing(to: Path, lines: "Sequence[str]") -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(to, "".join(f"{line}\n" for line in lines))


def _reporter(run_id: str, progress: str = "") -> "LiveView | JsonLines":
    from curation.engine.progress import JsonLines, LiveView

    is_live = progress == "live" or (not progress and console.is_terminal)
    return LiveView(console) if is_live else JsonLines(run_id)


def _make_releases(
    config: "Config", names: Sequence[str], reporter: "LiveView | JsonLines", run_id: str
) -> "list[Manifest]":
    if not names:
        return []
    from curation.engine.release import make_release

    return [make_release(config, name, reporter=reporter, run_id=run_id) for name in names]


def _print_release(config: "Config", manifest: "Manifest") -> None:
    table = Table(title=f"release {manifest.name}", title_justify="left")
    for column in ("domain", "available", "target", "realised", "tokens", "epochs"):
        table.add_column(column, justify="left" if column == "domain" else "right")
    for domain, row in manifest.mixture.items():
        table.add_row(
            escape(domain),
            f"{row['available_tokens']:,}",  # by weight, an end of text for every document
            f"{row['share']:.1%}",
            f"{row['tokens'] / max(manifest.tokens, 1):.1%}",
            f"{row['tokens']:,}",
            f"{row['epochs']:.2f}",
        )
    console.print(table)
    account = Table(title="where every token went", title_justify="left")
    for column in ("tokens", "what"):
        account.add_column(column, justify="right" if column == "tokens" else "left")
    for what, tokens in manifest.where_tokens_went:
        account.add_row(f"{tokens:,}", what)
    console.print(account)
    folder = Path(config.shards) / manifest.name
    console.print(
        f"{manifest.tokens:,} tokens in {manifest.num_shards} shards of rows of "
        f"{manifest.sequence_length:,}, {manifest.padding:,} padded, {manifest.cuts:,} cuts: "
        f"{escape(str(folder))}\nfingerprint {manifest.fingerprint}",
        soft_wrap=True,
    )


def _write_report(config: "Config", lake: Lake, force: bool = False) -> None:
    """Write the report unless it is newer than the last commit."""
    path = Path(config.report)
    last = max((p.stat().st_mtime for p in (lake.path / "_runs").rglob("*.json")), default=0.0)
    if force or not path.exists() or path.stat().st_mtime < last:
        from curation.engine.report import write_report

        write_report(lake, path, config)
    console.print(f"report: {escape(str(path))}", soft_wrap=True)


def _plan_table(units: "Sequence[Unit]") -> Table:
    num_done = sum(unit.committed for unit in units)
    table = Table(title=f"{num_done} committed, {len(units) - num_done} to run")
    for column in ("stage", "dump", "slice", "key", "state"):
        table.add_column(column)
    for unit in units:
        state = "committed" if unit.committed else "[bold]to run[/]"
        table.add_row(unit.stage.name, unit.dump, unit.slice, unit.key[:12], state)
    return table


def _plan_values(config: "Config", units: "Sequence[Unit]") -> dict[str, Any]:
    return {
        "lake": config.lake,
        "units": [
            {
                "stage": unit.stage.name,
                "dump": unit.dump,
                "slice": unit.slice,
                "key": unit.key,
                "committed": unit.committed,
            }
            for unit in units
        ],
    }


def _runs_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="runs", title_justify="left")
    for column in ("run", "begun", "end", "stages", "dumps", "slices"):
        table.add_column(column, justify="right" if column == "slices" else "left")
    for column in ("seconds", "in", "kept", "out"):
        table.add_column(column, justify="right")
    for row in rows:
        stages = [*row["stages"][:1], *row["stages"][1:][-1:]]
        names = [" to ".join(stages), *(f"release {name}" for name in row["releases"])]
        end = f"{row['end']} ({row['error']})" if row["error"] else row["end"]
        table.add_row(
            *(row["run_id"], row["begun_at"], end, escape(", ".join(filter(None, names)))),
            *(escape(", ".join(row["dumps"])), f"{row['slices']:,}", f"{row['seconds']:,.1f}"),
            *(f"{row[name]:,}" for name in ("rows_in", "rows_kept", "rows_rejected")),
        )
    return table


def _slices_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="slices", title_justify="left")
    for column in ("stage", "dump", "slice", "begun"):
        table.add_column(column)
    for column in ("seconds", "CPU", "in", "kept", "out"):
        table.add_column(column, justify="right")
    for row in rows:
        cpu_seconds = row["resources"].get("cpu_seconds")
        table.add_row(
            *(row["stage"], escape(row["dump"]), row["slice"], row["begun_at"]),
            *(f"{row['seconds']:,.1f}", "" if cpu_seconds is None else f"{cpu_seconds:,.1f}"),
            *(f"{row[name]:,}" for name in ("rows_in", "rows_kept", "rows_rejected")),
        )
    return table


def _checks_table(measured: "Sequence[Measured]") -> Table:
    table = Table(title="checks", title_justify="left")
    for column in ("dump", "what", "value", "bound", "state"):
        is_number = column in ("value", "bound")
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for each in measured:
        state = "[bold red]alarm[/]" if each.is_alarm else "ok"
        texts = (each.dump, each.what, f"{each.value:,.4g}", f"{each.bound:,.4g}")
        table.add_row(*map(escape, texts), state)
    return table


def _capacity_tables(plan: "Plan") -> list[Table]:
    question = plan.question
    stages = Table(title=f"{question.dumps:,} dumps", title_justify="left")
    for column in (
        "stage",
        "grows with",
        "core-seconds",
        "in",
        "out",
        "shuffle",
        "memory",
        "range",
    ):
        is_text = column in ("stage", "grows with", "range")
        stages.add_column(column, justify="left" if is_text else "right")
    for each in plan.stages:
        sizes = (each.bytes_in, each.bytes_out, each.shuffle_bytes, each.peak_worker_bytes)
        grows = each.scales_with + (", index" if each.index_core_seconds else "")
        stages.add_row(
            *(each.stage, grows, f"{each.core_seconds:,.0f}", *map(_size, sizes), each.label)
        )
    totals = Table(
        title=f"{question.cores:,} cores at {question.price:g} a core-hour", title_justify="left"
    )
    for column in ("", "core-hours", "hours", "cost", "hours as measured", "cost as measured"):
        totals.add_column(column, justify="right" if column else "left")
    for name, values in plan.totals().items():
        totals.add_row(name, *(f"{v:,.2f}" if v >= 1 else f"{v:.3g}" for v in values.values()))
    return [stages, totals]


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if num_bytes < 1000:
            return f"{num_bytes:,.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.3g} PB"


def _funnel_table(lake: Lake) -> Table:
    from curation.engine import ledger

    funnel = ledger.funnel(lake)
    table = Table(title="documents by dump and stage", title_justify="left")
    table.add_column("dump")
    headings = {"ingest": "ingested", "dedup": "unique", "filter": "kept", "encode": "tokens"}
    table.add_column("records", justify="right")
    for heading in headings.values():
        table.add_column(heading, justify="right")
    for dump in [*funnel.dumps, None]:
        cells = []
        for stage in headings:
            total, clean = (
                funnel.total(each) if dump is None else funnel.totals.get((dump, each))
                for each in (stage, "decontaminate")
            )
            if stage == "ingest":
                cells.append(f"{total.rows_in:,}" if total else "")
            if total is None:
                cells.append("")
            elif stage == "encode":
                cells.append(f"{sum(total.counts.get('tokens', {}).values()):,}")
            else:
                kept = clean.rows_kept if clean and stage == "filter" else total.rows_kept
                share = kept / total.rows_in if total.rows_in else 0.0
                cells.append(f"{kept:,} ({share:.0%})")
        table.add_row(
            dump or "[bold]all[/]", *cells, end_section=dump == (funnel.dumps or [""])[-1]
        )
    return table


def _changes_table(found: "WhatIf") -> Table:
    table = Table(title="what would be kept, against what is", title_justify="left")
    for column in ("language", "dump", "documents", "gained", "lost", "characters", "tokens"):
        justify: Any = "left" if column in ("language", "dump") else "right"
        table.add_column(column, justify=justify, overflow="fold")

    def change(before: int | None, after: int | None) -> str:
        if before is None or after is None:
            return "-"
        share = f" ({(after - before) / before:+.1%})" if before and after != before else ""
        return f"{after:,}{share}"

    changes = sorted(found.changes, key=lambda each: each.language)
    for language, group in groupby(changes, key=lambda each: each.language):
        rows = list(group)
        for each in rows:
            table.add_row(
                escape(language),
                each.dump,
                change(each.documents_before, each.documents_after),
                f"{each.documents_gained:,}",
                f"{each.documents_lost:,}",
                change(each.chars_before, each.chars_after),
                change(each.tokens_before, each.tokens_after),
                end_section=each is rows[-1],
            )
    tokens = [
        None
        if any(getattr(c, name) is None for c in changes)
        else sum(getattr(c, name) for c in changes)
        for name in ("tokens_before", "tokens_after")
    ]
    table.add_row(
        "[bold]all[/]",
        "",
        change(sum(c.documents_before for c in changes), sum(c.documents_after for c in changes)),
        f"{sum(c.documents_gained for c in changes):,}",
        f"{sum(c.documents_lost for c in changes):,}",
        change(sum(c.chars_before for c in changes), sum(c.chars_after for c in changes)),
        change(*tokens),
    )
    return table


def _rules_table(lake: Lake) -> Table:
    from curation.engine import ledger

    table = Table(title="why documents left", title_justify="left")
    for column in ("stage", "rule", "documents"):
        table.add_column(column, justify="right" if column == "documents" else "left")
    for stage, counts in ledger.rejects_by_rule(lake).items():
        for rule, count in counts.most_common():
            table.add_row(stage, escape(rule), f"{count:,}")
    return table


def _print_duplicates(lake: Lake) -> None:
    from curation.engine import duplication, ledger

    flow = ledger.funnel(lake)
    rows = duplication.by_dump(flow)
    if not rows:
        return
    table = Table(title="duplicates", title_justify="left")
    for column in ("dump", "exact", "near", "removed", "together with the dumps before"):
        table.add_column(column, justify="left" if column == "dump" else "right")
    for row in rows:
        counts = (f"{row.exact:,}", f"{row.near:,}", f"{row.rate:.1%}", f"{row.rate_together:.1%}")
        table.add_row(row.dump, *counts)
    console.print(table)
    clusters, orphans = duplication.clusters(lake, flow), duplication.orphans(lake, flow)
    if clusters and clusters.largest:
        page, size = clusters.largest[0]
        console.print(
            f"largest cluster: {size:,} documents like {escape(page.url)} in {page.dump}",
            soft_wrap=True,
        )
    if orphans and orphans.num_orphans:
        console.print(
            f"orphans: {orphans.num_orphans:,} of {orphans.num_removed:,} removed documents have a "
            "twin that a later stage rejected",
            soft_wrap=True,
        )
    for dump, name, count in duplication.allowed(lake):
        console.print(f"allowed: {escape(name)} lost {count:,} documents of {dump}", soft_wrap=True)


if __name__ == "__main__":
    main()

"""The report of a lake: one HTML page that opens without a network, its pictures inline SVG.

Everything on it follows from the lake: run records, the first rejects of each stage, the manifests
of releases and, for a small lake, exact similarities of all documents. There is no clock, so the
same lake gives the same bytes. What came from a page (URLs, values of rules) is escaped.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes

from curation import __version__
from curation.config import Config
from curation.engine import report_samples
from curation.engine.brute_force import BruteForce, measure
from curation.engine.duplication import languages_removed
from curation.engine.lake import Lake, RunRecord
from curation.engine.ledger import (
    FUNNEL_STAGES,
    Funnel,
    StageTotals,
    documents_of,
    funnel,
    rejects_by_rule,
)
from curation.engine.pictures import (
    COLORS,
    bars,
    breakable,
    label,
    num,
    percent,
    picture,
    rounded,
    seconds,
    short,
    size,
)
from curation.engine.report_dedup import dedup_section, size_name
from curation.engine.report_quality import quality_section
from curation.engine.report_rates import rates_section
from curation.engine.report_tokens import tokens_section
from curation.engine.runs import group
from curation.engine.stages import STAGES
from curation.tokens.shards import MANIFEST_NAME, read_manifest

MAX_DOCUMENTS = 5000  # of a lake whose documents are all compared
MAX_PAIRS = 5  # wrong and missed pairs that are listed
MAX_RULE_BARS = 20
MAX_COMMITS = 500  # more than this are summed by stage and dump
MAX_RUNS = 50  # newest commands that are listed

FATES = {
    "kept": "kept",
    "ingest": "rejected at ingest",
    "dedup": "duplicate",
    "lines": "repeated lines",
    "filter": "rejected by filter",
    "decontaminate": "contaminated",
    "encode": "rejected at encode",
}


def write_report(lake: Lake, path: Path, config: Config) -> None:
    """Write the report of a lake as it is now; sections without anything to say are left out.

    Cost: all run records, some rejects and texts, ids of duplicates and of the filter's rejects up
    to stated numbers, and for a lake of at most 5,000 documents a comparison of every pair.
    """
    flow = funnel(lake)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"num": num, "percent": percent, "size": size, "rounded": rounded}
    environment.filters |= {"short": short, "size_name": size_name, "seconds": seconds}
    environment.filters |= {"breakable": breakable}
    counted = rejects_by_rule(lake)
    chosen = {stage: report_samples.rejected(lake, stage) for stage in counted}
    filtered = flow.total("filter")
    known_runs = group(lake.records(), lake.history())
    quality = measure(lake, config, MAX_DOCUMENTS) if lake.records("dedup") else None
    page = environment.get_template("report.html.jinja").render(
        version=__version__,
        name="/".join(lake.path.parts[-2:]),
        config=config,
        facts=_facts(lake, flow),
        funnel=_funnel(flow),
        dedup=dedup_section(lake, flow, config),
        reasons=_reasons(flow, counted, chosen),
        kept_texts=report_samples.kept_texts(
            lake, filtered.counts.get("domains", {}) if filtered else {}
        ),
        rejected_texts=report_samples.rejected_texts(lake, counted, chosen),
        signals=quality_section(flow, config),
        languages=_shares(flow.total("ingest"), "languages"),
        languages_removed=languages_removed(lake),
        domains=_domains(flow),
        tokens=tokens_section(flow),
        releases=_releases(lake, config),
        quality=quality,
        pairs=_pairs(lake, quality) if quality else {},
        max_documents=MAX_DOCUMENTS,
        rates=rates_section(lake, flow, config),
        runs=[run.summary() for run in known_runs[:MAX_RUNS]],
        num_runs=len(known_runs),
        commits=_commits(lake),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


# ---- what the sections show --------------------------------------------------------------------


@dataclass(frozen=True)
class Fact:
    """A headline number and what it counts."""

    value: str
    name: str
    note: str = ""


@dataclass(frozen=True)
class Flow:
    """One row of the funnel: what came in, and what each stage left of it."""

    dump: str
    records: int
    left: Mapping[str, int | None]  # by stage of FUNNEL_STAGES; None where it has not run
    kept: int  # records that no stage has rejected
    num_bytes: int  # of text left by the last stage that has run

    @property
    def share(self) -> float | None:
        """Share of the records that is kept."""
        return self.kept / self.records if self.records else None


@dataclass(frozen=True)
class Reason:
    """A rule, what it rejected, and a document that it did."""

    stage: str
    rule: str
    num_documents: int
    share: float  # of what came into the stage
    example: Mapping[str, Any] | None


def _facts(lake: Lake, flow: Funnel) -> list[Fact]:
    sizes = [
        lake.sources(dump).get(str(file.ordinal), {}).get("size")
        if file.size is None
        else file.size
        for dump in flow.dumps
        for file in lake.inputs(dump)
    ]
    facts = [
        Fact(num(len(flow.dumps)), "dumps"),
        Fact(num(len(sizes)), "input files", size(sum(size or 0 for size in sizes))),
    ]
    ingest, encode = flow.total("ingest"), flow.total("encode")
    if ingest:
        total = _total([flow_of(flow, dump) for dump in flow.dumps])
        facts += [
            Fact(num(total.records), "records read"),
            Fact(num(total.kept), "documents kept", f"{percent(total.share)} of the records"),
            Fact(size(total.num_bytes), "of text kept", f"{size(ingest.bytes_kept)} after ingest"),
        ]
    if encode:
        facts.append(Fact(num(sum(encode.counts.get("tokens", {}).values())), "tokens"))
    records = lake.records()
    facts.append(
        Fact(num(len(records)), "commits", f"{seconds(sum(r.seconds for r in records))} of work")
    )
    return facts


def _funnel(flow: Funnel) -> Mapping[str, Any] | None:
    rows = [flow_of(flow, dump) for dump in flow.dumps if (dump, "ingest") in flow.totals]
    if not rows:
        return None
    return {
        "stages": FUNNEL_STAGES,
        "rows": rows,
        "total": _total(rows),
        "picture": picture("Documents by dump and fate", len(rows), draw_funnel(flow, rows)),
    }


def flow_of(flow: Funnel, dump: str) -> Flow:
    """Return the row of a dump in the funnel."""
    totals = {stage: flow.totals.get((dump, stage)) for stage in FUNNEL_STAGES}
    ran = [total for total in totals.values() if total]
    records = totals["ingest"].rows_in if totals["ingest"] else 0
    return Flow(
        dump,
        records,
        left={stage: total.rows_kept if total else None for stage, total in totals.items()},
        kept=records - sum(total.rows_rejected for total in ran),
        num_bytes=ran[-1].bytes_kept if ran else 0,
    )


def _total(rows: Sequence[Flow]) -> Flow:
    left: dict[str, int | None] = {}
    for stage in FUNNEL_STAGES:
        found = [n for row in rows if (n := row.left[stage]) is not None]
        left[stage] = sum(found) if found else None
    return Flow(
        "all dumps",
        sum(row.records for row in rows),
        left,
        sum(row.kept for row in rows),
        sum(row.num_bytes for row in rows),
    )


def draw_funnel(flow: Funnel, rows: Sequence[Flow]) -> Callable[[Axes], None]:
    """Draw what became of the records of each dump."""

    def draw(axes: Axes) -> None:
        labels = [label(row.dump) for row in rows]
        starts = [0] * len(rows)
        for fate, meaning in FATES.items():
            widths = [_width(flow, row, fate) for row in rows]
            if any(widths):
                axes.barh(range(len(rows)), widths, 0.7, starts, color=COLORS[fate], label=meaning)
            starts = [start + width for start, width in zip(starts, widths, strict=True)]
        for place, row in enumerate(rows):
            axes.annotate(
                f"{percent(row.share)} kept",
                (starts[place], place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
            )
        bars(axes, labels, max(starts), "documents", room=0.3)
        axes.figure.legend(loc="outside upper left", ncols=3)

    return draw


def _width(flow: Funnel, row: Flow, fate: str) -> int:
    if fate == "kept":
        return row.kept
    total = flow.totals.get((row.dump, fate))
    return total.rows_rejected if total else 0


def _reasons(
    flow: Funnel, counted: Mapping[str, Counter[str]], chosen: Mapping[str, report_samples.Chosen]
) -> Mapping[str, Any] | None:
    reasons = []
    for stage in FUNNEL_STAGES:
        total = flow.total(stage)
        if total is None or stage not in counted:
            continue
        for rule, count in _ranked(counted[stage]):
            share = count / max(total.rows_in, 1)
            example = next((row for row in chosen[stage].get(rule, ()) if "url" in row), None)
            reasons.append(Reason(stage, rule, count, share, example))
    if not reasons:
        return None
    largest = sorted(reasons, key=lambda reason: -reason.num_documents)[:MAX_RULE_BARS]
    shown = [reason for reason in reasons if reason in largest]
    return {
        "rows": reasons,
        "num_hidden": len(reasons) - len(shown),
        "picture": picture("Documents removed by rule", len(shown), _draw_reasons(shown)),
    }


def _draw_reasons(reasons: Sequence[Reason]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for stage in FUNNEL_STAGES:
            places = [i for i, reason in enumerate(reasons) if reason.stage == stage]
            counts = [reasons[i].num_documents for i in places]
            if places:
                axes.barh(places, counts, 0.7, color=COLORS[stage], label=stage)
            for place, count in zip(places, counts, strict=True):
                axes.annotate(
                    num(count),
                    (count, place),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                )
        labels = [label(reason.rule) for reason in reasons]
        bars(axes, labels, max(r.num_documents for r in reasons), "documents", room=0.2)
        axes.figure.legend(loc="outside upper left", ncols=4)

    return draw


def _shares(total: StageTotals | None, what: str) -> list[tuple[str, int, float]]:
    """Return name, count and share, the largest first."""
    counts = total.counts.get(what, {}) if total else {}
    whole = max(sum(counts.values()), 1)
    return [(name, count, count / whole) for name, count in _ranked(counts)]


def _domains(flow: Funnel) -> list[tuple[str, int, int | None, float | None]]:
    """Return domain, documents, tokens and share of the tokens."""
    filtered, encode = flow.total("filter"), flow.total("encode")
    tokens = {name: (n, share) for name, n, share in _shares(encode, "tokens")}
    return [
        (name, count, *tokens.get(name, (None, None)))
        for name, count, _ in _shares(filtered, "domains")
    ]


def _releases(lake: Lake, config: Config) -> list[Mapping[str, Any]]:
    """Return the releases of the configuration, and those of the lake that it no longer names."""
    releases: list[Mapping[str, Any]] = []
    made = sorted(record.dump for record in lake.records("release"))
    for name in dict.fromkeys([*config.release, *made]):
        folder = Path(config.shards) / name
        if (folder / MANIFEST_NAME).exists():
            manifest = read_manifest(folder)
            whole = max(sum(part["available_tokens"] for part in manifest.mixture.values()), 1)
            domains = [
                (
                    domain,
                    part,
                    part["tokens"] / max(manifest.tokens, 1),
                    part["available_tokens"] / whole,
                )
                for domain, part in manifest.mixture.items()
            ]
            drawn = picture(
                f"Mixture of the release {name}",
                1.9 * len(domains),
                draw_mixture(
                    [domain for domain, *_ in domains],
                    {
                        "available": [available for *_, available in domains],
                        "target": [part["share"] for _, part, *_ in domains],
                        "realised": [realised for _, _, realised, _ in domains],
                    },
                ),
            )
            strata = [
                (
                    stratum,
                    part,
                    part["tokens"] / max(manifest.tokens, 1),
                    part["tokens"] / max(part["available_tokens"], 1),
                )
                for stratum, part in manifest.strata.items()
            ]
            releases.append(
                {"manifest": manifest, "domains": domains, "picture": drawn, "strata": strata}
            )
    return releases


def draw_mixture(
    names: Sequence[str], shares: Mapping[str, Sequence[float]]
) -> Callable[[Axes], None]:
    """Draw the shares "available", "target" and "realised" of components."""

    def draw(axes: Axes) -> None:
        colors = {"available": "muted", "target": "dedup", "realised": "kept"}
        for number, (kind, values) in enumerate(shares.items()):
            places = [place + 0.27 * (number - 1) for place in range(len(names))]
            widths = [100 * value for value in values]
            axes.barh(places, widths, 0.25, color=COLORS[colors[kind]], label=kind)
        most = 100 * max(max(values) for values in shares.values())
        bars(axes, [label(name) for name in names], most, "share of the tokens, %", room=0.05)
        axes.figure.legend(loc="outside upper left", ncols=3)

    return draw


def _pairs(lake: Lake, quality: BruteForce) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Return the first wrong and missed pairs with their URLs."""
    chosen = {"wrong": quality.wrong[:MAX_PAIRS], "missed": quality.missed[:MAX_PAIRS]}
    ids = {id for pairs in chosen.values() for p in pairs for id in (p.doc_id, p.twin_id)}
    rows = documents_of(lake, ids, ["url"])
    return {
        kind: [
            {"pair": p, "url": rows[p.doc_id]["url"], "twin_url": rows[p.twin_id]["url"]}
            for p in pairs
        ]
        for kind, pairs in chosen.items()
    }


def _commits(lake: Lake) -> list[Mapping[str, Any]]:
    """Return the commits in the order of the flow, or their sums when they are many."""
    stages = [*STAGES, "release"]
    dumps = lake.dumps()

    def place(record: RunRecord) -> tuple[int, int, str, str]:
        ordinal = dumps.index(record.dump) if record.dump in dumps else len(dumps)
        return stages.index(record.stage), ordinal, record.dump, record.slice

    records = sorted(lake.records(), key=place)
    groups = [[record] for record in records]
    if len(records) > MAX_COMMITS:
        groups = [list(g) for _, g in groupby(records, key=lambda r: (r.stage, r.dump))]
    return [
        {
            "stage": group[0].stage,
            "dump": group[0].dump,
            "slice": group[0].slice if len(group) == 1 else f"{len(group)} slices",
            **{name: sum(r.rows[name] for r in group) for name in ("in", "kept", "rejected")},
            "seconds": sum(r.seconds for r in group),
        }
        for group in groups
    ]


def _ranked(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(Counter(counts).items(), key=lambda item: (-item[1], item[0]))

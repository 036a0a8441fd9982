"""The report of a lake: one HTML page that opens without a network, its pictures inline SVG.

Everything on it follows from the lake: run records, the first rejects of each stage, the manifests
of releases and, for a small lake, exact similarities of all documents. There is no clock, so the
same lake gives the same bytes. What came from a page (URLs, values of rules) is escaped.
"""

import io
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pyarrow.compute as pc
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from curation import __version__
from curation.config import Config
from curation.engine import duplication
from curation.engine.brute_force import BruteForce, measure
from curation.engine.lake import Lake, RunRecord
from curation.engine.ledger import FUNNEL_STAGES, Funnel, StageTotals, funnel, rejects_by_rule
from curation.engine.stages import STAGES
from curation.tokens.shards import MANIFEST_NAME, read_manifest

DEEPSEEK_REMOVED = {1: 22.2, 2: 46.7, 6: 55.7, 12: 69.9, 16: 75.7, 22: 76.3, 41: 81.6, 91: 89.8}
"""Percent of documents removed by the dumps taken together (DeepSeek LLM, 2401.02954, table 1)."""

MAX_DOCUMENTS = 5000  # of a lake whose documents are all compared
MAX_EXAMPLE_REJECTS = 10_000  # rows of each stage among which a rule finds its example
MAX_PAIRS = 5  # wrong and missed pairs that are listed
MAX_RULE_BARS = 20
MAX_RUNS = 500  # more commits than this are summed by stage and dump
MAX_LABEL_CHARS = 32

COLORS = {
    "kept": "#2a9d6f",
    "ingest": "#8a8f98",
    "dedup": "#3b7dd8",
    "lines": "#1aa3a3",
    "filter": "#d98e04",
    "encode": "#b05cc6",
    "muted": "#7b8089",
}
"""Name of a CSS variable -> the colour that matplotlib draws; the page sets light and dark ones."""

FATES = {
    "kept": "kept",
    "ingest": "rejected at ingest",
    "dedup": "duplicate",
    "lines": "too short without repeated lines",
    "filter": "rejected by filter",
    "encode": "rejected at encode",
}
FIGURE_WIDTH = 5.4  # inches, 518 CSS pixels: on a phone its text is still 9 pixels high
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10.0,
    "font.family": ["sans-serif"],
    "text.parse_math": False,  # a name may hold a dollar sign
    "axes.edgecolor": COLORS["muted"],
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": COLORS["muted"],
    "grid.alpha": 0.25,
    "xtick.color": COLORS["muted"],
    "ytick.color": COLORS["muted"],
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.2,
}


def write_report(lake: Lake, path: Path, config: Config) -> None:
    """Write the report of a lake as it is now; sections without anything to say are left out.

    Cost: all run records, some rejects, and for a lake of at most 5,000 documents a comparison of
    every pair.
    """
    flow = funnel(lake)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"num": _num, "percent": _percent, "size": _size, "rounded": _rounded}
    quality = measure(lake, config, MAX_DOCUMENTS) if lake.records("dedup") else None
    page = environment.get_template("report.html.jinja").render(
        version=__version__,
        name="/".join(lake.path.parts[-2:]),
        config=config,
        facts=_facts(lake, flow),
        funnel=_funnel(flow),
        dedup=_dedup(flow, config),
        deepseek=DEEPSEEK_REMOVED,
        matrix=_matrix(flow),
        duplication=_duplication(lake),
        reasons=_reasons(lake, flow),
        languages=_shares(flow.total("ingest"), "languages"),
        domains=_domains(flow),
        releases=_releases(config),
        quality=quality,
        pairs=_pairs(lake, quality) if quality else {},
        max_documents=MAX_DOCUMENTS,
        runs=_runs(lake),
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
class DedupRow:
    """What dedup did to one dump, and to all dumps up to it."""

    dump: str
    num_documents: int
    exact: int
    near: int
    rate: float
    rate_together: float
    leader: Mapping[str, int]


@dataclass(frozen=True)
class Reason:
    """A rule, what it rejected, and the first document that it did."""

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
        Fact(_num(len(flow.dumps)), "dumps"),
        Fact(_num(len(sizes)), "input files", _size(sum(size or 0 for size in sizes))),
    ]
    ingest, encode = flow.total("ingest"), flow.total("encode")
    if ingest:
        total = _total([_flow(flow, dump) for dump in flow.dumps])
        facts += [
            Fact(_num(total.records), "records read"),
            Fact(_num(total.kept), "documents kept", f"{_percent(total.share)} of the records"),
            Fact(
                _size(total.num_bytes), "of text kept", f"{_size(ingest.bytes_kept)} after ingest"
            ),
        ]
    if encode:
        facts.append(Fact(_num(sum(encode.counts.get("tokens", {}).values())), "tokens"))
    records = lake.records()
    facts.append(
        Fact(_num(len(records)), "commits", f"{_seconds(sum(r.seconds for r in records))} of work")
    )
    return facts


def _funnel(flow: Funnel) -> Mapping[str, Any] | None:
    rows = [_flow(flow, dump) for dump in flow.dumps if (dump, "ingest") in flow.totals]
    if not rows:
        return None
    return {
        "stages": FUNNEL_STAGES,
        "rows": rows,
        "total": _total(rows),
        "picture": _picture("Documents by dump and fate", len(rows), _draw_funnel(flow, rows)),
    }


def _flow(flow: Funnel, dump: str) -> Flow:
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


def _draw_funnel(flow: Funnel, rows: Sequence[Flow]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        labels = [_label(row.dump) for row in rows]
        starts = [0] * len(rows)
        for fate, meaning in FATES.items():
            widths = [_width(flow, row, fate) for row in rows]
            if any(widths):
                axes.barh(range(len(rows)), widths, 0.7, starts, color=COLORS[fate], label=meaning)
            starts = [start + width for start, width in zip(starts, widths, strict=True)]
        for place, row in enumerate(rows):
            axes.annotate(
                f"{_percent(row.share)} kept",
                (starts[place], place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
            )
        _bars(axes, labels, max(starts), "documents", room=0.3)
        axes.figure.legend(loc="outside upper left", ncols=4)

    return draw


def _width(flow: Funnel, row: Flow, fate: str) -> int:
    if fate == "kept":
        return row.kept
    total = flow.totals.get((row.dump, fate))
    return total.rows_rejected if total else 0


def _dedup(flow: Funnel, config: Config) -> Mapping[str, Any] | None:
    dumps = [dump for dump in flow.dumps if (dump, "dedup") in flow.totals]
    if not dumps:
        return None
    totals = [flow.totals[dump, "dedup"] for dump in dumps]
    documents = list(accumulate(total.rows_in for total in totals))
    removed = list(accumulate(total.rows_rejected for total in totals))
    rows = []
    for dump, total, of, gone in zip(dumps, totals, documents, removed, strict=True):
        kinds = total.counts.get("duplicates", {})
        rows.append(
            DedupRow(
                dump,
                total.rows_in,
                kinds.get("exact", 0),
                kinds.get("near", 0),
                rate=total.rows_rejected / max(total.rows_in, 1),
                rate_together=gone / max(of, 1),
                leader=total.counts.get("leader", {}),
            )
        )
    scope = {
        "global": "all earlier dumps and its own",
        "dump": "its own dump only",
        "window": f"the last {config.dedup.window} dumps, its own included",
    }
    return {
        "rows": rows,
        "scope": scope[config.dedup.scope],
        "picture": _picture(
            "Removal rate by the number of dumps taken together", 7, _draw_curve(rows)
        ),
    }


def _draw_curve(rows: Sequence[DedupRow]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        axes.plot(
            list(DEEPSEEK_REMOVED),
            list(DEEPSEEK_REMOVED.values()),
            color=COLORS["filter"],
            linestyle="--",
            marker="s",
            markersize=4,
            label="DeepSeek, table 1",
        )
        places = range(1, len(rows) + 1)
        rates = [100 * row.rate_together for row in rows]
        axes.plot(places, rates, color=COLORS["dedup"], marker="o", label="this lake")
        axes.set_xscale("log")
        ticks = sorted({*DEEPSEEK_REMOVED, len(rows)} - {16})  # 16 would touch its neighbours
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(0, 100)
        axes.set_xlabel("dumps taken together")
        axes.set_ylabel("documents removed, %")
        axes.legend(loc="lower right")

    return draw


def _matrix(flow: Funnel) -> Mapping[str, Any] | None:
    """Count duplicates by the dump they left and the dump of their twin."""
    dumps = [dump for dump in flow.dumps if (dump, "dedup") in flow.totals]
    if not dumps:
        return None
    rows = []
    for dump in dumps:
        total = flow.totals[dump, "dedup"]
        found = total.counts.get("twin_dumps", {})
        counts = [found.get(twin, 0) for twin in dumps]
        shares = [count / max(total.rows_in, 1) for count in counts]
        rows.append((dump, list(zip(counts, shares, strict=True)), total.rows_rejected))
    return {"dumps": dumps, "rows": rows}


def _duplication(lake: Lake) -> Mapping[str, Any] | None:
    """Return what the duplicates look like; of a very large lake only what records say."""
    if not lake.records("dedup"):
        return None
    too_many = duplication.num_duplicates(lake) > duplication.MAX_DUPLICATES
    sizes = None if too_many else duplication.clusters(lake)
    return {
        "clusters": sizes,
        "picture": sizes
        and _picture("Clusters by size", len(sizes.histogram), _draw_clusters(sizes)),
        "hosts": duplication.hosts(lake),
        "full_buckets": duplication.full_buckets(lake),
        "orphans": None if too_many or not lake.records("filter") else duplication.orphans(lake),
        "max_duplicates": duplication.MAX_DUPLICATES if too_many else None,
        "alarms": [
            (record.dump, name, count)
            for record in lake.records("dedup")
            for name, count in record.counts.get("alarms_allowed", {}).items()
        ],
    }


def _draw_clusters(sizes: duplication.Clusters) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        labels = [name for name, _, _ in sizes.histogram]
        retained = [count for _, count, _ in sizes.histogram]
        removed = [total - count for _, count, total in sizes.histogram]
        places = range(len(labels))
        axes.barh(places, retained, 0.7, color=COLORS["kept"], label="retained")
        axes.barh(places, removed, 0.7, retained, color=COLORS["dedup"], label="their duplicates")
        longest = max(total for _, _, total in sizes.histogram)
        _bars(axes, labels, longest, "documents", room=0.05)
        axes.set_ylabel("cluster size")
        axes.figure.legend(loc="outside upper left", ncols=2)

    return draw


def _reasons(lake: Lake, flow: Funnel) -> Mapping[str, Any] | None:
    counted = rejects_by_rule(lake)
    reasons = []
    for stage in FUNNEL_STAGES:
        total = flow.total(stage)
        if total is None or stage not in counted:
            continue
        examples = _examples(lake, stage)
        for rule, count in _ranked(counted[stage]):
            share = count / max(total.rows_in, 1)
            reasons.append(Reason(stage, rule, count, share, examples.get(rule)))
    if not reasons:
        return None
    largest = sorted(reasons, key=lambda reason: -reason.num_documents)[:MAX_RULE_BARS]
    shown = [reason for reason in reasons if reason in largest]
    return {
        "rows": reasons,
        "num_hidden": len(reasons) - len(shown),
        "picture": _picture("Documents removed by rule", len(shown), _draw_reasons(shown)),
    }


def _examples(lake: Lake, stage: str) -> dict[str, Mapping[str, Any]]:
    """Return the first reject of each rule among the first rows of a stage."""
    rejects = lake.table("rejects", stage=stage)
    columns = ["rule", "url", "value", "threshold"]
    found: dict[str, Mapping[str, Any]] = {}
    for row in rejects.head(MAX_EXAMPLE_REJECTS, columns=columns).to_pylist():
        found.setdefault(row["rule"], row)
    return found


def _draw_reasons(reasons: Sequence[Reason]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for stage in FUNNEL_STAGES:
            places = [i for i, reason in enumerate(reasons) if reason.stage == stage]
            counts = [reasons[i].num_documents for i in places]
            if places:
                axes.barh(places, counts, 0.7, color=COLORS[stage], label=stage)
            for place, count in zip(places, counts, strict=True):
                axes.annotate(
                    _num(count),
                    (count, place),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                )
        labels = [_label(reason.rule) for reason in reasons]
        _bars(axes, labels, max(r.num_documents for r in reasons), "documents", room=0.2)
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


def _releases(config: Config) -> list[Mapping[str, Any]]:
    releases: list[Mapping[str, Any]] = []
    for name in config.release:
        folder = Path(config.shards) / name
        if (folder / MANIFEST_NAME).exists():
            manifest = read_manifest(folder)
            domains = [
                (domain, part, part["tokens"] / max(manifest.tokens, 1))
                for domain, part in manifest.mixture.items()
            ]
            picture = _picture(
                f"Mixture of the release {name}", 1.6 * len(domains), _draw_mixture(domains)
            )
            releases.append({"manifest": manifest, "domains": domains, "picture": picture})
    return releases


def _draw_mixture(domains: Sequence[tuple[str, Any, float]]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        target = [100 * part["share"] for _, part, _ in domains]
        realised = [100 * share for _, _, share in domains]
        above = [place - 0.2 for place in range(len(domains))]
        below = [place + 0.2 for place in range(len(domains))]
        axes.barh(above, target, 0.36, color=COLORS["muted"], label="target")
        axes.barh(below, realised, 0.36, color=COLORS["kept"], label="realised")
        labels = [_label(domain) for domain, _, _ in domains]
        _bars(axes, labels, max(target + realised), "share of the tokens, %", room=0.05)
        axes.figure.legend(loc="outside upper left", ncols=2)

    return draw


def _pairs(lake: Lake, quality: BruteForce) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Return the first wrong and missed pairs with their URLs."""
    chosen = {"wrong": quality.wrong[:MAX_PAIRS], "missed": quality.missed[:MAX_PAIRS]}
    ids = sorted({id for pairs in chosen.values() for p in pairs for id in (p.doc_id, p.twin_id)})
    is_named = pc.field("doc_id").isin(ids)
    rows = lake.table("documents").to_table(columns=["doc_id", "url"], filter=is_named)
    urls = dict(zip(rows["doc_id"].to_pylist(), rows["url"].to_pylist(), strict=True))
    return {
        kind: [
            {"pair": pair, "url": urls[pair.doc_id], "twin_url": urls[pair.twin_id]}
            for pair in pairs
        ]
        for kind, pairs in chosen.items()
    }


def _runs(lake: Lake) -> list[Mapping[str, Any]]:
    """Return the commits in the order of the flow, or their sums when they are many."""
    stages = [*STAGES, "release"]
    dumps = lake.dumps()

    def place(record: RunRecord) -> tuple[int, int, str, str]:
        ordinal = dumps.index(record.dump) if record.dump in dumps else len(dumps)
        return stages.index(record.stage), ordinal, record.dump, record.slice

    records = sorted(lake.records(), key=place)
    groups = [[record] for record in records]
    if len(records) > MAX_RUNS:
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


# ---- pictures ----------------------------------------------------------------------------------


def _picture(label: str, num_rows: float, draw: Callable[[Axes], None]) -> Markup:
    """Draw an SVG element of `num_rows` rows that takes its colours and font from the page."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": label}), warnings.catch_warnings():
        # The browser has the glyphs; matplotlib only measures with a font of its own.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(FIGURE_WIDTH, 1.1 + 0.3 * num_rows), layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    svg = buffer.getvalue()
    _, view, body = re.split(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', svg, maxsplit=1)
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # ids of another picture are the same
    for name, color in COLORS.items():
        body = re.sub(f"(fill|stroke): {color}", rf"\1: var(--{name})", body)
    start = Markup('<svg viewBox="{}" role="img" aria-label="{}">').format(view, label)
    return start + Markup(body.rstrip())


def _bars(axes: Axes, labels: Sequence[str], longest: float, unit: str, room: float) -> None:
    """Dress a picture of horizontal bars, the first on top, with room for text right of them."""
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlim(0, max(longest, 1) * (1 + room))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _num(int(x))))
    axes.set_xlabel(unit)


def _label(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= MAX_LABEL_CHARS else name[: MAX_LABEL_CHARS - 3] + "..."


# ---- numbers as text ---------------------------------------------------------------------------


def _num(value: int) -> str:
    return f"{value:,}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def _rounded(value: str) -> str:
    """Shorten a decimal number; anything else stays."""
    return f"{float(value):.6g}" if re.fullmatch(r"[0-9]+\.[0-9]+", value) else value


def _size(num_bytes: float) -> str:
    units = ["B", "kB", "MB", "GB", "TB"]
    while num_bytes >= 1000 and len(units) > 1:
        num_bytes /= 1000
        units.pop(0)
    digits = 0 if units[0] == "B" else 1
    return f"{num_bytes:.{digits}f}\N{NO-BREAK SPACE}{units[0]}"


def _seconds(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    minutes, hours = seconds / 60, seconds / 3600
    if hours < 2:
        return f"{minutes:.0f}\N{NO-BREAK SPACE}min"
    return f"{hours:.1f}\N{NO-BREAK SPACE}h"

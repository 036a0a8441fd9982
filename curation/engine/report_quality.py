"""What a report says of quality: rules by language, perplexity by dump and its drift, and more."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator

from curation.config import Config
from curation.engine.ledger import PERPLEXITY_BINS, REJECTS_BY_LANGUAGE, Funnel, StageTotals
from curation.engine.pictures import COLORS, label, picture
from curation.quality.percentiles import BUCKETS, bin_start, cutoff


@dataclass(frozen=True)
class Percentiles:
    """Perplexity by character of the documents of a language in one dump."""

    language: str
    dump: str
    num_documents: int
    head: float  # up to this one a document is head
    median: float
    middle: float
    drift: float | None  # of the median against the dump before, as a share

    @property
    def is_drift(self) -> bool:
        """Whether the median moved so far that a fixed cut-off would no longer mean the same."""
        return self.drift is not None and abs(self.drift) >= NOTABLE_DRIFT


@dataclass(frozen=True)
class RulesByLanguage:
    """How many documents of each language each quality rule rejected."""

    languages: Sequence[tuple[str, int]]  # and how many documents of it came to the filter
    rules: Sequence[tuple[str, Sequence[int]]]  # rejected, by language in their order
    kept: Sequence[int]
    num_hidden: int  # languages that are not listed


MAX_LANGUAGES = 12  # columns that a table of rules has
MAX_DUMP_LABELS = 12  # under a picture

NOTABLE_DRIFT = 0.05
"""Ours: a median that moves by 5 % moves the share below a fixed cut-off by some ten points."""


def quality_section(flow: Funnel, config: Config) -> Mapping[str, Any] | None:
    """Return what the section shows; None before `annotate` has run."""
    annotate = flow.total("annotate")
    if annotate is None:
        return None
    filtered, clean = flow.total("filter"), flow.total("decontaminate")
    rows = percentiles_by_dump(flow, config)
    return {
        "rules": rules_by_language(filtered),
        "perplexity": rows,
        "picture": _picture(flow, rows),
        "buckets": _ordered(filtered, "perplexity_buckets", BUCKETS),
        "private": sorted(annotate.counts.get("private", {}).items()),
        "benchmarks": _benchmarks(clean, config),
        "action": config.contamination.action,
    }


def rules_by_language(filtered: StageTotals | None) -> RulesByLanguage | None:
    """Return the table of rules and languages, the largest of both first."""
    came = filtered.counts.get("languages", {}) if filtered else {}
    if filtered is None or not came:
        return None
    ranked = sorted(came.items(), key=lambda item: (-item[1], item[0]))
    shown = ranked[:MAX_LANGUAGES]
    found = {
        language: Counter(filtered.counts.get(f"{REJECTS_BY_LANGUAGE}:{language}", {}))
        for language, _ in shown
    }
    totals = sum(found.values(), Counter[str]())
    return RulesByLanguage(
        shown,
        [
            (rule, [found[language][rule] for language, _ in shown])
            for rule, _ in sorted(totals.items(), key=lambda item: (-item[1], item[0]))
        ],
        [count - found[language].total() for language, count in shown],
        len(ranked) - len(shown),
    )


def percentiles_by_dump(flow: Funnel, config: Config) -> list[Percentiles]:
    """Return percentiles by language and dump, in the order of the dumps, from run records."""
    languages = sorted(
        {
            what.partition(":")[2]
            for (_, stage), total in flow.totals.items()
            for what in total.counts
            if stage == "annotate" and what.startswith(f"{PERPLEXITY_BINS}:")
        }
    )
    rows = []
    for language in languages:
        before: float | None = None
        for dump in flow.dumps:
            total = flow.totals.get((dump, "annotate"))
            counts = total.counts.get(f"{PERPLEXITY_BINS}:{language}", {}) if total else {}
            if not counts:
                continue
            histogram = {int(number): count for number, count in counts.items()}
            head, median, middle = (
                bin_start(cutoff(histogram, percentile) + 1)
                for percentile in (config.filter.buckets[0], 50, config.filter.buckets[1])
            )
            drift = median / before - 1 if before else None
            rows.append(
                Percentiles(language, dump, sum(histogram.values()), head, median, middle, drift)
            )
            before = median
    return rows


def _picture(flow: Funnel, rows: Sequence[Percentiles]) -> Markup | None:
    """Draw the median of each language by dump in the band from head to middle; one dump: None."""
    dumps = [dump for dump in flow.dumps if any(row.dump == dump for row in rows)]
    if len(dumps) < 2:
        return None
    languages = sorted({row.language for row in rows})

    def draw(axes: Axes) -> None:
        colors = [COLORS[name] for name in ("dedup", "filter", "kept", "encode", "decontaminate")]
        for number, language in enumerate(languages):
            own = [row for row in rows if row.language == language]
            places = [dumps.index(row.dump) for row in own]
            color = colors[number % len(colors)]
            low, high = [row.head for row in own], [row.middle for row in own]
            axes.fill_between(places, low, high, color=color, alpha=0.15, linewidth=0)
            medians = [row.median for row in own]
            axes.plot(places, medians, color=color, marker="o", markersize=4, label=language)
        step = -(-len(dumps) // MAX_DUMP_LABELS)
        axes.set_xticks(
            range(0, len(dumps), step),
            [label(dump) for dump in dumps[::step]],
            rotation=30,
            ha="right",
        )
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.minorticks_off()
        axes.set_ylabel("perplexity by character")
        axes.figure.legend(loc="outside upper left", ncols=5)

    return picture("Median perplexity by dump, in the band from head to middle", 7, draw)


def _benchmarks(clean: StageTotals | None, config: Config) -> list[tuple[str, int]]:
    counts = clean.counts.get("benchmarks", {}) if clean else {}
    return [
        (each.name, counts.get(f"contaminated_{each.name}", 0))
        for each in config.contamination.benchmarks
    ]


def _ordered(total: StageTotals | None, what: str, names: tuple[str, ...]) -> list[tuple[str, int]]:
    counts = Counter(total.counts.get(what, {}) if total else {})
    return [(name, counts[name]) for name in names if counts]

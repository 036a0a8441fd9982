"""What a report says of quality: perplexity by dump and its drift, private data, benchmarks."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curation.config import Config
from curation.engine.ledger import PERPLEXITY_BINS, Funnel, StageTotals
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


NOTABLE_DRIFT = 0.05
"""Ours: a median that moves by 5 % moves the share below a fixed cut-off by some ten points."""


def quality_section(flow: Funnel, config: Config) -> Mapping[str, Any] | None:
    """Return what the section shows; None before `annotate` has run."""
    annotate = flow.total("annotate")
    if annotate is None:
        return None
    filtered, clean = flow.total("filter"), flow.total("decontaminate")
    return {
        "perplexity": percentiles_by_dump(flow, config),
        "buckets": _ordered(filtered, "perplexity_buckets", BUCKETS),
        "private": sorted(annotate.counts.get("private", {}).items()),
        "benchmarks": _benchmarks(clean, config),
        "action": config.contamination.action,
    }


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


def _benchmarks(clean: StageTotals | None, config: Config) -> list[tuple[str, int]]:
    counts = clean.counts.get("benchmarks", {}) if clean else {}
    return [
        (each.name, counts.get(f"contaminated_{each.name}", 0))
        for each in config.contamination.benchmarks
    ]


def _ordered(total: StageTotals | None, what: str, names: tuple[str, ...]) -> list[tuple[str, int]]:
    counts = Counter(total.counts.get(what, {}) if total else {})
    return [(name, counts[name]) for name in names if counts]

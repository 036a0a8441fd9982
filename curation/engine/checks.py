"""Checks of data quality: what the run records of a dump say, against plain bounds.

That rows add up is a law, held at every commit. What a law cannot see is data gone wrong: a crawl
of empty pages, a rule that suddenly takes everything, texts of another kind. Such things show in
counts that the run records have, so a check reads no table and needs no Spark. What dedup takes is
watched before its commit, by the alarm of `losses`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from curation.engine.lake import Lake
from curation.engine.ledger import Funnel, funnel, perplexity_histograms
from curation.errors import NotFound

RULE_STAGES = ("ingest", "lines", "filter", "decontaminate")
"""The stages whose rejects have rules, but for dedup, which has an alarm of its own."""


@dataclass(frozen=True)
class Bounds:
    """What a dump is held to. Defaults are wide: they stop what is broken, not what is poor."""

    min_documents: int = 100  # of fewer, shares and distances say nothing
    min_kept: int = 1  # documents of a finished dump
    min_kept_share: float = 0.01  # of the documents that dedup leaves
    max_rule_share: float = 0.95  # of the documents that come to the stage of the rule
    # Two samples of 100 of one distribution are 0.19 apart in one of 20 cases (Smirnov's table).
    max_drift: float = 0.4


@dataclass(frozen=True)
class Measured:
    """One value of a dump beside its bound."""

    dump: str
    what: str  # kept, kept share, filter/min_words, drift of en since DUMP
    value: float
    bound: float
    is_alarm: bool

    @property
    def said(self) -> str:
        """The value and the bound in words."""
        side = "above" if self.value > self.bound else "below"
        return f"dump {self.dump}: {self.what} is {self.value:.4g}, {side} {self.bound:.4g}"


def judge(lake: Lake, dumps: Sequence[str] = (), bounds: Bounds = Bounds()) -> list[Measured]:
    """Measure the chosen dumps of a lake, or all; raises NotFound for a dump it does not have.

    A dump that has not gone through all stages is measured as far as it went. Cost: reads run
    records only.
    """
    known = lake.dumps()
    for dump in dumps:
        if dump not in known:
            raise NotFound(
                f"the lake {lake.path} has no dump {dump!r}; it has {', '.join(known) or 'none'}"
            )
    counted = funnel(lake)
    spread = {dump: perplexity_histograms(lake.records("annotate", dump)) for dump in counted.dumps}
    chosen = [dump for dump in known if not dumps or dump in dumps]
    return [
        each
        for dump in chosen
        for each in (
            *_kept(lake, counted, dump, bounds),
            *_rules(counted, dump, bounds),
            *_drift(spread, known[: known.index(dump)], dump, bounds),
        )
    ]


def distance(left: Mapping[int, int], right: Mapping[int, int]) -> float:
    """Return the Kolmogorov-Smirnov distance of two histograms by bin, 0 to 1.

    It is the greatest difference of the shares that lie at or below a bin.
    """
    totals = [sum(counts.values()) for counts in (left, right)]
    below, found = [0, 0], 0.0
    for bin in sorted({*left, *right}):
        below = [below[0] + left.get(bin, 0), below[1] + right.get(bin, 0)]
        found = max(found, abs(below[0] / totals[0] - below[1] / totals[1]))
    return found


def _kept(lake: Lake, counted: Funnel, dump: str, bounds: Bounds) -> Iterator[Measured]:
    slices = {stage: {r.slice for r in lake.records(stage, dump)} for stage in ("ingest", "encode")}
    if not slices["ingest"] or slices["ingest"] != slices["encode"]:
        return
    kept = counted.totals[dump, "encode"].rows_kept
    yield Measured(dump, "documents kept", kept, bounds.min_kept, kept < bounds.min_kept)
    retained = counted.totals[dump, "dedup"].rows_kept
    if retained >= bounds.min_documents:
        share = kept / retained
        is_alarm = share < bounds.min_kept_share
        yield Measured(dump, "share kept after dedup", share, bounds.min_kept_share, is_alarm)


def _rules(counted: Funnel, dump: str, bounds: Bounds) -> Iterator[Measured]:
    """Yield the rule of each stage that takes most, and every other one above the bound."""
    for stage in RULE_STAGES:
        totals = counted.totals.get((dump, stage))
        rejects = totals.counts.get("rejects", {}) if totals else {}
        if totals is None or not rejects or totals.rows_in < bounds.min_documents:
            continue
        shares = {rule: number / totals.rows_in for rule, number in rejects.items()}
        for place, (rule, share) in enumerate(sorted(shares.items(), key=lambda it: (-it[1], it))):
            is_alarm = share > bounds.max_rule_share
            if place == 0 or is_alarm:
                yield Measured(dump, f"{stage}/{rule}", share, bounds.max_rule_share, is_alarm)


def _drift(
    spread: Mapping[str, Mapping[str, Mapping[int, int]]],
    earlier: Sequence[str],
    dump: str,
    bounds: Bounds,
) -> Iterator[Measured]:
    """Yield how far the perplexities of each language are from those of the last dump with it."""
    for language, counts in sorted(spread[dump].items()):
        for before in reversed(earlier):
            others = spread[before].get(language, {})
            if min(sum(counts.values()), sum(others.values())) >= bounds.min_documents:
                drift = distance(counts, others)
                what = f"drift of perplexity of {language} since {before}"
                yield Measured(dump, what, drift, bounds.max_drift, drift > bounds.max_drift)
                break

"""What the rules do to a lake: rejections, signals beside their bounds, and other thresholds.

A threshold is measured once, in one pass over a signal: at each of some fifty bounds it then knows
the documents that a bound would newly reject, and newly keep, exactly and by language. Asking for
another bound, as a slider does, reads nothing; the memory is that of the bounds, whatever the lake.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from curation.engine.lake import Lake
from curation.engine.pictures import COLORS, FIGURE_WIDTH, STYLE, figure, label
from curation.errors import NotCommitted, NotFound
from curation.explore.pages import Html, documents
from curation.quality.rules import Rule, rules_of

if TYPE_CHECKING:
    import duckdb
    import ipywidgets

NUM_BINS = 40  # of a histogram
NUM_BOUNDS = 50  # that a threshold is measured at, beside its own
MAX_LINEAR = 50  # largest over smallest value of a signal whose bins are equally wide
NUM_DECADES = 5  # of a logarithmic histogram
NUM_PANELS = 12
NUM_EXAMPLES = 3  # documents kept of every step between two bounds
NUM_SAMPLES = 5

LANGUAGE_COLORS = ("dedup", "filter", "lines", "encode", "decontaminate", "muted")
KEPT, ALONE = "kept", "rejected by this rule alone"


def rules_in_force(lake: Lake) -> dict[str, Rule]:
    """Return the rules that decided the last dump that was filtered, by name.

    Raises NotCommitted, and NotFound where it was filtered without rules.
    """
    records = lake.records("filter")
    if not records:
        raise NotCommitted(
            f"{lake.path} has no decisions of rules; run first: curation run CONFIG --to filter"
        )
    last = max(records, key=lambda record: (lake.dumps().index(record.dump), record.slice))
    rules = {rule.name: rule for rule in rules_of(last.settings)}
    if not rules:
        raise NotFound(
            f"dump {last.dump} of {lake.path} was filtered without rules; name some in "
            "filter.profiles and run the filter again"
        )
    return rules


def rejections(connection: "duckdb.DuckDBPyConnection") -> pd.DataFrame:
    """Return documents by rule and language: that break it, break it first, and break it alone."""
    return connection.execute(
        """
        SELECT
            broken.rule, coalesce(lang, '') AS lang,
            count(*) AS num_broken,
            count(*) FILTER (broken.rule = first) AS num_first,
            count(*) FILTER (num_rules = 1) AS num_alone
        FROM (
            SELECT doc_id, rule AS first, unnest(rules) AS rule, len(rules) AS num_rules
            FROM rejects WHERE stage = 'filter'
        ) AS broken LEFT JOIN signals USING (doc_id)
        GROUP BY ALL ORDER BY num_broken DESC, broken.rule, lang
        """
    ).df()


def ranked(found: pd.DataFrame, rules: Mapping[str, Rule]) -> list[Rule]:
    """Return rules, of `rules_in_force`, that reject most first, by `rejections`."""
    counts = found.groupby("rule")["num_first"].sum()
    return sorted(rules.values(), key=lambda rule: (-counts.get(rule.name, 0), rule.name))


# ---- histograms --------------------------------------------------------------------------------


def histograms(
    connection: "duckdb.DuckDBPyConnection", rules: Sequence[Rule], num_languages: int = 3
) -> pd.DataFrame:
    """Return documents by signal, language and bin, from `low` (excluded) to `high`.

    Of the signals that the rules bound and the most frequent languages. The first bin takes what is
    lower, too, and the last what is higher. Cost: two passes over these columns.
    """
    signals = sorted({rule.signal for rule in rules})
    ranges = _ranges(connection, signals)
    edges = {name: _edges(name, *ranges[name], NUM_BINS) for name in signals if name in ranges}
    counts = ", ".join(
        f"histogram({_value(name)}, $edges{place}::DOUBLE[]) FILTER ({_is_number(name)})"
        for place, name in enumerate(edges)
    )
    # As parameters: a number that is written out would pass through DECIMAL, which rounds it.
    limits = {f"edges{place}": found for place, found in enumerate(edges.values())}
    rows: list[tuple[str, str, float, float, int]] = []
    if counts:
        found = connection.execute(
            f"""
            SELECT coalesce(lang, '') AS lang, {counts} FROM signals
            WHERE coalesce(lang, '') IN (
                SELECT coalesce(lang, '') AS lang FROM signals
                GROUP BY ALL ORDER BY count(*) DESC, lang LIMIT {int(num_languages)}
            )
            GROUP BY ALL ORDER BY count(*) DESC, lang
            """,
            limits,
        )
        for lang, *measured in found.fetchall():
            for name, counted in zip(edges, measured, strict=True):
                rows += _bins(name, lang, edges[name], counted or {})
    return pd.DataFrame(rows, columns=["signal", "lang", "low", "high", "num_documents"])


def _bins(
    name: str, lang: str, edges: Sequence[float], counted: dict[float, int]
) -> list[tuple[str, str, float, float, int]]:
    beyond = sum(count for edge, count in counted.items() if edge > edges[-1])
    lowest, *heights = [counted.get(edge, 0) for edge in edges]
    heights[0] += lowest
    heights[-1] += beyond
    return [
        (name, lang, low, high, count)
        for (low, high), count in zip(pairwise(edges), heights, strict=True)
    ]


def histogram_figure(found: pd.DataFrame, rules: Sequence[Rule]) -> Figure:
    """Draw the signals of rules by language, the side that a rule rejects shaded.

    At most twelve rules; give those that matter first.
    """
    shown = [rule for rule in rules if (found["signal"] == rule.signal).any()][:NUM_PANELS]
    num_rows = max(1, -(-len(shown) // 2))
    languages = list(dict.fromkeys(found["lang"]))
    with mpl.rc_context({**STYLE, "font.size": 8.0}):
        drawn = Figure(figsize=(1.6 * FIGURE_WIDTH, 0.6 + 1.6 * num_rows), layout="constrained")
        panels = list(drawn.subplots(num_rows, 2, squeeze=False).flat)
        for rule, axes in zip(shown, panels, strict=False):
            _draw_rule(axes, rule, found[found["signal"] == rule.signal], languages)
        for axes in panels[len(shown) :]:
            axes.set_axis_off()
        handles, names = panels[0].get_legend_handles_labels()
        drawn.legend(handles, names, loc="outside upper left", ncols=6)
    return drawn


def _draw_rule(axes: Axes, rule: Rule, bins: pd.DataFrame, languages: Sequence[str]) -> None:
    for place, lang in enumerate(languages):
        own = bins[bins["lang"] == lang]
        share = 100 * own["num_documents"] / max(own["num_documents"].sum(), 1)
        edges = [*own["low"], own["high"].iloc[-1]]
        color = COLORS[LANGUAGE_COLORS[place % len(LANGUAGE_COLORS)]]
        is_bounded = rule.languages is None or lang in rule.languages
        axes.stairs(share, edges, color=color, label=lang or "none", lw=1.4 if is_bounded else 0.5)
    edges = [bins["low"].min(), bins["high"].max()]
    if _is_logarithmic(bins["low"]):
        # from 0 to the first edge is a bin as well
        axes.set_xscale("symlog", linthresh=max(bins["high"].min(), 1e-12), linscale=0.3)
    if math.isfinite(rule.value):
        outside = (edges[0], rule.value) if rule.bound == "min" else (rule.value, edges[1])
        if outside[0] < outside[1]:
            axes.axvspan(*outside, color=COLORS["decontaminate"], alpha=0.12, lw=0)
        axes.axvline(rule.value, color=COLORS["decontaminate"], lw=1.2)
    axes.set_title(f"{label(rule.name)}: {rule.bound} {rule.value:g}", fontsize=8, loc="left")
    axes.set_xlim(*edges)
    axes.set_ylabel("% of documents")


# ---- thresholds --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Threshold:
    """What a rule does at some bounds, its own among them.

    `steps` has a row for each language, status and place: how many of `bounds` a document is at or
    above (a "min"), or above (a "max"); -1 without the signal. Documents that other rules reject
    as well are no matter of this one and not among them.
    """

    rule: Rule
    bounds: Sequence[float]
    steps: pd.DataFrame  # lang, status, place, num_documents, num_chars, examples

    def change(self, bound: float) -> pd.DataFrame:
        """Return documents and characters before and after, by language; raises NotFound."""
        lost, gained = self._moved(bound)
        kept = self.steps["status"] == KEPT
        columns = {
            "num_kept": ("num_documents", kept),
            "num_newly_rejected": ("num_documents", lost),
            "num_newly_kept": ("num_documents", gained),
            "num_chars_kept": ("num_chars", kept),
            "num_chars_newly_rejected": ("num_chars", lost),
            "num_chars_newly_kept": ("num_chars", gained),
        }
        languages = sorted(set(self.steps["lang"]))
        found = pd.DataFrame(
            {
                name: self.steps[rows].groupby("lang")[what].sum().reindex(languages, fill_value=0)
                for name, (what, rows) in columns.items()
            },
            index=pd.Index(languages, name="lang"),
        ).astype("int64")
        after = found["num_kept"] - found["num_newly_rejected"] + found["num_newly_kept"]
        found.insert(3, "num_kept_after", after)
        return found.reset_index()

    def samples(self, bound: float, lake: Lake, num: int = NUM_SAMPLES) -> Html:
        """Show documents that a bound newly rejects, or newly keeps, those next to it first.

        Each with the value of its signal, its URL and the start of its text. Raises NotFound.
        """
        lost, gained = self._moved(bound)
        rows: list[dict[str, Any]] = []
        for is_moved, fate in ((lost, "newly rejected"), (gained, "newly kept")):
            found = [
                {"fate": fate, "lang": step.lang, **each}
                for step in self.steps[is_moved].itertuples()
                for each in step.examples
            ]
            found.sort(key=lambda row: (abs(row["value"] - bound), row["doc_id"]))
            rows += found[:num]
        return documents(lake, rows, {"value": self.rule.signal})

    def figure(self, bound: float) -> Figure:
        """Draw the documents that only this rule decides, and what a bound changes."""
        lost, gained = self._moved(bound)
        kept = self.steps["status"] == KEPT
        layers = {
            "kept": (kept & ~lost, "kept"),
            "newly rejected": (lost, "decontaminate"),
            "newly kept": (gained, "dedup"),
            "rejected as before": (~kept & ~gained, "muted"),
        }
        finite = [each for each in self.bounds if math.isfinite(each)] or [0.0]
        is_log = _is_logarithmic(finite)

        def draw(axes: Axes) -> None:
            edges = _outer_edges(finite, is_log)
            base = np.zeros(len(edges) - 1)
            for name, (rows, color) in layers.items():
                counts = self.steps[rows & (self.steps["place"] >= 0)]
                heights = np.bincount(
                    np.minimum(counts["place"], len(finite)),
                    counts["num_documents"],
                    minlength=len(edges) - 1,
                )
                if heights.any():
                    axes.bar(
                        edges[:-1],
                        heights,
                        np.diff(edges),
                        base,
                        align="edge",
                        color=COLORS[color],
                        label=name,
                    )
                base += heights
            for each, style, name in ((self.rule.value, "--", "now"), (bound, "-", "then")):
                if math.isfinite(each):
                    axes.axvline(each, color="black", linestyle=style, lw=1, label=name)
            if is_log:
                axes.set_xscale("log")
            axes.set_xlabel(self.rule.signal)
            axes.set_ylabel("documents")
            axes.figure.legend(loc="outside upper left", ncols=3)

        return figure(7, draw)

    def _moved(self, bound: float) -> tuple["pd.Series[bool]", "pd.Series[bool]"]:
        """Return which steps a bound newly rejects, and newly keeps."""
        if bound not in self.bounds:
            raise NotFound(
                f"{self.rule.name} was not measured at {bound:g}; take one of its bounds, or "
                f"measure it there: filters.threshold(connection, rule, [{bound:g}])"
            )
        place, kept = self.steps["place"], self.steps["status"] == KEPT
        at = list(self.bounds).index(bound)
        is_outside = place <= at if self.rule.bound == "min" else place > at
        is_known = place >= 0
        return kept & is_known & is_outside, ~kept & is_known & ~is_outside


def threshold(
    connection: "duckdb.DuckDBPyConnection", rule: Rule, bounds: Sequence[float] = ()
) -> Threshold:
    """Measure a rule at some bounds, by default fifty over the range of its signal, and its own.

    Cost: a join of one column of the signals with the ids of kept and rejected documents.
    """
    chosen = list(bounds)
    if not chosen:
        ranges = _ranges(connection, [rule.signal])
        chosen = _edges(rule.signal, *ranges[rule.signal], NUM_BOUNDS) if ranges else []
        chosen = [float(f"{each:.3g}") for each in chosen]
    chosen = sorted({float(each) for each in [*chosen, rule.value]})
    compared = ">=" if rule.bound == "min" else ">"
    steps = connection.execute(
        f"""
        WITH judged AS (
            SELECT doc_id, '{KEPT}' AS status FROM kept
            UNION ALL
            SELECT doc_id, '{ALONE}' FROM rejects WHERE stage = 'filter' AND rules = [$name]
        ), measured AS (
            SELECT
                doc_id, coalesce(lang, '') AS lang, status, num_chars,
                CASE WHEN {_is_number(rule.signal)} THEN {_value(rule.signal)} END AS value
            FROM signals JOIN judged USING (doc_id)
            WHERE $languages::VARCHAR[] IS NULL OR list_contains($languages::VARCHAR[], lang)
        ), limits AS (
            SELECT
                unnest($bounds::DOUBLE[]) AS bound,
                generate_subscripts($bounds::DOUBLE[], 1) AS place
        )
        SELECT
            lang, status,
            CASE WHEN value IS NULL THEN -1 ELSE coalesce(place, 0) END AS place,
            count(*) AS num_documents,
            sum(num_chars)::BIGINT AS num_chars,
            min_by({{doc_id: doc_id, value: value}}, md5(doc_id::VARCHAR), {NUM_EXAMPLES})
                AS examples
        FROM measured ASOF LEFT JOIN limits ON value {compared} bound
        GROUP BY ALL ORDER BY ALL
        """,
        {
            "name": rule.name,
            "languages": None if rule.languages is None else list(rule.languages),
            "bounds": chosen,
        },
    ).df()
    return Threshold(rule, chosen, steps)


def slider(found: Threshold, lake: Lake) -> "ipywidgets.interactive":
    """Return a slider over the bounds of a threshold, with what each would change."""
    import ipywidgets
    from IPython.display import display

    def show(bound: float) -> None:
        display(found.figure(bound), found.change(bound), found.samples(bound, lake))

    choices = ipywidgets.SelectionSlider(
        options=[(f"{bound:g}", bound) for bound in found.bounds],
        value=found.rule.value,
        description=found.rule.bound,
        continuous_update=False,
    )
    return ipywidgets.interactive(show, bound=choices)


# ---- ranges ------------------------------------------------------------------------------------


def _value(signal: str) -> str:
    return f'CAST("{signal}" AS DOUBLE)'


def _is_number(signal: str) -> str:
    """Return the condition under which a rule can be broken: DuckDB takes NaN for the largest."""
    return f'"{signal}" IS NOT NULL AND NOT isnan({_value(signal)})'


def _ranges(
    connection: "duckdb.DuckDBPyConnection", signals: Sequence[str]
) -> dict[str, tuple[float, float, float]]:
    """Return lowest value, lowest above 0 and highest of the signals that have any."""
    wanted = ", ".join(
        f"min({_value(name)}) FILTER ({_is_number(name)}), "
        f"min({_value(name)}) FILTER ({_is_number(name)} AND {_value(name)} > 0), "
        f"max({_value(name)}) FILTER ({_is_number(name)})"
        for name in signals
    )
    found = {}
    rows = connection.execute(f"SELECT {wanted} FROM signals").fetchall() if signals else []
    for row in rows:
        for place, name in enumerate(signals):
            low, above, high = row[3 * place : 3 * place + 3]
            if low is not None:
                found[name] = (low, high if above is None else above, high)
    return found


def _edges(signal: str, low: float, above: float, high: float, num_bins: int) -> list[float]:
    """Return edges of bins from the lowest to the highest value, ascending.

    Equally wide ones for shares and for values of one magnitude; else each wider than the one
    before by the same factor, after one from 0.
    """
    is_share = signal.endswith(("_fraction", "_share", "_score", "_percentile"))
    if is_share or high <= 0 or high / above <= MAX_LINEAR:
        start = low if high > low else high - 1
        return [float(each) for each in np.linspace(start, high, num_bins + 1)]
    first = max(above, high / 10**NUM_DECADES)
    edges = [float(each) for each in np.geomspace(first, high, num_bins)]
    return [min(low, 0.0), *edges] if low < first else edges


def _is_logarithmic(edges: Sequence[float]) -> bool:
    positive = [each for each in edges if each > 0]
    return len(positive) > 2 and max(positive) / min(positive) > 2 * MAX_LINEAR


def _outer_edges(bounds: Sequence[float], is_log: bool) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Return the bounds with an edge before the first and one after the last."""
    if not is_log:
        width = (bounds[-1] - bounds[0]) / max(len(bounds) - 1, 1) or 1.0
        return np.array([bounds[0] - width, *bounds, bounds[-1] + width])
    positive = [each for each in bounds if each > 0]
    ratio = (positive[-1] / positive[0]) ** (1 / (len(positive) - 1))
    zeros = len(bounds) - len(positive)
    before = [positive[0] / ratio ** (zeros + 1 - place) for place in range(zeros + 1)]
    return np.array([*before, *positive, positive[-1] * ratio])

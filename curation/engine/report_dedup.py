"""The report's section on duplicates: what of `curation.engine.duplication` is shown, and how."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from curation.config import Config
from curation.engine import duplication
from curation.engine.duplication import DumpRow, SizeClass
from curation.engine.lake import Lake
from curation.engine.ledger import FUNNEL_STAGES, Funnel
from curation.engine.losses import NUM_HOSTS
from curation.engine.pictures import COLORS, bars, num, percent, picture

DEEPSEEK_REMOVED = {1: 22.2, 2: 46.7, 6: 55.7, 12: 69.9, 16: 75.7, 22: 76.3, 41: 81.6, 91: 89.8}
"""Percent of documents removed by the dumps taken together (DeepSeek LLM, 2401.02954, table 1)."""


def dedup_section(lake: Lake, flow: Funnel, config: Config) -> Mapping[str, Any] | None:
    """Return what the template of the section shows; None where dedup has not run.

    Cost: one scan of the id columns of duplicates and of the filter's rejects, one of full buckets,
    and the documents that are shown.
    """
    rows = duplication.by_dump(flow)
    if not rows:
        return None
    scope = {
        "global": "all earlier dumps and its own",
        "dump": "its own dump only",
        "window": f"the last {config.dedup.window} dumps, its own included",
    }
    clusters = duplication.clusters(lake, flow)
    findings, num_alarms = duplication.findings(lake, config.dedup)
    dumps = [row.dump for row in rows]
    return {
        "rows": rows,
        "scope": scope[config.dedup.scope],
        "curve": picture("Removal rate by the number of dumps taken together", 7, draw_curve(rows)),
        "deepseek": DEEPSEEK_REMOVED,
        "matrix": matrix(flow, dumps),
        "findings": findings,
        "num_alarms": num_alarms,
        "hosts": duplication.hosts(lake),
        "num_hosts": NUM_HOSTS,
        "clusters": clusters,
        "sizes": _sizes_picture(clusters.classes) if clusters else "",
        "num_full": sum(row.leader.get("full_buckets", 0) for row in rows),
        "templates": duplication.full_buckets(lake),
        "orphans": duplication.orphans(lake, flow),
        "unfiltered": [dump for dump in dumps if not _is_filtered(flow, dump)],
        "limits": duplication,
    }


def draw_curve(rows: Sequence[DumpRow]) -> Callable[[Axes], None]:
    """Draw the removal rate of the dumps taken together, beside DeepSeek's."""

    def draw(axes: Axes) -> None:
        series = {
            "DeepSeek, table 1": (list(DEEPSEEK_REMOVED), list(DEEPSEEK_REMOVED.values())),
            "this lake": (range(1, len(rows) + 1), [100 * row.rate_together for row in rows]),
        }
        styles: dict[str, dict[str, Any]] = {
            "DeepSeek, table 1": {"color": COLORS["filter"], "linestyle": "--", "marker": "s"},
            "this lake": {"color": COLORS["dedup"], "marker": "o"},
        }
        for name, (places, rates) in series.items():
            axes.plot(places, rates, markersize=4, label=name, **styles[name])
            axes.annotate(
                percent(rates[-1] / 100),
                (places[-1], rates[-1]),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
            )
        axes.set_xscale("log")
        ticks = sorted({*DEEPSEEK_REMOVED, len(rows)} - {16})  # 16 would touch its neighbours
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(0, 100)
        axes.set_xlabel("dumps taken together")
        axes.set_ylabel("documents removed, %")
        axes.legend(loc="lower right")

    return draw


def matrix(flow: Funnel, dumps: Sequence[str]) -> list[tuple[str, list[tuple[int, float]], int]]:
    """Count duplicates by the dump they left and the dump of their twin, with shares."""
    rows = []
    for dump in dumps:
        total = flow.totals[dump, "dedup"]
        found = total.counts.get("twin_dumps", {})
        counts = [found.get(twin, 0) for twin in dumps]
        shares = [count / max(total.rows_in, 1) for count in counts]
        rows.append((dump, list(zip(counts, shares, strict=True)), total.rows_rejected))
    return rows


def _is_filtered(flow: Funnel, dump: str) -> bool:
    """Return whether every retained document of a dump reached the filter or left before it."""
    totals = {stage: flow.totals.get((dump, stage)) for stage in FUNNEL_STAGES}
    filtered, retained = totals["filter"], flow.totals[dump, "dedup"].rows_kept
    between = FUNNEL_STAGES[FUNNEL_STAGES.index("dedup") + 1 : FUNNEL_STAGES.index("filter")]
    left = sum(total.rows_rejected for stage in between if (total := totals[stage]))
    return filtered is not None and filtered.rows_in + left == retained


def _sizes_picture(classes: Sequence[SizeClass]) -> Any:
    title = "Documents by the size of their cluster"
    return picture(title, len(classes), draw_sizes(classes))


def draw_sizes(classes: Sequence[SizeClass]) -> Callable[[Axes], None]:
    """Draw how many documents are in clusters of each size."""

    def draw(axes: Axes) -> None:
        places = range(len(classes))
        retained = [row.num_clusters for row in classes]
        removed = [row.num_documents - row.num_clusters for row in classes]
        axes.barh(places, retained, 0.7, color=COLORS["kept"], label="retained")
        if any(removed):
            axes.barh(places, removed, 0.7, retained, color=COLORS["dedup"], label="duplicates")
        for place, row in zip(places, classes, strict=True):
            axes.annotate(
                num(row.num_documents),
                (row.num_documents, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
            )
        labels = [size_name(row) for row in classes]
        bars(axes, labels, max(row.num_documents for row in classes), "documents", room=0.15)
        axes.set_ylabel("cluster size")
        axes.figure.legend(loc="outside upper left", ncols=2)

    return draw


def size_name(row: SizeClass) -> str:
    """Name a class of sizes: 2, or 3 to 4."""
    return num(row.low) if row.low == row.high else f"{num(row.low)} to {num(row.high)}"

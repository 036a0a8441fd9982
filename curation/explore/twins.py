"""What dedup did to a lake: removal curve, dumps against dumps, clusters and texts side by side."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from curation.engine import duplication
from curation.engine.duplication import SizeClass
from curation.engine.lake import Lake
from curation.engine.ledger import documents_of, funnel
from curation.engine.pictures import COLORS, figure, label, percent
from curation.engine.report_dedup import draw_curve, draw_sizes, matrix
from curation.errors import NotCommitted, NotFound
from curation.explore.pages import TEXT, Html, differences, table

if TYPE_CHECKING:
    import duckdb

NUM_BINS = 50  # of similarity, from 0.5 to 1
MAX_NAMED_CELLS = 12  # dumps of a matrix whose cells are written out


def by_dump(lake: Lake) -> pd.DataFrame:
    """Return what dedup took of each dump, and of the dumps up to it; raises NotCommitted."""
    rows = _dumps(lake)
    return pd.DataFrame(
        [(r.dump, r.num_documents, r.exact, r.near, r.rate, r.rate_together) for r in rows],
        columns=["dump", "num_documents", "num_exact", "num_near", "rate", "rate_together"],
    )


def curve_figure(lake: Lake) -> Figure:
    """Draw the removal rate of the dumps taken together, beside DeepSeek's table."""
    return figure(7, draw_curve(_dumps(lake)))


def matrix_figure(lake: Lake) -> Figure:
    """Draw what share of each dump left because of a twin in each other dump."""
    dumps = [row.dump for row in _dumps(lake)]
    shares = np.array([[s for _, s in cells] for _, cells, _ in matrix(funnel(lake), dumps)])

    def draw(axes: Axes) -> None:
        axes.imshow(100 * shares, cmap="Blues", aspect="auto", vmin=0, vmax=100)
        axes.set_xticks(range(len(dumps)), map(label, dumps), rotation=30, ha="right")
        axes.set_yticks(range(len(dumps)), map(label, dumps))
        axes.set_xlabel("dump of the retained twin")
        axes.set_ylabel("dump of the duplicate")
        axes.grid(visible=False)
        for (row, column), share in np.ndenumerate(shares):
            if share and len(dumps) <= MAX_NAMED_CELLS:
                color = "white" if share > 0.5 else "black"
                axes.text(column, row, percent(share), ha="center", va="center", color=color)

    return figure(2 + 1.2 * min(len(dumps), 20), draw)


def sizes(connection: "duckdb.DuckDBPyConnection", lake: Lake) -> list[SizeClass]:
    """Return the clusters of 1, 2, 3 to 4, 5 to 8, ... documents; raises NotCommitted.

    What `duplication.clusters` counts in memory, of any number of duplicates.
    """
    num_retained = sum(row.num_documents - row.exact - row.near for row in _dumps(lake))
    counted = connection.execute(
        """
        SELECT length(bin(size - 1)) AS exponent, count(*), sum(size)::BIGINT
        FROM (SELECT count(*) + 1 AS size FROM duplicates GROUP BY twin_id) GROUP BY ALL
        """
    ).fetchall()
    num_single = num_retained - sum(num for _, num, _ in counted)
    found = {exponent: (num, documents) for exponent, num, documents in counted}
    classes = [SizeClass(1, 1, num_single, num_single)]
    for k in range(1, max(found, default=0) + 1):
        classes.append(SizeClass(2 ** (k - 1) + 1, 2**k, *found.get(k, (0, 0))))
    return classes


def sizes_figure(classes: Sequence[SizeClass]) -> Figure:
    """Draw how many documents are in clusters of each size, of `sizes`."""
    return figure(len(classes), draw_sizes(classes))


def similarities(connection: "duckdb.DuckDBPyConnection") -> pd.DataFrame:
    """Return near duplicates by similarity to their twin, in steps of 0.01 from `low`."""
    return connection.execute(
        f"""
        SELECT
            least(floor(similarity * {2 * NUM_BINS}), {2 * NUM_BINS - 1})::INTEGER
                / {2 * NUM_BINS} AS low,
            verified_by, count(*) AS num_documents
        FROM duplicates WHERE kind = 'near' GROUP BY ALL ORDER BY low, verified_by
        """
    ).df()


def similarity_figure(found: pd.DataFrame) -> Figure:
    """Draw near duplicates by similarity."""

    def draw(axes: Axes) -> None:
        base = pd.Series(0, index=sorted(set(found["low"])))
        colors = {"signature": "dedup", "shingles": "filter"}
        for name, rows in found.groupby("verified_by"):
            heights = rows.set_index("low")["num_documents"].reindex(base.index, fill_value=0)
            color = COLORS[colors.get(str(name), "muted")]
            width = 1 / (2 * NUM_BINS)
            axes.bar(base.index, heights, width, base, align="edge", color=color, label=name)
            base = base + heights
        axes.set_xlabel("similarity to the twin")
        axes.set_ylabel("near duplicates")
        axes.figure.legend(loc="outside upper left", ncols=2, title="measured by")

    return figure(5, draw)


# ---- clusters ----------------------------------------------------------------------------------


def largest(connection: "duckdb.DuckDBPyConnection", num: int = 10) -> pd.DataFrame:
    """Return the retained documents that most duplicates name as their twin."""
    return connection.execute(
        """
        SELECT
            twin_id, count(*) AS num_duplicates, count(*) FILTER (kind = 'near') AS num_near,
            count(DISTINCT dump) AS num_dumps, min(similarity) AS lowest_similarity
        FROM duplicates GROUP BY twin_id ORDER BY num_duplicates DESC, twin_id LIMIT ?
        """,
        [num],
    ).df()


def members(connection: "duckdb.DuckDBPyConnection", twin_id: int, num: int = 3) -> pd.DataFrame:
    """Return duplicates of a retained document, the least similar first."""
    return connection.execute(
        """
        SELECT doc_id, dump, kind, similarity, verified_by
        FROM duplicates WHERE twin_id = ? ORDER BY similarity, doc_id LIMIT ?
        """,
        [int(twin_id), num],
    ).df()


def pairs(
    connection: "duckdb.DuckDBPyConnection", low: float = 0.0, high: float = 1.0, num: int = 5
) -> pd.DataFrame:
    """Return near duplicates of a similarity from `low` to `high` with their twins.

    The same ones every time: those whose id has the lowest MD5.
    """
    return connection.execute(
        """
        SELECT doc_id, twin_id, similarity, verified_by
        FROM duplicates WHERE kind = 'near' AND similarity BETWEEN ? AND ?
        ORDER BY md5(doc_id::VARCHAR), doc_id LIMIT ?
        """,
        [low, high, num],
    ).df()


def side_by_side(lake: Lake, twin_id: int, doc_ids: Sequence[int]) -> Html:
    """Show a retained document beside its duplicates, differing words highlighted.

    Of each text the first 3,000 characters. Raises NotFound for an id that is no document.
    """
    ids = [int(twin_id), *map(int, doc_ids)]
    known = documents_of(lake, ids, ["url", "crawled_at", "text"])
    for doc_id in ids:
        if doc_id not in known:
            raise NotFound(f"{doc_id} is no document of the lake {lake.path}; take one of pairs")
    rows = []
    for doc_id in ids[1:]:
        left, right = differences(known[ids[0]]["text"], known[doc_id]["text"])
        rows.append([_titled(ids[0], known, left), _titled(doc_id, known, right)])
    return table(["retained", "duplicate"], rows)


def _titled(doc_id: int, known: Mapping[int, Mapping[str, Any]], text: Markup) -> Markup:
    row = known[doc_id]
    head = Markup("<b>{}</b> {}, {}").format(doc_id, row["url"], str(row["crawled_at"])[:10])
    return Markup('{}<div style="{}">{}</div>').format(head, TEXT, text)


def _dumps(lake: Lake) -> Sequence[duplication.DumpRow]:
    rows = duplication.by_dump(funnel(lake))
    if not rows:
        raise NotCommitted(
            f"{lake.path} is not deduplicated; run first: curation run CONFIG --to dedup"
        )
    return rows

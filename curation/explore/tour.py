"""A first look at a lake: its tables, what became of its records, and of one document."""

from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from curation.engine.lake import Lake
from curation.engine.ledger import FUNNEL_STAGES, funnel, why
from curation.engine.pictures import figure
from curation.engine.report import draw_funnel, flow_of
from curation.explore.pages import Html, table
from curation.schemas import TABLES

if TYPE_CHECKING:
    import duckdb


def tables(lake: Lake) -> pd.DataFrame:
    """Return files, rows and megabytes of every table that has any; reads run records only."""
    records = lake.records()
    rows = []
    for name, schema in TABLES.items():
        files = [entry for record in records for entry in record.files_of(name)]
        if files:
            size = sum(entry.bytes for entry in files) / 1e6
            rows.append((name, len(files), sum(entry.rows for entry in files), size, len(schema)))
    return pd.DataFrame(rows, columns=["table", "num_files", "num_rows", "mb", "num_columns"])


def stages(lake: Lake) -> pd.DataFrame:
    """Return what came into every stage and what it kept, by dump; reads run records only."""
    flow = funnel(lake)
    rows = [
        (dump, stage, total.rows_in, total.rows_kept, total.rows_rejected, total.seconds)
        for dump in flow.dumps
        for stage in FUNNEL_STAGES
        if (total := flow.totals.get((dump, stage)))
    ]
    return pd.DataFrame(
        rows, columns=["dump", "stage", "num_in", "num_kept", "num_rejected", "seconds"]
    )


def funnel_figure(lake: Lake) -> Figure:
    """Draw what became of the records of each dump."""
    flow = funnel(lake)
    rows = [flow_of(flow, dump) for dump in flow.dumps if (dump, "ingest") in flow.totals]
    return figure(len(rows), draw_funnel(flow, rows))


def languages(connection: "duckdb.DuckDBPyConnection") -> pd.DataFrame:
    """Return documents and their mean length by language, of what was annotated."""
    return connection.execute(
        """
        SELECT coalesce(lang, '') AS lang, count(*) AS num_documents, avg(num_chars) AS mean_chars
        FROM signals GROUP BY ALL ORDER BY num_documents DESC, lang
        """
    ).df()


def rejects(connection: "duckdb.DuckDBPyConnection") -> pd.DataFrame:
    """Return how many records every rule rejected, and the first of each."""
    return connection.execute(
        """
        SELECT stage, rule, count(*) AS num_records, min(doc_id) AS first_doc_id
        FROM rejects GROUP BY ALL ORDER BY num_records DESC, stage, rule
        """
    ).df()


def history(lake: Lake, wanted: str | int) -> Html:
    """Show every decision about the documents of a doc_id or URL; raises NotFound."""
    return table(
        ["document", "stage", "decision"],
        [
            [f"{found.doc_id} {found.where['url']}", stage, decision]
            for found in why(lake, str(wanted))
            for stage, decision in found.decisions
        ],
    )

"""The tables of a lake in DuckDB: SQL over exactly the files that the run records list.

    connection = tables.connect(lake)
    connection.sql("SELECT lang, count(*) FROM signals GROUP BY ALL").df()

Every table of `curation.schemas` is a view, with the columns dump and slice, of rejects and edits
also stage; signals have perplexity_percentile, which no file stores. What a query needs beyond its
memory goes to a temporary folder, so a lake may have any size. Needs the extra `notebooks`.
"""

import glob
import tempfile
from typing import TYPE_CHECKING

import pyarrow as pa

from curation.engine.lake import STAGED_TABLES, FileEntry, Lake
from curation.engine.ledger import perplexity_histograms
from curation.errors import PrerequisiteMissing
from curation.quality.percentiles import percentiles
from curation.schemas import TABLES

if TYPE_CHECKING:
    import duckdb

MEMORY = "1GB"  # of DuckDB; the whole notebook takes less than 2 GB

PERCENTILES = pa.schema(
    [
        ("dump", pa.string()),
        ("lang", pa.string()),
        ("perplexity_bin", pa.int32()),
        ("perplexity_percentile", pa.int32()),
    ]
)


def connect(lake: Lake) -> "duckdb.DuckDBPyConnection":
    """Return a database whose views are the tables of a lake, as it is now.

    Raises PrerequisiteMissing without duckdb. Cost: reads all run records, and of each table one
    file.
    """
    try:
        import duckdb
    except ModuleNotFoundError:
        raise PrerequisiteMissing(
            "SQL over a lake needs duckdb, which is missing; pip install 'curation[notebooks]'"
        ) from None
    connection = duckdb.connect(
        config={
            "memory_limit": MEMORY,
            "temp_directory": tempfile.gettempdir(),
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,  # nothing is downloaded
        }
    )
    connection.execute("SET enable_progress_bar = false")
    records = lake.records()
    connection.register("percentiles", _percentiles(lake))
    for name, schema in TABLES.items():
        files = [entry for record in records for entry in record.files_of(name)]
        folders = ["stage"] * (name in STAGED_TABLES) + ["dump", "slice"]
        if not files:
            empty = pa.schema([*schema, *((folder, pa.string()) for folder in folders)])
            connection.register(f"no_{name}", empty.empty_table())
            source = f"no_{name}"
        else:
            source = _parquet(lake, files)
        columns = ", ".join(f'"{column}"' for column in [*schema.names, *folders])
        query = f"SELECT {columns} FROM {source}"
        if name == "signals":
            query = (
                f"SELECT {columns}, perplexity_percentile FROM ({query}) "
                "LEFT JOIN percentiles USING (dump, lang, perplexity_bin)"
            )
        connection.execute(f'CREATE VIEW "{name}" AS {query}')
    return connection


def _parquet(lake: Lake, files: list[FileEntry]) -> str:
    """Return the table function that reads these files; a path is no pattern."""
    paths = [glob.escape(str(lake.path.absolute() / entry.path)) for entry in files]
    quoted = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    return f"read_parquet([{quoted}], hive_partitioning = true, hive_types_autocast = false)"


def _percentiles(lake: Lake) -> pa.Table:
    """Return the percentile of every bin of perplexity, by dump and language."""
    parts = [PERCENTILES.empty_table()]
    for dump in lake.dumps():
        histograms = perplexity_histograms(lake.records("annotate", dump))
        for language, histogram in histograms.items():
            bins = pa.array(sorted(histogram), pa.int32())
            lang = pa.array([language] * len(bins), pa.string())
            dumps = pa.array([dump] * len(bins), pa.string())
            columns = [dumps, lang, bins, percentiles(bins, lang, histograms)]
            parts.append(pa.table(columns, schema=PERCENTILES))
    return pa.concat_tables(parts)

"""Tables of a lake in DuckDB and the first look at it, against pyarrow and plain Python."""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_lake
import pytest

from curation.engine.lake import Lake
from curation.engine.ledger import perplexity_histograms
from curation.errors import PrerequisiteMissing
from curation.explore import tables, tour
from curation.schemas import TABLES

Rows = Callable[..., list[dict[str, Any]]]


@pytest.mark.parametrize("name", TABLES)
def test_a_view_has_the_rows_of_the_table(connection: Any, rows: Rows, name: str) -> None:
    selected = connection.execute(f'SELECT * FROM "{name}"')
    columns = [column[0] for column in selected.description]
    found = [dict(zip(columns, row, strict=True)) for row in selected.fetchall()]
    for row in found:
        row.pop("perplexity_percentile", None)
    assert sorted(map(_ordered, found)) == sorted(map(_ordered, rows(name)))


def test_a_missing_duckdb_is_named(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(PrerequisiteMissing, match=r"pip install 'curation\[notebooks\]'"):
        tables.connect(lake)


def test_only_what_records_list_is_read(tmp_path: Path) -> None:
    lake = made_lake.make(tmp_path / "lake", 60)
    (listed,) = {entry.path for entry in lake.records("filter", "B-2021")[0].files_of("kept")[:1]}
    stray = lake.path / listed
    stray.with_name("dead-attempt.parquet").write_bytes(stray.read_bytes())
    expected = lake.table("kept").count_rows()
    pytest.importorskip("duckdb", reason="needs duckdb, of the extra notebooks")
    with tables.connect(lake) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchall() == [(expected,)]


def test_percentiles_are_those_of_the_dump(connection: Any, lake: Lake) -> None:
    """The smallest p for which p % of the dump's documents of the language reach up to the bin."""
    found = connection.execute(
        "SELECT dump, lang, perplexity_bin, perplexity_percentile FROM signals"
    ).fetchall()
    for dump, lang, number, percentile in found:
        if lang is None or number is None:
            assert percentile is None
            continue
        histogram = perplexity_histograms(lake.records("annotate", dump))[lang]
        below = sum(count for each, count in histogram.items() if each < number)
        assert percentile == min(100, 100 * below // sum(histogram.values()) + 1)


def test_numbers_of_tables_and_stages(lake: Lake, rows: Rows) -> None:
    found = {row.table: row for row in tour.tables(lake).itertuples()}
    assert set(found) == {name for name in TABLES if rows(name)}
    for name, row in found.items():
        paths = [lake.path / e.path for r in lake.records() for e in r.files_of(name)]
        assert (row.num_files, row.num_rows) == (len(paths), len(rows(name)))
        assert row.mb == pytest.approx(sum(path.stat().st_size for path in paths) / 1e6)
    kept = Counter(row["dump"] for row in rows("kept"))
    stages = tour.stages(lake)
    by_filter = stages[stages["stage"] == "filter"].set_index("dump")
    assert by_filter["num_kept"].to_dict() == dict(kept)


def test_languages_and_rejects(connection: Any, rows: Rows) -> None:
    languages = Counter(row["lang"] or "" for row in rows("signals"))
    found = tour.languages(connection).set_index("lang")
    assert found["num_documents"].to_dict() == dict(languages)
    by_rule: dict[tuple[str, str], list[int]] = {}
    for row in rows("rejects"):
        by_rule.setdefault((row["stage"], row["rule"]), []).append(row["doc_id"])
    assert {
        (row.stage, row.rule): (row.num_records, row.first_doc_id)
        for row in tour.rejects(connection).itertuples()
    } == {key: (len(ids), min(ids)) for key, ids in by_rule.items()}


def test_a_history_is_escaped(lake: Lake, rows: Rows) -> None:
    reject = rows("rejects")[0]
    html = tour.history(lake, reject["doc_id"])._repr_html_()
    assert f"rejected by {reject['rule']}" in html
    assert "?&lt;b&gt;" in html and "<b>" not in html


def test_bars_of_the_funnel_sum_to_the_records(lake: Lake) -> None:
    (axes,) = tour.funnel_figure(lake).axes
    total = sum(bar.get_width() for bar in axes.patches)
    assert total == sum(record.rows["in"] for record in lake.records("ingest"))


def _ordered(row: dict[str, Any]) -> str:
    return str(sorted(row.items()))

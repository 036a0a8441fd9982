"""A lake of made documents, and its rows as Python sees them."""

from collections.abc import Callable, Iterator
from typing import Any

import made_lake
import pytest

from curation.engine.lake import Lake
from curation.explore import tables

NUM_DOCUMENTS = 900


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Three dumps and a release; to be read only. Its path is no pattern."""
    return made_lake.make(tmp_path_factory.mktemp("made") / "it's [1] lake", NUM_DOCUMENTS)


@pytest.fixture(scope="session")
def rows(lake: Lake) -> Callable[..., list[dict[str, Any]]]:
    """Return all rows of a table as dictionaries: `rows("signals")`."""
    return lambda name, **of: lake.table(name, **of).to_table().to_pylist()


@pytest.fixture
def connection(lake: Lake) -> Iterator[Any]:
    """The lake in DuckDB."""
    pytest.importorskip("duckdb", reason="needs duckdb, of the extra notebooks")
    with tables.connect(lake) as opened:
        yield opened

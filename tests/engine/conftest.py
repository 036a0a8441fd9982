"""Lakes that tests compare with."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import pytest

from curation.config import Config
from curation.engine.lake import Lake
from curation.engine.release import make_release
from curation.engine.run import run
from curation.schemas import TABLES
from curation.tokens.shards import Manifest


class Finished(NamedTuple):
    """A lake run to its end, and its release."""

    config: Config
    lake: Lake
    manifest: Manifest

    @property
    def digests(self) -> list[str]:
        """The sha256 of every shard."""
        return [entry.sha256 for entry in self.manifest.files]


@pytest.fixture(scope="session")
def undisturbed(spark, configure_in, tmp_path_factory) -> Callable[[int], Finished]:
    """Return the first dumps of the cut, processed all at once: `undisturbed(2)`; to be read only.

    Made once: every dump is small, so dedup decides it in one task.
    """
    folder = tmp_path_factory.mktemp("undisturbed")

    @cache
    def finished(num_dumps: int) -> Finished:
        config = configure_in(folder, lake=f"dumps{num_dumps}", dumps=num_dumps)
        return Finished(config, run(config), make_release(config, "demo"))

    return finished


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Lake], dict[str, list[str]]]:
    """Return every row of every table but `mixture`, in an order of their own: `rows_of(lake)`."""

    def rows(lake: Lake) -> dict[str, list[str]]:
        return {
            table: sorted(map(str, lake.table(table).to_table(columns=schema.names).to_pylist()))
            for table, schema in TABLES.items()
            if table != "mixture"
        }

    return rows

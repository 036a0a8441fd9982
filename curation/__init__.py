"""Distributed data curation: Common Crawl dumps to training-ready token shards.

import curation

lake = curation.open("out/demo/lake")
lake.table("signals", dump="DUMP-2021-bullseye").to_table().to_pandas()
"""

from importlib.metadata import version
from typing import TYPE_CHECKING

from curation.cache import cache_kernels

if TYPE_CHECKING:
    from pathlib import Path

    from curation.engine.lake import Lake

__all__ = ["__version__", "open"]
__version__ = version("curation")

cache_kernels()  # before any module that has one is imported


def open(path: "str | Path") -> "Lake":
    """Open a lake for reading; raises LakeMissing or LakeVersion. Needs no Spark."""
    from curation.engine.lake import Lake

    return Lake(path)

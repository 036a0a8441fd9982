"""Folders for what may be lost, such as compiled kernels."""

import contextlib
import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import caching

HERE = Path(__file__).parent
# Kernels, and whatever they take constants from.
KERNELS = (
    "hashing.py", "identity.py", "schemas.py",
    "dedup/*.py", "ingest/*.py", "quality/*.py", "remix/*.py", "tokens/*.py",
    "engine/brute_force.py",
)  # fmt: skip
OF_A_VERSION = re.compile(r"curation-[0-9a-f]{16}")


def cache_dir(name: str) -> Path:
    """Return a folder for what may be lost; in the temporary folder where home is read-only."""
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "curation" / name
    with contextlib.suppress(OSError):
        base.mkdir(parents=True, exist_ok=True)
    if not os.access(base, os.W_OK):
        base = Path(tempfile.gettempdir(), f"curation-{os.getuid()}", name)
        base.mkdir(parents=True, exist_ok=True)
    return base


def cache_kernels() -> None:
    """Have numba keep compiled kernels in a folder of this version of our sources, and save them
    one at a time. About 3 ms, and the import of numba.

    By itself it takes one from its cache where the file of the kernel is the same, even if a
    constant of another file is not: after an upgrade, kernels of two versions would meet.
    NUMBA_CACHE_DIR, where it is set, is the folder around that folder; processes that are started
    from here find it set to the folder itself.
    """
    sources = hashlib.sha256()
    for pattern in KERNELS:
        for path in sorted(HERE.glob(pattern)):
            sources.update(path.read_bytes())
    name = f"curation-{sources.hexdigest()[:16]}"
    try:
        around = Path(os.environ.get("NUMBA_CACHE_DIR") or cache_dir("numba"))
    except OSError:  # nowhere to keep anything: numba looks for a place of its own
        return
    if OF_A_VERSION.fullmatch(around.name):
        around = around.parent
    os.environ["NUMBA_CACHE_DIR"] = str(around / name)
    numba.config.CACHE_DIR = str(around / name)  # type: ignore[attr-defined]
    if caching.IndexDataCacheFile.save.__module__ != __name__:
        save = _alone(caching.IndexDataCacheFile.save)
        caching.IndexDataCacheFile.save = save  # type: ignore[method-assign]


def _alone(save: Callable[[Any, Any, Any], None]) -> Callable[[Any, Any, Any], None]:
    """Return what saves a compiled kernel while no other process saves one in the same folder.

    Two that save two types of one kernel at once would give them the same file: numba reads the
    index, writes it and then the code, and the code of one type would run on arrays of the other.
    """

    def save_alone(index: Any, key: Any, data: Any) -> None:
        with open(os.path.join(index._cache_path, "lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            save(index, key, data)

    return save_alone

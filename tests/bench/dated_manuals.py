"""Build dated dumps of the manuals of many packages, a host each: what `ablation.py` runs on.

    python tests/bench/dated_manuals.py [--suites S ...] [--to FOLDER]

A WARC file for each suite of Debian: up to MAX_PAGES pages a package, those of the lowest hash of
their path without versions, so that a page that two suites have is in both dumps. Nothing of it is
committed. Needs apt-get and dpkg-deb; about 200 MB of download a suite.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import corpus
import mix
from warcio.warcwriter import WARCWriter

FOLDER = Path(__file__).parent / "corpora" / "manuals"
MAX_PAGES = 200
SIZES = range(2_000, 400_000)  # bytes of a page: frames and indexes of everything stay out
RENAMED = {  # a group whose package has another name in a suite
    "bullseye": {"python3.11-doc": "python3.9-doc"},
    "trixie": {"python3.11-doc": "python3.13-doc"},
    "sid": {"python3.11-doc": "python3.14-doc"},
}
VERSION = re.compile(r"[0-9]+([.-][0-9]+)*")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suites", nargs="+", default=["bullseye", "bookworm", "trixie"])
    parser.add_argument("--to", type=Path, default=FOLDER, metavar="FOLDER")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    for suite in options.suites:
        target = options.to / f"DUMP-{corpus.DATES[suite][:4]}-{suite}.warc.gz"
        if not target.exists():
            print(f"{build(suite, target):,} pages: {target}")


def build(suite: str, target: Path) -> int:
    """Download the packages of a suite and write their pages; return how many."""
    work = target.parent / f"apt-{suite}"
    unfinished = target.with_name(f".{target.name}")
    renamed = RENAMED.get(suite, {})
    packages = {renamed.get(each.name, each.name): each for each in mix.PACKAGES}
    num_pages = 0
    try:
        with unfinished.open("wb") as file:
            writer = WARCWriter(file, gzip=True)
            for deb in corpus.download(suite, list(packages), work):
                package = packages[corpus.field(deb, "Package")]
                wanted = re.compile(rf"\./usr/share/.*{renamed_pages(package.pages)}\.html?$")
                found = [each for each in mix.pages(deb, wanted) if len(each[1]) in SIZES]
                for path, html in sorted(found, key=place)[:MAX_PAGES]:
                    page = corpus.Page(f"https://{package.group}.example/{path}", html)
                    corpus.write_page(writer, page, corpus.DATES[suite])
                    num_pages += 1
        unfinished.rename(target)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{suite} cannot be had ({(error.stderr or '').strip()[-300:]})")
    finally:
        shutil.rmtree(work, ignore_errors=True)
        unfinished.unlink(missing_ok=True)
    return num_pages


def renamed_pages(pattern: str) -> str:
    """Return a pattern of pages for any version of the package."""
    return pattern.replace("openjdk-17-jre-headless", "openjdk-[0-9]+-jre-headless")


def place(page: tuple[str, bytes]) -> bytes:
    """Return what a page is chosen by: the hash of its path without versions."""
    return hashlib.sha1(VERSION.sub("", page[0]).encode()).digest()


if __name__ == "__main__":
    main()

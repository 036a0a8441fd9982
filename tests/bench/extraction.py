"""Measure extraction engines against gold texts: accuracy and speed, as a Markdown table.

    CURATION_GOLD_DATA=FOLDER python tests/bench/extraction.py [--engine NAME ...] [--set NAME ...]
        [--by type language] [--pages N] [--worst N] [--stated]

The folder holds `extraction-*` sets: ground-truth.jsonl.gz and html/ with gzipped pages, which are
not part of this project. A page scores the overlap of two bags of words (curation.ingest.text, so a
CJK character is a word): precision and recall are the shared words over those found and those of
the gold text, F1 is their harmonic mean; a table row has the means over its pages (macro). No words
found where there are some gives 0; a page whose gold text is empty is left out of the scores and
counted. Rejected pages count as empty.

Pages per second are of `curation.ingest.extract` as ingest runs it (decoding, sniffing, what the
page states, formulas, extraction, cleaning), on one thread, in CPU time of the process; the second
of two rounds counts.
"""

import argparse
import gzip
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from curation.ingest.extract import ENGINES, extract
from curation.ingest.text import words

SETS = {  # name of the set: (folder, column of the gold text, column of the page type)
    "scrapinghub": ("extraction-scrapinghub-a", "articleBody", None),
    "magic-html": ("extraction-magichtml-a", "content", "kind"),
    "wcxb": ("extraction-wcxb-dev", "main_content", "page_type"),
}
MIN_GROUP = 5  # languages with fewer pages are one row, "other"
ROUNDS = 2
STATED = {"title": "title", "author": "author", "publish_date": "published_at"}


class Page(NamedTuple):
    """One page of a set and what is known about it."""

    id: str
    html: bytes
    gold: str
    type: str
    language: str
    stated: dict[str, str | None]


class Score(NamedTuple):
    """One page's precision, recall and F1; None where the gold text has no words."""

    precision: float
    recall: float
    f1: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", action="append", choices=ENGINES, help="default: all")
    parser.add_argument("--set", action="append", choices=SETS, help="default: all")
    parser.add_argument(
        "--by", nargs="*", choices=("type", "language"), default=["type", "language"]
    )
    parser.add_argument("--pages", type=int, help="only the first N of each set")
    parser.add_argument("--worst", type=int, default=0, help="name the N worst pages of a set")
    parser.add_argument("--stated", action="store_true", help="title, author, date instead (wcxb)")
    options = parser.parse_args()
    folder = os.environ.get("CURATION_GOLD_DATA")
    if not folder:
        parser.error("CURATION_GOLD_DATA names no folder; set it to the one with extraction-* sets")
    engines = options.engine or list(ENGINES)
    sets = {name: load(Path(folder), name)[: options.pages] for name in options.set or SETS}
    if options.stated:
        print(stated_table(sets.get("wcxb", []), engines[-1]), end="")
        return
    found = {
        (name, engine): run(pages, engine) for name, pages in sets.items() for engine in engines
    }
    print(table(sets, engines, found, options.by), end="")
    for name, pages in sets.items():
        for engine in engines if options.worst else ():
            print(worst(name, pages, engine, found[name, engine][0], options.worst), end="")


def load(folder: Path, name: str) -> list[Page]:
    """Read the pages of a set, in the order of its gold file."""
    directory, gold, page_type = SETS[name]
    pages = []
    with gzip.open(folder / directory / "ground-truth.jsonl.gz", "rt") as lines:
        for row in map(json.loads, lines):
            path = folder / directory / "html" / f"{row['id']}.html.gz"
            if not path.exists():  # some sets keep a folder for each type
                path = path.parent / row[page_type or ""] / path.name
            stated = {key: row.get(key) for key in STATED}
            kind = row[page_type] if page_type else "article"
            html = gzip.decompress(path.read_bytes())
            pages.append(
                Page(row["id"], html, row[gold] or "", kind, row.get("lang") or "", stated)
            )
    return pages


def run(pages: Sequence[Page], engine: str) -> tuple[list[Score | None], float]:
    """Return each page's score and the pages per second of an engine."""
    payload = pa.array([page.html for page in pages], pa.binary())
    unknown = pa.nulls(len(pages), pa.string())
    for _ in range(ROUNDS):
        start = time.process_time()
        found = extract(payload, unknown, unknown, engine=engine)
        seconds = time.process_time() - start
    texts = found.field("text").to_pylist()
    scores = [score(text or "", page.gold) for text, page in zip(texts, pages, strict=True)]
    return scores, len(pages) / seconds


def score(found: str, gold: str) -> Score | None:
    """Return precision, recall and F1 of a text's bag of words; None without gold words."""
    found_words, gold_words = Counter(words(found)), Counter(words(gold))
    if not gold_words:
        return None
    shared = (found_words & gold_words).total()
    precision = shared / found_words.total() if found_words else 0.0
    recall = shared / gold_words.total()
    return Score(precision, recall, 2 * shared / (found_words.total() + gold_words.total()))


def table(
    sets: dict[str, list[Page]],
    engines: Sequence[str],
    found: dict[tuple[str, str], tuple[list[Score | None], float]],
    by: Iterable[str],
) -> str:
    rows = [
        f"| set | pages |{''.join(f' {engine} |' for engine in engines)}",
        f"|---|---:|{'---|' * len(engines)}",
    ]
    for name, pages in sets.items():
        speeds = " | ".join(f"{found[name, engine][1]:.0f} pages/s" for engine in engines)
        rows.append(f"| **{name}** | {len(pages)} | {speeds} |")
        for label, members in groups(pages, by).items():
            cells = []
            for engine in engines:
                scores = [found[name, engine][0][i] for i in members]
                known = [page_score for page_score in scores if page_score is not None]
                means = [sum(values) / len(known) for values in zip(*known, strict=True)]
                precision, recall, f1 = (f"{mean:.3f}".lstrip("0") for mean in means)
                cells.append(f"**{f1}** {precision} {recall}")
            rows.append(f"| {name}, {label} | {len(known)} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n\nCells: **F1** precision recall.\n"


def groups(pages: Sequence[Page], by: Iterable[str]) -> dict[str, list[int]]:
    """Return the scored pages of each row: all, by type, by language."""
    members: dict[str, list[int]] = defaultdict(list)
    scored = [i for i, page in enumerate(pages) if words(page.gold)]
    members["all"] = scored
    for attribute in by:
        sizes = Counter(getattr(pages[i], attribute) for i in scored)
        if len(sizes) < 2:
            continue
        for value, size in sizes.most_common():
            small = size < MIN_GROUP or not value
            label = "other languages" if small and attribute == "language" else value
            members[label] += [i for i in scored if getattr(pages[i], attribute) == value]
    return members


def worst(
    name: str, pages: Sequence[Page], engine: str, scores: Sequence[Score | None], num: int
) -> str:
    """Name the pages that an engine gets most wrong."""
    order = sorted(
        (page_score.f1, i) for i, page_score in enumerate(scores) if page_score is not None
    )
    rows = [f"\nWorst of {name} with {engine}: id, type, F1, precision, recall", ""]
    for _, i in order[:num]:
        precision, recall, f1 = scores[i] or Score(0, 0, 0)
        rows.append(f"    {pages[i].id} {pages[i].type} {f1:.2f} {precision:.2f} {recall:.2f}")
    return "\n".join(rows) + "\n"


def stated_table(pages: Sequence[Page], engine: str) -> str:
    """Count how often title, author and date are the gold ones, words compared without case."""
    payload = pa.array([page.html for page in pages], pa.binary())
    unknown = pa.nulls(len(pages), pa.string())
    found = extract(payload, unknown, unknown, engine=engine).to_pylist()
    rows = [
        "| field | gold | right | other | none | without gold |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for key, column in STATED.items():
        counts: Counter[str] = Counter()
        for page, row in zip(pages, found, strict=True):
            value = row[column]
            text = value.date().isoformat() if key == "publish_date" and value else value
            gold = page.stated[key]
            if not gold:
                counts["without gold"] += text is not None
                continue
            counts["gold"] += 1
            same = words(text or "") == words(gold)
            counts["right" if same else "none" if text is None else "other"] += 1
        cells = (counts[name] for name in ("gold", "right", "other", "none", "without gold"))
        rows.append(f"| {column} | {' | '.join(map(str, cells))} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()

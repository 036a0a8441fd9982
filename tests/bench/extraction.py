"""Measure extraction engines against gold texts: accuracy and speed, as a Markdown table.

    CURATION_GOLD_DATA=FOLDER python tests/bench/extraction.py [--engine NAME ...] [--set NAME ...]
        [--held-out FILE] [--by type language] [--pages N] [--worst N] [--stated]
        [--unsure FILE.png]

The folder holds `extraction-*` sets: ground-truth.jsonl.gz and html/ with gzipped pages, which are
not part of this project. A page scores the overlap of two bags of words (curation.ingest.text, so a
CJK character is a word): F1 is the harmonic mean of precision and recall; a table row has the means
over its pages (macro) and, between brackets, the 95 % bootstrap interval of the mean. No words
found where there are some gives 0; a page whose gold text is empty is left out of the scores and
counted. Rejected pages count as empty.

The model of `blocks` was trained on these pages. Its texts are therefore those of FILE, which
`curation train-extractor --held-out FILE` writes: of each page by a model that has not seen its
site. `--unsure` draws what sending unsure pages to trafilatura does, into FILE.png.

Pages per second are of `curation.ingest.extract` as ingest runs it (decoding, sniffing, what the
page states, formulas, extraction, cleaning), on one thread, in CPU time of the process; the second
of two rounds counts. turbohtml is called on pages decoded by us, where it is installed.
"""

import argparse
import gzip
import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from curation.ingest import charset
from curation.ingest.extract import ENGINES, extract
from curation.ingest.extractor_training import interval
from curation.ingest.text import words

try:
    import turbohtml
except ImportError:
    turbohtml = None

OURS = "blocks"
TURBOHTML = "turbohtml"  # its own scoring after Readability
HELD_OUT = Path(__file__).parent / "corpora" / "held-out.jsonl"
ALL_ENGINES = (*ENGINES, TURBOHTML) if turbohtml else tuple(ENGINES)

SETS = {  # name of the set: (folder, column of the gold text, column of the page type)
    "scrapinghub": ("extraction-scrapinghub-a", "articleBody", None),
    "magic-html": ("extraction-magichtml-a", "content", "kind"),
    "wcxb": ("extraction-wcxb-dev", "main_content", "page_type"),
}
MIN_GROUP = 5  # languages with fewer pages are one row, "other"
ROUNDS = 2
SHOWN_SPEEDS = (25, 50, 100, 200, 400)
UNSURE_SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
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
    parser.add_argument("--engine", action="append", choices=ALL_ENGINES, help="default: all")
    parser.add_argument("--set", action="append", choices=SETS, help="default: all")
    parser.add_argument(
        "--by", nargs="*", choices=("type", "language"), default=["type", "language"]
    )
    parser.add_argument("--held-out", type=Path, default=HELD_OUT, metavar="FILE")
    parser.add_argument("--unsure", type=Path, metavar="FILE.png", help="draw speed and accuracy")
    parser.add_argument("--pages", type=int, help="only the first N of each set")
    parser.add_argument("--worst", type=int, default=0, help="name the N worst pages of a set")
    parser.add_argument("--stated", action="store_true", help="title, author, date instead (wcxb)")
    options = parser.parse_args()
    engines = options.engine or list(ALL_ENGINES)
    if OURS in engines and not options.stated and not options.held_out.exists():
        parser.error(
            f"{options.held_out} is missing: curation train-extractor --held-out writes it, "
            "or leave the engine blocks out"
        )
    sets = {name: load(gold_folder(), name)[: options.pages] for name in options.set or SETS}
    if options.stated:
        print(stated_table(sets.get("wcxb", []), engines[-1]), end="")
        return
    held_out = read_held_out(options.held_out) if OURS in engines else {}
    found = {
        (name, engine): run(name, pages, engine, held_out)
        for name, pages in sets.items()
        for engine in engines
    }
    print(table(sets, engines, found, options.by), end="")
    for name, pages in sets.items():
        for engine in engines if options.worst else ():
            print(worst(name, pages, engine, found[name, engine][0], options.worst), end="")
    if options.unsure:
        draw_unsure(sets, found, held_out, options.unsure)


def extract_blocks_vs_trafilatura_speed() -> dict[str, Any]:
    """Pages a second of all sets, and of trafilatura."""
    speeds = {OURS: 0.0, "trafilatura": 0.0}
    num_pages = 0
    for name in SETS:
        pages = load(gold_folder(), name)
        num_pages += len(pages)
        for engine in speeds:
            speeds[engine] += len(pages) / run(name, pages, engine, read_held_out(HELD_OUT))[1]
    ours, peer = num_pages / speeds[OURS], num_pages / speeds["trafilatura"]
    found = result(ours, peer, "pages/s/core", "trafilatura on the same pages, as ingest runs both")
    return {**found, "n": num_pages}


def extract_blocks_f1_scrapinghub() -> dict[str, Any]:
    """Mean word F1 on news, on sites not trained on, and trafilatura's."""
    return accuracy("scrapinghub")


def extract_blocks_f1_magic_html() -> dict[str, Any]:
    """Mean word F1 on articles and forums, on sites not trained on, and trafilatura's."""
    return accuracy("magic-html")


def extract_blocks_f1_wcxb() -> dict[str, Any]:
    """Mean word F1 on seven types of pages, on sites not trained on, and trafilatura's."""
    return accuracy("wcxb")


def accuracy(name: str) -> dict[str, Any]:
    pages = load(gold_folder(), name)
    held_out = read_held_out(HELD_OUT)
    means = []
    for engine in (OURS, "trafilatura"):
        scores = run(name, pages, engine, held_out, rounds=1)[0]
        means.append(interval([page_score.f1 for page_score in scores if page_score]))
    found = result(means[0][0], means[1][0], "word F1", "trafilatura on the same pages", 4)
    return {**found, "n": len(pages), "intervals": [[round(x, 4) for x in m] for m in means]}


def result(ours: float, peer: float, unit: str, peer_name: str, digits: int = 1) -> dict[str, Any]:
    return {
        "ours": round(ours, digits),
        "peer": round(peer, digits),
        "ratio": round(ours / peer, 3),
        "unit": unit,
        "peer_name": peer_name,
    }


def gold_folder() -> Path:
    folder = os.environ.get("CURATION_GOLD_DATA")
    if not folder:
        sys.exit("CURATION_GOLD_DATA names no folder; set it to the one with extraction-* sets")
    return Path(folder)


def read_held_out(path: Path) -> dict[tuple[str, str], tuple[str, float]]:
    """Return text and expected F1 by folder and id of the page."""
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return {(row["set"], row["id"]): (row["text"], row["expected_f1"]) for row in rows}


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


def run(
    name: str,
    pages: Sequence[Page],
    engine: str,
    held_out: Mapping[tuple[str, str], tuple[str, float]],
    rounds: int = ROUNDS,
) -> tuple[list[Score | None], float]:
    """Return each page's score and the pages per second of an engine."""
    payload = pa.array([page.html for page in pages], pa.binary())
    unknown = pa.nulls(len(pages), pa.string())
    for _ in range(rounds):
        start = time.process_time()
        if engine == TURBOHTML:
            decoded = [charset.decode(page.html, None) for page in pages]
            texts = [turbohtml.parse(page).main_text() if page else "" for page in decoded]
        else:
            found = extract(payload, unknown, unknown, engine=engine)
        seconds = time.process_time() - start
    if engine == OURS:
        texts = [held_out[SETS[name][0], page.id][0] for page in pages]
    elif engine != TURBOHTML:
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
                known = [page_score.f1 for page_score in scores if page_score is not None]
                mean, low, high = (f"{value:.3f}".lstrip("0") for value in interval(known))
                cells.append(f"**{mean}** ({low} {high})")
            rows.append(f"| {name}, {label} | {len(known)} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n\nCells: **F1** (95 % interval).\n"


def draw_unsure(
    sets: Mapping[str, list[Page]],
    found: Mapping[tuple[str, str], tuple[list[Score | None], float]],
    held_out: Mapping[tuple[str, str], tuple[str, float]],
    path: Path,
) -> None:
    """Draw, for shares of unsure pages that trafilatura extracts, F1 of each set against speed."""
    from matplotlib import pyplot

    rows = [
        (held_out[SETS[name][0], page.id][1], name, ours.f1, other.f1)
        for name, pages in sets.items()
        for page, ours, other in zip(
            pages, found[name, OURS][0], found[name, "trafilatura"][0], strict=True
        )
        if ours and other
    ]
    rows.sort()
    seconds = {  # of a page
        engine: sum(len(pages) / found[name, engine][1] for name, pages in sets.items())
        / sum(map(len, sets.values()))
        for engine in (OURS, "trafilatura")
    }
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name in sets:
        speeds, means = [], []
        for share in UNSURE_SHARES:
            num_sent = round(share * len(rows))
            speeds.append(1 / (seconds[OURS] + share * seconds["trafilatura"]))
            f1 = [
                other if i < num_sent else ours
                for i, (_, of, ours, other) in enumerate(rows)
                if of == name
            ]
            means.append(sum(f1) / len(f1))
            print(
                f"{name}: {share:.0%} to trafilatura: F1 {means[-1]:.4f}, {speeds[-1]:.0f} pages/s"
            )
        (line,) = axes.plot(
            speeds, means, "o-", label=f"{name}: blocks, unsure pages to trafilatura"
        )
        alone = [other for _, of, _, other in rows if of == name]
        axes.plot(
            1 / seconds["trafilatura"], sum(alone) / len(alone), "x",
            color=line.get_color(), label=f"{name}: trafilatura", markersize=9,
        )  # fmt: skip
    axes.set_ylim(axes.get_ylim()[0] - 0.02)
    for share in UNSURE_SHARES:
        speed = 1 / (seconds[OURS] + share * seconds["trafilatura"])
        place = (speed, axes.get_ylim()[0] + 0.004)
        axes.annotate(f"{share:.0%}", place, fontsize=8, ha="center")
    axes.annotate("sent:", (30, axes.get_ylim()[0] + 0.004), fontsize=8, ha="center")
    axes.set_xscale("log")
    axes.set_xticks(SHOWN_SPEEDS, [str(speed) for speed in SHOWN_SPEEDS])
    axes.minorticks_off()
    axes.set_xlabel("pages/s/core")
    axes.set_ylabel("mean word F1")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    figure.savefig(path, dpi=110)


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

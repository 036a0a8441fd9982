"""Decisions of our rules against datatrove's filters, rule by rule, on real English text.

    python tests/bench/agreement.py           compare, write agreement.json, print a table
    python tests/bench/agreement.py --table   print the stored results

datatrove 0.10.1 runs in an environment of its own (`make bench-setup`), each rule alone. Every rule
is written down here once more, in plain Python, with a switch for each difference of definition.
With no switch it must decide as datatrove does, with all of them as we do; so a disagreement is
explained by the switches that turn the one decision into the other, and is counted under the
smallest set of them. What is not reproduced at either end is unexplained.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import corpus
import pyarrow as pa

from curation.engine.training_texts import read_texts
from curation.ingest.text import KIND, MARK, SEPARATOR, words
from curation.quality import signals
from curation.quality.rules import decide, load_rules

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PEER = ROOT / ".venv-bench" / "bin" / "python"
RESULTS = HERE / "agreement.json"
RULES = [
    rule
    for rule in load_rules(["gopher", "c4", "fineweb"], {})
    if (rule.languages is None or "en" in rule.languages) and rule.signal != "num_bad_words"
]
EVERY_PAGE = 20  # of the bench corpus
STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
ELLIPSES = re.compile(r"\.{3,}|\u3002{3,}|\u2026+")
SENTENCE_ENDS = re.compile(
    "[\u3002\uff1f\uff01\uff61]|"
    "[.?!][.?!\"')\\]}\u2019\u201d\u300d\u300f\u300b\u3011\uff09\u00bb]*(?=\\s)"
)


class Page(NamedTuple):
    """A text, and what datatrove makes of it."""

    text: str
    tokens: list[str]  # its words
    telling: list[str]  # those that are not all punctuation
    sentences: list[int]  # of each line of splitlines()
    rejected: list[str]  # by which of the rules, each alone

    @property
    def lines(self) -> list[str]:
        """Our lines."""
        return [line.strip() for line in self.text.split("\n") if line.strip()]


Switches = Collection[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the stored results")
    options = parser.parse_args()
    if not options.table:
        RESULTS.write_text(json.dumps(compare(), indent=1) + "\n")
    sys.stdout.write(table(json.loads(RESULTS.read_text())))


def compare() -> dict[str, Any]:
    """Return by rule how often both keep or reject, and why they differ."""
    texts, sources = corpus_texts()
    ours = rejected_by_us(texts)
    rows: dict[str, Any] = {
        rule.name: {
            "both_keep": 0,
            "both_reject": 0,
            "only_ours": 0,
            "only_datatrove": 0,
            "why": {},
        }
        for rule in RULES
    }
    for page, own in zip(peer_pages(texts), ours, strict=True):
        for rule in RULES:
            row, here, there = rows[rule.name], rule.name in own, rule.name in page.rejected
            if here == there:
                row["both_reject" if here else "both_keep"] += 1
            else:
                row["only_ours" if here else "only_datatrove"] += 1
                name = explain(page, rule, here, there)
                row["why"][name] = row["why"].get(name, 0) + 1
    return {"num_texts": len(texts), "sources": sources, "rules": rows}


def corpus_texts() -> tuple[list[str], dict[str, int]]:
    """Return the texts, and how many of each source; the third one lies in CURATION_GOLD_DATA."""
    found = {"LibreOffice help": corpus.read_texts("en-us")["text"].to_pylist()[::EVERY_PAGE]}
    demo = ROOT / "tests" / "data" / "dumps" / "docs.jsonl.gz"
    pages = [text for batch in read_texts([str(demo)]) for text in batch]
    found["demo dumps"] = [text for text in pages if text.isascii()]
    gold = os.environ.get("CURATION_GOLD_DATA")
    if gold:
        sets = [f"{gold}/quality-dclm-human-a/labels.jsonl.gz"]
        found["Common Crawl passages"] = [t for batch in read_texts(sets) for t in batch]
    texts = [text for part in found.values() for text in part if words(text)]
    return texts, {name: len(part) for name, part in found.items()}


def rejected_by_us(texts: list[str]) -> list[list[str]]:
    lang = pa.array(["en"] * len(texts))
    found = decide(signals.signals(pa.array(texts), lang), lang, RULES)
    return [row["rules"] if row else [] for row in found.to_pylist()]


def peer_pages(texts: list[str]) -> Iterator[Page]:
    """Ask datatrove about every text."""
    if not PEER.exists():
        sys.exit(f"there is no {PEER}; run `make bench-setup`")
    asked = subprocess.run(
        [PEER, HERE / "peer_side.py", "rules"],
        input="\n".join(json.dumps(text) for text in texts),
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode:
        sys.exit(asked.stderr[-2000:])
    for text, line in zip(texts, asked.stdout.splitlines(), strict=True):
        yield Page(text, **json.loads(line))


def explain(page: Page, rule: Any, here: bool, there: bool) -> str:
    """Return the smallest set of switches that turns datatrove's decision into ours."""
    switches, value = DEFINITIONS[rule.name]

    def rejects(chosen: Switches) -> bool:
        found = value(page, chosen)
        return found < rule.value if rule.bound == "min" else found > rule.value

    if rejects(()) != there or rejects(switches) != here:
        return "unexplained"
    for size in range(1, len(switches) + 1):
        for chosen in combinations(switches, size):
            if rejects(chosen) == here:
                return " + ".join(chosen)
    return "unexplained"


# ---- the rules, with a switch for each difference ----------------------------------------------


def sequence(page: Page, on: Switches) -> list[str]:
    return words(page.text) if "words" in on else page.tokens


def telling(page: Page, on: Switches) -> list[str]:
    """Words, or tokens that are not all punctuation."""
    return words(page.text) if "words" in on else page.telling


def is_symbol(token: str) -> bool:
    return all(KIND[ord(c)] == SEPARATOR for c in token)


def num_words(page: Page, on: Switches) -> float:
    return len(telling(page, on))


def word_length(page: Page, on: Switches) -> float:
    found = telling(page, on)
    return sum(map(len, found)) / max(len(found), 1)


def hash_ratio(page: Page, on: Switches) -> float:
    return page.text.count("#") / max(len(sequence(page, on)), 1)


def ellipsis_ratio(page: Page, on: Switches) -> float:
    count = page.text.count("...") + page.text.count("\u2026")
    if "ellipsis_runs" in on:
        count = sum(len(ELLIPSES.findall(line)) for line in page.lines)
    return count / max(len(sequence(page, on)), 1)


def all_lines(page: Page, on: Switches) -> list[str]:
    """Lines without blank ones and white space; or splitlines() with them."""
    return page.lines if "blank_lines" in on else page.text.splitlines()


def bullet_lines(page: Page, on: Switches) -> float:
    bullets = tuple(signals.BULLETS) if "bullets" in on else ("\u2022", "-")
    lines = all_lines(page, on)
    return sum(line.lstrip().startswith(bullets) for line in lines) / max(len(lines), 1)


def ellipsis_lines(page: Page, on: Switches) -> float:
    ends = (lambda s: bool(re.search(rf"({ELLIPSES.pattern})$", s))) if "ellipsis_runs" in on else (
        lambda s: s.endswith(("...", "\u2026"))
    )  # fmt: skip
    lines = all_lines(page, on)
    return sum(ends(line.rstrip()) for line in lines) / max(len(lines), 1)


def alphabetic_words(page: Page, on: Switches) -> float:
    if "words" not in on:
        found = page.tokens
        return sum(any(c.isalpha() for c in token) for token in found) / max(len(found), 1)
    found = words(page.text)
    plain = ["".join(c for c in line if KIND[ord(c)] != MARK) for line in page.lines]
    symbols = [piece for line in plain for piece in line.split() if is_symbol(piece)]
    letters = sum(not set(word) <= set("0123456789") for word in found)
    return letters / max(len(found) + len(symbols), 1)


def stop_words(page: Page, on: Switches) -> float:
    found = set(sequence(page, on))
    return len(STOP_WORDS & ({word.lower() for word in found} if "case" in on else found))


def repeats(items: list[str]) -> tuple[int, int]:
    seen: set[str] = set()
    num, chars = 0, 0
    for item in items:
        num += item in seen
        chars += len(item) if item in seen else 0
        seen.add(item)
    return num, chars


def paragraphs(page: Page, on: Switches) -> list[str]:
    if "blank_lines" not in on:
        return re.split(r"\n{2,}", page.text.strip())
    blocks: list[list[str]] = [[]]
    for line in page.text.split("\n"):
        if line.strip():
            blocks[-1].append(line.strip())
        elif blocks[-1]:
            blocks.append([])
    return ["\n".join(block) for block in blocks if block]


def lines_of(page: Page, on: Switches) -> list[str]:
    return page.lines if "blank_lines" in on else re.split("\n+", page.text)


def duplicate_share(split: Callable[[Page, Switches], list[str]]) -> Callable[..., float]:
    return lambda page, on: repeats(split(page, on))[0] / max(len(split(page, on)), 1)


def duplicate_chars(split: Callable[[Page, Switches], list[str]]) -> Callable[..., float]:
    def value(page: Page, on: Switches) -> float:
        items = split(page, on)
        if "line_characters" not in on:
            return repeats(items)[1] / len(page.text)
        return repeats_without_newlines(items) / max(sum(map(len, page.lines)), 1)

    return value


def repeats_without_newlines(items: list[str]) -> int:
    seen: set[str] = set()
    chars = 0
    for item in items:
        chars += len(item.replace("\n", "")) if item in seen else 0
        seen.add(item)
    return chars


def top_ngram(n: int) -> Callable[[Page, Switches], float]:
    def value(page: Page, on: Switches) -> float:
        found = sequence(page, on)
        grams = [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]
        if not grams:
            return 0.0
        counted = Counter(grams)
        top, most = counted.most_common(1)[0]
        if "occurs_twice" in on and most < 2:
            return 0.0
        chars = len(" ".join(top)) * most
        if "covered_once" in on:
            chars = max(
                covered(found, n, [i for i, gram in enumerate(grams) if gram == each])
                for each, count in counted.items()
                if count == most
            )
        return chars / (sum(map(len, found)) if "word_characters" in on else len(page.text))

    return value


def duplicate_ngram(n: int) -> Callable[[Page, Switches], float]:
    def value(page: Page, on: Switches) -> float:
        found = sequence(page, on)
        if "covered_once" in on:
            grams = [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]
            counted = Counter(grams)
            chars = covered(found, n, [i for i, gram in enumerate(grams) if counted[gram] > 1])
        else:
            chars = greedy(found, n)
        return chars / max(sum(map(len, found)) if "word_characters" in on else len(page.text), 1)

    return value


def covered(found: list[str], n: int, places: list[int]) -> int:
    return sum(len(found[i]) for i in {place + k for place in places for k in range(n)})


def greedy(found: list[str], n: int) -> int:
    seen: set[str] = set()
    chars, at = 0, 0
    while at < len(found) - n + 1:
        gram = "".join(found[at : at + n])
        chars += len(gram) if gram in seen else 0
        at += n if gram in seen else 1
        seen.add(gram)
    return chars


def c4_lines(page: Page, on: Switches) -> Iterator[tuple[str, int]]:
    """The lines that are not cut for their length, with their sentences."""
    raw = page.text.split("\n") if "sentence_ends" in on else page.text.splitlines()
    for number, line in enumerate(line.strip() for line in raw):
        count = len(words(line)) if "line_words" in on else len(line.split())
        is_long = "long_words" not in on and any(len(word) > 1000 for word in line.split())
        if count >= 3 and not is_long:
            yield line, our_sentences(line) if "sentence_ends" in on else page.sentences[number]


def our_sentences(line: str) -> int:
    plain = "".join(c for c in line if KIND[ord(c)] != MARK)
    return sum(bool(words(piece)) for piece in SENTENCE_ENDS.split(plain))


def c4_occurrences(term: str) -> Callable[[Page, Switches], float]:
    def value(page: Page, on: Switches) -> float:
        if "every_line" in on:
            return page.text.lower().count(term)
        # what stands behind a "javascript" of its line is not looked at
        kept = [line for line, _ in c4_lines(page, on) if term == "lorem ipsum" or not cut(line)]
        return sum(line.lower().count(term) for line in kept)

    return value


def cut(line: str) -> bool:
    return "javascript" in line.lower()


def c4_sentences(page: Page, on: Switches) -> float:
    terms = [term for term in signals.CUT_TERMS if term.isascii()]
    return sum(
        count for line, count in c4_lines(page, on) if not any(t in line.lower() for t in terms)
    )


def terminal_lines(page: Page, on: Switches) -> float:
    ends = {chr(c) for a, b in signals.SENTENCE_TERMINAL_RANGES for c in range(a, b + 1)}
    lines = fineweb_lines(page, on)
    return sum(line[-1:] in ends for line in lines) / max(len(lines), 1)


def fineweb_lines(page: Page, on: Switches) -> list[str]:
    if "stripped" not in on:
        return [line for line in page.text.split("\n") if line.strip()]
    return page.lines


def plain_terminal_lines(page: Page, on: Switches) -> float:
    if "stripped" not in on:
        return terminal_lines(page, on)
    ends = {chr(c) for a, b in signals.SENTENCE_TERMINAL_RANGES for c in range(a, b + 1)}
    plain = ["".join(c for c in line if KIND[ord(c)] != MARK).strip() for line in page.lines]
    return sum(line[-1:] in ends for line in plain) / max(len(plain), 1)


def short_lines(page: Page, on: Switches) -> float:
    lines = fineweb_lines(page, on)
    return sum(len(line) <= 30 for line in lines) / max(len(lines), 1)


def fineweb_duplicates(page: Page, on: Switches) -> float:
    chars = repeats(fineweb_lines(page, on))[1]
    whole = sum(map(len, page.lines)) if "line_characters" in on else None
    return chars / max(len(page.text.replace("\n", "")) if whole is None else whole, 1)


def newline_ratio(page: Page, on: Switches) -> float:
    return page.text.count("\n") / max(len(sequence(page, on)), 1)


TOP = ("words", "occurs_twice", "covered_once", "word_characters")
DUPLICATE = ("words", "covered_once", "word_characters")
DEFINITIONS: dict[str, tuple[tuple[str, ...], Callable[[Page, Switches], float]]] = {
    "gopher_min_words": (("words",), num_words),
    "gopher_max_words": (("words",), num_words),
    "gopher_min_word_length": (("words",), word_length),
    "gopher_max_word_length": (("words",), word_length),
    "gopher_max_hash_ratio": (("words",), hash_ratio),
    "gopher_max_ellipsis_ratio": (("words", "ellipsis_runs"), ellipsis_ratio),
    "gopher_max_bullet_lines": (("blank_lines", "bullets"), bullet_lines),
    "gopher_max_ellipsis_lines": (("blank_lines", "ellipsis_runs"), ellipsis_lines),
    "gopher_min_alphabetic_words": (("words",), alphabetic_words),
    "gopher_min_stop_words": (("case", "words"), stop_words),
    "gopher_max_duplicate_line": (("blank_lines",), duplicate_share(lines_of)),
    "gopher_max_duplicate_paragraph": (("blank_lines",), duplicate_share(paragraphs)),
    "gopher_max_duplicate_line_char": (
        ("blank_lines", "line_characters"),
        duplicate_chars(lines_of),
    ),
    "gopher_max_duplicate_paragraph_char": (
        ("blank_lines", "line_characters"),
        duplicate_chars(paragraphs),
    ),
    **{f"gopher_max_top_{n}gram": (TOP, top_ngram(n)) for n in (2, 3, 4)},
    **{f"gopher_max_duplicate_{n}gram": (DUPLICATE, duplicate_ngram(n)) for n in range(5, 11)},
    "c4_max_lorem_ipsum": (("every_line",), c4_occurrences("lorem ipsum")),
    "c4_max_left_braces": (("every_line",), c4_occurrences("{")),
    "c4_min_sentences": (("sentence_ends", "line_words", "long_words"), c4_sentences),
    "fineweb_min_sentence_terminal_lines": (("stripped",), plain_terminal_lines),
    "fineweb_max_short_lines": (("stripped",), short_lines),
    "fineweb_max_duplicate_line_char": (("stripped", "line_characters"), fineweb_duplicates),
    "fineweb_max_newline_ratio": (("words",), newline_ratio),
}
MEANINGS = {
    "words": "spaCy's tokens count signs, and split at hyphens and apostrophes",
    "case": "case counts there",
    "ellipsis_runs": "six dots are two ellipses there",
    "blank_lines": "blank lines, and white space around a line, count there",
    "bullets": "two bullets are known there",
    "line_characters": "shares of all of the text there, of the lines here",
    "occurs_twice": "an n-gram that occurs once is repetition there",
    "covered_once": "overlaps count twice, or are skipped, there",
    "word_characters": "shares of all of the text there, of the words here",
    "every_line": "lines that C4 cuts are not looked at there",
    "sentence_ends": "spaCy's sentences, and lines that end in more than newlines",
    "line_words": "words of a line by white space there",
    "long_words": "lines with a word of 1,000 characters are cut there",
    "stripped": "white space at the end of a line hides its full stop, and counts, there",
}


def table(found: dict[str, Any]) -> str:
    sources = ", ".join(f"{count} {name}" for name, count in found["sources"].items())
    rows = [
        f"{found['num_texts']} English texts: {sources}.",
        "",
        "| rule | agree | both reject | only ours | only datatrove | because of |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for name, row in found["rules"].items():
        agree = (row["both_keep"] + row["both_reject"]) / found["num_texts"]
        why = sorted(row["why"].items(), key=lambda item: (-item[1], item[0]))
        reasons = ", ".join(f"{reason} {count}" for reason, count in why)
        rows.append(
            f"| `{name}` | {agree:.1%} | {row['both_reject']} | {row['only_ours']} "
            f"| {row['only_datatrove']} | {reasons} |"
        )
    used = {
        part for row in found["rules"].values() for why in row["why"] for part in why.split(" + ")
    }
    rows += ["", *(f"- `{name}`: {MEANINGS[name]}" for name in MEANINGS if name in used)]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()

"""Measure how often the language of a sentence is named right, as Markdown.

    CURATION_GOLD_DATA=FOLDER python tests/bench/langid.py

The folder holds `langid-lingua-a` (sentences by language), which is not part of this project.
Accuracy of a language is the share of its sentences that are named right; macro is the mean over
the languages that lid.176 knows. `within 1 %` is the share of the sentences kept and right at the
threshold on the score where those kept and wrong are 1 %.

What each part of the cleaning gives is measured on the sentences, on the sentences with what
surrounds text on pages, and on the demo: pages of sites in English and in Chinese, of which some
are not translated.
"""

import gzip
import json
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation import models
from curation.config import DEFAULT_LANGUAGE_MODEL, IngestConfig
from curation.ingest import langid

DEMO = Path(__file__).parents[1] / "data" / "dumps" / "docs.jsonl.gz"
NAMES = {"nb": "no"}  # what lid.176 calls Bokmal
SURROUNDINGS: dict[str, Callable[[str, int], str]] = {
    "sentences": lambda text, i: text,
    "with links": lambda text, i: (
        f"{text}\nhttps://www.example.org/index.php?page={i}&action=history "
        f"http://shop.example.com/category/article-{i}.html reader{i}@example.org"
    ),
    "with numbers": lambda text, i: (
        f"{text} {i},345.00 2023-04-05 10:{i % 60} +1 (555) 010-0{i} | 3/4 -> [1] [2] #{i}"
    ),
    "with markup": lambda text, i: (
        f'<div class="row" id="r{i}"><p>{text}</p></div> &nbsp; &copy; <br/>'
    ),
}
MARKUP = r"</?[A-Za-z][^<>]*>|&[A-Za-z]+;"
CLEANINGS: dict[str, Callable[[str], str]] = {
    "fastText's own": lambda text: text,
    "+ without addresses": lambda text: re.sub(langid.ADDRESSES, " ", text),
    "+ without markup": lambda text: re.sub(MARKUP, " ", text),
    "+ without digits": lambda text: re.sub(r"\d+", " ", text),
    "+ lower case": str.lower,
    "curation": lambda text: cleaned([text])[0],
    "curation without markup": lambda text: cleaned([re.sub(MARKUP, " ", text)])[0],
    "curation + lower case": lambda text: cleaned([text])[0].lower(),
    "curation without commas and full stops": lambda text: re.sub(
        r"[.,\u3002\uff0c] ?", " ", cleaned([text])[0]
    ),
}
Answers = list[tuple[str, float]]


def main() -> None:
    if not os.environ.get("CURATION_GOLD_DATA"):
        sys.exit("CURATION_GOLD_DATA names no folder; set it to the one with langid-lingua-a")
    folder = Path(os.environ["CURATION_GOLD_DATA"])
    model = models.language_model(DEFAULT_LANGUAGE_MODEL, models.sha256(DEFAULT_LANGUAGE_MODEL))
    with gzip.open(folder / "langid-lingua-a" / "sentences.tsv.gz", "rt") as lines:
        pairs = [line.rstrip("\n").split("\t", 1) for line in lines]
    gold = [NAMES.get(language, language) for language, _ in pairs]
    sentences = [sentence for _, sentence in pairs]
    found = langid.detect(pa.array(sentences), model)
    ours = list(zip(found.field("code").to_pylist(), found.field("score").to_pylist(), strict=True))
    own = predict(model, sentences)
    print("| | | fastText's own | curation |\n|---|---|---:|---:|")
    known = [language in langid.LANGUAGE_SCRIPTS for language in gold]
    languages = len({g for g, k in zip(gold, known, strict=True) if k})
    cells = [f"{macro(gold, answers):.4f}" for answers in (own, ours)]
    print(f"| {languages} languages, {sum(known)} sentences | macro | {' | '.join(cells)} |")
    lowest = IngestConfig().min_language_score
    for language in ("en", "zh"):
        for least, kept in ((0.0, ""), (lowest, f" of score {lowest:g} or more")):
            for number, what in enumerate(("precision", "recall")):
                cells = [
                    f"{precision_recall(gold, answers, language, least)[number]:.3f}"
                    for answers in (own, ours)
                ]
                print(
                    f"| {language}, {gold.count(language)} | {what}{kept} | {' | '.join(cells)} |"
                )
    right = by_language(gold, ours)
    before = by_language(gold, own)
    ranked = sorted(right, key=lambda name: (right[name], name))
    print("\n| worst | sentences | fastText's own | curation | taken for |")
    print("|---|---:|---:|---:|---|")
    for language in ranked[:10]:
        wrong = Counter(
            a for g, (a, _) in zip(gold, ours, strict=True) if g == language and a != language
        )
        taken = ", ".join(f"{name} {count}" for name, count in wrong.most_common(3))
        print(
            f"| {language} | {gold.count(language)} | {before[language]:.3f} "
            f"| {right[language]:.3f} | {taken} |"
        )
    cells = [f"{name} {right[name]:.3f}".replace(" 0", " ") for name in reversed(ranked[10:])]
    print("\nThe others:", ", ".join(cells))
    chinese = pa.array([s for g, s in zip(gold, sentences, strict=True) if g == "zh"])
    scripts = Counter(langid.detect(chinese, model).field("script").to_pylist())
    print("\nScript of the sentences in zh:", dict(scripts.most_common()))
    samples = {
        name: (gold, [surround(text, i) for i, text in enumerate(sentences)])
        for name, surround in SURROUNDINGS.items()
    }
    with gzip.open(DEMO, "rt") as lines:
        pages = [json.loads(line) for line in lines]
    samples["demo pages"] = (
        [page["lang"] for page in pages],
        [page["text"][: langid.MAX_CHARACTERS] for page in pages],
    )
    print(f"\n| cleaning: macro (within 1 %) | {' | '.join(samples)} |")
    print(f"|---|{'---:|' * len(samples)}")
    for name, clean in CLEANINGS.items():
        cells = []
        for wanted, texts in samples.values():
            answers = predict(model, map(clean, texts))
            cells.append(f"{macro(wanted, answers):.3f} ({within(wanted, answers):.3f})")
        print(f"| {name} | {' | '.join(cells)} |")


def cleaned(texts: list[str]) -> list[str]:
    found: list[str] = langid.clean(pa.array(texts))[0].to_pylist()
    return found


def predict(model: langid.LanguageModel, texts: Iterable[str]) -> Answers:
    answers = []
    for text in texts:
        best = model.f.predict(" ".join(text.split()), 1, 0.0, "strict")
        answers.append((best[0][1].removeprefix("__label__"), best[0][0]) if best else ("", 0.0))
    return answers


def by_language(gold: list[str], answers: Answers) -> dict[str, float]:
    """Return the accuracy of each language that lid.176 knows."""
    right = defaultdict(list)
    for language, (answer, _) in zip(gold, answers, strict=True):
        if language in langid.LANGUAGE_SCRIPTS:
            right[language].append(answer == language)
    return {language: sum(values) / len(values) for language, values in right.items()}


def macro(gold: list[str], answers: Answers) -> float:
    right = by_language(gold, answers)
    return sum(right.values()) / len(right)


def precision_recall(
    gold: list[str], answers: Answers, language: str, least: float
) -> tuple[float, float]:
    """Return both of a language when only answers of a least score count."""
    named = [g for g, (a, s) in zip(gold, answers, strict=True) if a == language and s >= least]
    right = named.count(language)
    return right / len(named), right / gold.count(language)


def within(gold: list[str], answers: Answers, wrong: float = 0.01) -> float:
    known = [
        (g == a, s) for g, (a, s) in zip(gold, answers, strict=True) if g in langid.LANGUAGE_SCRIPTS
    ]
    right = np.array([is_right for is_right, _ in sorted(known, key=lambda pair: -pair[1])])
    allowed = np.cumsum(~right) <= wrong * len(right)
    return float(np.cumsum(right)[allowed].max(initial=0) / len(right))


if __name__ == "__main__":
    main()

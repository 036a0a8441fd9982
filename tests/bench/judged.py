"""Signals, rules and models against human labels: passages of Common Crawl kept or dropped.

    CURATION_GOLD_DATA=FOLDER python tests/bench/judged.py    measure, write judged.json, print
    python tests/bench/judged.py --table                      print the stored results

The labels of DCLM (250 passages, English) only judge. Half of them, by hash, choose the best single
signal; the other half compares everything with it: AUC, and the 95 % interval of the difference of
AUC over 2,000 paired bootstrap samples. The classifier is trained on Debian's documentation: pages
against the same pages with their words in another order, lists of links, and command references.
"""

import argparse
import gzip
import hashlib
import json
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from resiliparse.extract.html2text import extract_plain_text

from curation.quality import classifier, perplexity
from curation.quality.rules import decide, load_rules
from curation.quality.signals import SIGNALS_SCHEMA, signals

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = HERE / "judged.json"
NUM_SAMPLES = 2_000
PROFILES = ("gopher", "c4", "fineweb", "deepseek")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print the stored results")
    options = parser.parse_args()
    if not options.table:
        RESULTS.write_text(json.dumps(judge(), indent=1) + "\n")
    sys.stdout.write(table(json.loads(RESULTS.read_text())))


def judge() -> dict[str, Any]:
    gold = os.environ.get("CURATION_GOLD_DATA")
    if not gold:
        sys.exit("CURATION_GOLD_DATA names no folder with quality-dclm-human-a")
    with gzip.open(f"{gold}/quality-dclm-human-a/labels.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    text = pa.array([row["text"] for row in rows])
    good = np.array([row["label"] == 1 for row in rows])
    chooses = np.array([hashlib.sha256(r["text"].encode()).digest()[0] < 128 for r in rows])
    measured, rejected = measures(text)
    single = {name: values for name, values in measured.items() if name in SIGNALS_SCHEMA.names}
    # a signal may count the other way; the first half says which way
    signs = {
        name: 1.0 if area(values[chooses], good[chooses]) >= 0.5 else -1.0
        for name, values in measured.items()
    }
    best = max(single, key=lambda name: area(signs[name] * single[name][chooses], good[chooses]))
    judged = ~chooses
    base = signs[best] * measured[best][judged]
    shown = {}
    for name, values in measured.items():
        ours = signs[name] * values[judged]
        low, high = interval(ours, base, good[judged])
        shown[name] = {
            "auc": round(area(ours, good[judged]), 3),
            "sign": "+" if signs[name] > 0 else "-",
            "against_best": [round(low, 3), round(high, 3)],
        }
    return {
        "num_passages": len(rows),
        "num_judged": int(judged.sum()),
        "best_single_signal": best,
        "measures": shown,
        "profiles": {
            name: {
                "good_kept": round(float(1 - gone[good].mean()), 3),
                "bad_kept": round(float(1 - gone[~good].mean()), 3),
            }
            for name, gone in rejected.items()
        },
    }


def measures(text: pa.Array) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return what judges each passage, and which passages each profile rejects."""
    lang = pa.array(["en"] * len(text))
    found = signals(text, lang)
    columns = {
        name: np.asarray(found.field(name).cast(pa.float64()).fill_null(0))
        for name in SIGNALS_SCHEMA.names
        if name not in ("c4_cuts", "num_bad_words")
    }
    scored = perplexity.score(text, starter())
    for name in ("perplexity", "perplexity_char"):
        columns[name] = np.asarray(scored.field(name).fill_null(1e300))
    columns["quality_score"] = np.asarray(
        classifier.score(text, trained_classifier()).fill_null(0.0)
    )
    rejected = {}
    for profile in PROFILES:
        rows = decide(found, lang, load_rules([profile], {})).to_pylist()
        rejected[profile] = np.array([row is not None for row in rows])
        broken = [float(len(row["rules"])) if row else 0.0 for row in rows]
        columns[f"rules broken of {profile}"] = np.array(broken)
    return columns, rejected


def starter() -> perplexity.Model:
    return perplexity.load(str(ROOT / "curation" / "quality" / "models" / "perplexity-en.json"))


def trained_classifier() -> classifier.Classifier:
    """Train on pages of Debian's documentation; see the top of this file."""
    sys.path.insert(0, str(ROOT / "tests" / "data"))
    import make_starter_models as starters

    folder = Path(tempfile.mkdtemp(prefix="bench-judged-"))
    packages = starters.PAGES["en"]
    starters.fetch([*packages], folder)
    good = [t for batch in starters.texts(folder / "root", packages.values()) for t in batch]
    pick = random.Random(1)
    salad = [" ".join(pick.sample(words, len(words))) for words in map(str.split, good)]
    links = []
    for pattern in packages.values():
        for path in sorted((folder / "root").glob(pattern)):
            if path.suffix == ".html":
                html = path.read_text(encoding="utf-8", errors="replace")
                whole = extract_plain_text(html, main_content=False, links=True).split("\n")
                kept = set(extract_plain_text(html, main_content=True).split("\n"))
                links.append("\n".join(line for line in whole if line not in kept))
    card = folder / "quality-en.json"
    bad = [t for t in (*salad, *links) if t.strip()]
    classifier.train([good], [bad], card, language="en")
    return classifier.load(str(card))


def area(values: np.ndarray, good: np.ndarray) -> float:
    return classifier.auc(values[good], values[~good])


def interval(ours: np.ndarray, base: np.ndarray, good: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of AUC of ours less that of base, over the same samples."""
    pick = np.random.default_rng(1)
    differences = []
    while len(differences) < NUM_SAMPLES:
        chosen = pick.integers(0, len(good), len(good))
        if good[chosen].any() and not good[chosen].all():
            mine, other = (area(v[chosen], good[chosen]) for v in (ours, base))
            differences.append(mine - other)
    low, high = np.quantile(differences, [0.025, 0.975])
    return float(low), float(high)


def table(found: dict[str, Any]) -> str:
    best = found["best_single_signal"]
    models = ("quality_score", "perplexity", "perplexity_char")
    ranked = sorted(found["measures"].items(), key=lambda item: -item[1]["auc"])
    shown = [
        item
        for place, item in enumerate(ranked)
        if place < 8 or item[0] in models or " " in item[0]
    ]
    rows = [
        f"{found['num_passages']} passages, {found['num_judged']} of them judge; best single "
        f"signal on the others: `{best}`.",
        "",
        "| measure | more is | AUC | less that of the best signal, 95 % |",
        "|---|---|---:|---|",
    ]
    for name, row in shown:
        low, high = row["against_best"]
        better = "better" if row["sign"] == "+" else "worse"
        rows.append(f"| `{name}` | {better} | {row['auc']:.3f} | {low:+.3f} to {high:+.3f} |")
    rows += ["", "| profile | kept of the good | kept of the bad |", "|---|---:|---:|"]
    rows += [
        f"| `{name}` | {row['good_kept']:.1%} | {row['bad_kept']:.1%} |"
        for name, row in found["profiles"].items()
    ]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()

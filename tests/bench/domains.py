"""Domains on bench-mix: the classifier on packages it has not seen, and the recall loop.

    python tests/bench/domains.py [--write]

The package is the label (tests/bench/mix.py). For each of the seven groups of packages that judge,
a classifier is trained on all others and labels its pages; macro F1 is that of all these labels
together. The loop starts from 50 pages of sagemath and searches the packages that judge. fastText's
training is not the same twice to the last digit.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from mix import FOLDER, PACKAGES, PAGES

from curation.hashing import hash_strings
from curation.remix import domain_classifier, recall

RESULTS = Path(__file__).with_name("domains.json")
NUM_SEEDS = 50


class Pages:
    """The pages of packages, as the recall loop asks for them."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows
        self.text = rows["text"].combine_chunks()
        self.features = domain_classifier.features(self.text).to_pylist()
        self.hosts = np.array(rows["package"].to_pylist())
        self.labels = np.array(rows["label"].to_pylist())
        self.fraction = hash_strings(rows["url"].combine_chunks(), 0) / 2.0**64
        self.num_pages = rows.num_rows

    def lines(self, hosts, joined, share):
        for i in np.argsort(self.fraction):
            if (self.hosts[i] in hosts) == joined and self.fraction[i] < share:
                yield self.features[i]

    def score(self, card, label, to):
        classifier = domain_classifier.load(str(card))
        found = domain_classifier.classify_lines(
            pa.array(self.features, pa.large_string()), classifier
        )
        scores = recall.probability(found, label)
        columns = [pa.array(range(self.num_pages)), self.rows["package"], scores]
        pq.write_table(pa.table(columns, schema=recall.SCORES_SCHEMA), to / "scores.parquet")


def held_out_by_package(pages: Pages, training: domain_classifier.Training) -> dict:
    """Return the metrics of labels that were given by classifiers trained on other packages."""
    group_of = {package.name: package.group for package in PACKAGES}
    judging = dict.fromkeys(package.group for package in PACKAGES if package.judges)
    groups = np.array([group_of[host] for host in pages.hosts])
    taken_for: dict[str, Counter] = {label: Counter() for label in sorted(set(pages.labels))}
    by_group = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, group in enumerate(judging):
            lines: dict[str, list[str]] = {}
            for i in np.flatnonzero(groups != group):
                lines.setdefault(pages.labels[i], []).append(pages.features[i])
            card = Path(folder, f"{number}.json")
            domain_classifier.train_lines(lines, card, training=training)
            own = np.flatnonzero(groups == group)
            found = domain_classifier.classify_lines(
                pa.array([pages.features[i] for i in own], pa.large_string()),
                domain_classifier.load(str(card)),
            ).label.to_pylist()
            taken_for[pages.labels[own[0]]].update(found)
            by_group[group] = {"label": pages.labels[own[0]], **Counter(found)}
    found = domain_classifier.metrics(taken_for)
    return {"macro_f1": found["macro_f1"], "by_label": found["by_label"], "by_package": by_group}


def held_out_by_page(pages: Pages, training: domain_classifier.Training) -> float:
    """Return the macro F1 on unseen pages of packages that were trained on."""
    lines: dict[str, list[str]] = {}
    for label, line in zip(pages.labels, pages.features, strict=True):
        lines.setdefault(label, []).append(line)
    with tempfile.TemporaryDirectory() as folder:
        card = domain_classifier.train_lines(lines, Path(folder, "all.json"), training=training)
    return card["held_out"]["macro_f1"]


def recall_from_sagemath(rows: pa.Table, training: domain_classifier.Training) -> dict:
    """Return precision and recall of the loop, seeded with pages of sagemath."""
    judging = pa.array([package.name for package in PACKAGES if package.judges])
    pages = Pages(rows.filter(pc.is_in(rows["package"], judging)))
    is_seed = [i for i in np.argsort(pages.fraction) if pages.hosts[i] == "sagemath-doc"]
    seed = pages.text.take(pa.array(is_seed[:NUM_SEEDS])).to_pylist()
    is_maths = pages.labels == "maths"
    with tempfile.TemporaryDirectory() as folder:
        rounds = recall.recall([seed], pages, "maths", Path(folder), training=training)
        collected = pq.read_table(Path(folder, "collected"))["doc_id"].to_numpy()
    return {
        "precision": float(is_maths[collected].mean()),
        "recall": float(is_maths[collected].sum() / is_maths.sum()),
        "num_pages": pages.num_pages,
        "joined": [sorted(each.joined) for each in rounds],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args()
    if not (FOLDER / PAGES).exists():
        sys.exit("there is no bench-mix; run python tests/bench/mix.py")
    rows = pq.read_table(FOLDER / PAGES)
    default = domain_classifier.Training()
    pages = Pages(rows)
    found = {
        "held_out_by_package": held_out_by_package(pages, default),
        "held_out_by_page_macro_f1": held_out_by_page(pages, default),
        "recall": [
            recall_from_sagemath(rows, replace(recall.TRAINING, seed=seed)) for seed in (1, 2, 3)
        ],
        "num_pages": rows.num_rows,
    }
    print(json.dumps(found, indent=1))
    if options.write:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

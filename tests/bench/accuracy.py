"""Precision and recall of dedup against brute force over all pairs.

    python tests/bench/accuracy.py [--bulk LANGUAGE]

On the demo, on neardup-minhash-a where CURATION_GOLD_DATA has it, and on one language of the bulk
corpus, with `verify` signature and exact. Prints Markdown: precision, recall, and how often a pair
of some similarity shares a bucket, beside 1 - (1 - s^8)^14.
"""

import argparse
import gzip
import os
import shutil
import tempfile
from pathlib import Path

import corpus
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from made import SCHEMA, curate, write_config
from numba import njit

from curation.config import Config, load
from curation.dedup.lsh import band_keys, signature_matrix
from curation.dedup.minhash import MinHashSpec, shingle_hashes
from curation.engine.brute_force import measure
from curation.engine.lake import Lake

ROOT = Path(__file__).parents[2]
SPEC = MinHashSpec()
MAX_DOCUMENTS = 20_000
EDGES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
Int64Array = npt.NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bulk", default="en-us", metavar="LANGUAGE")
    options = parser.parse_args()
    print("| documents | verify | precision | recall | mean error |\n|---|---|---:|---:|---:|")
    pairs = np.zeros((len(EDGES) - 1, 2), np.int64)
    with tempfile.TemporaryDirectory() as folder:
        for name, config in (
            ("demo", demo(Path(folder, "demo"))),
            ("neardup-minhash-a", news(Path(folder, "news"))),
            (f"LibreOffice help {options.bulk}", bulk(Path(folder, "bulk"), options.bulk)),
        ):
            if config is None:
                print(f"| {name} | CURATION_GOLD_DATA is not set | | | |")
                continue
            for verify in ("signature", "exact"):
                shutil.rmtree(config.parent / "lake", ignore_errors=True)
                curate(config, "ingest", "dedup", "--set", f"dedup.verify={verify}")
                print(row(name, load(config, [f"dedup.verify={verify}"])))
            pairs += candidates(load(config))
    print("\n| similarity | pairs | share a bucket | theory |\n|---|---:|---:|---:|")
    for low, high, (num_pairs, num_found) in zip(EDGES, EDGES[1:], pairs, strict=False):
        middle = (low + high) / 2
        theory = 1 - (1 - middle**SPEC.rows) ** SPEC.bands
        share = num_found / max(num_pairs, 1)
        print(f"| {low} to {high} | {num_pairs:,} | {share:.3f} | {theory:.3f} at {middle:.3f} |")


def row(name: str, config: Config) -> str:
    found = measure(Lake(config.lake), config, MAX_DOCUMENTS)
    assert found is not None and found.precision is not None and found.recall is not None
    num_right = found.num_removed - len(found.wrong)
    error = f"{found.mean_absolute_error:.3f}" if found.num_near else "-"
    return (
        f"| {name}, {found.num_documents:,} | {config.dedup.verify} "
        f"| {found.precision:.1%} ({num_right:,} of {found.num_removed:,}) "
        f"| {found.recall:.1%} ({found.num_found:,} of {found.num_found + len(found.missed):,}) "
        f"| {error} |"
    )


def demo(folder: Path) -> Path:
    folder.mkdir()
    text = (ROOT / "jobs" / "conf" / "demo.toml").read_text()
    text = text.replace("../../out/demo/", "").replace("../../", f"{ROOT}/")
    text = text.replace("demo-tokenizer.json", f"{ROOT}/jobs/conf/demo-tokenizer.json")
    (folder / "demo.toml").write_text(text)
    return folder / "demo.toml"


def news(folder: Path) -> Path | None:
    gold = os.environ.get("CURATION_GOLD_DATA")
    if not gold:
        return None
    folder.mkdir()
    with gzip.open(f"{gold}/neardup-minhash-a/articles_1000.train.gz", "rt") as lines:
        rows = [line.rstrip("\n").split(" ", 1) for line in lines]
    ids, texts = zip(*rows, strict=True)
    return source(folder, list(ids), [f"https://news.example/{i}" for i in ids], list(texts))


def bulk(folder: Path, language: str) -> Path:
    """All dumps of the language as one: the pairs are those across dumps."""
    folder.mkdir()
    rows = corpus.read_texts(language)
    ids = [str(i) for i in range(rows.num_rows)]
    return source(folder, ids, rows["url"].to_pylist(), rows["text"].to_pylist())


def source(folder: Path, ids: list[str], urls: list[str], texts: list[str]) -> Path:
    pq.write_table(pa.table([ids, urls, texts], schema=SCHEMA), folder / "A-000.parquet")
    return write_config(folder, ["A"])


def candidates(config: Config) -> Int64Array:
    """Count pairs by exact similarity, and those of them that share a bucket."""
    lake = Lake(config.lake)
    text = lake.table("documents").to_table().sort_by("doc_id")["text"].combine_chunks()
    stored = lake.table("signatures").to_table().sort_by("doc_id")["signature"]
    sets = shingle_hashes(text, SPEC)
    _, shingles = np.unique(sets.values.to_numpy(), return_inverse=True)
    keys = band_keys(signature_matrix(stored, SPEC), SPEC)
    counts: Int64Array = _count(shingles, sets.offsets.to_numpy(), keys, np.array(EDGES))
    return counts


@njit(cache=True, nogil=True)
def _count(
    shingles: Int64Array, offsets: Int64Array, keys: Int64Array, edges: npt.NDArray[np.float64]
) -> Int64Array:
    num_documents = len(offsets) - 1
    starts = np.zeros(shingles.max() + 2, np.int64)
    for shingle in shingles:
        starts[shingle + 1] += 1
    starts = np.cumsum(starts)
    ends = starts[:-1].copy()
    index = np.empty(len(shingles), np.int64)
    common = np.zeros(num_documents, np.int64)
    counts = np.zeros((len(edges) - 1, 2), np.int64)
    for i in range(num_documents):
        for k in range(offsets[i], offsets[i + 1]):
            for place in range(starts[shingles[k]], ends[shingles[k]]):
                common[index[place]] += 1
        size = offsets[i + 1] - offsets[i]
        for j in range(i):
            union = size + offsets[j + 1] - offsets[j] - common[j]
            similarity = common[j] / union if union else 0.0
            common[j] = 0
            if similarity < edges[0]:
                continue
            bin = min(np.searchsorted(edges, similarity, side="right") - 1, len(counts) - 1)
            counts[bin, 0] += 1
            for band in range(keys.shape[1]):
                if keys[i, band] == keys[j, band]:
                    counts[bin, 1] += 1
                    break
        for k in range(offsets[i], offsets[i + 1]):
            index[ends[shingles[k]]] = i
            ends[shingles[k]] += 1
    return counts


if __name__ == "__main__":
    main()

"""Our side of the benchmarks of quality: signals and rules, models, contamination, dry runs.

Peers that need an environment of their own are in peer_side.py; run.py runs and compares.
"""

import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import corpus
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.config import load
from curation.engine.lake import Lake, RunRecord, TableWriter
from curation.engine.what_if import what_if
from curation.quality import classifier, contamination, perplexity, privacy, rules
from curation.quality.edits import apply_edits
from curation.quality.segmentation import segment
from curation.quality.signals import signals
from curation.schemas import KEPT, SIGNALS

ROOT = Path(__file__).parents[2]
STARTERS = ROOT / "curation" / "quality" / "models"
PROFILES = ("gopher", "c4", "fineweb")  # datatrove's four filters


def texts_of(language: str, step: int) -> pa.Array:
    """Return every `step`-th page of a language of the bench corpus."""
    return corpus.read_texts(language)["text"].combine_chunks()[::step]


def decide(text: pa.Array, lang: str) -> pa.StructArray:
    """From text to decisions: what `annotate` and `filter` do, without models."""
    langs = pa.array([lang] * len(text))
    return rules.decide(signals(text, langs), langs, rules.load_rules(PROFILES, {}))


def decide_files(source: Path, target: Path, lang: str) -> int:
    """From stored text to stored decisions: read, replace what is private, decide, write."""
    num_kept = 0
    for batch in pq.ParquetFile(source).iter_batches(1_000):
        text = batch["text"]
        edited = apply_edits(text, privacy.find_private(text))
        decision = decide(edited, lang)
        is_kept = pc.is_null(decision.field("rule"))
        kept = pa.table({"id": batch["id"], "text": edited}).filter(is_kept)
        rejected = pa.table({"id": batch["id"], "why": decision}).filter(pc.invert(is_kept))
        for name, rows in (("kept", kept), ("rejected", rejected)):
            pq.write_table(rows, target / f"{name}-{num_kept}.parquet")
        num_kept += kept.num_rows
    return num_kept


def scoring_models(folder: Path) -> tuple[classifier.Classifier, perplexity.Model]:
    """Return a classifier trained on the corpus, and the English starter model."""
    pages = texts_of("en-us", 3).to_pylist()
    salad = random.Random(1)
    shuffled = [" ".join(salad.sample(words, len(words))) for words in map(str.split, pages)]
    card = folder / "quality-en.json"
    classifier.train([pages], [shuffled], card, language="en")
    return classifier.load(str(card)), perplexity.load(str(STARTERS / "perplexity-en.json"))


def quality_model_sides() -> tuple[Callable[[], Any], Callable[[], Any], int]:
    """Our scores against fastText's own predict on lines that are segmented already."""
    model, _ = scoring_models(Path(tempfile.mkdtemp(prefix="bench-quality-")))
    text = texts_of("en-us", 5)
    lines = segment(text).text.to_pylist()
    raw = model.model.f.predict
    return (
        lambda: classifier.score(text, model),
        lambda: [raw(line, 1, 0.0, "strict") for line in lines],
        len(text),
    )


def perplexity_sides() -> tuple[Callable[[], Any], Callable[[], Any], int]:
    """Our scores against KenLM's own on lines that are segmented already."""
    model = perplexity.load(str(STARTERS / "perplexity-en.json"))
    text = texts_of("en-us", 5)
    found = segment(text, model.vocabulary, keep_lines=True)
    texts = [lines.split("\n") for lines in found.text.to_pylist() if lines]
    raw = model.model.score
    return (
        lambda: perplexity.score(text, model),
        lambda: [sum(raw(line) for line in lines) for lines in texts],
        len(text),
    )


def contamination_docs_per_second() -> dict[str, Any]:
    """Documents searched for 10-grams of made benchmarks of 12,000 questions, a core."""
    text = texts_of("en-us", 1)
    words = segment(text[:2000]).text.to_pylist()
    pool = sorted({word for line in words for word in line.split()})
    pick = random.Random(1)
    questions = [" ".join(pick.choices(pool, k=pick.randint(5, 60))) for _ in range(12_000)]
    index = contamination.compile_index([contamination.Benchmark("made", questions)])
    contamination.find_contamination(text[:10], index)
    seconds = []
    for _ in range(5):
        start = time.process_time()
        contamination.find_contamination(text, index)
        seconds.append(time.process_time() - start)
    rate = len(text) / statistics.median(seconds)
    return _alone(rate, "documents/s/core", len(text), f"none; {len(index.hashes):,} runs of words")


def filter_dry_run_seconds() -> dict[str, Any]:
    """Seconds of `curation filter --dry-run` over a million stored documents, as a command."""
    num_documents = 1_000_000
    folder = Path(tempfile.mkdtemp(prefix="bench-dry-run-"))
    try:
        config = _lake_of_signals(folder, num_documents)
        command = [sys.executable, "-m", "curation.cli", "filter", str(config), "--dry-run"]
        command += ["--set", "quality.min_words=80"]
        seconds = []
        for _ in range(3):
            start = time.monotonic()
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(time.monotonic() - start)
        loaded = load(config, ["quality.min_words=80"])
        found = what_if(Lake(loaded.lake), loaded)
        assert sum(change.documents_before for change in found.changes) > 0
    finally:
        shutil.rmtree(folder)
    return _alone(statistics.median(seconds), "s", num_documents, "none; the whole command")


def _lake_of_signals(folder: Path, num_documents: int) -> Path:
    """Make a lake whose documents have the signals of the corpus, over and over."""
    text = texts_of("en-us", 1)[:5_000]
    lang = pa.array(["en"] * len(text))
    measured = signals(text, lang)
    config = folder / "c.toml"
    (folder / "a.jsonl").write_text("")
    config.write_text(
        'lake = "lake"\n[[dumps]]\nname = "A"\ninputs = ["a.jsonl"]\nformat = "jsonl"\n'
    )
    lake = Lake.create(folder / "lake")
    loaded = load(config)
    from curation.engine.run import _freeze

    _freeze(loaded, lake, ())
    is_kept = pc.is_null(rules.decide(measured, lang, loaded.rules()).field("rule"))
    columns = {name: measured.field(name) for name in measured.type.names}
    entries = {"signals": [], "kept": []}
    for part in range(num_documents // len(text)):
        ids = pa.array(range(part * len(text), (part + 1) * len(text)), pa.int64())
        rows = pa.table(
            {
                "doc_id": ids,
                "lang": lang,
                **columns,
                **{
                    f.name: pa.nulls(len(text), f.type)
                    for f in SIGNALS
                    if f.name not in ("doc_id", "lang", *columns)
                },
            }
        ).select(SIGNALS.names)
        kept = pa.table(
            {
                "doc_id": ids,
                "domain": pa.array(["web"] * len(text)),
                "num_chars": columns["num_chars"].cast(pa.int64()),
                "num_bytes": columns["num_chars"].cast(pa.int64()),
                "perplexity_bucket": pa.nulls(len(text), pa.string()),
            }
        ).filter(is_kept)
        for stage, table, values in (
            ("annotate", "signals", rows),
            ("filter", "kept", kept.cast(KEPT)),
        ):
            writer = TableWriter(str(lake.path), table, stage, "A", "0000", f"x-part-{part:05d}")
            writer.write(values)
            entry = writer.close()
            assert entry is not None
            entries[table].append(entry)
    counts = {"in": 0, "kept": 0, "rejected": 0, "removed": 0}
    for stage, table in (("annotate", "signals"), ("filter", "kept")):
        lake.commit(
            RunRecord(
                *(stage, "A", "0000", "key", "x", 1, {}, {}, {}, {}, "", 0.0, counts, counts, {}),
                tuple(entries[table]),
            )
        )
    return config


def _alone(value: float, unit: str, n: int, peer: str) -> dict[str, Any]:
    return {
        "ours": round(value, 1),
        "peer": None,
        "ratio": None,
        "unit": unit,
        "peer_name": peer,
        "n": n,
    }

"""The parts of datatrove's FineWeb example in a row: its side of `end_to_end.py`.

    .venv-bench/bin/python tests/bench/peer_end_to_end.py FOLDER OUT TOKENIZER MODEL WORKERS

Reads the WARC files of a folder, with as many tasks as workers, and prints documents kept, tokens
and CPU seconds by stage as JSON. Left out are the URL lists, and the files of what each filter
drops; added is DocumentTokenizer in place of TokensCounter, since ours writes tokens too. Files in
between are not compressed, which is faster. A page may take 60 s as with us, not 1 s, or what is
kept would depend on how busy the machine is.
"""

import json
import multiprocessing.process
import os
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import datatrove.utils.stats
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupSignature,
)
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
)
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers import JsonlWriter

INGEST, DEDUP, RULES, TOKENS = "ingest", "dedup", "rules", "tokens"
PAGE_SECONDS = 60
COUNTED = {
    WarcReader: ("pages", "documents"),
    LanguageFilter: ("in_language", "forwarded"),
    FineWebQualityFilter: ("by_rules", "forwarded"),
    MinhashDedupFilter: ("kept", "forwarded"),
    DocumentTokenizer: ("tokens", "tokens"),
}


def cpu_seconds() -> float:
    """CPU seconds of this process and of its children, the extractor that runs too."""
    ended = os.times()
    alive = 0.0
    for child in list(multiprocessing.process._children):
        try:
            alive += time.clock_gettime((~child.pid << 3) | 2)
        except OSError:  # it has ended
            continue
    return time.process_time() + ended.children_user + ended.children_system + alive


# What its steps time is CPU here, in every worker: each imports this module.
datatrove.utils.stats.time = SimpleNamespace(perf_counter=cpu_seconds)


def main() -> None:
    source, out, tokenizer, model, workers = sys.argv[1:]
    language = LanguageFilter(["en"], language_threshold=0.65)
    language.model.MODEL_URL = model  # the same model for both, not fetched
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
    texts, signatures, buckets, remove, tokens = (
        f"{out}/{name}" for name in ("texts", "signatures", "buckets", "remove", "tokens")
    )
    reader = JsonlReader(texts, glob_pattern="*.jsonl", compression=None)
    executors = [
        (
            [
                (INGEST, WarcReader(source, glob_pattern="*.warc.gz")),
                (
                    INGEST,
                    Trafilatura(favour_precision=True, deduplicate=False, timeout=PAGE_SECONDS),
                ),
                (INGEST, language),
                (RULES, GopherRepetitionFilter()),
                (RULES, GopherQualityFilter()),
                (RULES, C4QualityFilter(filter_no_terminal_punct=False)),
                (RULES, FineWebQualityFilter()),
                (RULES, JsonlWriter(texts, compression=None)),
            ],
            int(workers),
        ),
        # The time of a signature has that of the reader in it.
        ([(None, reader), (DEDUP, MinhashDedupSignature(signatures, config))], int(workers)),
        (
            [(DEDUP, MinhashDedupBuckets(signatures, buckets, config=config))],
            config.num_buckets,
        ),
        ([(DEDUP, MinhashDedupCluster(buckets, remove, config=config))], 1),
        (
            [
                (DEDUP, reader),
                (DEDUP, MinhashDedupFilter(remove)),
                (RULES, PIIFormatter()),
                (TOKENS, DocumentTokenizer(tokens, tokenizer, shuffle_documents=False)),
            ],
            int(workers),
        ),
    ]
    stages: Counter[str] = Counter()
    counts: dict[str, int] = {}
    for number, (steps, num_tasks) in enumerate(executors):
        logs = f"{out}/logs/{number}"
        LocalPipelineExecutor(
            [step for _, step in steps],
            tasks=num_tasks,
            workers=min(int(workers), num_tasks),
            logging_dir=logs,
        ).run()
        for (stage, step), found in zip(steps, stats_of(logs), strict=True):
            if stage:
                stages[stage] += total(found["time_stats"])
            if name := COUNTED.get(type(step)):
                counts[name[0]] = int(total(found["stats"].get(name[1], 0)))
    print(json.dumps({"stages": stages, "counts": counts}))


def stats_of(logs: str) -> list[dict]:
    """Return what the steps of an executor counted, over its tasks."""
    return json.loads((Path(logs) / "stats.json").read_text())


def total(stat: dict | float) -> float:
    return stat["total"] if isinstance(stat, dict) else stat


if __name__ == "__main__":
    main()

"""The side of the peers in `run.py`, in an environment of its own: `make bench-setup`.

    .venv-bench/bin/python tests/bench/peer_side.py urlfilter URLS
    .venv-bench/bin/python tests/bench/peer_side.py ingest FOLDER MODEL
    .venv-bench/bin/python tests/bench/peer_side.py minhash PEER LANGUAGE TEXTS
    .venv-bench/bin/python tests/bench/peer_side.py dedup FOLDER
    .venv-bench/bin/python tests/bench/peer_side.py filters LANGUAGE TEXTS
    .venv-bench/bin/python tests/bench/peer_side.py chain LANGUAGE TEXTS

For every line on standard input it does the work once and prints its seconds, of CPU or for `dedup`
of wall clock, and how many documents were kept, as JSON.
"""

import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import datasketch
import pyarrow.parquet as pq
import rensa
from datatrove.data import Document
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
    URLFilter,
)
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import ParquetReader, WarcReader
from datatrove.pipeline.writers import JsonlWriter

NUM_PERM, NGRAM = 112, 5
WORKERS = 2


def urlfilter(path: str) -> Callable[[], int]:
    filter = URLFilter()  # with the lists that it ships
    urls = Path(path).read_text(encoding="utf-8").splitlines()
    documents = [Document("", str(i), metadata={"url": url}) for i, url in enumerate(urls)]
    return lambda: sum(filter.filter(document) is True for document in documents)


def ingest(folder: str, model: str) -> Callable[[], int]:
    """Reader, extractor, language. The extractor runs in this process: no sandbox, no timeout."""
    from fasttext.FastText import _FastText

    extractor = Trafilatura(favour_precision=True, deduplicate=False)
    language = LanguageFilter(["en", "zh"], language_threshold=0.5)
    language.model._model = _FastText(model)  # the same model for both, not fetched

    def work() -> int:
        kept = 0
        for document in WarcReader(folder, glob_pattern="*.warc.gz").run():
            document.text = extractor.extract(document.text)
            kept += bool(document.text) and bool(language.filter(document))
        return kept

    return work


def minhash(peer: str, language: str, path: str) -> Callable[[], int]:
    """Text in, signature out; `rensa_given` gets the shingles, which is not timed."""
    texts = pq.read_table(path)["text"].to_pylist()
    if peer == "datatrove":
        with tempfile.TemporaryDirectory() as folder:
            step = MinhashDedupSignature(folder, MinhashConfig(n_grams=NGRAM), language=language)

        def by_datatrove() -> int:
            for text in texts:
                shingles = step.get_shingles(text)
                if shingles.size:
                    step.get_signature(shingles)
            return len(texts)

        return by_datatrove
    if peer == "datasketch":

        def by_datasketch() -> int:
            for text in texts:
                sketch = datasketch.MinHash(num_perm=NUM_PERM, seed=1, scheme="affine32")
                sketch.update_batch([shingle.encode() for shingle in set(shingles_of(text))])
            return len(texts)

        return by_datasketch
    sets = rensa.RMinHash.digest_matrix_from_token_sets
    if peer == "rensa_given":
        given = [shingles_of(text) for text in texts]
        return lambda: len(given) if sets(given, NUM_PERM, 1) else 0
    return lambda: len(texts) if sets([shingles_of(t) for t in texts], NUM_PERM, 1) else 0


def shingles_of(text: str) -> list[str]:
    """Return 5-grams as a user of these libraries writes it: lower case, a CJK sign is a word."""
    words = re.findall(r"[\u3040-\u9fff]|[^\W\u3040-\u9fff]+", text.lower())
    return [" ".join(words[i : i + NGRAM]) for i in range(max(len(words) - NGRAM + 1, 1))]


def dedup(folder: str) -> Callable[[], int]:
    """The four steps of datatrove's example, two processes at a time."""
    num_files = len(list(Path(folder).glob("*.parquet")))
    config = MinhashConfig(n_grams=NGRAM, num_buckets=14, hashes_per_bucket=8)

    def work() -> int:
        out = Path(tempfile.mkdtemp(prefix="datatrove-"))
        reader = ParquetReader(folder, glob_pattern="*.parquet")
        names = [str(out / name) for name in ("signatures", "buckets", "remove", "kept", "logs")]
        signatures, buckets, remove, kept, logs = names
        steps = [
            ([reader, MinhashDedupSignature(signatures, config, language="eng")], num_files),
            ([MinhashDedupBuckets(signatures, buckets, config=config)], config.num_buckets),
            ([MinhashDedupCluster(buckets, remove, config=config)], 1),
            (
                [reader, MinhashDedupFilter(remove), JsonlWriter(kept, compression=None)],
                num_files,
            ),
        ]
        for number, (pipeline, tasks) in enumerate(steps):
            LocalPipelineExecutor(
                pipeline, tasks=tasks, workers=min(WORKERS, tasks), logging_dir=f"{logs}/{number}"
            ).run()
        num_kept = sum(len(path.read_bytes().splitlines()) for path in Path(kept).glob("*.jsonl"))
        shutil.rmtree(out)
        return num_kept

    return work


def four_filters(language: str) -> list[BaseFilter]:
    """As FineWeb sets them: C4 keeps lines without terminal punctuation."""
    return [
        GopherQualityFilter(language=language),
        GopherRepetitionFilter(language=language),
        C4QualityFilter(filter_no_terminal_punct=False, language=language),
        FineWebQualityFilter(language=language),
    ]


def filters(language: str, path: str) -> Callable[[], int]:
    """Every document through all four filters, whatever they say; C4 rewrites a copy."""
    steps = four_filters(language)
    texts = pq.read_table(path)["text"].to_pylist()

    def work() -> int:
        kept = 0
        for text in texts:
            verdicts = [step.filter(Document(text, "")) for step in steps]
            kept += all(verdict is True for verdict in verdicts)
        return kept

    return work


def chain(language: str, path: str) -> Callable[[], int]:
    """From a file of texts to a file of what is kept, in its own executor."""

    def work() -> int:
        out = Path(tempfile.mkdtemp(prefix="datatrove-"))
        pipeline = [
            ParquetReader(str(Path(path).parent), glob_pattern=Path(path).name),
            PIIFormatter(),
            *four_filters(language),
            JsonlWriter(str(out / "kept"), compression=None),
        ]
        LocalPipelineExecutor(pipeline, tasks=1, workers=1, logging_dir=str(out / "logs")).run()
        files = (out / "kept").glob("*.jsonl")
        num_kept = sum(len(file.read_bytes().splitlines()) for file in files)
        shutil.rmtree(out)
        return num_kept

    return work


def main() -> None:
    functions = {"urlfilter": urlfilter, "ingest": ingest, "minhash": minhash, "dedup": dedup}
    functions |= {"filters": filters, "chain": chain}
    work = functions[sys.argv[1]](*sys.argv[2:])
    clock = time.monotonic if sys.argv[1] == "dedup" else time.process_time
    for _ in sys.stdin:
        start = clock()
        kept = work()
        print(json.dumps({"seconds": clock() - start, "kept": kept}), flush=True)


if __name__ == "__main__":
    main()

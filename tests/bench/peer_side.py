"""The side of the peers in `run.py`, in an environment of its own: `make bench-setup`.

    .venv-bench/bin/python tests/bench/peer_side.py urlfilter URLS
    .venv-bench/bin/python tests/bench/peer_side.py ingest FOLDER MODEL
    .venv-bench/bin/python tests/bench/peer_side.py minhash PEER LANGUAGE TEXTS
    .venv-bench/bin/python tests/bench/peer_side.py dedup FOLDER
    .venv-bench/bin/python tests/bench/peer_side.py filters LANGUAGE TEXTS
    .venv-bench/bin/python tests/bench/peer_side.py chain LANGUAGE TEXTS
    .venv-bench/bin/python tests/bench/peer_side.py rules

For every line on standard input it does the work once and prints its seconds, of CPU or for `dedup`
of wall clock, and how many documents were kept, as JSON. For `rules` a line is a text, as JSON; the
answer has its words, the sentences of its lines and which rules, each alone, reject it.
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
from datatrove.pipeline.filters.c4_filters import CITATION_REGEX
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import ParquetReader, WarcReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.text import PUNCTUATION_SET, split_into_sentences, split_into_words

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


def rule_filters() -> dict[str, BaseFilter]:
    """Return a filter for each rule of ours, with all others of its class turned off."""
    quality = dict.fromkeys(
        (
            *("min_doc_words", "max_doc_words", "min_avg_word_length", "max_avg_word_length"),
            *("max_symbol_word_ratio", "max_bullet_lines_ratio", "max_ellipsis_lines_ratio"),
            *("max_non_alpha_words_ratio", "min_stop_words"),
        )
    )
    repetition = {"top_n_grams": (), "dup_n_grams": ()}
    repetition |= dict.fromkeys(
        ("dup_line_frac", "dup_para_frac", "dup_line_char_frac", "dup_para_char_frac")
    )
    c4 = {"filter_no_terminal_punct": False, "min_num_sentences": -1}
    c4 |= {"filter_lorem_ipsum": False, "filter_curly_bracket": False}
    fineweb = {"line_punct_thr": 0.0, "short_line_thr": 1.0, "char_duplicates_ratio": 1.0}
    fineweb |= {"new_line_ratio": 1e9}
    return {
        **{
            f"gopher_{name}": GopherQualityFilter(**{**quality, setting: value})
            for name, setting, value in (
                ("min_words", "min_doc_words", 50),
                ("max_words", "max_doc_words", 100_000),
                ("min_word_length", "min_avg_word_length", 3),
                ("max_word_length", "max_avg_word_length", 10),
                ("max_bullet_lines", "max_bullet_lines_ratio", 0.9),
                ("max_ellipsis_lines", "max_ellipsis_lines_ratio", 0.3),
                ("min_alphabetic_words", "max_non_alpha_words_ratio", 0.8),
                ("min_stop_words", "min_stop_words", 2),
            )
        },
        **{
            f"gopher_max_duplicate_{name}": GopherRepetitionFilter(**{**repetition, setting: value})
            for name, setting, value in (
                ("line", "dup_line_frac", 0.3),
                ("paragraph", "dup_para_frac", 0.3),
                ("line_char", "dup_line_char_frac", 0.2),
                ("paragraph_char", "dup_para_char_frac", 0.2),
            )
        },
        **{
            f"gopher_max_top_{n}gram": GopherRepetitionFilter(
                **{**repetition, "top_n_grams": ((n, bound),)}
            )
            for n, bound in ((2, 0.2), (3, 0.18), (4, 0.16))
        },
        **{
            f"gopher_max_duplicate_{n}gram": GopherRepetitionFilter(
                **{**repetition, "dup_n_grams": ((n, bound),)}
            )
            for n, bound in zip(range(5, 11), (0.15, 0.14, 0.13, 0.12, 0.11, 0.10), strict=True)
        },
        "c4_max_lorem_ipsum": C4QualityFilter(**{**c4, "filter_lorem_ipsum": True}),
        "c4_max_left_braces": C4QualityFilter(**{**c4, "filter_curly_bracket": True}),
        "c4_min_sentences": C4QualityFilter(**{**c4, "min_num_sentences": 5}),
        "fineweb_min_sentence_terminal_lines": FineWebQualityFilter(
            **{**fineweb, "line_punct_thr": 0.12}
        ),
        "fineweb_max_short_lines": FineWebQualityFilter(**{**fineweb, "short_line_thr": 0.67}),
        "fineweb_max_duplicate_line_char": FineWebQualityFilter(
            **{**fineweb, "char_duplicates_ratio": 0.01}
        ),
        "fineweb_max_newline_ratio": FineWebQualityFilter(**{**fineweb, "new_line_ratio": 0.3}),
    }


def answer_rules() -> None:
    """Answer what `agreement.py` asks."""
    filters = rule_filters()
    symbols = GopherQualityFilter(
        **{**dict.fromkeys(("min_doc_words", "max_doc_words", "min_avg_word_length")),
           **dict.fromkeys(("max_avg_word_length", "max_bullet_lines_ratio", "min_stop_words")),
           **dict.fromkeys(("max_ellipsis_lines_ratio", "max_non_alpha_words_ratio"))}
    )  # fmt: skip
    symbol_rules = {
        "gopher_too_many_hashes": "gopher_max_hash_ratio",
        "gopher_too_many_ellipsis": "gopher_max_ellipsis_ratio",
    }
    for line in sys.stdin:
        text = json.loads(line)
        rejected = [
            name for name, each in filters.items() if each.filter(Document(text, "")) is not True
        ]
        for name, rule in symbol_rules.items():
            # one setting bounds both: without its signs, the other one decides
            hidden = "\u2026" if rule == "gopher_max_hash_ratio" else "#"
            shown = (
                text.replace(hidden, "x").replace("...", "x")
                if hidden != "#"
                else text.replace("#", "x")
            )
            verdict = symbols.filter(Document(shown, ""))
            if verdict is not True and verdict[1] == name:
                rejected.append(rule)
        lines = [CITATION_REGEX.sub("", each.strip()) for each in text.splitlines()]
        tokens = split_into_words(text, "eng")
        answer = {
            "tokens": tokens,
            "telling": [t for t in tokens if any(c not in PUNCTUATION_SET for c in t)],
            "sentences": [len(split_into_sentences(each, "eng")) if each else 0 for each in lines],
            "rejected": rejected,
        }
        print(json.dumps(answer), flush=True)


def main() -> None:
    if sys.argv[1] == "rules":
        answer_rules()
        return
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

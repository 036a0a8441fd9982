"""How long dedup takes as the corpus grows, for one more dump, and beside datatrove.

Wall clock of the whole command, start of the JVM included, on all cores; one round each, since a
round takes minutes. Peaks are resident memory of the JVM and of the largest Python process.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import corpus
import numpy as np
from made import curate, documents, peak_bytes, records, write_config, write_dump

SIZES = (100_000, 200_000, 400_000)
NUM_OF_DUMP = 200_000
PEER_DOCUMENTS = 100_000
ON_SPARK = "[engine]\nsingle_task_documents = 0\n"
PEER = Path(__file__).parents[2] / ".venv-bench" / "bin" / "python"


def dedup_growth() -> dict[str, Any]:
    """The stage dedup by messages on Spark, of 100,000, 200,000 and 400,000 made documents."""
    seconds, facts = [], []
    for size in SIZES:
        with folder() as at:
            write_dump(at, "A", documents(size, seed=1), size)
            config = write_config(at, ["A"], ON_SPARK)
            curate(config, "ingest", "fingerprint")
            with peak_bytes() as peaks:
                seconds.append(curate(config, "dedup", "dedup"))
            (record,) = records(config, "dedup")
            facts.append({"seconds": round(seconds[-1], 1), **peaks, **record["counts"]["leader"]})
            say(f"{size:,} documents: {facts[-1]}")
    slope, intercept = np.polyfit(SIZES, seconds, 1)
    ratios = [later / earlier for earlier, later in pairwise(seconds)]
    return {
        "ours": round(SIZES[-1] / seconds[-1], 1),
        "peer": round(SIZES[-2] / seconds[-2], 1),
        "ratio": round(max(ratios), 2),
        "unit": "documents/s",
        "peer_name": "ours, half as many documents; the ratio is 2N over N of time, at most",
        "n": SIZES[-1],
        "seconds_per_100000": round(1e5 * float(slope), 2),
        "seconds_intercept": round(float(intercept), 2),
        "by_size": dict(zip(map(str, SIZES), facts, strict=True)),
    }


def dedup_incremental() -> dict[str, Any]:
    """fingerprint and dedup of a fourth dump on Spark, beside those of all four from scratch."""
    names = ["A", "B", "C", "D"]
    with folder() as at:
        earlier: list[str] = []
        for seed, name in enumerate(names):
            write_dump(at, name, documents(NUM_OF_DUMP, seed, earlier), NUM_OF_DUMP)
        config = write_config(at, names, ON_SPARK)
        curate(config, "ingest", "ingest")
        with peak_bytes() as peaks:
            whole = curate(config, "fingerprint", "dedup")
        whole_stages = seconds_of(config, names)
        for stage in ("fingerprint", "dedup"):
            shutil.rmtree(at / "lake" / "_runs" / stage / "D")
        fourth = curate(config, "fingerprint", "dedup", "--dump", "D")
        fourth_stages = seconds_of(config, ["D"])
        rows = {record["dump"]: record["rows"] for record in records(config, "dedup")}
    say(f"stages alone: all four {whole_stages:.1f} s, the fourth {fourth_stages:.1f} s")
    say(f"all four {whole:.1f} s, the fourth {fourth:.1f} s; {rows}")
    return {
        "ours": round(fourth, 1),
        "peer": round(whole, 1),
        "ratio": round(fourth / whole, 2),
        "unit": "s",
        "peer_name": "ours, all four dumps from scratch",
        "n": 4 * NUM_OF_DUMP,
        "ratio_of_stages": round(fourth_stages / whole_stages, 2),  # without starting Spark
        "rows": rows,
        **peaks,
    }


def dedup_vs_datatrove() -> dict[str, Any]:
    """From stored texts to decisions: fingerprint and dedup, beside datatrove's four steps."""
    if not PEER.exists():
        sys.exit(f"there is no {PEER}; run `make bench-setup`")
    with folder() as at:
        made = documents(PEER_DOCUMENTS, seed=1, languages=("en-us",), num_lines=(10, 80))
        write_dump(at, "A", made, PEER_DOCUMENTS)
        config = write_config(at, ["A"])
        curate(config, "ingest", "ingest")
        with peak_bytes() as peaks:
            ours = curate(config, "fingerprint", "dedup")
        (record,) = records(config, "dedup")
        command = [PEER, Path(__file__).with_name("peer_side.py"), "dedup", at]
        with peak_bytes() as peer_peaks:
            done = subprocess.run(
                command,
                input="go\n",
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                check=True,
            )
        peer = json.loads(done.stdout)
    say(f"ours {ours:.1f} s, {record['rows']['kept']:,} kept; datatrove {peer}")
    return {
        "ours": round(PEER_DOCUMENTS / ours, 1),
        "peer": round(PEER_DOCUMENTS / peer["seconds"], 1),
        "ratio": round(peer["seconds"] / ours, 2),
        "unit": "documents/s",
        "peer_name": "datatrove 0.10.1: signatures, buckets, clusters, filter; two processes",
        "n": PEER_DOCUMENTS,
        "kept": record["rows"]["kept"],
        "peer_kept": peer["kept"],
        "peer_python_bytes": peer_peaks.get("python_bytes", 0),
        **peaks,
    }


def seconds_of(config: Path, dumps: list[str]) -> float:
    """Return the seconds of fingerprint and dedup of some dumps, by their run records."""
    own = [each for stage in ("fingerprint", "dedup") for each in records(config, stage)]
    return sum(record["seconds"] for record in own if record["dump"] in dumps)


@contextmanager
def folder() -> Iterator[Path]:
    """Give a folder for a lake on the disk of the corpora, and remove it."""
    corpus.FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lake-", dir=corpus.FOLDER.parent) as name:
        yield Path(name)


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr)

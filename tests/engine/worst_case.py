"""Deduplicate a synthetic dump of signatures on Spark and say what it took, as one JSON object.

    spark-submit --master 'local[2]' tests/engine/worst_case.py LAKE KIND NUM_DOCUMENTS

kinds: `identical` documents; pages of one `template` with similarity 0.6; near `copies` of one
document with similarity 0.96; a `chain` of versions, each like its neighbours only.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation.config import Config, load
from curation.dedup.minhash import MinHashSpec
from curation.engine import session as spark
from curation.engine.dedup import deduplicate
from curation.engine.lake import Lake, RunRecord, TableWriter
from curation.engine.tasks import Context, Outcome
from curation.identity import first_doc_id

FILE_ROWS = 50_000
SPEC = MinHashSpec()


def main() -> None:
    path, kind, num_documents = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    config, lake = write_lake(path, kind, num_documents)
    session = spark.start("worst case")
    context = Context(str(lake.path), "dedup", "A", "all", "attempt", config, {})
    peak = PeakMemory()
    started = time.monotonic()
    outcome = deduplicate(session, lake, context, [])
    seconds = time.monotonic() - started
    lake.commit(record("dedup", "all", outcome))
    found = {
        "seconds": round(seconds, 1),
        "rows": dict(outcome.rows),
        "leader": dict(outcome.counts["leader"]),
        "python_bytes": peak.highest("python"),
        "jvm_bytes": peak.highest("java"),
    }
    sys.stdout.write(json.dumps(found) + "\n")


def write_lake(path: Path, kind: str, num_documents: int) -> tuple[Config, Lake]:
    """Write a lake whose dump A has these signatures, as if fingerprint had run."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "conf.toml").write_text(
        'lake = "lake"\n[[dumps]]\nname = "A"\ninputs = ["none"]\n'
        "[dedup]\nprefix_documents = 200_000\n[engine]\nsingle_task_documents = 0\n"
    )
    config = load(path / "conf.toml")
    lake = Lake.create(config.lake)
    outcome = Outcome()
    for number, signatures in enumerate(drawn(kind, num_documents)):
        rows = len(signatures)
        ids = first_doc_id(0, number) + np.arange(rows)
        same = kind == "identical"
        content = np.zeros((rows, 2), np.int64) if same else np.column_stack([ids, ids])
        writer = TableWriter(str(lake.path), "signatures", "fingerprint", "A", "0000", f"{number}")
        writer.write(
            pa.table(
                {
                    "doc_id": ids,
                    "content_hash": pa.array([row.tobytes() for row in content], pa.binary(16)),
                    "signature": pa.array([row.tobytes() for row in signatures], pa.binary()),
                    "num_shingles": np.full(rows, 100, np.int32),
                    "num_bytes": np.full(rows, 600),
                }
            )
        )
        entry = writer.close()
        assert entry is not None
        outcome.files.append(entry)
    outcome.rows.update({"kept": num_documents})
    outcome.num_bytes.update({"kept": 600 * num_documents})
    lake.commit(record("fingerprint", "0000", outcome))
    return config, lake


def drawn(kind: str, num_documents: int) -> Iterator[np.ndarray]:
    """Yield the signatures of file after file."""
    rng = np.random.default_rng(1)
    template = rng.integers(0, 2**32, SPEC.num_perm, dtype=np.uint32)
    share = {"identical": 1.0, "template": 0.6**0.5, "copies": 0.98}
    for begin in range(0, num_documents, FILE_ROWS):
        shape = (min(FILE_ROWS, num_documents - begin), SPEC.num_perm)
        fresh = rng.integers(0, 2**32, shape, dtype=np.uint32)
        if kind == "chain":  # the next 11 slots of 112 change from version to version
            for row in range(shape[0]):
                at = np.arange(11 * row, 11 * (row + 1)) % SPEC.num_perm
                template[at] = fresh[row, at]
                fresh[row] = template
            yield fresh
        else:
            yield np.where(rng.random(shape) < share[kind], template, fresh)


def record(stage: str, slice: str, outcome: Outcome) -> RunRecord:
    return RunRecord(
        stage=stage,
        dump="A",
        slice=slice,
        key="key",
        attempt="attempt",
        stage_version=1,
        inputs={},
        settings={},
        artifacts={},
        packages={},
        started_at="",
        seconds=0.0,
        rows=dict(outcome.rows),
        num_bytes=dict(outcome.num_bytes),
        counts={what: dict(names) for what, names in outcome.counts.items()},
        files=tuple(outcome.files),
    )


class PeakMemory:
    """Looks at the memory of the other processes of this session every half second (Linux)."""

    def __init__(self) -> None:
        self._highest: dict[str, int] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def highest(self, name: str) -> int:
        """Return the most that one process of a name has held so far, in bytes."""
        return self._highest.get(name, 0)

    def _watch(self) -> None:
        while True:
            now: dict[str, int] = {}
            for status in Path("/proc").glob("[0-9]*/status"):
                try:
                    lines = status.read_text().splitlines()
                    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
                except (OSError, ValueError):
                    continue
                is_own = status.parent.name == str(os.getpid())  # which made the lake, too
                if is_own or _session_of(status.parent) != os.getsid(0):
                    continue
                name = "java" if fields["Name"] == "java" else "python"
                size = int(fields.get("VmRSS", "0 kB").split()[0]) * 1024
                now[name] = max(now.get(name, 0), size)
            for name, size in now.items():
                self._highest[name] = max(self._highest.get(name, 0), size)
            time.sleep(0.5)


def _session_of(process: Path) -> int:
    try:
        return int(process.joinpath("stat").read_text().rpartition(")")[2].split()[3])
    except (OSError, IndexError):
        return -1


if __name__ == "__main__":
    main()

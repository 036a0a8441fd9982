"""What a task measures of its own work: for the live view and for planning, never for a decision.

A task that runs twice counts twice, as its work does.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from curation.dedup.messages import Meter
from curation.engine.tasks import OUTCOME, Outcome
from curation.ingest import sandbox

REJECTS = "rejects/"
PEAK = "peak_"  # counts of this prefix are a maximum, others are sums
Worker = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def metered(
    batches: Iterator[pa.RecordBatch], worker: Worker, meter: Meter
) -> Iterator[pa.RecordBatch]:
    """Run a worker, and what it leaves of its input; add what its outcomes count and what it used
    to the meter."""
    _forget_peak()
    before = _cpu_seconds()
    for batch in worker(batches):
        if batch.schema.equals(OUTCOME):
            for text in batch.column(0).to_pylist():
                meter.add(_shown(Outcome.from_json(text)))
        yield batch
    for _ in batches:  # a Python process whose task leaves input behind is given up by Spark
        pass
    used_ms = round(1000 * (_cpu_seconds() - before))
    meter.add({"python_cpu_ms": used_ms, f"{PEAK}worker_bytes": _peak_bytes()})


def merge(counts: dict[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """Add counts to others: sums, and the larger of peaks."""
    for name, count in more.items():
        known = counts.get(name, 0)
        counts[name] = max(known, count) if name.startswith(PEAK) else known + count
    return counts


def _shown(outcome: Outcome) -> dict[str, int]:
    """Return the counts of an outcome that are shown while a stage runs."""
    counts = {f"rows/{name}": number for name, number in outcome.rows.items()}
    counts["files"] = sum(outcome.counts.get("files", {"": 1}).values())
    for what in ("rejects", "duplicates"):
        for rule, number in outcome.counts.get(what, {}).items():
            counts[REJECTS + rule] = number
    return counts


def _cpu_seconds() -> float:
    """CPU seconds of this process and of its children, those that run too (Linux)."""
    ended = os.times()
    clocks = [(~number << 3) | 2 for number in sandbox.child_ids()]
    alive = sum(time.clock_gettime(clock) for clock in clocks)
    return time.process_time() + ended.children_user + ended.children_system + alive


def _forget_peak() -> None:
    """Start the peak of this process and its children anew: a worker goes from stage to stage."""
    for number in (os.getpid(), *sandbox.child_ids()):
        try:
            Path(f"/proc/{number}/clear_refs").write_text("5")
        except OSError:  # no Linux, or not allowed: the peak is that of the process's life
            return


def _peak_bytes() -> int:
    """Return the resident memory that this process and its children held at most; 0 off Linux."""
    peak = 0
    for number in (os.getpid(), *sandbox.child_ids()):
        try:
            lines = Path(f"/proc/{number}/status").read_text().splitlines()
        except OSError:
            continue
        peak += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return peak

"""What the runs of a lake did, from its run records and its history."""

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation.engine.lake import Lake, RunRecord
from curation.engine.stages import STAGES
from curation.errors import NotFound

EARLIER = "-"
"""The run id of records of before there were run ids."""


@dataclass(frozen=True)
class Run:
    """One command that wrote a lake: what is still committed of it."""

    run_id: str
    begun_at: str
    end: str  # done, failed, stopped, running, killed; "not ended" where its machine is another
    error: str
    reason: str  # what the error said, where a user can act on it
    records: tuple[RunRecord, ...]  # in the order of their begin

    def summary(self) -> dict[str, Any]:
        """Return the run in plain values.

        rows_in is what came into its first stage, rows_kept what its last kept; releases take part
        in neither.
        """
        stages = [stage for stage in STAGES if any(r.stage == stage for r in self.records)]
        first = [record for record in self.records if stages and record.stage == stages[0]]
        last = [record for record in self.records if stages and record.stage == stages[-1]]
        of_stages = [record for record in self.records if record.stage in STAGES]
        releases = sorted(r.dump for r in self.records if r.stage not in STAGES)
        return {
            "run_id": self.run_id,
            "begun_at": self.begun_at,
            "end": self.end,
            "error": self.error,
            "reason": self.reason,
            "stages": stages,
            "dumps": sorted({record.dump for record in of_stages}),
            "releases": releases,
            "slices": len(self.records),
            "seconds": round(sum(record.seconds for record in self.records), 3),
            "rows_in": sum(record.rows["in"] for record in first),
            "rows_kept": sum(record.rows["kept"] for record in last),
            "rows_rejected": sum(record.rows["rejected"] for record in of_stages),
        }

    def slices(self) -> list[dict[str, Any]]:
        """Return what the run committed, a row a slice, in the order of their begin."""
        return [
            {
                "stage": record.stage,
                "dump": record.dump,
                "slice": record.slice,
                "begun_at": record.started_at,
                "seconds": record.seconds,
                "rows_in": record.rows["in"],
                "rows_kept": record.rows["kept"],
                "rows_rejected": record.rows["rejected"],
                "rejects": dict(record.counts.get("rejects", {})),
                "resources": dict(record.resources),
            }
            for record in self.records
        ]


def runs(lake: Lake) -> list[Run]:
    """Return the runs of a lake, newest first; those without a run id are one."""
    return group(lake.records(with_outdated=True), lake.history())


def run_of(lake: Lake, run_id: str) -> Run:
    """Return a run of a lake; raises NotFound."""
    found = runs(lake)
    for run in found:
        if run.run_id == run_id:
            return run
    known = ", ".join(run.run_id for run in found) or "none"
    raise NotFound(f"the lake {lake.path} has no run {run_id!r}; it has {known}")


def group(records: Sequence[RunRecord], history: Sequence[Mapping[str, Any]]) -> list[Run]:
    """Group records by run, newest first, with what the history says of their ends."""
    by_run: dict[str, list[RunRecord]] = {entry["run_id"]: [] for entry in history}
    for record in records:
        by_run.setdefault(record.run_id or EARLIER, []).append(record)
    written = {entry["run_id"]: entry for entry in history}
    found = []
    for run_id, own in by_run.items():
        own.sort(key=lambda record: (record.started_at, _order(record), record.dump, record.slice))
        entry = written.get(run_id, {"end": "done"})
        begun_at = entry.get("begun_at") or own[0].started_at
        end = entry.get("end") or _state(entry)
        said = (entry.get("error", ""), entry.get("reason", ""))
        found.append(Run(run_id, begun_at, end, *said, tuple(own)))
    return sorted(found, key=lambda run: (run.begun_at, run.run_id), reverse=True)


def _order(record: RunRecord) -> int:
    return list(STAGES).index(record.stage) if record.stage in STAGES else len(STAGES)


def _state(entry: Mapping[str, Any]) -> str:
    """Say what became of a run that wrote no end, by its process where that is on this machine."""
    if entry["host"] != socket.gethostname():
        return "not ended"
    try:
        os.kill(entry["process"], 0)
    except ProcessLookupError:
        return "killed"
    except PermissionError:  # somebody else's, and alive
        pass
    return "running"

"""A run record as tests need it: what does not matter to one is filled in."""

from typing import Any

from curation.engine.lake import RunRecord


def made(
    stage: str, dump: str, slice: str = "0000", num_in: int = 0, num_kept: int = 0, **more: Any
) -> RunRecord:
    """Return a record of a slice, of whose rows, a byte each, some were kept; `more` are fields."""
    lost = num_in - num_kept
    fields: dict[str, Any] = {
        "key": f"{stage}/{dump}/{slice}",
        "attempt": "part",
        "stage_version": 1,
        "inputs": {},
        "settings": {},
        "artifacts": {},
        "packages": {},
        "started_at": "2026-01-01T00:00:00Z",
        "seconds": 1.0,
        "rows": {"in": num_in, "kept": num_kept, "rejected": lost},
        "num_bytes": {"in": num_in, "kept": num_kept, "removed": lost},
        "counts": {},
        "files": (),
    }
    return RunRecord(stage, dump, slice, **(fields | more))

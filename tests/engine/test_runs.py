"""The history of a lake: which runs there were, how they ended and what they committed."""

import json
import subprocess
import sys
from dataclasses import asdict

import pytest
from run_records import made

from curation.engine.lake import Lake, RunRecord
from curation.engine.runs import EARLIER, run_of, runs
from curation.errors import LakeCorrupt, NotFound, TimeBudgetSpent


def committed(lake: Lake, stage: str, dump: str, run_id: str, begun_at: str, kept: int) -> None:
    more = {"run_id": run_id, "started_at": begun_at, "seconds": 2.0}
    lake.commit(made(stage, dump, num_in=10, num_kept=kept, **more))


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake.create(tmp_path / "lake")


def test_a_run_is_written_with_its_end(lake: Lake) -> None:
    with lake.recorded("a"):
        assert [run.end for run in runs(lake)] == ["running"]
    for run_id, error in (("b", NotFound), ("c", TimeBudgetSpent), ("d", KeyboardInterrupt)):
        with pytest.raises(error), lake.recorded(run_id):
            raise error("why")
    ends = {run.run_id: (run.end, run.error, run.reason) for run in runs(lake)}
    assert ends == {
        "a": ("done", "", ""),
        "b": ("failed", "NotFound", "why"),
        "c": ("stopped", "TimeBudgetSpent", "why"),
        "d": ("stopped", "KeyboardInterrupt", ""),  # no error of a user's to act on
    }


def test_a_release_after_a_run_is_of_the_same_run(lake: Lake) -> None:
    with lake.recorded("a"):
        pass
    (path,) = (lake.path / "_history").iterdir()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"begun_at": "2020"}))
    with lake.recorded("a"):
        pass
    assert [(run.begun_at, run.end) for run in runs(lake)] == [("2020", "done")]


def test_a_run_without_an_end_is_told_by_its_process(lake: Lake) -> None:
    """Killed where the process is gone; not known where it ran elsewhere."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with lake.recorded("a"):
        pass
    (path,) = (lake.path / "_history").iterdir()
    entry = json.loads(path.read_text())
    del entry["end"], entry["ended_at"]
    path.write_text(json.dumps(entry | {"process": ended.pid}))
    assert [run.end for run in runs(lake)] == ["killed"]
    path.write_text(json.dumps(entry | {"process": ended.pid, "host": "another.example"}))
    assert [run.end for run in runs(lake)] == ["not ended"]


def test_records_are_grouped_by_run_newest_first(lake: Lake) -> None:
    """Those of before there were run ids are one run; a release counts no rows."""
    committed(lake, "ingest", "A", "", "2026-01-01T00:00:00Z", 8)
    old = json.loads((lake.path / "_runs" / "ingest" / "A" / "0000.json").read_text())
    del old["run_id"], old["resources"]
    (lake.path / "_runs" / "ingest" / "A" / "0000.json").write_text(json.dumps(old))
    committed(lake, "release", "demo", "r2", "2026-01-03T00:00:00Z", 10)
    committed(lake, "ingest", "B", "r2", "2026-01-02T00:00:00Z", 7)
    committed(lake, "fingerprint", "B", "r2", "2026-01-02T00:00:00Z", 9)
    newest, oldest = (run.summary() for run in runs(lake))
    assert newest == {
        "run_id": "r2",
        "begun_at": "2026-01-02T00:00:00Z",
        "end": "done",
        "error": "",
        "reason": "",
        "stages": ["ingest", "fingerprint"],
        "dumps": ["B"],
        "releases": ["demo"],
        "slices": 3,
        "seconds": 6.0,
        "rows_in": 10,
        "rows_kept": 9,
        "rows_rejected": 4,
    }
    assert (oldest["run_id"], oldest["dumps"], oldest["rows_rejected"]) == (EARLIER, ["A"], 2)
    rows = run_of(lake, "r2").slices()
    assert [row["stage"] for row in rows] == ["ingest", "fingerprint", "release"]
    with pytest.raises(NotFound, match="no run 'r9'; it has r2, -"):
        run_of(lake, "r9")


def test_a_damaged_history_is_named(lake: Lake) -> None:
    (lake.path / "_history").mkdir()
    (lake.path / "_history" / "x.json").write_text("{")
    with pytest.raises(LakeCorrupt, match=r"x\.json is damaged; delete it"):
        runs(lake)


@pytest.mark.spark
def test_a_real_run_keeps_the_first_law(undisturbed) -> None:
    """What came in is what is kept and what left; run and release are two commands here."""
    lake = undisturbed(1).lake
    release, run = runs(lake)
    assert (run.end, release.end) == ("done", "done")
    summary = run.summary()
    assert summary["rows_in"] == summary["rows_kept"] + summary["rows_rejected"] > 0
    assert summary["slices"] + release.summary()["slices"] == len(lake.records())
    assert release.summary()["releases"] == ["demo"]
    for record in run.records:
        assert record.resources["cpu_seconds"] >= 0
        assert RunRecord.from_json(record.to_json()) == record
        assert asdict(record)["run_id"] == run.run_id

"""The planner: its sums against a calculation by hand, its labels and its errors."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_records import made

from curation.engine import capacity
from curation.engine.capacity import Measured, Plan, Question
from curation.engine.lake import FileEntry, Lake, RunRecord
from curation.engine.stages import STAGES
from curation.errors import InputInvalid, NotCommitted

# Two dumps of 1,000 archive bytes, 200 bytes of text, 100 documents and 500 tokens. A stage takes
# 1 CPU second a dump; ingest takes 10; dedup 5, and 0.1 for each of the 50 index entries of A.
CPU_SECONDS = {
    ("ingest", "A"): 10.0,
    ("ingest", "B"): 10.0,
    ("dedup", "A"): 5.0,
    ("dedup", "B"): 10,
}


def record(stage: str, dump: str, **more: object) -> RunRecord:
    resources: Mapping[str, float] = {
        "cores": 2,
        "cpu_seconds": CPU_SECONDS.get((stage, dump), 1.0),
        "shuffle_bytes": 7.0,
        "peak_worker_bytes": 300.0 if dump == "A" else 400.0,
        **({"archive_bytes": 1000} if stage == "ingest" else {}),
    }
    file = FileEntry("retained_index" if stage == "dedup" else "rejects", "p", 50, 30)
    inputs = {f"{stage}/A/all": "k"} if dump == "B" and stage in ("dedup", "lines") else {}
    values: dict[str, object] = {
        "num_bytes": {"in": 200, "kept": 200, "removed": 0},
        "inputs": inputs,
        "seconds": 5.0,
        "counts": {"tokens": {"web": 300, "chinese": 200}} if stage == "encode" else {},
        "files": (file,),
        "resources": resources,
        **more,
    }
    return made(stage, dump, "all", 100, 100, **values)


RECORDS = [record(stage, dump) for stage in STAGES for dump in "AB"]
FOUND = capacity.measured(["A", "B"], RECORDS)


def plan(
    dumps: int, cores: int = 2, price: float = 36.0, found: Measured = FOUND, **more: int
) -> Plan:
    return capacity.project(found, Question(dumps, cores, 36.0, **more))


def test_four_dumps_by_hand() -> None:
    """ingest 4 * 10, six stages 4 * 1, dedup 4 * 5 + 0.1 * (0 + 50 + 100 + 150): 114 seconds."""
    found = plan(4)
    seconds = {each.stage: each.core_seconds for each in found.stages}
    ones = dict.fromkeys(STAGES, 4.0)
    assert seconds == pytest.approx(ones | {"ingest": 40.0, "dedup": 50.0})
    (dedup,) = (each for each in found.stages if each.stage == "dedup")
    assert dedup.index_core_seconds == pytest.approx(30.0)
    ingest = found.stages[0]
    assert (ingest.bytes_in, ingest.bytes_out, ingest.shuffle_bytes) == (4000, 120, 28)
    assert ingest.peak_worker_bytes == 400
    assert found.stages[1].bytes_in == 800
    # 47 CPU seconds of 16 slices of 5 seconds on 2 cores
    assert found.busy_share == pytest.approx(47 / 160)
    totals = found.totals()
    assert totals["in all"] == pytest.approx(
        {
            "core_hours": 114 / 3600,
            "hours": 57 / 3600,
            "cost": 1.14,
            "hours_at_busy_share": 57 / 3600 * 160 / 47,
            "cost_at_busy_share": 1.14 * 160 / 47,
        }
    )
    assert totals["per dump"]["cost"] == pytest.approx(0.285)
    assert totals["per trillion tokens"]["cost"] == pytest.approx(1.14 / 2000 * 1e12)


def test_what_was_measured_is_given_back_and_not_called_extrapolated() -> None:
    found = plan(2)
    assert sum(each.core_seconds for each in found.stages) == pytest.approx(20 + 15 + 12)
    assert {each.label for each in found.stages} == {"measured"}
    assert "2 cores: measured" in found.assumptions


def test_what_lies_beyond_is_labelled() -> None:
    """Twice the bytes; the last of four dumps reads three times the entries that B read."""
    found = plan(4, cores=3000)
    labels = {each.stage: each.label for each in found.stages}
    assert labels == dict.fromkeys(STAGES, "extrapolated 2.0 x") | {"dedup": "extrapolated 3.0 x"}
    assert "3,000 cores: extrapolated 1,500.0 x" in found.assumptions


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 5000), st.integers(1, 10**6))
def test_more_dumps_take_more_and_more_cores_take_less_time(
    dumps: int, more: int, cores: int, dump_bytes: int
) -> None:
    less, much = plan(dumps, cores), plan(dumps + more, cores)
    assert less.core_hours < much.core_hours
    # the index grows: a dump of many takes no less than one of few
    per_dump = [each.totals()["per dump"]["cost"] for each in (less, much)]
    assert per_dump[0] <= per_dump[1] * (1 + 1e-9)
    wide = plan(dumps, cores + more)
    assert wide.totals()["in all"]["hours"] < less.totals()["in all"]["hours"]
    assert wide.totals()["in all"]["cost"] == pytest.approx(less.totals()["in all"]["cost"])
    scaled = plan(dumps, cores, dump_bytes=dump_bytes)
    assert scaled.core_hours == pytest.approx(less.core_hours * dump_bytes / 1000)


def test_one_dump_says_that_the_index_is_not_known() -> None:
    alone = capacity.measured(["A"], [each for each in RECORDS if each.dump == "A"])
    found = plan(2, found=alone)
    assert found.stages[2].core_seconds == pytest.approx(10.0)
    assert sum("one dump does not show" in line for line in found.assumptions) == 2
    assert not any("one dump" in line for line in plan(1, found=alone).assumptions)


def test_an_index_that_seems_to_save_work_is_left_out() -> None:
    faster = [
        replace(each, resources={**each.resources, "cpu_seconds": 2.0})
        if (each.stage, each.dump) == ("dedup", "B")
        else each
        for each in RECORDS
    ]
    found = plan(4, found=capacity.measured(["A", "B"], faster))
    assert found.stages[2].core_seconds == pytest.approx(4 * 3.5)
    assert any("dedup takes for the retained_index" in line for line in found.assumptions)


@pytest.mark.parametrize("name", ["dumps", "cores", "price", "dump_bytes"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_question_without_sense_is_refused(name: str, value: int) -> None:
    with pytest.raises(InputInvalid, match=f"--{name.replace('_', '-')} is {value}"):
        Question(**({"dumps": 1, "cores": 1, "price": 1.0} | {name: value}))  # type: ignore[arg-type]


def test_a_lake_that_does_not_answer_says_why(tmp_path: Path) -> None:
    with pytest.raises(NotCommitted, match="no run to measure by"):
        capacity.capacity(Lake.create(tmp_path / "lake"), Question(1, 1, 1.0))
    without = [each for each in RECORDS if (each.stage, each.dump) != ("filter", "B")]
    with pytest.raises(NotCommitted, match="stage filter of dump B is not committed"):
        capacity.measured(["A", "B"], without)
    with pytest.raises(InputInvalid, match="ingest/A/all does not say what its work took"):
        capacity.measured(["A"], [record(stage, "A", resources={}) for stage in STAGES])
    unknown = replace(FOUND, archive_bytes=0.0)
    with pytest.raises(InputInvalid, match="--dump-bytes needs the size of the archives"):
        plan(1, found=unknown, dump_bytes=10)

"""The scripts in jobs/, as spark-submit runs them."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from curation.engine.lake import Lake
from curation.engine.stages import STAGES
from curation.engine.submit import run_stage

JOBS = Path(__file__).parents[2] / "jobs"
SPARK_SUBMIT = Path(sys.executable).with_name("spark-submit")


def submit(job: str, *arguments: str) -> tuple[int, str]:
    """Return the exit code of a job and what it said: spark-submit prints it to its stdout."""
    conf = ["--master", "local[2]", "--conf", "spark.ui.enabled=false"]
    done = subprocess.run(
        [SPARK_SUBMIT, *conf, JOBS / f"{job}.py", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable},
    )
    return done.returncode, done.stdout


def events(said: str, event: str) -> list[dict[str, Any]]:
    """Return the JSON lines of an event, among what Spark said."""
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


@pytest.mark.parametrize("job", sorted(path.stem for path in JOBS.glob("*.py")))
def test_a_job_describes_itself_without_a_jvm(job: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", [f"{job}.py", "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(JOBS / f"{job}.py"), run_name="__main__")
    assert stop.value.code == 0
    said = capsys.readouterr().out
    has_target = job.startswith("train") or job in (
        "export",
        "recall_domain",
        "sft",
        "dpo",
        "evaluate",
    )
    assert ("--to" if has_target else "--config") in said
    if job in STAGES:
        assert f"Run the {job} stage" in said


def test_stages_that_take_dumps_whole_know_no_slices(capsys) -> None:
    for stage in STAGES.values():
        with pytest.raises(SystemExit):
            run_stage(stage.name, ["--help"])
        assert ("--slice" in capsys.readouterr().out) == (not stage.whole_dump)


@pytest.mark.spark
def test_slices_of_a_stage_one_by_one(spark, configure) -> None:
    """Each is a commit; what needs the others says so, and what is committed stays."""
    config = configure("ingest.slice_files=1", dumps=1)
    dump = config.dumps[0].name
    settings = Path(config.lake).parents[1] / "lake.toml"
    arguments = ["--config", str(settings), "--set", "ingest.slice_files=1", "--dump", dump]
    run_stage("ingest", [*arguments, "--slice", "0001"])
    first = {record.slice: record.attempt for record in Lake(config.lake).records()}
    assert set(first) == {"0001"}
    with pytest.raises(SystemExit, match=f"dedup/{dump}/all needs fingerprint/{dump}/0000, which"):
        run_stage("dedup", arguments)
    with pytest.raises(SystemExit, match=f"dump {dump} has no slice '7'; its slices are 0000 to"):
        run_stage("ingest", [*arguments, "--slice", "7"])
    run_stage("ingest", [*arguments, "--slice", "0000", "--slice", "0001"])
    found = {record.slice: record.attempt for record in Lake(config.lake).records()}
    assert set(found) == {"0000", "0001"} and found["0001"] == first["0001"]


def test_every_stage_has_a_job() -> None:
    assert set(STAGES) <= {path.stem for path in JOBS.glob("*.py")}


@pytest.mark.spark
def test_submitted_jobs_fill_the_same_lake(configure, undisturbed, rows_of, tmp_path: Path) -> None:
    """A first stage by its own script, then the pipeline for the rest: what one process gives."""
    config = configure(dumps=1)
    settings = str(tmp_path / "lake.toml")
    code, said = submit("ingest", "--config", settings, "--dump", config.dumps[0].name)
    assert code == 0, said
    (committed,) = events(said, "committed")
    assert committed["message"] == f"ingest/{config.dumps[0].name}/0000 committed"
    assert {record.stage for record in Lake(config.lake).records()} == {"ingest"}

    code, said = submit("pipeline", "--config", settings)
    assert code == 0, said
    (planned,) = events(said, "planned")
    assert (planned["slices"], planned["slices_committed"]) == (8, 1)
    assert planned["run_id"] != committed["run_id"]
    assert rows_of(Lake(config.lake)) == rows_of(undisturbed(1).lake)


@pytest.mark.spark
def test_a_mistake_is_one_line_and_no_trace(tmp_path: Path) -> None:
    settings = tmp_path / "bad.toml"
    settings.write_text('lake = "lake"\ndumps = []\nthresold = 1\n')
    code, said = submit("dedup", "--config", str(settings))
    assert code == 1
    assert said.startswith("error: thresold is not a setting; did you mean")
    assert said.endswith(" (see README.md#settings)\n")
    assert "Traceback" not in said

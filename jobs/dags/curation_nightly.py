"""Every night: bring the lake up to date, report, and check what came in.

`plan` finds dumps and files that are new, and whatever else is not committed: the configuration
may have changed. Each stage then has a group: `work` picks its part of the plan, `run` does it on
Spark. Stages that go by slices have one mapped task for `slices_per_task` slices; dedup and lines
have one for all dumps, since each dump is compared with those before it, in order. A night without
news skips everything. Nothing depends on the date of the run, so a backfill is as many runs of the
same plan, of which the first does the work.

A lake has one writer: one active run, a pool of one slot, and parallel work inside a job.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import Param, TaskGroup, dag, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from curation_jobs import DEFAULTS, CurationJob, curation, planned, spark_job

STAGES = (
    "ingest",
    "fingerprint",
    "dedup",
    "lines",
    "annotate",
    "filter",
    "decontaminate",
    "encode",
)
WHOLE_DUMP = "all"  # the slice of a stage that takes dumps whole

SHARE = {"type": "number", "minimum": 0, "maximum": 1}
PARAMS = {
    "dumps": Param([], "Only these dumps of the configuration; none: all.", type="array"),
    "slices_per_task": Param(
        1,
        "Slices of a dump that one task does, each with a commit of its own. More: fewer starts of "
        "Spark. Airflow maps at most core.max_map_length (1,024) tasks a stage.",
        type="integer",
        minimum=1,
    ),
    "budget_minutes": Param(
        0,
        "No job starts later than this after the run's start; the rest is skipped, and the next "
        "run goes on. 0: no limit.",
        type="number",
        minimum=0,
    ),
    "min_documents": Param(
        100, "Shares and distances of fewer documents are not judged.", type="integer", minimum=1
    ),
    "min_kept": Param(
        1, "Documents that a finished dump must keep: an empty crawl.", type="integer", minimum=0
    ),
    "min_kept_share": Param(
        0.01, "Of the documents that dedup leaves, the least share kept.", **SHARE
    ),
    "max_rule_share": Param(
        0.95,
        "Of the documents that come to a stage, the largest share that one rule may reject: a rule "
        "gone wild.",
        **SHARE,
    ),
    "max_drift": Param(
        0.4,
        "Kolmogorov-Smirnov distance of a language's perplexity from the dump before: texts of "
        "another kind, or another charset.",
        **SHARE,
    ),
}
BOUNDS = ("min_documents", "min_kept", "min_kept_share", "max_rule_share", "max_drift")


@dag(
    schedule="0 1 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS,
    params=PARAMS,
    tags=["curation"],
    doc_md=__doc__,
)
def curation_nightly() -> None:
    """Declare the tasks."""
    todo = plan()
    last = todo
    for stage in STAGES:
        with TaskGroup(stage):
            arguments = work(stage, todo)
            last >> arguments
            job = CurationJob.partial(**spark_job(stage, task_id="run"))
            last = job.expand(application_args=arguments)
    last >> report(todo) >> check(todo)


@task(multiple_outputs=False)
def plan(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is to be done: config, lake, dumps, and by stage the arguments of its tasks."""
    found = planned(params["dumps"])
    units = [unit for unit in found.pop("units") if not unit["committed"]]
    arguments = {
        stage: arguments_of(
            [unit for unit in units if unit["stage"] == stage],
            found["config"],
            params["slices_per_task"],
        )
        for stage in STAGES
    }
    dumps = list(dict.fromkeys(unit["dump"] for unit in units))
    return {**found, "dumps": dumps, "arguments": arguments}


def arguments_of(
    units: Sequence[Mapping[str, Any]], config: str, slices_per_task: int
) -> list[list[str]]:
    """Return the arguments of each task of a stage; its units are in the order of the plan."""
    slices: dict[str, list[str]] = {}
    for unit in units:
        slices.setdefault(unit["dump"], []).append(unit["slice"])
    if all(unit["slice"] == WHOLE_DUMP for unit in units):
        chosen = [[option for dump in slices for option in ("--dump", dump)]] if units else []
    else:
        chosen = [
            ["--dump", dump, *(o for s in own[n : n + slices_per_task] for o in ("--slice", s))]
            for dump, own in slices.items()
            for n in range(0, len(own), slices_per_task)
        ]
    return [["--config", config, *options] for options in chosen]


@task
def work(stage: str, todo: Mapping[str, Any]) -> list[list[str]]:
    """Return the arguments of the tasks of a stage; none: its jobs are skipped."""
    found: list[list[str]] = todo["arguments"][stage]
    return found


@task
def report(todo: Mapping[str, Any]) -> None:
    """Write the report of the lake, where something was to be done."""
    skip_without_work(todo)
    curation("report", todo["config"])


@task
def check(todo: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """Hold the dumps of this run to the bounds; fails, without a retry, where one is not kept."""
    skip_without_work(todo)
    bounds = [f"--{name.replace('_', '-')}={params[name]}" for name in BOUNDS]
    chosen = [f"--dump={dump}" for dump in todo["dumps"]]
    try:
        return curation("check", todo["lake"], *chosen, *bounds)
    except AirflowException as error:
        raise AirflowFailException(str(error)) from error


def skip_without_work(todo: Mapping[str, Any]) -> None:
    """Skip the task where all was committed, or no job has begun the lake."""
    if not todo["dumps"]:
        raise AirflowSkipException("all was committed; nothing was to be done")
    if not Path(todo["lake"]).exists():
        raise AirflowSkipException("there is no lake yet; the time budget was over before a job")


curation_nightly()

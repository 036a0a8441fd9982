"""Make a release, by hand: the mixture and its shards, then its card.

`plan` looks whether the whole lake is committed. `shards` runs jobs/release.py, which draws the
mixture and writes the shards in one commit. `card` prints the mixture as it came out, where every
token went and the fingerprint, into its log, and writes the report. A release never changes: run
again, the DAG finds it and prints the card; under other settings or on a grown lake it fails and
asks for another name.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowFailException
from curation_jobs import DEFAULTS, CurationJob, curation, planned, spark_job

PARAMS = {
    "release": Param(
        "demo", "A [release.<name>] table of the configuration.", type="string", minLength=1
    ),
    "settings": Param(
        [], 'Settings to change: key=value, for example "release.demo.seed=8".', type="array"
    ),
}


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS,
    params=PARAMS,
    tags=["curation"],
    doc_md=__doc__,
)
def curation_release() -> None:
    """Declare the tasks."""
    todo = plan()
    shards = CurationJob(
        **spark_job("release", task_id="shards"), application_args=todo["arguments"]
    )
    shards >> card(todo["arguments"])


@task
def plan(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the lake and what to release; fails, without a retry, while slices have not run."""
    found = planned()
    missing = [unit for unit in found["units"] if not unit["committed"]]
    if missing:
        first = "/".join(missing[0][name] for name in ("stage", "dump", "slice"))
        raise AirflowFailException(
            f"{len(missing)} slices have not run, the first is {first}; run curation_nightly first"
        )
    changes = [option for change in params["settings"] for option in ("--set", change)]
    arguments = [params["release"], "--config", found["config"], *changes]
    return {"lake": found["lake"], "arguments": arguments}


@task
def card(arguments: list[str]) -> str:
    """Return the card of the release as `curation release` prints it."""
    return curation("release", *arguments)


curation_release()

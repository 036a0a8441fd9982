"""What the DAGs share: the jobs on Spark, the `curation` program, and alerts.

A DAG holds no logic of the pipeline: `curation run --plan` says what is to be done, and every job
skips what is committed. So any task may be tried again, cleared or run twice. Where things are is
said by Variables of Airflow, each with a default that serves one machine:

    curation_config            the TOML file; jobs/conf/demo.toml
    curation_program           the `curation` program that plans, reports and checks; the one beside
                               Airflow's own Python. Its packages must be those of the driver, since
                               versions of packages are part of what is committed
    curation_spark_python      the Python of driver and executors; Airflow's own
    curation_spark_properties  a file for spark-submit --properties-file; none

and by the connections `curation_spark` (master, deploy mode) and `curation_alerts` (a webhook).
"""

import json
import logging
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import BaseHook, Variable
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
)

JOBS = Path(__file__).resolve().parents[1]
POOL = "curation"
"""Has one slot: a lake has one writer, and a job uses the whole cluster."""
SPARK = "curation_spark"
ALERTS = "curation_alerts"
WEBHOOK_SECONDS = 30
PROGRAM = str(Path(sys.executable).with_name("curation"))
SPARK_PYTHON = f"{{{{ var.value.get('curation_spark_python', '{sys.executable}') }}}}"

LOGGER = logging.getLogger("curation.dags")


def alert(context: Mapping[str, Any]) -> None:
    """Say that a task has failed for good: in its log, and to the webhook where there is one.

    The webhook's URL is the password of the connection `curation_alerts`, so that Airflow masks it;
    it is sent {"text": ...}, which Slack, Mattermost and others take.
    """
    task = context["task_instance"]
    place = f"{task.dag_id}/{task.task_id}"
    if task.map_index is not None and task.map_index >= 0:
        place += f"[{task.map_index}]"
    text = f"{place} failed in run {task.run_id}: {context.get('exception')}"
    LOGGER.error("alert: %s", text)
    try:
        url = BaseHook.get_connection(ALERTS).password
    except AirflowNotFoundException:
        return
    body = json.dumps({"text": text}).encode()
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=WEBHOOK_SECONDS).close()
    except (OSError, ValueError) as error:  # its message may hold the URL
        LOGGER.error("the alert did not reach the webhook: %s", type(error).__name__)


DEFAULTS: dict[str, Any] = {
    "retries": 2,
    "retry_delay": timedelta(minutes=10),
    "on_failure_callback": alert,
    # Stages with nothing to do are skipped; what comes after them runs.
    "trigger_rule": "none_failed",
}


class CurationJob(SparkSubmitOperator):
    """A script of `jobs/` on Spark: not begun after the time budget, and it says why it failed.

    The budget is the DAG's parameter `budget_minutes`; the task `plan` gives the lake.
    """

    def execute(self, context: Mapping[str, Any]) -> None:
        """Run the job; raises AirflowFailException, which no retry follows, on the alarm."""
        _skip_over_budget(context)
        BaseHook.get_connection(SPARK)  # raises; without it the operator would take YARN
        begun_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        try:
            super().execute(context)
        except AirflowException as error:
            lake = context["task_instance"].xcom_pull(task_ids="plan")["lake"]
            kind, reason = _end_of_run(lake, begun_at)
            if kind == "DuplicationAlarm":  # the next try would find the same
                raise AirflowFailException(reason) from error
            raise AirflowException(reason or str(error)) from error


def spark_job(job: str, task_id: str) -> dict[str, Any]:
    """Return the arguments of a CurationJob but those of its script."""
    return {
        "task_id": task_id,
        "pool": POOL,
        "application": str(JOBS / f"{job}.py"),
        "name": f"curation-{job}",
        "conn_id": SPARK,
        "conf": {"spark.pyspark.python": SPARK_PYTHON},
        "properties_file": "{{ var.value.get('curation_spark_properties', '') }}",
    }


def planned(dumps: Sequence[str] = ()) -> dict[str, Any]:
    """Return the plan: config, lake, and the units as `curation run --plan --json` gives them."""
    config = Variable.get("curation_config", default=str(JOBS / "conf" / "demo.toml"))
    chosen = [option for dump in dumps for option in ("--dump", dump)]
    return {"config": config, **json.loads(curation("run", config, "--plan", "--json", *chosen))}


def curation(*arguments: str) -> str:
    """Run the `curation` program and return what it prints; raises AirflowException."""
    program = Variable.get("curation_program", default=PROGRAM)
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    if done.returncode:
        LOGGER.info(done.stdout)
        raise AirflowException(done.stderr.strip())
    return done.stdout


def _skip_over_budget(context: Mapping[str, Any]) -> None:
    minutes = context["params"].get("budget_minutes", 0)
    begun_at = context["dag_run"].start_date
    if minutes and datetime.now(UTC) - begun_at > timedelta(minutes=minutes):
        raise AirflowSkipException(
            f"{minutes} minutes are over; what is committed stays, the next run goes on"
        )


def _end_of_run(lake: str, since: str) -> tuple[str, str]:
    """Return the error of the run that the lake saw last, and what it said; empty if older."""
    try:
        newest = json.loads(curation("runs", lake, "--json").partition("\n")[0])
    except (AirflowException, ValueError):  # no lake yet, or no run
        return "", ""
    return (newest["error"], newest["reason"]) if newest["begun_at"] >= since else ("", "")

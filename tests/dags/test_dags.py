"""The DAGs in jobs/dags/, with the Airflow of `make airflow`, on SQLite and loopback alone."""

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from curation.engine.lake import WHOLE_DUMP, Lake
from curation.engine.stages import STAGES
from curation.tokens.shards import read_manifest

ROOT = Path(__file__).parents[2]
DAGS = ROOT / "jobs" / "dags"
BIN = ROOT / ".venv-airflow" / "bin"

pytestmark = pytest.mark.skipif(
    not (BIN / "airflow").exists(), reason="Airflow is missing: run make airflow"
)

READ = """
import json, sys
sys.path.insert(0, sys.argv[1])
import curation_nightly as nightly
import curation_release as release
loaded = sorted({"pyspark", "numba", "pyarrow", "curation", "torch"} & sys.modules.keys())
dags = {
    dag.dag_id: {
        "tasks": dag.task_ids,
        "upstream": {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks},
        "pools": {task.task_id: task.pool for task in dag.tasks},
        "retries": sorted({task.retries for task in dag.tasks}),
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "explained": sorted(dag.params) == sorted(
            name for name in dag.params if dag.params.get_param(name).description
        ),
    }
    for dag in (nightly.curation_nightly(), release.curation_release())
}
units = [
    {"dump": dump, "slice": slice} for dump in ("A", "B") for slice in ("0000", "0001", "0002")
]
print(json.dumps({
    "loaded": loaded,
    "dags": dags,
    "stages": nightly.STAGES,
    "whole": nightly.WHOLE_DUMP,
    "slices": nightly.arguments_of(units, "c.toml", 2),
    "dumps": nightly.arguments_of(
        [{"dump": "A", "slice": "all"}, {"dump": "B", "slice": "all"}], "c.toml", 1
    ),
    "none": nightly.arguments_of([], "c.toml", 1),
}))
"""


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return what Airflow needs to run by itself: no examples, one database file, no network."""
    return {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW_CONN_CURATION_SPARK": json.dumps({"conn_type": "spark", "host": "local[2]"}),
        "SPARK_LOCAL_IP": "127.0.0.1",
        **more,
    }


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Airflow sees in the files."""
    done = subprocess.run(
        [BIN / "python", "-c", READ, DAGS],
        env=environment(tmp_path_factory.mktemp("airflow")),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_dag_files_are_read_without_what_a_worker_needs(read: dict[str, Any]) -> None:
    """The scheduler reads them again and again: neither Spark nor kernels may be loaded."""
    assert read["loaded"] == []


def test_the_night_has_every_stage_in_its_order(read: dict[str, Any]) -> None:
    assert read["stages"] == list(STAGES)
    assert read["whole"] == WHOLE_DUMP
    upstream = read["dags"]["curation_nightly"]["upstream"]
    last = "plan"
    for stage in STAGES:
        assert upstream[f"{stage}.work"] == sorted({"plan", last})
        assert upstream[f"{stage}.run"] == [f"{stage}.work"]
        last = f"{stage}.run"
    assert last in upstream["report"]
    assert upstream["check"] == ["plan", "report"]


def test_a_lake_has_one_writer(read: dict[str, Any]) -> None:
    """One run at a time, no runs for dates gone by, and jobs in a pool of one slot."""
    for dag in read["dags"].values():
        assert (dag["catchup"], dag["max_active_runs"], dag["retries"]) == (False, 1, [2])
        assert dag["explained"]
        for task, pool in dag["pools"].items():
            is_job = task.endswith(".run") or task == "shards"
            assert pool == ("curation" if is_job else "default_pool"), task


def test_a_task_has_some_slices_of_a_dump_and_dedup_all_dumps(read: dict[str, Any]) -> None:
    config = ["--config", "c.toml"]
    assert read["slices"] == [
        [*config, "--dump", dump, *slices]
        for dump in ("A", "B")
        for slices in (["--slice", "0000", "--slice", "0001"], ["--slice", "0002"])
    ]
    assert read["dumps"] == [[*config, "--dump", "A", "--dump", "B"]]
    assert read["none"] == []


# ---- runs --------------------------------------------------------------------------------------


class Airflow:
    """An Airflow with a database of its own, and a webhook that keeps what it is sent."""

    def __init__(self, home: Path, config: Path, webhook: str) -> None:
        self.config = config
        alerts = {"conn_type": "http", "password": webhook}
        self._environment = environment(
            home,
            AIRFLOW_CONN_CURATION_ALERTS=json.dumps(alerts),
            AIRFLOW_VAR_CURATION_CONFIG=str(config),
        )
        self("db", "migrate")

    def __call__(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [BIN / "airflow", *arguments],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1800,
        )
        assert done.returncode == code, done.stdout[-4000:]
        return done.stdout

    def states(self, dag: str, date: str, *, code: int = 0, **params: Any) -> dict[str, str]:
        """Run a DAG and return how its tasks ended, those of a mapped one together."""
        self("dags", "test", dag, date, "--conf", json.dumps(params), code=code)
        said = self("tasks", "states-for-dag-run", dag, date, "-o", "json")
        rows = json.loads(said[said.index("[{") :])
        found: dict[str, set[str]] = {}
        for row in rows:
            found.setdefault(row["task_id"], set()).add(row["state"])
        return {task: "/".join(sorted(states)) for task, states in found.items()}


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[str]]]:
    """A URL, and the texts that were sent to it."""
    texts: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            texts.append(json.loads(body)["text"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", texts
    server.shutdown()
    thread.join()
    server.server_close()


def attempts(lake: str) -> dict[tuple[str, str, str], str]:
    """Return which attempt each stage and slice is of: what ran again has another one."""
    return {(r.stage, r.dump, r.slice): r.attempt for r in Lake(lake).records()}


@pytest.mark.slow
@pytest.mark.spark
def test_nights_do_what_is_new_and_nothing_else(
    configure: Callable[..., Any], webhook: tuple[str, list[str]], tmp_path: Path
) -> None:
    """A first night, one without news, nights with another dump and with alarms, a release."""
    url, alerts = webhook
    config = configure(dumps=1)
    airflow = Airflow(tmp_path / "airflow", tmp_path / "lake.toml", url)
    night = "curation_nightly"
    jobs = {f"{stage}.run" for stage in STAGES}

    states = airflow.states(night, "2026-01-01T01:00:00+00:00", budget_minutes=0.001)
    assert {states[job] for job in (*jobs, "report")} == {"skipped"}  # over before the first began
    assert not Path(config.lake).exists()

    states = airflow.states(night, "2026-01-02T01:00:00+00:00")
    assert set(states.values()) == {"success"}
    first = attempts(config.lake)
    assert {stage for stage, _, _ in first} == set(STAGES)
    assert Path(config.report).exists()

    states = airflow.states(night, "2026-01-03T01:00:00+00:00")
    assert {states[job] for job in (*jobs, "report", "check")} == {"skipped"}
    assert attempts(config.lake) == first

    added = (
        configure(dumps=2, more="[dedup]\nalarm_share = 0.05\nalarm_documents = 5\n").dumps[1].name
    )
    states = airflow.states(night, "2026-01-04T01:00:00+00:00", code=1)
    assert (states["dedup.run"], states["lines.run"]) == ("failed", "upstream_failed")
    alert = alerts.pop()
    assert alerts == [] and f"{night}/dedup.run[0] failed" in alert
    assert f"dedup of dump {added}" in alert

    config = configure(dumps=2)
    states = airflow.states(night, "2026-01-05T01:00:00+00:00", code=1, min_kept=10**6)
    assert states["check"] == "failed"
    assert (states["ingest.run"], states["dedup.run"]) == ("skipped", "success")
    assert (states["encode.run"], states["report"]) == ("success", "success")
    second = attempts(config.lake)
    assert {key: second[key] for key in first} == first
    assert {dump for _, dump, _ in second.keys() - first.keys()} == {added}
    assert len(second) == 2 * len(first)
    (alert,) = alerts
    assert f"{night}/check failed" in alert and "documents kept is" in alert

    for date in ("2026-01-06T01:00:00+00:00", "2026-01-07T01:00:00+00:00"):
        states = airflow.states("curation_release", date, release="demo")
        assert set(states.values()) == {"success"}
    assert read_manifest(Path(config.shards) / "demo").name == "demo"
    releases = [record for record in Lake(config.lake).records() if record.stage == "release"]
    assert len(releases) == 1

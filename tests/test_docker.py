"""The files in docker/, as far as they can be held to without docker."""

import configparser
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ENTRYPOINT = ROOT / "docker" / "entrypoint.sh"
ROLES = {"master", "worker", "driver", "executor", "nights"}
# CI has no time to install Airflow: it holds the lock to setup.cfg, below, and who changes
# jobs/dags runs `make airflow` and tests/dags.
NOT_IN_CI = {"airflow"}
SYSTEM = {"apt-get", "rm", "useradd", "mkdir", "chown"}  # everything else is ours to make


@pytest.fixture(scope="module")
def dockerfile() -> list[str]:
    """The instructions, each on one line."""
    text = (ROOT / "docker" / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [line for line in re.sub(r" *\\\n *", " ", "\n".join(lines)).splitlines() if line]


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    """The services of compose.yaml."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(
        (ROOT / "docker" / "compose.yaml").read_text()
    )["services"]
    return found


def test_images_are_made_by_targets_that_ci_runs_too(dockerfile: list[str]) -> None:
    commands = [
        command.split()
        for line in dockerfile
        if line.startswith("RUN ")
        for command in line.removeprefix("RUN ").split(" && ")
    ]
    assert {command[0] for command in commands} <= SYSTEM | {"make"}
    made = {word for command in commands if command[0] == "make" for word in command[1:]}
    ours = {word for word in made if "=" not in word}
    in_ci = re.findall(r"^make (.*)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert ours - NOT_IN_CI <= {target for line in in_ci for target in line.split()}
    assert ours >= NOT_IN_CI


def test_the_lock_of_airflow_has_what_setup_cfg_asks_for() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    options, extras = setup["options"], setup["options.extras_require"]
    lines = f"{options['install_requires']}\n{extras['airflow']}".splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    lock = (ROOT / "jobs" / "dags" / "requirements.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lock if not line.startswith("#"))
    locked = {canonicalize_name(name): version for name, version in pins.items()}
    assert len(wanted) > 20 and len(locked) > 100
    assert [
        f"{each}, but {locked.get(canonicalize_name(each.name))} is locked"
        for each in wanted
        if locked.get(canonicalize_name(each.name), "") not in each.specifier
    ] == []


def test_what_images_copy_is_there(dockerfile: list[str]) -> None:
    copied = [line.split()[1:-1] for line in dockerfile if re.match(r"COPY (?!--from)", line)]
    assert copied
    assert [path for paths in copied for path in paths if not (ROOT / path).exists()] == []


def test_services_run_stages_and_roles_that_exist(
    dockerfile: list[str], services: dict[str, dict[str, Any]]
) -> None:
    stages = {line.split()[-1] for line in dockerfile if line.startswith("FROM ")}
    ours = {name: service for name, service in services.items() if "build" in service}
    assert {"master", "worker", "driver", "airflow"} == set(ours)
    for service in ours.values():
        assert service["build"]["target"] in stages
        assert service["command"][0] in ROLES
        paths = [word for word in service["command"] if word.startswith("jobs/")]
        assert all((ROOT / path).exists() for path in paths)


def test_the_cluster_is_open_to_this_machine_alone(services: dict[str, dict[str, Any]]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)


def test_images_of_others_have_a_version(services: dict[str, dict[str, Any]]) -> None:
    others = [service["image"] for service in services.values() if "build" not in service]
    assert others and all(re.search(r":\d+\.\d+", image) for image in others)


@pytest.fixture
def start(tmp_path: Path):
    """Return what the entry point runs, a line an argument: `start("driver", NAME="value")`."""
    for name in ("java", "bin/spark-submit", "bin/spark-class", "airflow"):
        program = tmp_path / name
        program.parent.mkdir(exist_ok=True)
        program.write_text('#!/bin/sh\nprintf "%s\\n" "$0" "$@"\n')
        program.chmod(0o755)

    def run(*arguments: str, **environment: str) -> list[str]:
        path = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SPARK_HOME": str(tmp_path)}
        done = subprocess.run(
            [ENTRYPOINT, *arguments], env=path | environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.replace(f"{tmp_path}/", "").splitlines()

    return run


def test_a_driver_of_kubernetes_listens_on_its_own_address(start) -> None:
    assert start("driver", "--class", "a.B", "job.py", SPARK_DRIVER_BIND_ADDRESS="10.0.0.7") == [
        *("bin/spark-submit", "--deploy-mode", "client"),
        *("--conf", "spark.driver.bindAddress=10.0.0.7"),
        *("--class", "a.B", "job.py"),
    ]


def test_an_executor_of_kubernetes_is_told_by_its_environment(start) -> None:
    said = start(
        "executor",
        SPARK_JAVA_OPT_0="-Dspark.driver.port=7078",
        SPARK_JAVA_OPT_1="-Dname=two words",
        SPARK_EXECUTOR_MEMORY="2g",
        SPARK_DRIVER_URL="spark://driver:7078",
        SPARK_EXECUTOR_ID="3",
        SPARK_EXECUTOR_CORES="4",
        SPARK_APPLICATION_ID="spark-1",
        SPARK_EXECUTOR_POD_IP="10.0.0.8",
        SPARK_RESOURCE_PROFILE_ID="0",
        SPARK_EXECUTOR_POD_NAME="pod-3",
    )
    assert said[:5] == [
        *("java", "-Dspark.driver.port=7078", "-Dname=two words", "-Xms2g", "-Xmx2g")
    ]
    assert said[5] == "-cp" and said[6].endswith("jars/*")
    assert said[7].endswith("KubernetesExecutorBackend")
    assert dict(zip(said[8::2], said[9::2], strict=True)) == {
        "--driver-url": "spark://driver:7078",
        "--executor-id": "3",
        "--cores": "4",
        "--app-id": "spark-1",
        "--hostname": "10.0.0.8",
        "--resourceProfileId": "0",
        "--podName": "pod-3",
    }


def test_standalone_roles_take_options_and_other_commands_run_as_they_stand(start) -> None:
    assert start("master", "--port", "7077") == [
        *("bin/spark-class", "org.apache.spark.deploy.master.Master", "--port", "7077")
    ]
    assert start("worker", "spark://m:7077") == [
        *("bin/spark-class", "org.apache.spark.deploy.worker.Worker", "spark://m:7077")
    ]
    assert start("echo", "curation", "doctor") == ["curation doctor"]


def test_nights_begin_with_a_database_and_the_pool_of_one_slot(start) -> None:
    assert start("nights") == [
        *("airflow", "db", "migrate"),
        *("airflow", "pools", "set", "curation", "1", "jobs on one lake"),
        *("airflow", "standalone"),
    ]


def test_the_airflow_of_compose_sees_dags_lake_cluster_and_store(
    services: dict[str, dict[str, Any]], dockerfile: list[str]
) -> None:
    """What the DAGs ask for by name is set, and lies where the image says."""
    airflow, worker = services["airflow"], services["worker"]
    volumes = dict(volume.removesuffix(":ro").split(":")[:2] for volume in airflow["volumes"])
    stage = " ".join(dockerfile[dockerfile.index("FROM driver AS airflow") :])
    assert f"AIRFLOW__CORE__DAGS_FOLDER={volumes['../jobs/dags']} " in stage
    assert f"AIRFLOW_HOME={volumes['airflow']} " in stage
    assert {*worker["volumes"]} <= {*airflow["volumes"]}
    assert worker["environment"].items() <= airflow["environment"].items()
    spark = json.loads(airflow["environment"]["AIRFLOW_CONN_CURATION_SPARK"])
    assert f"{spark['host']}:{spark['port']}" == worker["command"][-1]
    source = (ROOT / "jobs" / "dags" / "curation_jobs.py").read_text()
    assert 'SPARK = "curation_spark"' in source and 'POOL = "curation"' in source
    for name in re.findall(r"AIRFLOW_VAR_(\w+)=", stage):
        assert name.lower() in source

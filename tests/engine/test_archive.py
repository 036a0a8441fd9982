"""What `make dist` builds, on a cluster whose machines have nothing of ours but the archive."""

import os
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from standalone_cluster import ROOT, SPARK_HOME, standalone, wait

from curation.engine.lake import Lake
from curation.engine.stages import STAGES
from curation.tokens.shards import read_manifest

ARCHIVE = ROOT / "dist" / "environment.tar.gz"

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive in a folder that is not the one it was made in."""
    if not ARCHIVE.exists():
        pytest.skip(f"{ARCHIVE.relative_to(ROOT)} is missing: run `make dist`")
    folder = tmp_path_factory.mktemp("submit") / "environment"
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="fully_trusted")  # it links to Python outside
    return folder


def bare(**more: str) -> dict[str, str]:
    """Return our environment variables without those that lead to a Python of ours."""
    hidden = ("PYTHON", "PYSPARK", "SPARK", "VIRTUAL_ENV", "NUMBA")
    return {key: value for key, value in os.environ.items() if not key.startswith(hidden)} | more


def test_the_archive_works_where_it_is_unpacked_and_brings_no_spark(
    unpacked: Path, tmp_path: Path
) -> None:
    script = (
        "import importlib.util, curation.cli, curation.engine.tasks, s3fs, udfs\n"
        "print(curation.__file__, udfs.__file__, importlib.util.find_spec('pyspark'), sep='\\n')"
    )
    python = [unpacked / "bin" / "python", "-c", script]
    done = subprocess.run(python, cwd=tmp_path, env=bare(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *modules, spark = done.stdout.splitlines()
    assert [Path(module).is_relative_to(unpacked) for module in modules] == [True, True]
    assert spark == "None"
    command = [unpacked / "bin" / "curation", "scaling", "--compute", "1e20"]
    done = subprocess.run(command, cwd=tmp_path, env=bare(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_cluster_runs_the_archive_and_loses_a_worker(
    unpacked: Path, configure, undisturbed, tmp_path: Path
) -> None:
    """All stages and a release; the shards are those of one machine that nothing happened to."""
    config = configure("engine.single_task_documents=0", dumps=1)
    dump = config.dumps[0].name
    fingerprints = Path(config.lake) / "_runs" / "fingerprint" / dump
    settings = tmp_path / "lake.toml"
    arguments = ("--config", str(settings), "--set", "engine.single_task_documents=0")
    folder = unpacked.parent  # holds nothing else, so nothing of ours can be imported there
    with standalone(tmp_path, num_workers=2, python_path="") as (master, workers):
        with submitted(master, folder, "pipeline", *arguments) as job:
            wait(lambda: job.poll() is not None or any(fingerprints.glob("*.json")), "a commit")
            assert job.poll() is None, job.communicate()[0]
            assert f"./environment/bin/python {ROOT}/jobs/pipeline.py" in commands(job.pid)
            os.killpg(workers[0].pid, signal.SIGKILL)
            said, _ = job.communicate(timeout=900)
        assert job.returncode == 0, said
        assert "Lost executor" in said, "the worker died too late to matter"
        with submitted(master, folder, "release", "demo", *arguments) as job:
            said, _ = job.communicate(timeout=600)
        assert job.returncode == 0, said
    made = [record for record in Lake(config.lake).records() if record.stage in STAGES]
    assert {record.environment["master"] for record in made} == {master}
    assert len(list(tmp_path.glob("w*/app-*/*/environment/bin/python"))) >= 3  # one an executor
    manifest = read_manifest(Path(config.shards) / "demo")
    assert [entry.sha256 for entry in manifest.files] == undisturbed(1).digests


def commands(group: int) -> str:
    """Return the command lines of a process group."""
    said = subprocess.run(["ps", "-eo", "pgid=,args="], capture_output=True, text=True).stdout
    return "\n".join(line for line in said.splitlines() if line.split()[0] == str(group))


@contextmanager
def submitted(
    master: str, folder: Path, job: str, *arguments: str
) -> Iterator[subprocess.Popen[str]]:
    """Submit a job from the folder that the archive is unpacked in; end it with the block."""
    conf = {
        "spark.hadoop.fs.defaultFS": "hdfs://127.0.0.1:1",  # there is none: who looks, fails
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.executor.memory": "600m",
    }
    process = subprocess.Popen(
        [
            *(SPARK_HOME / "bin" / "spark-submit", "--master", master, "--driver-memory", "600m"),
            *(part for key, value in conf.items() for part in ("--conf", f"{key}={value}")),
            *("--archives", f"{ARCHIVE}#environment"),
            *(ROOT / "jobs" / f"{job}.py", *arguments),
        ],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=bare(SPARK_HOME=str(SPARK_HOME), PYSPARK_PYTHON="./environment/bin/python"),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert process.stdout is not None
        process.stdout.close()

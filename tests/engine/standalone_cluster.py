"""A master and workers of Spark's own, on loopback, started as the containers start them."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyspark

ROOT = Path(__file__).parents[2]
ENTRYPOINT = ROOT / "docker" / "entrypoint.sh"
SPARK_HOME = Path(pyspark.__file__).parent


@contextmanager
def standalone(
    folder: Path, num_workers: int, python_path: str = str(ROOT)
) -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    """Start a master and workers; yield the master's address and the workers."""
    environment = {**os.environ, "SPARK_HOME": str(SPARK_HOME), "PYTHONPATH": python_path}
    processes: list[subprocess.Popen[str]] = []

    def start(name: str, *arguments: str) -> Path:
        log = folder / f"{name}.log"
        with log.open("w") as file:
            processes.append(
                subprocess.Popen(
                    [ENTRYPOINT, *arguments],
                    stdout=file,
                    stderr=file,
                    text=True,
                    env=environment,
                    start_new_session=True,
                )
            )
        return log

    loopback = ("--host", "127.0.0.1", "--webui-port", "0", "--port", "0")
    try:
        log = start("master", "master", *loopback)
        marker = "Starting Spark master at "
        wait(lambda: marker in log.read_text(), "the master")
        master = log.read_text().split(marker)[1].split()[0]
        for number in range(num_workers):
            start(
                f"worker{number}",
                "worker",
                *loopback,
                *("--cores", "1", "--memory", "700m", "--work-dir", str(folder / f"w{number}")),
                master,
            )
        wait(lambda: log.read_text().count("Registering worker") == num_workers, "the workers")
        yield master, processes[1:]
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait(until: Callable[[], bool], what: str, seconds: float = 300.0) -> None:
    """Wait for a condition, or fail naming it."""
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, f"{what} did not come in {seconds:g} s"
        time.sleep(0.05)

"""Faults of the machine: what is said, and that nothing is lost and a rerun gives the same shards.

The README's table of faults names for each row the test that holds it; this file has those that
concern no single module.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from curation.engine import run as runs
from curation.engine.release import make_release
from curation.engine.run import Selection, run
from curation.errors import LakeCorrupt, StageStopped

pytestmark = pytest.mark.spark

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
CURATION = [sys.executable, "-c", "from curation.cli import main; main()"]


@pytest.mark.slow  # stages twice, and a release
def test_a_python_worker_killed_for_memory_costs_one_slice(configure, undisturbed) -> None:
    """SIGKILL, as the kernel sends it: one message, and a rerun does that slice again."""
    config = configure(dumps=1)
    lake = run(config, Selection(last="lines"))
    (record,) = lake.records("ingest")
    path = lake.path / next(each.path for each in record.files if each.table == "documents")
    saved = path.rename(path.with_suffix(".saved"))
    os.mkfifo(path)  # a task that reads it waits, until it is killed
    over = threading.Event()
    kill = threading.Thread(target=kill_workers_until, args=(over,))
    kill.start()
    with pytest.raises(StageStopped) as failure:
        run(config)
    over.set()
    kill.join()
    path.unlink()
    saved.rename(path)
    message = str(failure.value)
    assert message.startswith("annotate/")
    assert "a Python worker was killed" in message
    assert "engine.group_bytes" in message
    assert lake.records("annotate") == []
    run(config)
    assert digests(config) == undisturbed(1).digests


def kill_workers_until(over: threading.Event) -> None:
    """Kill all Python workers of our session, again and again."""
    while not over.wait(0.1):
        daemons = children(os.getpid(), "pyspark.daemon")
        for pid in {worker for daemon in daemons for worker in children(daemon, "pyspark.daemon")}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def children(parent: int, word: str) -> list[int]:
    """Return the processes below one whose command has a word in it."""
    said = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True).stdout
    rows = [line.split(None, 2) for line in said.splitlines()]
    below, found = {parent}, []
    for _ in range(4):  # this process, the JVM, the daemon, its workers
        below |= {int(pid) for pid, ppid, _ in rows if int(ppid) in below}
    for pid, _, text in rows:
        if int(pid) in below - {parent} and word in text:
            found.append(int(pid))
    return found


def test_a_clock_that_goes_backwards_decides_nothing(
    configure, undisturbed, rows_of, monkeypatch
) -> None:
    """Every look at the clock is a day before the last one."""
    config = configure(dumps=2)
    looks = iter(range(10**9))
    monkeypatch.setattr(runs.time, "time", lambda: 4e9 - 86_400 * next(looks))
    lake = run(config)
    monkeypatch.undo()
    assert rows_of(lake) == rows_of(undisturbed(2).lake)
    assert digests(config) == undisturbed(2).digests
    again = run(config)
    assert [each.attempt for each in again.records()] == [each.attempt for each in lake.records()]


@pytest.mark.slow  # stages twice, and a release
def test_a_corrupt_table_file_is_named_and_made_anew(configure, undisturbed) -> None:
    """Bytes of a committed file that changed: the file is named, and what to delete."""
    config = configure(dumps=1)
    lake = run(config, Selection(last="lines"))
    (record,) = lake.records("ingest")
    entry = next(each for each in record.files if each.table == "documents")
    path = lake.path / entry.path
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(LakeCorrupt) as failure:
        run(config)
    message = str(failure.value)
    assert entry.path in message
    command = re.search(r"rm (\S+\.json)", message)
    assert command, message
    Path(command.group(1)).unlink()
    run(config)
    assert digests(config) == undisturbed(1).digests


def test_a_jvm_that_is_killed_in_a_stage_is_one_message() -> None:
    """Found by tests/bench/soak.py: the threads beside the one that waits printed traces."""
    script = """if True:
        import os, signal, sys
        from curation.engine import session as spark
        from curation.errors import StageStopped
        session = spark.start()
        jvm = session.sparkContext._gateway.proc.pid
        counts = spark.SparkMeter(session)
        try:
            with spark.described(session, "a stage", lambda *_: None):
                for _ in range(2):
                    session.range(10**6).rdd.foreach(lambda _: counts.add({"rows": 1}))
                    os.kill(jvm, signal.SIGKILL)
        except StageStopped as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300
    )
    assert done.stdout.startswith("a stage stopped: "), done.stdout + done.stderr
    assert "nothing of it was committed" in done.stdout
    assert done.stderr == ""
    assert done.returncode == 0


@pytest.mark.slow  # two JVMs
def test_a_full_disk_is_said_and_a_rerun_with_room_goes_on(
    configure, undisturbed, tmp_path: Path
) -> None:
    """A file system of the lake's own that is full in the middle of a stage, and then grows."""
    config = configure(dumps=1)
    toml = tmp_path / "lake.toml"
    lake = Path(config.lake)
    lake.mkdir(parents=True)
    run_it = " ".join([*CURATION[:1], "-c", f"'{CURATION[2]}'", "run", str(toml)])
    script = (
        f"mount -t tmpfs -o size=200k tmpfs {lake} && ({run_it}; echo rc=$? >&2;"
        f" mount -o remount,size=200m {lake}; {run_it} && cp -a {lake} {tmp_path}/saved)"
    )
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    probe = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "x", "/mnt"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("needs a mount namespace of its own: unshare --user --mount")
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "rc=1" in done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    shutil.rmtree(lake)
    shutil.copytree(tmp_path / "saved", lake)
    assert digests(config) == undisturbed(1).digests


def digests(config) -> list[str]:
    """The sha256 of every shard of a release."""
    return [entry.sha256 for entry in make_release(config, "demo").files]


def test_every_row_of_the_table_of_faults_names_a_test_that_is_there() -> None:
    section = README.read_text().split("## Faults")[1].split("\n## ")[0]
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", section)
    assert len(named) >= 10
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text(), f"{path} has no {name}"

"""Law 6: kill -9 in every stage, then a rerun, gives the shards of an undisturbed run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from curation.engine.lake import WHOLE_DUMP, Lake
from curation.engine.release import make_release
from curation.engine.run import Selection, run
from curation.engine.stages import STAGES

pytestmark = pytest.mark.spark

# Where a stage's first file shows that it is at work.
FOLDERS = {
    "ingest": "documents",
    "fingerprint": "signatures",
    "dedup": "_work",
    "lines": "line_counts",
    "annotate": "signals",
    "filter": "kept",
    "decontaminate": "edits/stage=decontaminate",
    "encode": "tokens",
}
PATIENCE_SECONDS = 300
TRUE_SPARK = "[engine]\nsingle_task_documents = 0\n"  # rounds of messages, which leave state behind
CURATION = [sys.executable, "-c", "from curation.cli import main; main()"]


def test_kills_in_ingest_and_dedup_lose_nothing(configure, undisturbed, tmp_path: Path) -> None:
    """In dedup at the second dump, which reads the index of the first."""
    config = configure(lake="killed", dumps=2, more=TRUE_SPARK)
    first, second = (dump.name for dump in config.dumps)
    toml = tmp_path / "killed.toml"
    kill_in("ingest", first, Path(config.lake), toml)
    run(config, Selection(dumps=(first,)))
    kill_in("dedup", second, Path(config.lake), toml)
    check_end(config, undisturbed(2))


@pytest.mark.slow  # ten JVMs
def test_a_kill_in_every_stage_loses_nothing(configure, undisturbed, tmp_path: Path) -> None:
    config = configure(lake="killed", dumps=2, more=TRUE_SPARK)
    toml = tmp_path / "killed.toml"
    for stage in FOLDERS:
        kill_in(stage, config.dumps[0].name, Path(config.lake), toml)
    run(config)
    shards = Path(config.shards)
    kill_when(
        [*CURATION, "release", "demo", "--config", str(toml)],
        lambda: files_under(shards),
        hold=(Path(config.lake), "release", "demo", WHOLE_DUMP),
    )
    assert not (shards / "demo").exists(), "the kill came too late to mean anything"
    check_end(config, undisturbed(2))


def kill_in(stage: str, dump: str, lake: Path, toml: Path) -> None:
    """Run until the stage writes its first new file of the dump, and kill it there."""
    folder = lake / FOLDERS[stage]
    before = files_under(folder)
    slice = WHOLE_DUMP if STAGES[stage].whole_dump else "0000"
    kill_when(
        [*CURATION, "run", str(toml)],
        lambda: files_under(folder) - before,
        hold=(lake, stage, dump, slice),
    )
    opened = Lake(lake)
    assert opened.record(stage, dump, slice) is None, "the kill came too late to mean anything"
    done = {record.stage for record in opened.records(dump=dump)}
    assert done == set(list(FOLDERS)[: list(FOLDERS).index(stage)])


def kill_when(
    command: Sequence[str], appeared: Callable[[], object], hold: tuple[Path, str, str, str]
) -> None:
    """Start a command in a group of its own and kill -9 the group as soon as `appeared()`.

    A stage may commit before a poll sees its file. So the commit is held from the outside: the
    record is first written to a temporary file named after the process, and a pipe that nobody
    reads lies there.
    """
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    lake, stage, dump, slice = hold
    pipe = lake / "_runs" / stage / dump / f".{slice}.json.{process.pid}"
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not appeared():
            if not pipe.exists() and (lake / "_lake.json").exists():
                pipe.parent.mkdir(parents=True, exist_ok=True)
                os.mkfifo(pipe)
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < deadline, "it never wrote a file of the stage"
            time.sleep(0.002)  # between two looks at the file system
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        pipe.unlink(missing_ok=True)


def files_under(folder: Path) -> set[Path]:
    """Return all files below a folder, which need not exist and may lose some meanwhile."""
    return {Path(parent, name) for parent, _, names in os.walk(folder) for name in names}


def check_end(config, expected) -> None:
    """Run to the end: shards of an undisturbed run, and no debris after `gc`."""
    lake = run(config)
    manifest = make_release(config, "demo")
    assert [entry.sha256 for entry in manifest.files] == expected.digests
    lake.gc()
    listed = {entry.path for record in lake.records() for entry in record.files}
    assert {str(path.relative_to(lake.path)) for path in lake.path.rglob("*.parquet")} == listed
    assert [path.name for path in Path(config.shards).iterdir()] == ["demo"]

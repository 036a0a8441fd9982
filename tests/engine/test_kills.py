"""Law 6: kill -9 in every stage, then a rerun, gives the shards of an undisturbed run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curation.engine.lake import Lake
from curation.engine.release import make_release
from curation.engine.run import run
from curation.tokens.shards import read_manifest

pytestmark = [pytest.mark.spark, pytest.mark.slow]

TABLE = {
    "ingest": "documents",
    "fingerprint": "signatures",
    "dedup": "_work",
    "annotate": "signals",
    "filter": "kept",
    "encode": "tokens",
}
PATIENCE_SECONDS = 300


def files_under(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def kill_when(command: list[str], appeared) -> None:
    """Start a command in its own group and kill the group as soon as `appeared()`."""
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not appeared():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline, "it never wrote a file of the stage"
        time.sleep(0.002)  # a poll of the file system, not a guess
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_kill_in_every_stage_loses_nothing(spark, configure, tmp_path: Path) -> None:
    undisturbed = configure(lake="undisturbed")
    run(undisturbed)
    wanted = [entry.sha256 for entry in make_release(undisturbed, "demo").files]

    config = configure(lake="killed")
    curation = [sys.executable, "-c", "from curation.cli import main; main()"]
    toml = str(tmp_path / "killed.toml")
    lake = Path(config.lake)
    for stage, table in TABLE.items():
        before = files_under(lake / table)
        committed = set((lake / "_runs" / stage).rglob("*.json"))
        kill_when([*curation, "run", toml], lambda t=table, b=before: files_under(lake / t) - b)
        now = set((lake / "_runs" / stage).rglob("*.json"))
        assert len(now - committed) <= 1, "the kill came too late to mean anything"
    run(config)
    shards = Path(config.shards)
    kill_when(
        [*curation, "release", "demo", "--config", toml],
        lambda: any(path.suffix != ".json" for path in files_under(shards)),
    )
    assert [entry.sha256 for entry in make_release(config, "demo").files] == wanted
    assert [entry.sha256 for entry in read_manifest(shards / "demo").files] == wanted
    opened = Lake(lake)
    opened.gc()
    listed = {entry.path for record in opened.records() for entry in record.files}
    assert {str(p.relative_to(lake)) for p in lake.rglob("*.parquet")} == listed

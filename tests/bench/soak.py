"""Soak: the pipeline on a corpus, killed again and again; the shards must always be the same.

    python tests/bench/soak.py [--minutes 20] [--seed 1] [--config FILE] [--release NAME] [--to DIR]

One run that nothing happens to gives the reference and its time. Then rounds, each on a new lake:
up to four times a run is started and, after a part of the reference's time, the whole process
group, the JVM or a Python worker is killed with SIGKILL; then a run goes on to the end. Which
victims and which parts follow from the seed; where in the work they hit depends on the machine's
speed. By default it needs the corpus of `dated_manuals.py`. Exits with 1 when shards differ or
debris is left after `gc`.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
VICTIMS = ("group", "jvm", "worker")
MAX_KILLS = 4
CURATION = [sys.executable, "-c", "from curation.cli import main; main()"]


@dataclass
class Tally:
    """What happened."""

    rounds: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    too_late: int = 0  # the run had ended
    told: Counter[int] = field(default_factory=Counter)  # exit codes after a kill
    lost_seconds: list[float] = field(default_factory=list)  # a round's time less the reference's


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--config", type=Path, default=HERE / "ablation.toml")
    parser.add_argument("--release", default="main")
    parser.add_argument("--to", type=Path, default=HERE / "corpora" / "soak")
    options = parser.parse_args()
    shutil.rmtree(options.to, ignore_errors=True)
    rng = random.Random(options.seed)
    end = time.monotonic() + options.minutes * 60
    tally = Tally()

    began = time.monotonic()
    reference = finished(options, "reference")
    whole = time.monotonic() - began
    say(event="reference", seconds=round(whole, 1), shards=len(reference))
    while time.monotonic() < end:
        name = f"round-{tally.rounds}"
        began = time.monotonic()
        for _ in range(rng.randint(1, MAX_KILLS)):
            kill(options, name, rng.choice(VICTIMS), rng.uniform(0.02, 0.7) * whole, tally)
        found = finished(options, name)
        tally.lost_seconds.append(round(time.monotonic() - began - whole, 1))
        tally.rounds += 1
        debris = debris_of(options.to / name / "lake")
        say(event="round", name=name, equal=found == reference, debris=debris)
        if found != reference or debris:
            sys.exit(f"{name} differs from the run that nothing happened to: {options.to / name}")
        shutil.rmtree(options.to / name)
    say(event="end", seed=options.seed, **vars(tally))


def command(options: argparse.Namespace, name: str) -> list[str]:
    folder = options.to / name
    places = {"lake": "lake", "shards": "shards", "report": "report.html"}
    found = [*CURATION, "run", str(options.config), "--release", options.release]
    for setting, place in places.items():
        found += ["--set", f"{setting}={(folder / place).resolve()}"]
    return found


def finished(options: argparse.Namespace, name: str) -> list[str]:
    """Run to the end; return the digests of the release's shards."""
    done = subprocess.run(command(options, name), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} failed by itself:\n{done.stderr}")
    manifest = options.to / name / "shards" / options.release / "manifest.json"
    return [entry["sha256"] for entry in json.loads(manifest.read_text())["files"]]


def kill(options: argparse.Namespace, name: str, victim: str, seconds: float, tally: Tally) -> None:
    """Start a run and kill a part of it after some seconds."""
    process = subprocess.Popen(
        command(options, name),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=seconds)
    if process.poll() is not None:
        tally.too_late += 1
    elif victim == "group":
        os.killpg(process.pid, signal.SIGKILL)
        tally.kills[victim] += 1
    else:
        for pid in victims(process.pid, victim):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                tally.kills[victim] += 1
                break
    _, said = process.communicate()
    tally.told[process.returncode] += 1
    if "Traceback" in said or "\tat " in said:
        sys.exit(f"{name}: a trace after the kill of the {victim}:\n{said}")
    with contextlib.suppress(ProcessLookupError):  # what a dead driver leaves behind
        os.killpg(process.pid, signal.SIGKILL)


def victims(group: int, victim: str) -> list[int]:
    """Return the processes of a run of a kind: its JVM, or its Python workers, youngest first."""
    word = "java" if victim == "jvm" else "pyspark.daemon"
    said = subprocess.run(["ps", "-eo", "pid=,sid=,args="], capture_output=True, text=True).stdout
    rows = [line.split(None, 2) for line in said.splitlines()]
    found = [int(pid) for pid, session, text in rows if session == str(group) and word in text]
    return sorted(found, reverse=True)


def debris_of(lake: Path) -> list[str]:
    """Return the files of tables that no commit lists, after `curation gc`."""
    subprocess.run([*CURATION, "gc", str(lake)], capture_output=True, check=True)
    listed = {
        entry["path"]
        for record in lake.glob("_runs/*/*/*.json")
        for entry in json.loads(record.read_text())["files"]
    }
    found = {str(path.relative_to(lake)) for path in lake.rglob("*.parquet")}
    return sorted(found - listed)


def say(**event: object) -> None:
    print(json.dumps(event), flush=True)


if __name__ == "__main__":
    main()

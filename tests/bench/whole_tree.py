"""Run a command and write what all its processes took to a file, as JSON. Linux.

    python tests/bench/whole_tree.py FILE COMMAND [ARGUMENT ...]

CPU seconds are user and system time of the command and of every process that it started. Orphans
come to this process, which waits for them. Nobody waits for the children of a process that ignores
SIGCHLD, as the daemon of PySpark's workers does: they count as they were when last looked at.
"""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
LOOK_SECONDS = 0.5


def main() -> None:
    target, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        sys.exit(f"this system cannot adopt orphans: {os.strerror(ctypes.get_errno())}")
    unwaited: dict[int, float] = {}
    done = threading.Event()
    thread = threading.Thread(target=watch, args=(unwaited, done))
    started = time.monotonic()
    thread.start()
    status = subprocess.run(command).returncode
    wall_seconds = time.monotonic() - started
    adopted = set()
    while True:
        try:
            adopted.add(os.wait()[0])
        except ChildProcessError:
            break
    done.set()
    thread.join()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    lost = sum(seconds for number, seconds in unwaited.items() if number not in adopted)
    cpu_seconds = used.ru_utime + used.ru_stime + lost
    Path(target).write_text(json.dumps({"cpu_seconds": cpu_seconds, "wall_seconds": wall_seconds}))
    sys.exit(status)


def watch(unwaited: dict[int, float], done: threading.Event) -> None:
    """Keep the CPU seconds of those descendants that their parent will not wait for."""
    tick = os.sysconf("SC_CLK_TCK")
    while not done.wait(LOOK_SECONDS):
        parents: dict[int, int] = {}
        seconds: dict[int, float] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()  # from the state on
            except OSError:  # it has ended
                continue
            number = int(path.parent.name)
            parents[number] = int(fields[1])
            seconds[number] = sum(map(int, fields[11:15])) / tick  # own, and of children waited for
        for number in parents:
            ancestor = number
            while ancestor in parents and ancestor != os.getpid():
                ancestor = parents[ancestor]
            if ancestor == os.getpid() != number and ignores_children(parents[number]):
                unwaited[number] = seconds[number]


def ignores_children(number: int) -> bool:
    try:
        text = Path(f"/proc/{number}/status").read_text()
    except OSError:
        return False
    ignored = next(line for line in text.splitlines() if line.startswith("SigIgn:"))
    return bool(int(ignored.split()[1], 16) >> (signal.SIGCHLD - 1) & 1)


if __name__ == "__main__":
    main()

"""Run a command and write what all its processes took to a file, as JSON. Linux.

    python tests/bench/whole_tree.py FILE COMMAND [ARGUMENT ...]

CPU seconds are user and system time of the command and of every process that it started, those too
that nobody waited for: orphans come to this process, which waits for them.
"""

import ctypes
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main() -> None:
    target, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        sys.exit(f"this system cannot adopt orphans: {os.strerror(ctypes.get_errno())}")
    started = time.monotonic()
    status = subprocess.run(command).returncode
    wall_seconds = time.monotonic() - started
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = used.ru_utime + used.ru_stime
    Path(target).write_text(json.dumps({"cpu_seconds": cpu_seconds, "wall_seconds": wall_seconds}))
    sys.exit(status)


if __name__ == "__main__":
    main()

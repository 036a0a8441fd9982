"""Runs programs that a model wrote: apart, for a while, with little memory and no network.

What holds a program: a process of its own in an empty folder, limits of CPU time, memory and files,
a deadline, and a network namespace without a network where the kernel lets us have one. An audit
hook refuses sockets, other programs, foreign functions and writing outside the folder. This stops
accidents and simple malice; it is no virtual machine, so run unknown models on one.
"""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MAX_OUTPUT_BYTES = 1 << 20
REFUSED = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.kill",
    "os.putenv",
    "ctypes.",
    "shutil.rmtree",
    "ftplib.",
    "urllib.",
)

_RUNNER = """
import os, sys
folder, refused = os.path.realpath(os.getcwd()), {refused!r}
def hook(event, arguments):
    if event.startswith(refused):
        raise PermissionError(event + " is refused in the sandbox")
    if event == "open":
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        if writes and isinstance(path, (str, bytes)):
            where = os.path.realpath(os.fsdecode(path))
            if not where.startswith(folder + os.sep) and where != os.devnull:
                raise PermissionError("writing " + where + " is refused in the sandbox")
    elif event in ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.symlink", "os.link"):
        for path in arguments[:2]:
            if isinstance(path, (str, bytes)):
                where = os.path.realpath(os.fsdecode(path))
                if not where.startswith(folder + os.sep):
                    raise PermissionError(event + " of " + where + " is refused in the sandbox")
program = sys.stdin.read()
sys.stdin = open(os.devnull)
sys.addaudithook(hook)
exec(compile(program, "program", "exec"), {{"__name__": "__main__"}})
"""


@dataclass(frozen=True)
class Verdict:
    """How a program ended: passed, failed or timeout, and the last line that it said."""

    outcome: str
    reason: str = ""


def run(program: str, *, seconds: float = 5.0, memory_bytes: int = 1 << 30) -> Verdict:
    """Run a Python program; it passes when it ends by itself without an error.

    `seconds` bounds both CPU time and waiting. Cost: about 30 ms for starting Python.
    """
    with tempfile.TemporaryDirectory(prefix="curation-sandbox-") as folder:
        command = [sys.executable, "-I", "-S", "-c", _RUNNER.format(refused=REFUSED)]
        process = subprocess.Popen(
            [*_without_network(), *command],
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: _limit(seconds, memory_bytes),
        )
        try:
            _, said = process.communicate(program.encode(), timeout=seconds + 1)
        except subprocess.TimeoutExpired:
            return Verdict("timeout", f"more than {seconds:g} s")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stderr is not None:
                process.stderr.close()
    if process.returncode == -signal.SIGXCPU:
        return Verdict("timeout", f"more than {seconds:g} s of CPU")
    if process.returncode == 0:
        return Verdict("passed")
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return Verdict("failed", lines[-1] if lines else f"exit code {process.returncode}")


def _limit(seconds: float, memory_bytes: int) -> None:
    """Bound the process that is about to become the program."""
    whole = max(1, int(seconds + 0.999))
    for what, bound in (
        (resource.RLIMIT_CPU, whole),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, MAX_OUTPUT_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        # of CPU time, SIGXCPU says so a second before SIGKILL
        resource.setrlimit(what, (bound, bound + (what == resource.RLIMIT_CPU)))


@cache
def _without_network() -> tuple[str, ...]:
    """Return the command that takes the network away, nothing where the kernel refuses it."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    command = (unshare, "--user", "--map-root-user", "--net", "--")
    tried = subprocess.run([*command, "true"], capture_output=True, check=False)
    return command if tried.returncode == 0 else ()


def has_namespace() -> bool:
    """Return whether programs run without any network device."""
    return bool(_without_network()) and Path("/proc/self/ns/net").exists()

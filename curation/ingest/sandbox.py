"""A child process in which a page may hang, take all memory or crash, and harms nobody.

The child is a Python of its own, started by exec and kept from batch to batch: no fork of a
process that holds sockets, threads or models. Batches travel through its stdin and its first stdout
as Arrow IPC; what a page prints goes to stderr. In the child a few pages at a time run under the
bounds of one:

1. a CPU clock (ITIMER_PROF) and a wall clock (ITIMER_REAL) whose signals nobody catches, so that
   the kernel ends the process wherever it is, in C or in Python;
2. a bound of memory: the parent watches the resident memory (Linux), the child looks at its peak
   after every batch, and RLIMIT_DATA (Linux) stops a single huge allocation.

The child says in shared memory which pages it is at. When it dies, each of these runs by itself. A
CPU clock that runs out then is that page's alone; every other cause may be what earlier pages left
behind, so such a page runs once more, alone in a new child, and only what happens there counts: the
verdict on a page does not depend on its neighbours. All other pages of the batch are kept.

A child ends when the parent closes the pipe or dies (PR_SET_PDEATHSIG on Linux; elsewhere at the
end of the pipe, after the page it is at).
"""

import atexit
import contextlib
import ctypes
import importlib
import json
import mmap
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa

# A page that waits instead of computing gets this many times its CPU seconds; a starved machine
# must not look like one.
WALL_FACTOR = 10
START_SECONDS = 300.0  # for imports from a cold network disk, and to compile kernels once
NUM_STARTS = 3  # tries to start a child before the task fails
WATCH_SECONDS = 0.02  # how often the parent looks at the child's memory; a page faults 1 GB/s
# RLIMIT_DATA counts what is reserved too, so it is wider than the bound that is watched.
RESERVED_FACTOR = 2
CLOSE_SECONDS = 5.0

HEADER = struct.Struct("<8sQ")  # magic, bytes of the Arrow stream that follows
MAGIC = b"curation"
GROUP_ROWS = 32  # a call costs 40 us, a page of Resiliparse's 500
PIPE_BYTES = 1 << 20
MAX_FRAME_BYTES = 1 << 32  # Arrow's strings end at half of that
# First page of the group that runs, or IDLE; batches served; resident bytes at the start.
STATE = struct.Struct("<qqq")
IDLE = -1
STARTING = -2
EXIT_MEMORY = 77
PR_SET_PDEATHSIG = 1
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
IS_LINUX = sys.platform == "linux"


@dataclass(frozen=True)
class Net:
    """What one page may take: CPU seconds, and bytes of memory above what the child starts with."""

    page_cpu_seconds: float
    page_memory_bytes: int

    @property
    def page_wall_seconds(self) -> float:
        """Seconds by the clock on the wall."""
        return WALL_FACTOR * self.page_cpu_seconds


class Failure(NamedTuple):
    """Why a page has no result, as it stands in the ledger."""

    rule: str  # sandbox_cpu_time, sandbox_wall_time, sandbox_memory or sandbox_crash
    value: str | None  # of a crash: the signal or the exit status
    threshold: str | None


class SandboxBroken(RuntimeError):
    """No child can be started: a defect of the installation, of no page."""


def run(
    function: str,
    columns: Sequence[pa.Array],
    options: Mapping[str, Any],
    net: Net,
    result_type: pa.DataType,
) -> tuple[pa.Array, dict[int, Failure]]:
    """Return what a kernel makes of a batch, null where a page failed, and the failures by row.

    `function` is "module:name" of a function of equally long Arrow arrays and keyword options (JSON
    values) that returns one array as long, of result_type, each value from its own row alone. Where
    the module has a `prepare_<name>`, that is called with the options at the start of a child: what
    it loads is on no page's account. The child of a function is started at the first call and kept
    by this process until other options or another net are asked for. Call from a thread that lasts:
    on Linux the child dies with it.
    Raises SandboxBroken if no child starts.

    A page that fails costs at most three times its bound and three starts (0.5 s each); pages
    before it in the batch are computed twice.
    """
    key = (os.getpid(), function, json.dumps(options, sort_keys=True), net)
    if key not in _children:
        for other in [other for other in _children if other[:2] == key[:2]]:
            _children.pop(other).close()  # of other settings: each holds 100 MB
        _children[key] = Sandbox(function, options, net)
    return _children[key].run(columns, result_type)


def child_ids() -> list[int]:
    """Return the processes that run as children of this one."""
    processes = [child._process for key, child in _children.items() if key[0] == os.getpid()]
    return [each.pid for each in processes if each is not None and each.poll() is None]


_children: dict[tuple[int, str, str, Net], "Sandbox"] = {}


class Sandbox:
    """The parent's side: one child, replaced when it dies."""

    def __init__(self, function: str, options: Mapping[str, Any], net: Net) -> None:
        self.function = function
        self.options = dict(options)
        self.net = net
        self._process: subprocess.Popen[bytes] | None = None
        self._state: mmap.mmap | None = None
        self._lock = threading.Lock()
        atexit.register(self.close)

    def run(
        self, columns: Sequence[pa.Array], result_type: pa.DataType
    ) -> tuple[pa.Array, dict[int, Failure]]:
        """See `run` of the module."""
        names = [str(number) for number in range(len(columns))]
        with self._lock:
            return self._run(pa.RecordBatch.from_arrays(columns, names), result_type)

    def close(self) -> None:
        """End the child: by the end of its input, or by force."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def _run(
        self, batch: pa.RecordBatch, result_type: pa.DataType
    ) -> tuple[pa.Array, dict[int, Failure]]:
        results: dict[int, pa.Array] = {}  # by first row
        failures: dict[int, Failure] = {}
        todo = [(0, batch.num_rows)]  # ranges of rows, the next one last
        while todo:
            start, stop = todo.pop()
            if start == stop:
                continue
            answer = self._attempt(batch.slice(start, stop - start), result_type)
            if isinstance(answer, pa.Array):
                results[start] = answer
                continue
            is_alone = answer.is_fresh and stop - start == 1
            if answer.page is None and not is_alone:
                # nobody can be blamed: again in a new child, and if that dies too, one by one
                rows = range(start, stop) if answer.is_fresh else ()
                todo += [(row, row + 1) for row in reversed(rows)] or [(start, stop)]
                continue
            first = start + (answer.page or 0)
            last = min(first + GROUP_ROWS, stop)
            todo += [(last, stop), (start, first)]
            is_single = last - first == 1
            if is_alone or (is_single and answer.failure.rule == "sandbox_cpu_time"):
                failures[first] = answer.failure
                results[first] = pa.nulls(1, result_type)
            else:
                todo += [(row, row + 1) for row in reversed(range(first, last))]
        parts = [results[start] for start in sorted(results)]
        return pa.concat_arrays(parts or [pa.nulls(0, result_type)]), failures

    def _attempt(self, batch: pa.RecordBatch, result_type: pa.DataType) -> "pa.Array | _Death":
        """Return the child's answer to a batch, or how it died; it is then gone."""
        self._start()
        state = self._read_state()
        try:
            self._send(batch)
            return self._receive(batch.num_rows, result_type, state.start_bytes)
        except _Ended as ended:
            page = self._read_state().page
            failure = self._reason(ended)
            unknown = page < 0 or ended.is_garbage
            return _Death(None if unknown else page, failure, state.num_served == 0)

    def _start(self) -> None:
        """Start a child unless one is there; raises SandboxBroken when it cannot be."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        for _ in range(NUM_STARTS):
            with tempfile.TemporaryFile() as file:
                file.write(STATE.pack(STARTING, 0, 0))
                file.flush()
                self._state = mmap.mmap(file.fileno(), STATE.size)
                self._process = self._spawn(file.fileno())
            try:
                self._receive_frame(start_bytes=None)
                return
            except _Ended as ended:
                failure = self._reason(ended)
        raise SandboxBroken(
            f"the child process for {self.function} did not start {NUM_STARTS} times "
            f"({failure.value or failure.rule}); its stderr, in the log of this worker, says why. "
            f"try: {sys.executable} -c 'import {self.function.partition(':')[0]}'"
        )

    def _spawn(self, state_descriptor: int) -> "subprocess.Popen[bytes]":
        path = [os.path.abspath(folder) for folder in sys.path]
        return subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "curation.ingest.sandbox"),
                *(self.function, json.dumps(self.options), json.dumps(asdict(self.net))),
                *(str(state_descriptor), str(os.getpid())),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pipesize=PIPE_BYTES,
            pass_fds=[state_descriptor],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        )

    def _read_state(self) -> "_State":
        assert self._state is not None
        return _State(*STATE.unpack_from(self._state))

    def _send(self, batch: pa.RecordBatch) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            _write_frame(self._process.stdin, batch)
        except BrokenPipeError:
            raise _Ended from None

    def _receive(self, num_rows: int, result_type: pa.DataType, start_bytes: int) -> pa.Array:
        frame = self._receive_frame(start_bytes)
        try:
            (batch,) = pa.ipc.open_stream(frame)
            (column,) = batch.columns
        except (pa.ArrowInvalid, ValueError, OSError):
            raise _Ended(is_garbage=True) from None
        if len(column) != num_rows or column.type != result_type:
            raise _Ended(is_garbage=True)
        return column

    def _receive_frame(self, start_bytes: int | None) -> pa.Buffer:
        magic, size = HEADER.unpack(self._receive_bytes(HEADER.size, start_bytes))
        if magic != MAGIC or size > MAX_FRAME_BYTES:
            raise _Ended(is_garbage=True)
        return pa.py_buffer(self._receive_bytes(size, start_bytes))

    def _receive_bytes(self, size: int, start_bytes: int | None) -> bytearray:
        """Read from the child, and watch its memory meanwhile."""
        assert self._process is not None and self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        bound = None
        if IS_LINUX and start_bytes is not None:
            bound = start_bytes + self.net.page_memory_bytes

        def wait() -> None:
            while not poller.poll(None if bound is None else WATCH_SECONDS * 1000):
                assert self._process is not None
                if bound is not None and _resident_bytes(self._process.pid) > bound:
                    raise _Ended(is_memory=True)

        received = _read_exactly(descriptor, size, wait)
        if received is None:
            raise _Ended
        return received

    def _reason(self, ended: "_Ended") -> Failure:
        """End the child and say what became of it."""
        process, self._process = self._process, None
        assert process is not None and process.stdin is not None and process.stdout is not None
        if ended.is_garbage or ended.is_memory:
            process.kill()
        status = process.wait()
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.stdout.close()
        net = self.net
        if ended.is_memory or status == EXIT_MEMORY:
            return Failure("sandbox_memory", None, str(net.page_memory_bytes))
        if status == -signal.SIGPROF:
            return Failure("sandbox_cpu_time", None, f"{net.page_cpu_seconds:g}")
        if status == -signal.SIGALRM:
            return Failure("sandbox_wall_time", None, f"{net.page_wall_seconds:g}")
        if ended.is_garbage:
            return Failure("sandbox_crash", "no answer", None)
        name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return Failure("sandbox_crash", name, None)


class _State(NamedTuple):
    page: int
    num_served: int
    start_bytes: int


class _Death(NamedTuple):
    """The end of a child in the middle of a batch."""

    page: int | None  # first of the group it was at; None if at none, or nobody knows
    failure: Failure
    is_fresh: bool  # the batch was its first


class _Ended(Exception):
    """The child is gone, or must go."""

    def __init__(self, *, is_garbage: bool = False, is_memory: bool = False) -> None:
        self.is_garbage = is_garbage
        self.is_memory = is_memory


def _write_frame(stream: IO[bytes], batch: pa.RecordBatch) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    frame = sink.getvalue()
    for part in (memoryview(HEADER.pack(MAGIC, frame.size)), memoryview(frame)):
        while part:
            part = part[stream.write(part) :]


def _read_exactly(
    descriptor: int, size: int, wait: Callable[[], None] | None = None
) -> bytearray | None:
    """Return so many bytes, or None if the input ends before them."""
    received = bytearray(size)
    view = memoryview(received)
    while view:
        if wait is not None:
            wait()
        num_read = os.readv(descriptor, [view[:PIPE_BYTES]])
        if num_read == 0:
            return None
        view = view[num_read:]
    return received


def _resident_bytes(pid: int | str) -> int:
    """Return the resident memory of a process (Linux), 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0


# --- the child -----------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> None:
    """Serve batches until the input ends."""
    function, options, net, state_descriptor, parent = arguments
    # 1. what anything prints goes to stderr, the answers to the first stdout
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    # 2. die with the parent, by these signals, without a core file; Ctrl-C is the parent's business
    for name in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(name, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, START_SECONDS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if IS_LINUX:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):
            return
    state = mmap.mmap(int(state_descriptor), STATE.size)
    # 3. load the kernel, and take what this costs as the start
    path, _, attribute = function.partition(":")
    module = importlib.import_module(path)
    kernel = getattr(module, attribute)
    if prepare := getattr(module, f"prepare_{attribute}", None):
        prepare(**json.loads(options))
    child = _Child(kernel, json.loads(options), Net(**json.loads(net)), state)
    _write_frame(answers, pa.record_batch({}))
    while (header := _read_exactly(0, HEADER.size)) is not None:
        frame = _read_exactly(0, HEADER.unpack(header)[1])
        if frame is None:
            return
        (batch,) = pa.ipc.open_stream(pa.py_buffer(frame))
        _write_frame(answers, pa.record_batch({"": child.answer(batch)}))


class _Child:
    """The child's side: calls the kernel group by group, under clocks and a bound of memory."""

    def __init__(
        self,
        kernel: Callable[..., pa.Array],
        options: Mapping[str, Any],
        net: Net,
        state: mmap.mmap,
    ) -> None:
        self.kernel = kernel
        self.options = options
        self.net = net
        self.state = state
        self.num_served = 0
        pa.array([None, ""]).to_pylist()  # the first call loads pandas, on no page's account
        self.start_bytes = _resident_bytes("self") if IS_LINUX else _peak_bytes()
        self._say(IDLE)
        if IS_LINUX:
            reserved = int(Path("/proc/self/statm").read_bytes().split()[5]) * PAGE_BYTES
            bound = reserved + RESERVED_FACTOR * net.page_memory_bytes
            resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
        signal.setitimer(signal.ITIMER_REAL, 0)

    def answer(self, batch: pa.RecordBatch) -> pa.Array:
        """Return the kernel's answer to a batch."""
        cpu_seconds, wall_seconds = self.net.page_cpu_seconds, self.net.page_wall_seconds
        bound = self.start_bytes + self.net.page_memory_bytes
        parts = []
        for first in range(0, batch.num_rows, GROUP_ROWS):
            self._say(first)
            signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
            signal.setitimer(signal.ITIMER_REAL, wall_seconds)
            group = batch.slice(first, GROUP_ROWS)
            try:
                parts.append(self.kernel(*group.columns, **self.options))
            except MemoryError:
                os._exit(EXIT_MEMORY)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._say(IDLE)
        if _peak_bytes() > bound:  # too short for the parent to see
            os._exit(EXIT_MEMORY)
        self.num_served += 1
        self._say(IDLE)
        return pa.concat_arrays(parts)

    def _say(self, page: int) -> None:
        STATE.pack_into(self.state, 0, page, self.num_served, self.start_bytes)


def _peak_bytes() -> int:
    """Return the most memory that this program has had resident."""
    if IS_LINUX:  # ru_maxrss would begin with that of the parent, which exec passes on
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes


if __name__ == "__main__":
    main(sys.argv[1:])

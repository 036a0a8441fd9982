"""The Spark session: semantic settings here, resources from whoever submits.

What a conf key set in code says cannot be changed by `spark-submit --conf`, so this file sets only
keys that decide meaning. Memory, cores and instances come from the submit command; only the local
mode of our own command, where nobody submits, is sized to the machine.
"""

import contextlib
import logging
import os
import re
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa
from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import AccumulatorParam
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from curation import errors
from curation.cache import cache_dir
from curation.dedup.messages import Meter
from curation.engine.lake import Lake
from curation.engine.metering import Worker, merge, metered
from curation.engine.tasks import OUTCOME_DDL, Outcome
from curation.errors import CurationError, PrerequisiteMissing, StageStopped
from curation.schemas import DUPLICATES, TABLES, spark_ddl

SEMANTIC = {
    # Timestamps of archives are UTC on every machine.
    "spark.sql.session.timeZone": "UTC",
    # Arithmetic that overflows is an error, never a wrong number.
    "spark.sql.ansi.enabled": "true",
    # A column named like another is a defect.
    "spark.sql.caseSensitive": "true",
    # A worker keeps its models and compiled kernels from task to task.
    "spark.python.worker.reuse": "true",
}
POLL_SECONDS = 0.2
WORKER_DIED = "Python worker exited unexpectedly"  # Spark's words
JVM_ENDED = (Py4JError, ConnectionError)  # what a call to a JVM that is gone raises

# HotSpot compiles with its optimiser what ran ten times as often as by default: the JVM of a run
# moves rows for a minute, and spent half its CPU time there (JDK 17; its defaults are 5,000, 600,
# 15,000 and 40,000).
LATE_OPTIMISER = (
    "-XX:Tier4InvocationThreshold=50000 -XX:Tier4MinInvocationThreshold=6000 "
    "-XX:Tier4CompileThreshold=150000 -XX:Tier4BackEdgeThreshold=400000"
)

TasksDone = Callable[[int, int], None]  # done, in all


def start(app_name: str = "curation") -> SparkSession:
    """Return the session: the submitted one, or a local one sized to this machine.

    Raises PrerequisiteMissing when there is no Java that can run Spark, StageStopped when the JVM
    dies meanwhile.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(app_name)
    for key, value in SEMANTIC.items():
        builder = builder.config(key, value)
    if not _submitted():
        for key, value in _local_resources().items():
            builder = builder.config(key, value)
    # py4j logs the trace of every interrupted call, to the root logger; what matters is raised.
    logging.getLogger().addFilter(_is_not_of_py4j)
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        with contextlib.nullcontext() if _submitted() else _stderr_to_log():
            session = builder.getOrCreate()
    except PySparkException as error:
        if "JAVA_GATEWAY" in (error.getCondition() or ""):
            raise PrerequisiteMissing(
                "Spark found no usable Java; install Java 17 or 21 "
                "(apt-get install openjdk-17-jre-headless) or set JAVA_HOME; "
                f"`curation doctor` tells more, and so does {log_path()}"
            ) from None
        raise
    except JVM_ENDED as error:
        raise _stopped("the start of Spark", error) from None
    if threading.current_thread() is threading.main_thread():
        # Spark's handler of Ctrl-C calls the JVM in the middle of a call, and traces are printed.
        signal.signal(signal.SIGINT, interrupt)
    session.sparkContext.setLogLevel("ERROR")
    # It would print a trace when the JVM ends in the middle of an update.
    session.sparkContext._accumulatorServer.handle_error = lambda *_: None  # type: ignore[method-assign]
    return session


def stop() -> None:
    """End the session, if there is one, and give back what it holds of a cluster."""
    session = SparkSession.getActiveSession()
    if session is not None:
        session.stop()


def _is_not_of_py4j(record: logging.LogRecord) -> bool:
    return record.module != "java_gateway"


def log_path() -> str:
    """Return the file that holds what Spark and its workers print in local mode."""
    return os.path.join(cache_dir("logs"), "spark.log")


@contextmanager
def described(session: SparkSession, description: str, progress: TasksDone) -> Iterator[str]:
    """Name the Spark jobs of the block in the UI and logs, and report tasks done and in all.

    Yields the name of their job group.
    """
    context = session.sparkContext
    group = f"{description} {uuid.uuid4().hex[:8]}"  # the same slice may run again
    context.setJobGroup(group, description)
    done = threading.Event()
    poller = threading.Thread(target=_poll, args=(session, group, progress, done), daemon=True)
    poller.start()
    try:
        with told(description):
            yield group
            done.set()
            poller.join()
            # The last tasks may still be on their way to those who count them.
            context._jsc.sc().listenerBus().waitUntilEmpty()
            progress(*_tasks_done(session, group))
    except KeyboardInterrupt:
        context.cancelJobGroup(group)
        raise
    finally:
        done.set()
        poller.join()
        with contextlib.suppress(*JVM_ENDED):
            for key in ("spark.jobGroup.id", "spark.job.description"):
                context.setLocalProperty(key, None)  # type: ignore[arg-type]  # None removes it


@contextmanager
def told(description: str) -> Iterator[None]:
    """Raise StageStopped, or the error of ours that a worker raised, for whatever Spark raises."""
    try:
        yield
    except (PySparkException, *JVM_ENDED) as error:
        raise _of_user(error) or _stopped(description, error) from None


def parquet(session: SparkSession, schema: pa.Schema, paths: Sequence[str]) -> DataFrame:
    """Read Parquet files of a known schema; Spark would take brackets in a path for a pattern."""
    escaped = [on_disk(re.sub(r"([\\\[\]{}*?])", r"\\\1", path)) for path in paths]
    return session.read.schema(spark_ddl(schema)).parquet(*escaped)


def on_disk(path: str | Path) -> str:
    """Return a path for Spark, which looks in HDFS for one without scheme where that is default."""
    return f"file:{os.path.abspath(path)}"


def table(session: SparkSession, lake: Lake, stage: str, schema: pa.Schema) -> DataFrame | None:
    """Return the rows that a stage has committed in the table of a schema, None for no file."""
    name = next(name for name, known in TABLES.items() if known is schema)
    entries = [entry for record in lake.records(stage) for entry in record.files_of(name)]
    paths = [str(lake.path / entry.path) for entry in entries]
    return parquet(session, schema, paths) if paths else None


def num_duplicates(session: SparkSession, lake: Lake) -> DataFrame | None:
    """Return doc_id and num_duplicates of every document that dedup removed others for."""
    duplicates = table(session, lake, "dedup", DUPLICATES)
    if duplicates is None:
        return None
    by_twin = duplicates.groupBy(F.col("twin_id").alias("doc_id"))
    return by_twin.agg(F.count("*").alias("num_duplicates"))


def outcome_of(rows: DataFrame, worker: Worker, meter: Meter) -> Outcome:
    """Run a worker that writes on every partition, and add up what it did."""
    outcome = Outcome()
    measured = partial(metered, worker=worker, meter=meter)
    for row in rows.mapInArrow(measured, OUTCOME_DDL).collect():
        outcome.add(Outcome.from_json(row["outcome"]))
    return outcome


class _CountsParam(AccumulatorParam[dict[str, int]]):
    def zero(self, value: dict[str, int]) -> dict[str, int]:
        return {}

    def addInPlace(self, value1: dict[str, int], value2: dict[str, int]) -> dict[str, int]:
        return merge(value1, value2)


class SparkMeter:
    """A Meter over tasks: what it counts is shown and recorded, and decides nothing."""

    def __init__(self, session: SparkSession) -> None:
        self._counts = session.sparkContext.accumulator({}, _CountsParam())

    def add(self, counts: Mapping[str, int]) -> None:
        """Add counts by name."""
        self._counts.add(dict(counts))

    def counts(self) -> dict[str, int]:
        """Return the sums of the tasks that ended; on the driver only."""
        return dict(self._counts.value)


def work_of(session: SparkSession, group: str) -> dict[str, float]:
    """Return what Spark measured of the jobs of a group, when `described` has ended.

    task_seconds are those that tasks held a core, jvm_cpu_seconds those of their threads in the
    JVM. Where a stage of a job was tried again, its last attempt.
    """
    context = session.sparkContext
    tracker, store = context.statusTracker(), context._jsc.sc().statusStore()
    infos = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
    numbers = {number for info in infos if info for number in info.stageIds}
    stages = []
    for number in numbers:
        with contextlib.suppress(Py4JJavaError):  # Spark forgets the oldest of very many
            stages.append(store.lastStageAttempt(number))
    cores_of_task = int(context.getConf().get("spark.task.cpus", "1") or 1)
    return {
        "cores": context.defaultParallelism,
        "num_tasks": sum(stage.numCompleteTasks() for stage in stages),
        "task_seconds": cores_of_task * sum(stage.executorRunTime() for stage in stages) / 1e3,
        "jvm_cpu_seconds": sum(stage.executorCpuTime() for stage in stages) / 1e9,
        "shuffle_bytes": sum(stage.shuffleWriteBytes() for stage in stages),
        "spilled_bytes": sum(stage.diskBytesSpilled() for stage in stages),
    }


def _of_user(error: Exception) -> CurationError | None:
    """Return the error of ours that a worker raised and Spark wrapped in its own, if any."""
    for match in re.finditer(r"^curation\.errors\.(\w+): (.*)$", str(error), re.MULTILINE):
        kind = getattr(errors, match.group(1), None)
        if isinstance(kind, type) and issubclass(kind, CurationError):
            return kind(match.group(2))
    return None


def _stopped(description: str, error: Exception) -> StageStopped:
    """Return what stopped a job in one line: of a worker's trace, or of the JVM's, the cause."""
    text = str(error)
    pattern = r"^(?:: |Caused by: )?(?:[\w.]+\.)?(\w*(?:Error|Exception)): (.*)$"
    causes = re.findall(pattern, text, re.MULTILINE)
    inner = [f"{kind}: {said}" for kind, said in causes if not kind.startswith("PySpark")]
    cause = inner[-1] if inner else text.strip().partition("\n")[0] or "the JVM ended"
    if WORKER_DIED in text:
        cause = (
            "a Python worker was killed or crashed; the kernel kills where memory runs out (dmesg "
            "says so): lower engine.batch_rows and engine.group_bytes, or give it more memory"
        )
    where = "the log of the driver" if _submitted() else log_path()
    return StageStopped(
        f"{description} stopped: {cause}; nothing of it was committed. Mend the cause and run the "
        f"same command again; all that Spark said is in {where}"
    )


def _poll(session: SparkSession, group: str, progress: TasksDone, done: threading.Event) -> None:
    with contextlib.suppress(*JVM_ENDED):  # the thread that waits for the job says so
        while not done.wait(POLL_SECONDS):
            progress(*_tasks_done(session, group))


def _tasks_done(session: SparkSession, group: str) -> tuple[int, int]:
    """Return the Spark tasks of a group that are done, and all that are known, but for skipped."""
    context = session.sparkContext
    store = context._jsc.sc().statusStore()
    jobs = [store.job(number) for number in context.statusTracker().getJobIdsForGroup(group)]
    num_done = sum(job.numCompletedTasks() for job in jobs)
    return num_done, sum(job.numTasks() - job.numSkippedTasks() for job in jobs)


def _submitted() -> bool:
    """Return whether spark-submit, a notebook server or a cluster chose the master."""
    return "SPARK_ENV_LOADED" in os.environ or "--master" in os.environ.get(
        "PYSPARK_SUBMIT_ARGS", ""
    )


def _local_resources() -> dict[str, str]:
    """Size a driver with all cores of this machine and a quarter of its memory, at most 8 GB.

    The Python workers need the rest: they hold models, batches and the arrays of kernels.
    """
    cores = len(os.sched_getaffinity(0))
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    memory_mb = max(1024, min(8192, memory_bytes // 4 // 2**20))
    return {
        "spark.master": f"local[{cores}]",
        "spark.driver.memory": f"{memory_mb}m",
        "spark.driver.defaultJavaOptions": LATE_OPTIMISER,
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": str(2 * cores),
        "spark.default.parallelism": str(cores),
        "spark.log.level": "ERROR",
    }


@contextmanager
def _stderr_to_log() -> Iterator[None]:
    """Send the JVM's stderr, which it inherits at start, to a log file instead of the terminal."""
    logging.getLogger("py4j").setLevel(logging.CRITICAL)  # it logs traces at Ctrl-C
    sys.stderr.flush()
    saved = os.dup(2)
    with open(log_path(), "w") as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)

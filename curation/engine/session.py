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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from curation import errors, models
from curation.engine.lake import Lake
from curation.engine.tasks import OUTCOME_DDL, Outcome
from curation.errors import CurationError, PrerequisiteMissing, StageStopped
from curation.schemas import DUPLICATES, TABLES, spark_ddl
from udfs.sources import WarcDataSource

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

Progress = Callable[[int, int], None]


def start(app_name: str = "curation") -> SparkSession:
    """Return the session: the submitted one, or a local one sized to this machine.

    Raises PrerequisiteMissing when there is no Java that can run Spark.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    os.environ.setdefault("NUMBA_CACHE_DIR", str(models.cache_dir("numba")))
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
    if threading.current_thread() is threading.main_thread():
        # Spark's handler of Ctrl-C calls the JVM in the middle of a call, and traces are printed.
        signal.signal(signal.SIGINT, interrupt)
    session.sparkContext.setLogLevel("ERROR")
    session.dataSource.register(WarcDataSource)
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
    return os.path.join(models.cache_dir("logs"), "spark.log")


@contextmanager
def described(session: SparkSession, description: str, progress: Progress) -> Iterator[None]:
    """Name the Spark jobs of the block in the UI and logs, and report tasks done and in all."""
    context = session.sparkContext
    context.setJobGroup(description, description)
    done = threading.Event()
    poller = threading.Thread(
        target=_poll, args=(session, description, progress, done), daemon=True
    )
    poller.start()
    try:
        yield
    except KeyboardInterrupt:
        context.cancelJobGroup(description)
        raise
    except (PySparkException, Py4JError) as error:
        raise _of_user(error) or _stopped(description, error) from None
    finally:
        done.set()
        poller.join()
        for key in ("spark.jobGroup.id", "spark.job.description"):
            context.setLocalProperty(key, None)  # type: ignore[arg-type]  # None removes it


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


def outcome_of(rows: DataFrame, worker: Callable[..., Iterator[pa.RecordBatch]]) -> Outcome:
    """Run a worker that writes on every partition, and add up what it did."""
    outcome = Outcome()
    for row in rows.mapInArrow(worker, OUTCOME_DDL).collect():
        outcome.add(Outcome.from_json(row["outcome"]))
    return outcome


def _of_user(error: Exception) -> CurationError | None:
    """Return the error of ours that a worker raised and Spark wrapped in its own, if any."""
    for match in re.finditer(r"^curation\.errors\.(\w+): (.*)$", str(error), re.MULTILINE):
        kind = getattr(errors, match.group(1), None)
        if isinstance(kind, type) and issubclass(kind, CurationError):
            return kind(match.group(2))
    return None


def _stopped(description: str, error: Exception) -> StageStopped:
    """Return what stopped a job in one line: of a worker's trace, or of the JVM's, the cause."""
    causes = re.findall(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception)): (.*)$", str(error), re.MULTILINE)
    inner = [f"{kind}: {text}" for kind, text in causes if not kind.startswith("PySpark")]
    cause = inner[-1] if inner else str(error).strip().partition("\n")[0] or "the JVM ended"
    where = "the log of the driver" if _submitted() else log_path()
    return StageStopped(
        f"{description} stopped: {cause}; nothing of it was committed. Mend the cause and run the "
        f"same command again; all that Spark said is in {where}"
    )


def _poll(session: SparkSession, group: str, progress: Progress, done: threading.Event) -> None:
    tracker = session.sparkContext.statusTracker()
    while not done.wait(POLL_SECONDS):
        num_done = num_tasks = 0
        for job in tracker.getJobIdsForGroup(group):
            info = tracker.getJobInfo(job)
            for stage in info.stageIds if info else ():
                stage_info = tracker.getStageInfo(stage)
                if stage_info:
                    num_done += stage_info.numCompletedTasks
                    num_tasks += stage_info.numTasks
        progress(num_done, num_tasks)


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

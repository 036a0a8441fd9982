"""Run a plan: one Spark job per stage and slice, checked against the laws, then committed."""

import json
import platform
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.config import Config
from curation.engine.lake import WHOLE_DUMP, FileEntry, Lake, RunRecord
from curation.engine.ledger import perplexity_histograms
from curation.engine.progress import Reporter, Silence, Watch, new_run_id
from curation.engine.stages import (
    Stage,
    Unit,
    changed,
    digest,
    dumps_in_scope,
    plan,
    present_inputs,
    present_listings,
    slice_inputs,
)
from curation.engine.tasks import Context, Outcome, Part, ingest_groups, run_part
from curation.errors import ConservationError, LakeMissing, NotCommitted, TimeBudgetSpent
from curation.ingest import main_text
from curation.ingest.listing import InputFile, group_files, known_size
from curation.ingest.remote import Facts

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


GUIDES = {"filter": "signals"}
"""The table whose files are the parts of a stage, where that is not `documents`."""


@dataclass(frozen=True)
class Selection:
    """Which part of the plan to run."""

    dumps: tuple[str, ...] = ()
    first: str = "ingest"
    last: str = "encode"
    slices: tuple[str, ...] = ()


def open_or_none(path: str) -> Lake | None:
    """Return the lake at a path, None where there is none yet."""
    try:
        return Lake(path)
    except LakeMissing:
        return None


def run(
    config: Config,
    selection: Selection = Selection(),
    *,
    max_minutes: float | None = None,
    reporter: Reporter | None = None,
    run_id: str = "",
) -> Lake:
    """Bring the chosen part of the lake up to date and return the lake.

    What is committed under its key is skipped; when all is, no lock is taken and no JVM starts.
    Raises TimeBudgetSpent between two units when the time is over.
    """
    reporter = reporter or Silence()
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    units = runnable(config, selection)
    if all(unit.committed for unit in units):
        reporter.planned(units)
        return Lake(config.lake)
    lake = Lake.create(config.lake)
    run_id = run_id or new_run_id()
    with lake.lock(), lake.recorded(run_id):
        _freeze(config, lake, selection.dumps)
        units = runnable(config, selection)
        reporter.planned(units)
        for unit in units:
            if unit.committed:
                continue
            if deadline is not None and time.monotonic() > deadline:
                raise TimeBudgetSpent(
                    f"{max_minutes:g} minutes are over before {unit.name}; what is committed "
                    "stays: run the same command again to go on"
                )
            reporter.began(unit)
            record = _run_unit(config, lake, unit, reporter, run_id)
            lake.commit(record)
            reporter.committed(unit, record)
    return lake


def runnable(config: Config, selection: Selection) -> list[Unit]:
    """Return the plan of a selection; raises NotCommitted where it needs what has not run."""
    lake = open_or_none(config.lake)
    units = plan(config, lake, selection.dumps, selection.first, selection.last, selection.slices)
    planned = {unit.name for unit in units}
    for unit in units:
        for name, key in unit.inputs.items():
            stage, dump, slice = name.split("/")
            record = lake.record(stage, dump, slice) if lake else None
            if name not in planned and (record is None or record.key != key):
                state = "has not run" if record is None else changed(config, lake, name)
                raise NotCommitted(
                    f"{unit.name} needs {name}, which {state}; run first: "
                    f"curation run CONFIG --dump {dump} --to {stage}"
                )
    return units


def release_unit(name: str, settings: Mapping[str, Any], lake_keys: Mapping[str, str]) -> Unit:
    """Return a release as a unit, so that it is reported and recorded like one."""
    stage = Stage(
        "release", version=2, whole_dump=True, reads=("encode",), settings=lambda config: settings
    )
    key = digest(
        {"stage": "release", "version": stage.version, "settings": settings, "inputs": lake_keys}
    )
    return Unit(stage, name, WHOLE_DUMP, key, lake_keys, settings, {}, {}, committed=False)


def _freeze(config: Config, lake: Lake, dumps: Sequence[str]) -> None:
    """Write down the inputs of the chosen dumps as they are now."""
    lake.check_order([dump.name for dump in config.dumps])
    for ordinal, dump in enumerate(config.dumps):
        if dumps and dump.name not in dumps:
            continue
        listings = present_listings(config, lake, dump.name)
        files = present_inputs(config, lake, dump.name, listings)
        if files != lake.inputs(dump.name) or listings != lake.listings(dump.name):
            lake.freeze_inputs(dump.name, ordinal, config.ingest.slice_files, files, listings)


def _run_unit(config: Config, lake: Lake, unit: Unit, reporter: Reporter, run_id: str) -> RunRecord:
    """Do one unit and return the record that will commit it."""
    from curation.engine import session as spark

    with spark.told(unit.name):  # between the jobs, too, the JVM may end
        return _record_of(spark.start(), config, lake, unit, reporter, run_id)


def _record_of(
    session: "SparkSession",
    config: Config,
    lake: Lake,
    unit: Unit,
    reporter: Reporter,
    run_id: str,
) -> RunRecord:
    from curation.engine import session as spark

    started = time.time()
    meter = spark.SparkMeter(session)
    watch = Watch(reporter, unit, meter.counts)
    context = Context(
        lake=str(lake.path),
        stage=unit.stage.name,
        dump=unit.dump,
        slice=unit.slice,
        attempt=uuid.uuid4().hex[:12],
        config=config,
        artifacts=unit.artifacts,
        meter=meter,
    )
    if unit.stage.name == "ingest" and config.ingest.extractor == "blocks":
        card = config.ingest.extractor_model
        main_text.load(card, unit.artifacts[card])  # a wrong one is said here, not by a child
    if unit.stage.name == "filter":
        read = [lake.record(*n.split("/")) for n in unit.inputs if n.startswith("annotate/")]
        histograms = perplexity_histograms(record for record in read if record)
        context = replace(context, rules=config.rules(), histograms=histograms)
    try:
        with spark.described(session, unit.name, watch.tasks_done) as group:
            outcome = _execute(session, config, lake, unit, context, watch)
    finally:
        shutil.rmtree(lake.work_folder(context.attempt), ignore_errors=True)
    check_conservation(unit, outcome, *_expected(lake, unit))
    resources = resources_of(spark.work_of(session, group), meter.counts())
    if unit.stage.name == "ingest":
        files = slice_inputs(config, lake.inputs(unit.dump), unit.slice)
        _check_files(unit, outcome, len(files))
        resources["archive_bytes"] = archive_bytes(files, outcome)
    return RunRecord(
        stage=unit.stage.name,
        dump=unit.dump,
        slice=unit.slice,
        key=unit.key,
        attempt=context.attempt,
        stage_version=unit.stage.version,
        inputs=dict(unit.inputs),
        settings=json.loads(json.dumps(unit.settings)),
        artifacts=dict(unit.artifacts),
        packages=dict(unit.packages),
        started_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        seconds=round(time.time() - started, 3),
        rows=_plain(outcome.rows, ("in", "kept", "rejected")),
        num_bytes=_plain(outcome.num_bytes, ("in", "kept", "removed")),
        counts={what: dict(sorted(names.items())) for what, names in outcome.counts.items()},
        files=tuple(sorted(outcome.files, key=lambda entry: (entry.table, entry.path))),
        environment={
            "curation": version("curation"),
            "python": platform.python_version(),
            "spark": session.version,
            "pyarrow": pa.__version__,
            "master": session.sparkContext.master or "",
        },
        sources=dict(sorted(outcome.sources.items(), key=lambda item: int(item[0]))),
        run_id=run_id,
        resources=resources,
    )


def resources_of(work: Mapping[str, float], metered: Mapping[str, int]) -> dict[str, float]:
    """Return the resources of a run record, from what Spark and what the tasks measured."""
    python_cpu_seconds = metered.get("python_cpu_ms", 0) / 1000
    return {
        **{name: round(value, 3) for name, value in work.items() if name != "jvm_cpu_seconds"},
        "cpu_seconds": round(work["jvm_cpu_seconds"] + python_cpu_seconds, 3),
        "peak_worker_bytes": metered.get("peak_worker_bytes", 0),
    }


def archive_bytes(files: Sequence[InputFile], outcome: Outcome) -> int:
    """Return the size of what is read; of whole remote files as servers said, 0 if unknown."""
    said = (outcome.sources.get(str(file.ordinal), {}).get("size") for file in files)
    return sum(known_size(file, size or 0) for file, size in zip(files, said, strict=True))


def _execute(
    session: "SparkSession",
    config: Config,
    lake: Lake,
    unit: Unit,
    context: Context,
    watch: Watch,
) -> Outcome:
    from curation.engine.session import outcome_of

    if unit.stage.name == "dedup":
        from curation.engine.dedup import deduplicate

        return deduplicate(session, lake, context, dumps_in_scope(config, unit.dump))
    if unit.stage.name == "lines":
        from curation.engine.lines import cut_lines

        if config.lines.max_documents == 0:
            return _unchanged(lake, unit)
        slices = sorted(n.split("/")[2] for n in unit.inputs if n.startswith("ingest/"))
        files = [
            (slice, part)
            for slice in slices
            for part in parts_of(lake, list(unit.inputs), "documents", slice)
        ]
        return cut_lines(session, lake, context, files, dumps_in_scope(config, unit.dump))
    if unit.stage.name == "decontaminate" and not config.contamination.benchmarks:
        return _unchanged(lake, unit)
    if unit.stage.name == "ingest":
        files_read = slice_inputs(config, lake.inputs(unit.dump), unit.slice)
        watch.num_files = len(files_read)
        groups = [
            [(file.ordinal, file.path) for file in group]
            for group in group_files(files_read, config.engine.group_bytes)
        ]
        known = _known_facts(lake, unit.dump, files_read)
        worker = partial(_on_worker_groups, groups=groups, known=known, context=context)
        num_tasks = len(groups)
    else:
        guide = GUIDES.get(unit.stage.name, "documents")
        parts = parts_of(lake, list(unit.inputs), guide, unit.slice)
        if not parts:
            return Outcome()
        watch.num_files = len(parts)
        worker = partial(_on_worker_parts, parts=parts, context=context)
        num_tasks = len(parts)
    rows = session.range(0, num_tasks, 1, numPartitions=num_tasks)
    return outcome_of(rows, worker, context.meter)


def _unchanged(lake: Lake, unit: Unit) -> Outcome:
    """Return what a stage does that lets everything pass."""
    rows, num_bytes = _expected(lake, unit)
    outcome = Outcome()
    outcome.rows.update({"in": rows or 0, "kept": rows or 0})
    outcome.num_bytes.update({"in": num_bytes or 0, "kept": num_bytes or 0})
    return outcome


def _known_facts(lake: Lake, dump: str, files: Sequence[InputFile]) -> dict[int, Facts]:
    """Return what remote files were when they were first read, by ordinal."""
    if all(file.size is not None for file in files):
        return {}
    sources = lake.sources(dump)
    numbers = [file.ordinal for file in files if str(file.ordinal) in sources]
    return {number: Facts(**sources[str(number)]) for number in numbers}


def parts_of(lake: Lake, inputs: Sequence[str], guide: str, slice: str) -> list[Part]:
    """Return one part a file of the guiding table, with the files of the others that overlap it.

    `inputs` are names of committed units, "stage/dump/slice".
    """
    tables: dict[str, list[FileEntry]] = {}
    for name in inputs:
        record = lake.record(*name.split("/"))
        if record is None or record.slice not in (slice, WHOLE_DUMP):
            continue
        for entry in record.files:
            if f"/slice={slice}/" in entry.path:
                tables.setdefault(entry.table, []).append(entry)
    parts = []
    for number, entry in enumerate(tables.get(guide, ())):
        files = {
            table: [entry] if table == guide else [e for e in entries if _overlaps(entry, e)]
            for table, entries in tables.items()
        }
        parts.append(Part(number, files))
    return parts


def kept_parts_of(lake: Lake, dump: str, slice: str) -> list[Part]:
    """Return the parts of a slice with all that decides who is kept, and how edited."""
    inputs = [f"ingest/{dump}/{slice}", f"lines/{dump}/all"]
    inputs += [f"{stage}/{dump}/{slice}" for stage in ("annotate", "filter", "decontaminate")]
    return parts_of(lake, inputs, "documents", slice)


def _overlaps(left: FileEntry, right: FileEntry) -> bool:
    left_first, left_last = left.id_range()
    right_first, right_last = right.id_range()
    return left_first <= right_last and right_first <= left_last


def _on_worker_groups(
    batches: Iterator[pa.RecordBatch],
    groups: Sequence[Sequence[tuple[int, str]]],
    known: Mapping[int, Facts],
    context: Context,
) -> Iterator[pa.RecordBatch]:
    return ingest_groups(batches, groups, known, context, _task_id())


def _on_worker_parts(
    batches: Iterator[pa.RecordBatch], parts: Sequence[Part], context: Context
) -> Iterator[pa.RecordBatch]:
    return run_part(batches, parts, context, _task_id())


def _task_id() -> str:
    from pyspark import TaskContext

    task = TaskContext.get()
    return str(task.taskAttemptId() if task else 0)


def check_conservation(
    unit: Unit, outcome: Outcome, rows_expected: int | None, bytes_expected: int | None
) -> None:
    """Raise ConservationError unless rows and bytes of text add up (law 1)."""
    rows, num_bytes = outcome.rows, outcome.num_bytes
    checks = {
        "rows in = kept + rejected": (rows["in"], rows["kept"] + rows["rejected"]),
        "bytes in = kept + removed": (num_bytes["in"], num_bytes["kept"] + num_bytes["removed"]),
    }
    if rows_expected is not None:
        checks["rows in = rows of the stage before"] = (rows["in"], rows_expected)
    if bytes_expected is not None:
        checks["bytes in = bytes of the stage before"] = (num_bytes["in"], bytes_expected)
    for rule, (left, right) in checks.items():
        if left != right:
            raise ConservationError(
                f"{unit.name}: {rule} does not hold: {left} against {right}; nothing was "
                "committed. This is a defect: please report it with the run's log"
            )


def _check_files(unit: Unit, outcome: Outcome, num_files: int) -> None:
    """Raise ConservationError unless every input file of the slice was read to its end."""
    num_read = sum(outcome.counts.get("files", {}).values())
    if num_read != num_files:
        raise ConservationError(
            f"{unit.name}: {num_read} of {num_files} input files were read to the end; nothing was "
            "committed. This is a defect: please report it with the run's log"
        )


def _expected(lake: Lake, unit: Unit) -> tuple[int | None, int | None]:
    """Return the rows and bytes that must come in: what the stages before have kept."""
    if unit.stage.name == "ingest":
        return None, None
    before = {"fingerprint": "ingest", "dedup": "fingerprint", "lines": "dedup"}
    before |= {"annotate": "ingest", "filter": "annotate", "decontaminate": "filter"}
    before |= {"encode": "decontaminate"}
    source = before[unit.stage.name]
    slices = [n.split("/")[2] for n in unit.inputs if n.startswith(f"{source}/{unit.dump}/")]
    if unit.stage.name == "filter":  # the others are read for their histograms
        slices = [unit.slice]
    records = [lake.record(source, unit.dump, slice) for slice in slices]
    rows = sum(record.rows["kept"] for record in records if record)
    num_bytes = sum(record.num_bytes["kept"] for record in records if record)
    if unit.stage.name == "annotate":
        place = {"dump": unit.dump, "slice": unit.slice}
        for table, stage in (("duplicates", None), ("rejects", "lines")):
            gone = lake.table(table, **place, stage=stage)
            sizes = gone.to_table(["num_bytes"])["num_bytes"]
            rows -= len(sizes)
            num_bytes -= pc.sum(sizes).as_py() or 0
        cuts = lake.table("edits", **place, stage="lines").to_table(["start", "end"])
        num_bytes -= pc.sum(pc.subtract(cuts["end"], cuts["start"])).as_py() or 0
    return rows, num_bytes


def _plain(counts: Mapping[str, int], names: Sequence[str]) -> dict[str, int]:
    return {name: int(counts.get(name, 0)) for name in names}

"""What a run tells while it goes on: events, counts, a view of 60 columns, names in Spark's UI."""

import json
import logging
from collections import Counter
from io import StringIO
from types import SimpleNamespace

import pyarrow as pa
import pytest
from rich.console import Console
from run_records import made

from curation.dedup.messages import Tally
from curation.engine.metering import merge, metered
from curation.engine.progress import JsonFormatter, JsonLines, LiveView, Progress, new_run_id
from curation.engine.run import Selection, archive_bytes, run
from curation.engine.tasks import Outcome
from curation.ingest.listing import InputFile
from curation.ingest.ranges import Span, join_ranges

UNIT = SimpleNamespace(
    name="ingest/A/0000", stage=SimpleNamespace(name="ingest"), dump="A", slice="0000"
)
PROGRESS = Progress(3, 8, 12, 48, 123_456_789, {"a": 7, "b": 9, "c": 8, "d": 1, "e": 2}, 100.0)


def test_rate_and_time_left_follow_from_what_is_done() -> None:
    assert PROGRESS.rows_per_second == 1_234_567.89
    assert PROGRESS.seconds_left == 300.0  # 12 files in 100 s: 36 more
    assert Progress(0, 8, 0, 48, 0, {}, 5.0).seconds_left is None
    assert Progress(3, 8, None, None, 0, {}, 5.0).seconds_left is None


@pytest.mark.parametrize("width", [60, 100])
def test_the_view_fits_a_narrow_terminal(width: int) -> None:
    out = StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    view = LiveView(console)
    name = "decontaminate/CC-MAIN-2026-45-with-a-name-that-is-much-too-long/0000"
    unit = SimpleNamespace(name=name, committed=False)
    view.planned([unit] * 3)  # type: ignore[list-item]
    view.progressed(unit, PROGRESS)  # type: ignore[arg-type]
    console.print(view._view())
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert lines[1:] == [
        "  1:40, 12/48 files, 123,456,789 rows 1,234,568/s, 5:00 left",
        "  out: b 9, c 8, a 7, other 3",
        "0 of 3 slices",
    ]


def test_json_lines_name_the_run_and_hide_nothing_that_libraries_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    counts = {"rejects": {"no_text": 1}}
    record = made("ingest", "A", num_in=9, num_kept=8, counts=counts, seconds=2.0)
    with JsonLines("r1") as reporter:
        reporter.began(UNIT)  # type: ignore[arg-type]
        reporter.progressed(UNIT, PROGRESS)  # type: ignore[arg-type]
        logging.getLogger("a.library").warning("it is %s", "late")
        reporter.committed(UNIT, record)  # type: ignore[arg-type]
    logging.getLogger("a.library").warning("after the run")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    began, library, progress, committed = lines
    assert library["message"] == "it is late" and library["level"] == "warning"
    assert (library["run_id"], library["stage"]) == ("r1", "ingest")
    for line, event in ((began, "began"), (progress, "progress"), (committed, "committed")):
        values = {name: line[name] for name in ("event", "run_id", "stage", "dump", "slice")}
        assert values == {
            "event": event,
            "run_id": "r1",
            "stage": "ingest",
            "dump": "A",
            "slice": "0000",
        }
    assert (progress["files_done"], progress["files"], progress["seconds_left"]) == (12, 48, 300.0)
    assert (committed["rows_in"], committed["rejects"]) == (9, {"no_text": 1})


def test_an_exception_that_is_logged_stays_one_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord(
            "a", logging.ERROR, "f", 1, "why", (), __import__("sys").exc_info()
        )
    line = JsonFormatter().format(record)
    assert "\n" not in line and "ValueError: two" in json.loads(line)["trace"]


def test_run_ids_differ_and_sort_by_time() -> None:
    assert len({new_run_id() for _ in range(20)}) > 15
    assert new_run_id()[:8].isdigit()


def test_a_worker_is_metered_by_what_it_yields_and_uses() -> None:
    """Sums of counts, the larger of peaks; batches pass unchanged."""
    outcomes = [Outcome(), Outcome()]
    for number, outcome in enumerate(outcomes):
        outcome.rows.update({"in": 10, "kept": 9 - number, "rejected": 1 + number})
        outcome.count("rejects", {"no_text": 1 + number})
    other = pa.record_batch({"x": [1]})
    meter = Tally()
    given = [*(each.to_batch() for each in outcomes), other]
    assert list(metered(iter([]), lambda _: iter(given), meter)) == given
    counts = meter.counts
    assert (counts["rows/in"], counts["rejects/no_text"], counts["files"]) == (20, 3, 2)
    assert counts["python_cpu_ms"] >= 0
    assert merge({"peak_a": 5, "b": 1}, {"peak_a": 3, "b": 2}) == {"peak_a": 5, "b": 3}


def test_archive_bytes_are_what_is_read_of_files_near_and_far() -> None:
    """A local file, a remote one, a range of a remote one, and one whose server says nothing."""
    archive = "https://data.example/a.warc.gz"
    ranged = next(iter(join_ranges(archive, [Span(100, 350)])))
    paths = ["a.warc.gz", archive, ranged, archive]
    files = [InputFile(i, path, 7 if i == 0 else None, None) for i, path in enumerate(paths)]
    outcome = Outcome()
    outcome.sources.update({"1": {"size": 1000}, "2": {"size": 1000}, "3": {"size": None}})
    assert archive_bytes(files, outcome) == 7 + 1000 + 250


@pytest.mark.spark
def test_the_events_of_a_run_add_up_to_its_records(
    spark, configure, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows and reasons that tasks reported are those of the commits; Spark's jobs bear their names.

    The dump is decided on Spark, so that messages are shuffled.
    """
    config = configure("engine.single_task_documents=0", "ingest.slice_files=2", dumps=1)
    run_id = new_run_id()
    with JsonLines(run_id) as reporter:
        lake = run(config, Selection(last="filter"), reporter=reporter, run_id=run_id)
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    last = {}
    for event in events:
        assert event["run_id"] == run_id
        if event["event"] == "progress":
            last[event["stage"], event["dump"], event["slice"]] = event
    records = lake.records()
    assert [e["event"] for e in events].count("committed") == len(records) == 10
    dump = config.dumps[0].name
    for record in records:
        assert record.run_id == run_id
        said = last[record.stage, dump, record.slice]
        if record.stage != "dedup":  # its rows are known when it has ended
            assert said["rows"] == record.rows["in"]
            assert said["files_done"] == said["files"]
        rejects = record.counts.get("duplicates" if record.stage == "dedup" else "rejects", {})
        assert Counter(said["rejects"]) == Counter(rejects)
        assert said["tasks_done"] == said["tasks"] > 0
        resources = record.resources
        assert resources["num_tasks"] == said["tasks"]
        assert resources["peak_worker_bytes"] > 0
        assert resources["cpu_seconds"] > 0
        assert (resources["shuffle_bytes"] > 0) == (record.stage in ("dedup", "lines"))
    sizes = {
        record.resources.get("archive_bytes") for record in records if record.stage == "ingest"
    }
    assert sum(filter(None, sizes)) == sum(file.size or 0 for file in lake.inputs(dump))

    jobs = spark.sparkContext._jsc.sc().statusStore().jobsList(None)
    described = {
        jobs.apply(i).description().get()
        for i in range(jobs.size())
        if jobs.apply(i).description().isDefined()
    }
    assert {"/".join((r.stage, r.dump, r.slice)) for r in records} <= described

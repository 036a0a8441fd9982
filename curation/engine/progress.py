"""How a run tells what it does: on a terminal, or as JSON lines.

Counts are those of the tasks that have ended, as Spark's accumulators have them: they are shown and
decide nothing. A JSON line is a log record of the logger `curation.run` with its event's fields.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from curation.engine.lake import RunRecord
from curation.engine.metering import REJECTS

if TYPE_CHECKING:
    from curation.engine.stages import Unit

JSON_SECONDS = 10.0  # between two lines of progress of a slice
NUM_RULES = 3  # shown of the reasons for rejection
LOGGER = logging.getLogger("curation.run")


def new_run_id() -> str:
    """Return a name for a run that sorts by time."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + f"-{os.urandom(2).hex()}"


@dataclass(frozen=True)
class Progress:
    """How far a slice is; None for what cannot be known."""

    tasks_done: int
    tasks: int
    files_done: int | None
    files: int | None  # that the stage reads; None where its tasks are not files
    rows: int
    rejects: Mapping[str, int]  # by rule
    seconds: float

    @property
    def rows_per_second(self) -> float:
        """Rows a second since the slice began."""
        return self.rows / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds left at the pace of the files so far."""
        if not self.files_done or self.files is None:
            return None
        return self.seconds * (self.files - self.files_done) / self.files_done


class Reporter(Protocol):
    """Who is told how a run goes."""

    def planned(self, units: "Sequence[Unit]") -> None:
        """The plan, before anything runs."""

    def began(self, unit: "Unit") -> None:
        """A unit starts."""

    def progressed(self, unit: "Unit", progress: Progress) -> None:
        """The running unit goes on; for the last time when its tasks have ended."""

    def committed(self, unit: "Unit", record: RunRecord) -> None:
        """A unit is committed."""


class Silence:
    """A Reporter that says nothing."""

    def planned(self, units: "Sequence[Unit]") -> None:
        """Ignore."""

    def began(self, unit: "Unit") -> None:
        """Ignore."""

    def progressed(self, unit: "Unit", progress: Progress) -> None:
        """Ignore."""

    def committed(self, unit: "Unit", record: RunRecord) -> None:
        """Ignore."""


class Watch:
    """Turns what Spark and the tasks count of a unit into Progress, for a Reporter."""

    def __init__(
        self, reporter: Reporter, unit: "Unit", counts: Callable[[], Mapping[str, int]]
    ) -> None:
        self.num_files: int | None = None
        self._reporter = reporter
        self._unit = unit
        self._counts = counts
        self._started = time.monotonic()

    def tasks_done(self, num_done: int, num_tasks: int) -> None:
        """Report the state when so many tasks are done."""
        counts = self._counts()
        rejects = {
            name.removeprefix(REJECTS): number
            for name, number in sorted(counts.items())
            if name.startswith(REJECTS)
        }
        progress = Progress(
            num_done,
            num_tasks,
            None if self.num_files is None else counts.get("files", 0),
            self.num_files,
            counts.get("rows/in", 0),
            rejects,
            time.monotonic() - self._started,
        )
        self._reporter.progressed(self._unit, progress)


# ---- JSON lines --------------------------------------------------------------------------------


class JsonFormatter(logging.Formatter):
    """A log record as one JSON object: time, level, logger, message, run, place, event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        values = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            values["trace"] = self.formatException(record.exc_info)
        return json.dumps(values, ensure_ascii=False)


class JsonLines:
    """A Reporter that logs one JSON object an event to stderr."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._handler = logging.StreamHandler(sys.stderr)
        self._handler.setFormatter(JsonFormatter())
        self._handler.addFilter(self._place_record)
        self._has_plan = False
        self._place: dict[str, str] = {}
        self._said_at = 0.0
        self._last: Progress | None = None  # not yet said

    def __enter__(self) -> "JsonLines":
        logging.getLogger().addHandler(self._handler)  # what libraries log is JSON too
        LOGGER.setLevel(logging.INFO)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, *_: object
    ) -> None:
        if kind is not None and self._has_plan:  # of others the command tells
            self._say("stopped", logging.ERROR, error=kind.__name__, reason=str(error))
        logging.getLogger().removeHandler(self._handler)

    def planned(self, units: "Sequence[Unit]") -> None:
        """Say how much there is to do."""
        self._has_plan = True
        num_done = sum(unit.committed for unit in units)
        self._say("planned", slices=len(units), slices_committed=num_done)

    def began(self, unit: "Unit") -> None:
        """Say what starts."""
        self._place = {"stage": unit.stage.name, "dump": unit.dump, "slice": unit.slice}
        self._said_at, self._last = time.monotonic(), None
        self._say("began")

    def progressed(self, unit: "Unit", progress: Progress) -> None:
        """Say how far a slice is, from time to time; what is left is said at its commit."""
        self._last = progress
        if time.monotonic() >= self._said_at + JSON_SECONDS:
            self._say_progress()

    def committed(self, unit: "Unit", record: RunRecord) -> None:
        """Say what a unit did."""
        self._say_progress()
        self._say(
            "committed",
            rows_in=record.rows["in"],
            rows_kept=record.rows["kept"],
            rows_rejected=record.rows["rejected"],
            rejects=dict(record.counts.get("rejects", {})),
            seconds=record.seconds,
        )
        self._place = {}

    def _say_progress(self) -> None:
        progress, self._last = self._last, None
        if progress is None:
            return
        self._said_at = time.monotonic()
        left = progress.seconds_left
        self._say(
            "progress",
            files_done=progress.files_done,
            files=progress.files,
            tasks_done=progress.tasks_done,
            tasks=progress.tasks,
            rows=progress.rows,
            rejects=dict(progress.rejects),
            rows_per_second=round(progress.rows_per_second, 1),
            seconds_left=None if left is None else round(left, 1),
        )

    def _say(self, event: str, level: int = logging.INFO, **fields: Any) -> None:
        place = "/".join(self._place.values())
        values = {"event": event, **fields}
        LOGGER.log(level, f"{place} {event}".strip(), extra={"fields": values})

    def _place_record(self, record: logging.LogRecord) -> bool:
        """Say in every record, a library's too, which run and slice it is of."""
        record.fields = {"run_id": self._run_id, **self._place, **getattr(record, "fields", {})}
        return True


# ---- a terminal --------------------------------------------------------------------------------


class LiveView:
    """A Reporter for people: what runs now in a terminal, and one line a commit anywhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._slices = (0, 0)  # committed, in all
        self._lines: list[str] = ["starting Spark"]
        self._live = Live(
            get_renderable=self._view, console=console, refresh_per_second=4, transient=True
        )

    def __enter__(self) -> "LiveView":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()
        if kind is KeyboardInterrupt:
            self._console.print(
                "stopped; what is committed stays: run the same command again to go on"
            )

    def planned(self, units: "Sequence[Unit]") -> None:
        """Say how much there is to do."""
        num_done = sum(unit.committed for unit in units)
        self._slices = (num_done, len(units))
        if num_done == len(units):
            self._lines = []
            self._console.print(f"all {len(units)} slices are committed; nothing to run")

    def began(self, unit: "Unit") -> None:
        """Show the running unit."""
        self._lines = [unit.name]

    def progressed(self, unit: "Unit", progress: Progress) -> None:
        """Show how far it is."""
        self._lines = [unit.name, *shown(progress)]

    def committed(self, unit: "Unit", record: RunRecord) -> None:
        """Say what a unit did."""
        num_done, num_slices = self._slices
        self._slices = (num_done + 1, num_slices)
        self._lines = []
        rows = record.rows
        self._console.print(
            f"{unit.name}: {rows['in']:,} in, {rows['kept']:,} kept, {rows['rejected']:,} out, "
            f"{record.seconds:,.1f} s",
            soft_wrap=True,
            markup=False,
        )

    def _view(self) -> Group:
        num_done, num_slices = self._slices
        lines = [*self._lines, f"{num_done} of {num_slices} slices"] if self._lines else []
        return Group(*(Text(line, no_wrap=True, overflow="ellipsis") for line in lines))


def shown(progress: Progress) -> list[str]:
    """Return two lines, the weighty first: how far, and why documents left."""
    what, num_done, num = "tasks", progress.tasks_done, progress.tasks
    if progress.files is not None and progress.files_done is not None:
        what, num_done, num = "files", progress.files_done, progress.files
    parts = [_clock(progress.seconds), f"{num_done}/{num} {what}"]
    if progress.rows:
        parts.append(f"{progress.rows:,} rows {progress.rows_per_second:,.0f}/s")
    left = progress.seconds_left
    if left is not None:
        parts.append(f"{_clock(left)} left")
    most = sorted(progress.rejects.items(), key=lambda item: (-item[1], item[0]))
    rules = [f"{rule} {number:,}" for rule, number in most[:NUM_RULES]]
    rest = sum(number for _, number in most[NUM_RULES:])
    if rest:
        rules.append(f"other {rest:,}")
    return ["  " + ", ".join(parts), "  out: " + (", ".join(rules) or "none")]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

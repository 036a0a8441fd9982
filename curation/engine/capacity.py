"""What a number of dumps will take, from the run records of a lake.

The work of a stage grows with its natural quantity: archive bytes for ingest, bytes of text that
come in for fingerprint, lines, annotate, decontaminate and encode, documents for dedup and filter.
For dedup and lines the entries of the index of the dumps before are a second quantity: both rates
are fitted to the dumps of the lake by least squares, and where one would be below zero b = 0. So
the work of 91 dumps is more than 91 times the work of one:

    core-seconds = a * quantity + b * entries of earlier dumps

Other stages have b = 0 and a = core-seconds / quantity, over all dumps measured. A core-second is a
second of CPU time of tasks: of Python workers, their sandboxes and the JVM. What cores wait is not
in it: `busy_share` is the share of the cores and seconds of the measured run that was CPU time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from curation.engine.lake import Lake, RunRecord
from curation.engine.stages import STAGES
from curation.errors import InputInvalid, NotCommitted

QUANTITIES = {
    "ingest": "archive bytes",
    "dedup": "documents",
    "filter": "documents",
}
TEXT = "text bytes"  # of the other stages
INDEXES = {"dedup": "retained_index", "lines": "line_counts"}
"""The table of earlier dumps that a stage reads through."""

TRILLION = 10**12


@dataclass(frozen=True)
class Question:
    """What is to be planned: dumps, cores, the price of a core-hour, archive bytes of a dump."""

    dumps: int
    cores: int
    price: float
    dump_bytes: int | None = None  # None: as large as those measured

    def __post_init__(self) -> None:
        for name in ("dumps", "cores", "price", "dump_bytes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                option = f"--{name.replace('_', '-')}"
                raise InputInvalid(f"{option} is {value}; it must be above 0")


@dataclass(frozen=True)
class Work:
    """What one stage did for one dump, or for several."""

    quantity: float  # see QUANTITIES
    earlier: float  # entries of the index of the dumps before
    cpu_seconds: float
    bytes_in: float  # archives for ingest, text for others
    bytes_out: float  # of the files written
    shuffle_bytes: float
    peak_worker_bytes: float
    core_seconds_held: float  # cores of the run times wall clock


@dataclass(frozen=True)
class Measured:
    """The dumps of a lake that went through all stages."""

    work: Mapping[str, Sequence[Work]]  # by stage, a dump each, in their order
    index_rows: Mapping[str, float]  # entries that a dump adds, by stage, on average
    is_growing: Mapping[str, bool]  # whether later dumps read the index of those before
    tokens: float  # of all dumps
    cores: int  # the most that ran at once
    archive_bytes: float

    @property
    def num_dumps(self) -> int:
        """Dumps measured."""
        return len(self.work["ingest"])


@dataclass(frozen=True)
class StagePlan:
    """What one stage will take for all the dumps."""

    stage: str
    scales_with: str
    core_seconds: float
    index_core_seconds: float  # of them, for the index of earlier dumps
    bytes_in: float
    bytes_out: float
    shuffle_bytes: float
    peak_worker_bytes: float
    times_measured: float  # the quantity, over what was measured

    @property
    def label(self) -> str:
        """Say whether this is within what was measured."""
        return label(self.times_measured)


@dataclass(frozen=True)
class Plan:
    """The answer: stages, sums and what was assumed."""

    stages: tuple[StagePlan, ...]
    question: Question
    tokens: float
    busy_share: float
    assumptions: tuple[str, ...]

    @property
    def core_hours(self) -> float:
        """Hours of CPU time of all stages and dumps."""
        return sum(stage.core_seconds for stage in self.stages) / 3600

    def totals(self) -> dict[str, dict[str, float]]:
        """Return core-hours, hours and cost: in all, per dump, per trillion tokens.

        The last two of each are at the busy share that was measured.
        """
        parts = {"in all": 1.0, "per dump": 1 / self.question.dumps}
        if self.tokens:
            parts["per trillion tokens"] = TRILLION / self.tokens
        totals = {}
        for name, part in parts.items():
            core_hours = self.core_hours * part
            hours, cost = core_hours / self.question.cores, core_hours * self.question.price
            totals[name] = {
                "core_hours": core_hours,
                "hours": hours,
                "cost": cost,
                "hours_at_busy_share": hours / self.busy_share,
                "cost_at_busy_share": cost / self.busy_share,
            }
        return totals

    def to_values(self) -> dict[str, Any]:
        """Return the plan in plain values, as JSON has them."""
        return {
            **asdict(self),
            "stages": [{**asdict(each), "label": each.label} for each in self.stages],
            "totals": self.totals(),
        }


def capacity(lake: Lake, question: Question) -> Plan:
    """Return what the question takes at the rates of a lake; raises NotCommitted, InputInvalid."""
    return project(measured(lake.dumps(), lake.records()), question)


def measured(dumps: Sequence[str], records: Iterable[RunRecord]) -> Measured:
    """Sum up run records by stage and dump, for dumps in their order.

    Raises NotCommitted where a stage of a dump is missing, InputInvalid where a record does not say
    what its work took.
    """
    by_place: dict[tuple[str, str], list[RunRecord]] = {}
    for record in records:
        by_place.setdefault((record.stage, record.dump), []).append(record)
    begun = [dump for dump in dumps if ("ingest", dump) in by_place]
    if not begun:
        raise NotCommitted("the lake has no run to measure by; run first: curation run CONFIG")
    rows_of_index = {
        (stage, dump): sum(
            e.rows for r in by_place.get((stage, dump), ()) for e in r.files_of(table)
        )
        for stage, table in INDEXES.items()
        for dump in begun
    }
    work: dict[str, list[Work]] = {stage: [] for stage in STAGES}
    for stage in STAGES:
        for dump in begun:
            own = by_place.get((stage, dump), [])
            if not own:
                raise NotCommitted(
                    f"stage {stage} of dump {dump} is not committed, so its rate is not known; run "
                    f"first: curation run CONFIG --dump {dump}"
                )
            names = {name for record in own for name in record.inputs}
            before = [d for d in begun if f"{stage}/{d}/all" in names and stage in INDEXES]
            work[stage].append(work_of(stage, own, sum(rows_of_index[stage, d] for d in before)))
    encoded = [record for dump in begun for record in by_place["encode", dump]]
    return Measured(
        work,
        {s: sum(rows_of_index[s, d] for d in begun) / len(begun) for s in INDEXES},
        {s: any(each.earlier for each in work[s]) for s in INDEXES},
        sum(sum(record.counts.get("tokens", {}).values()) for record in encoded),
        max(int(r.resources["cores"]) for d in begun for s in STAGES for r in by_place[s, d]),
        sum(each.quantity for each in work["ingest"]),
    )


def project(found: Measured, question: Question) -> Plan:
    """Return what the question takes, from what was measured."""
    size = found.archive_bytes / found.num_dumps  # of a dump, on average
    if question.dump_bytes is not None and not size:
        raise InputInvalid(
            "--dump-bytes needs the size of the archives that were measured, and their server did "
            "not say it; leave it out"
        )
    scale = question.dump_bytes / size if question.dump_bytes is not None else 1.0
    dumps = question.dumps * scale / found.num_dumps  # in those measured
    pairs = scale * question.dumps * (question.dumps - 1) / 2  # of a dump and one before it
    stages = []
    for stage, work in found.work.items():
        rate, index_rate = rates(work)
        quantity = sum(each.quantity for each in work)
        entries = found.index_rows.get(stage, 0.0) * pairs
        index = index_rate * entries
        most = max(each.earlier for each in work)
        last = found.index_rows.get(stage, 0.0) * scale * (question.dumps - 1)
        stages.append(
            StagePlan(
                stage,
                scales_with(stage),
                rate * quantity * dumps + index,
                index,
                dumps * sum(each.bytes_in for each in work),
                dumps * sum(each.bytes_out for each in work),
                dumps * sum(each.shuffle_bytes for each in work),
                max(each.peak_worker_bytes for each in work),
                max(dumps, last / most if most else 0.0),
            )
        )
    held = sum(each.core_seconds_held for work in found.work.values() for each in work)
    used = sum(each.cpu_seconds for work in found.work.values() for each in work)
    busy_share = min(1.0, used / held) if held and used else 1.0
    tokens = found.tokens * dumps
    return Plan(
        tuple(stages), question, tokens, busy_share, _assumptions(found, question, busy_share)
    )


def rates(work: Sequence[Work]) -> tuple[float, float]:
    """Return core-seconds by quantity and by entry of the index, neither below zero."""
    quantity = np.array([each.quantity for each in work])
    earlier = np.array([each.earlier for each in work])
    seconds = np.array([each.cpu_seconds for each in work])
    if earlier.any() and quantity.any():
        scales = np.array([quantity.max(), earlier.max()])
        columns = np.column_stack([quantity, earlier]) / scales
        fitted, _, rank, _ = np.linalg.lstsq(columns, seconds, rcond=None)
        if rank == 2 and (fitted >= 0).all():
            rate, index_rate = fitted / scales
            return float(rate), float(index_rate)
    total = float(quantity.sum())
    return (float(seconds.sum()) / total if total else 0.0), 0.0


def scales_with(stage: str) -> str:
    """Return the natural quantity of a stage."""
    return QUANTITIES.get(stage, TEXT)


def label(times: float) -> str:
    """Say whether a multiple of what was measured is within it."""
    return "measured" if times <= 1 else f"extrapolated {times:,.1f} x"


def work_of(stage: str, records: Sequence[RunRecord], earlier: float) -> Work:
    """Sum up what records of a stage say that its work took; raises InputInvalid where not."""
    for record in records:
        if "cpu_seconds" not in record.resources:
            raise InputInvalid(
                f"the run record {record.stage}/{record.dump}/{record.slice} does not say what its "
                "work took: an earlier version wrote it; run a part of the input into a new lake: "
                "curation run CONFIG --lake NEW"
            )
    text = sum(record.num_bytes["in"] for record in records)
    archives = sum(record.resources.get("archive_bytes", 0) for record in records)
    documents = sum(record.rows["in"] for record in records)
    quantities = {TEXT: text, "archive bytes": archives, "documents": documents}

    def total(name: str) -> float:
        return sum(record.resources[name] for record in records)

    return Work(
        quantities[scales_with(stage)],
        earlier,
        total("cpu_seconds"),
        archives if stage == "ingest" else text,
        sum(entry.bytes for record in records for entry in record.files),
        total("shuffle_bytes"),
        max(record.resources["peak_worker_bytes"] for record in records),
        sum(record.resources["cores"] * record.seconds for record in records),
    )


def _assumptions(found: Measured, question: Question, busy_share: float) -> tuple[str, ...]:
    size = found.archive_bytes / found.num_dumps
    said = [
        f"measured: {found.num_dumps} dumps of {size:,.0f} archive bytes on at most "
        f"{found.cores} cores, CPU time {busy_share:.0%} of the time that they were held",
        f"{question.cores:,} cores: {label(question.cores / found.cores)}",
        "core-seconds are CPU time of tasks on cores as fast as those measured, without what they "
        "wait for a network",
        "hours are core-hours over cores, every core busy; at the measured share they are "
        f"{1 / busy_share:.1f} times as many",
        "the start of workers, models and kernels is in the rates: a small run overstates them",
        "every dump yields documents, text, duplicates and tokens as the measured ones on average",
        "memory is that of the largest Python worker, a core each; the JVM comes on top",
        "releases and training are not included",
    ]
    for stage, table in INDEXES.items():
        if question.dumps > 1 and found.num_dumps == 1:
            said.append(
                f"one dump does not show what {stage} takes for the {table} of earlier dumps: it "
                "is left out; measure two dumps or more"
            )
        elif question.dumps > 1 and not found.is_growing[stage]:
            said.append(f"{stage} compares with no earlier dump, as measured")
        elif question.dumps > 1 and not rates(found.work[stage])[1]:
            said.append(
                f"what {stage} takes for the {table} of earlier dumps is too little to be seen in "
                "what was measured: it is left out; measure larger dumps"
            )
    return tuple(said)

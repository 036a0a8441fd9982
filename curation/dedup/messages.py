"""Messages between documents, buckets, key ranges and files, and what carries them.

A step is a pure function on the messages of one part. A `Cluster` brings messages with equal `to`
together, sorts them, and runs a step on one piece after another, so that a part of any size, and a
bucket of any size, is worked off in bounded memory.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

MESSAGE = pa.schema(
    [
        ("to", pa.int64()),  # the bucket key, document, key range or file that the message goes to
        ("kind", pa.int8()),
        ("doc_id", pa.int64()),  # whom it is about
        ("other", pa.int64()),  # another document, or a key
        ("value", pa.float64()),  # a similarity, a count or a weight
        ("payload", pa.binary()),  # signature, content hash + signature, shingle hashes
    ]
)
# To a document:
FIRST, COPY, OLD, EXACT, BEST, GONE, SHARED, ACTIVE, RETAINED = range(9)
VOTE_LOW, VOTE_HIGH, WANTED, SCORED = range(9, 13)
# To a bucket:
MEET, UNDECIDED, ENTERED, LEADER, REMOVED, SEEK = range(13, 19)
# To a range of the index, to a file, to the one solver; and results:
PROBE, HASHES, PAIR, FULL, MEMBER, DUPLICATE, INDEX, BEYOND = range(19, 27)

PIECE_BYTES = 32_000_000
BLOCK_BITS = 16  # of a doc_id: the driver counts by blocks of 65,536 records of a file

Rows = Any  # what a Cluster calls its rows: pa.Table or a Spark DataFrame


@dataclass(frozen=True)
class Step:
    """A function on a part, and how the part may be cut into pieces for it.

    A piece is sorted by `order` and holds whole groups (equal `group` columns). A group larger than
    a piece is cut between two documents where `carry` says which of its rows the following pieces
    need, too; without `carry` it is held whole. With `splits` a piece may end anywhere.
    """

    run: Callable[[pa.Table], pa.Table]
    order: tuple[str, ...] = ("to", "doc_id", "kind")
    group: tuple[str, ...] = ("to",)
    carry: Callable[[pa.Table], pa.Table] | None = None
    splits: bool = False


class Meter(Protocol):
    """Adds up what was moved and read; decides nothing."""

    def add(self, counts: Mapping[str, int]) -> None:
        """Add counts by name."""


class Cluster(Protocol):
    """What the rounds need of an engine."""

    def map(self, run: Callable[[pa.Table], pa.Table], rows: Rows) -> Rows:
        """Run a row-wise function on the rows as they lie."""

    def exchange(self, step: Step, *rows: Rows) -> Rows:
        """Bring messages with equal `to` together in one part, and run a step on every part."""

    def select(self, rows: Rows, kinds: Sequence[int]) -> Rows:
        """Return the messages of these kinds."""

    def save(self, rows: Rows) -> Rows:
        """Write the messages, so that they are not computed again."""

    def sum_by_block(self, rows: Rows, kind: int) -> Mapping[int, float]:
        """Return the sum of `value` of a kind by block: doc_id >> BLOCK_BITS."""


@dataclass
class Tally:
    """A Meter in this process."""

    counts: Counter[str] = field(default_factory=Counter)

    def add(self, counts: Mapping[str, int]) -> None:
        """Add counts by name."""
        self.counts.update(counts)


class Parts:
    """A Cluster in this process: tables cut in parts by `to`. For small dumps and for tests."""

    def __init__(
        self, num_parts: int = 1, piece_bytes: int = PIECE_BYTES, meter: Meter | None = None
    ) -> None:
        self.num_parts = num_parts
        self.piece_bytes = piece_bytes
        self.meter = meter or Tally()

    def map(self, run: Callable[[pa.Table], pa.Table], rows: pa.Table) -> pa.Table:
        """Run the function on the whole table."""
        return run(rows)

    def exchange(self, step: Step, *rows: pa.Table) -> pa.Table:
        """Cut by `to`, sort, run the step on every part in turn."""
        together = pa.concat_tables(rows)
        part = column(together, "to") % self.num_parts
        outputs = [MESSAGE.empty_table()]
        for number in range(self.num_parts):
            own = together.filter(pa.array(part == number))
            own = own.sort_by([(name, "ascending") for name in step.order])
            outputs += in_pieces(own.to_batches(1_000), step, self.piece_bytes, self.meter)
        return pa.concat_tables(outputs)

    def select(self, rows: pa.Table, kinds: Sequence[int]) -> pa.Table:
        """Return the messages of these kinds."""
        return rows.filter(pc.is_in(rows["kind"], pa.array(kinds, pa.int8())))

    def save(self, rows: pa.Table) -> pa.Table:
        """Return the rows: they are computed already."""
        return rows

    def sum_by_block(self, rows: pa.Table, kind: int) -> Mapping[int, float]:
        """Sum by block."""
        rows = self.select(rows, [kind])
        blocks, place = np.unique(column(rows, "doc_id") >> BLOCK_BITS, return_inverse=True)
        sums = np.bincount(place, weights=column(rows, "value"), minlength=len(blocks))
        return dict(zip(blocks.tolist(), sums.tolist(), strict=True))


def in_pieces(
    batches: Iterable[pa.RecordBatch], step: Step, piece_bytes: int, meter: Meter
) -> Iterator[pa.Table]:
    """Run a step on the sorted messages of a part, and yield what it returns piece after piece.

    Holds `piece_bytes` or the largest group that cannot be cut.
    """
    cut = _CutGroup(step)
    held: list[pa.Table] = []
    size, limit = 0, piece_bytes
    for batch in batches:
        if batch.num_rows == 0:
            continue
        meter.add({"rows_shuffled": batch.num_rows, "bytes_shuffled": batch.nbytes})
        held.append(pa.Table.from_batches([batch]).cast(MESSAGE))
        size += batch.nbytes
        if size < limit:
            continue
        rows = pa.concat_tables(held)
        if not step.splits:
            end = _start_of_last(rows, step.group)
            if end == 0 and step.carry is not None:
                end = _start_of_last(rows, (*step.group, "doc_id"))
        else:
            end = rows.num_rows
        if end:
            yield from cut.run(rows.slice(0, end), rows.slice(end))
        rows = rows.slice(end)
        held, size = [rows], rows.nbytes
        limit = max(piece_bytes, 2 * size)  # a group that cannot be cut is not looked at each time
    if held:
        rows = pa.concat_tables(held)
        yield from cut.run(rows, rows.slice(rows.num_rows))


class _CutGroup:
    """Runs a step on pieces, and remembers what the rest of a cut group needs."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.carried: pa.Table | None = None
        self.last_done = -1  # the last doc_id of the cut group whose messages are answered

    def run(self, rows: pa.Table, rest: pa.Table) -> Iterator[pa.Table]:
        """Run on rows; `rest` is what follows them so far, where it shows that a group goes on."""
        if rows.num_rows == 0:
            return
        if self.carried is not None:
            end = _end_of_first(rows, self.step.group)
            yield self._of_cut_group(rows.slice(0, end))
            if end == rows.num_rows and self._goes_on(rows, rest):
                return
            self.carried = None
            rows = rows.slice(end)
        elif self._goes_on(rows, rest):  # then the piece is a part of one group
            self.carried, self.last_done = rows.slice(0, 0), -1
            yield self._of_cut_group(rows)
            return
        if rows.num_rows:
            yield self.step.run(rows)

    def _of_cut_group(self, rows: pa.Table) -> pa.Table:
        assert self.carried is not None and self.step.carry is not None
        piece = pa.concat_tables([self.carried, rows])
        answers = self.step.run(piece)
        answers = answers.filter(pc.greater(answers["doc_id"], self.last_done))
        self.carried = self.step.carry(piece)
        self.last_done = rows["doc_id"][-1].as_py()
        return answers

    def _goes_on(self, rows: pa.Table, rest: pa.Table) -> bool:
        if self.step.splits or rest.num_rows == 0:
            return False
        return all(rows[name][-1] == rest[name][0] for name in self.step.group)


def messages(
    to: Any, kind: int, doc_id: Any, other: Any = None, value: Any = None, payload: Any = None
) -> pa.Table:
    """Make messages of one kind; absent columns are 0 or empty."""
    n = len(to)
    columns = [
        pa.array(to, pa.int64()),
        pa.array(np.full(n, kind, np.int8)),
        pa.array(doc_id, pa.int64()),
        pa.array(np.zeros(n, np.int64) if other is None else other, pa.int64()),
        pa.array(np.zeros(n) if value is None else value, pa.float64()),
        _repeated(b"", n) if payload is None else one_chunk(payload),
    ]
    return pa.table(columns, schema=MESSAGE)


def readdressed(rows: pa.Table, to: Any, kind: int | None = None) -> pa.Table:
    """Return messages with another receiver, and another kind if one is given."""
    rows = rows.set_column(0, MESSAGE.field("to"), pa.array(to, pa.int64()))
    if kind is not None:
        rows = rows.set_column(
            1, MESSAGE.field("kind"), pa.array(np.full(rows.num_rows, kind, np.int8))
        )
    return rows


def of_kind(rows: pa.Table, kind: int) -> pa.Table:
    """Return the messages of a kind."""
    return rows.filter(pc.equal(rows["kind"], pa.scalar(kind, pa.int8())))


def column(rows: pa.Table, name: str) -> npt.NDArray[Any]:
    """Return a column as a numpy array."""
    values: npt.NDArray[Any] = rows[name].to_numpy()
    return values


def one_chunk(values: Any) -> pa.Array:
    """Return a column as one array."""
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _repeated(value: bytes, n: int) -> pa.Array:
    return pa.array([value], pa.binary()).take(pa.array(np.zeros(n, np.int64)))


def _start_of_last(rows: pa.Table, names: Sequence[str]) -> int:
    """Return where the last run of equal values begins."""
    changes = np.zeros(rows.num_rows - 1, np.bool_)
    for name in names:
        changes |= np.diff(column(rows, name)) != 0
    found = np.flatnonzero(changes)
    return int(found[-1]) + 1 if len(found) else 0


def _end_of_first(rows: pa.Table, names: Sequence[str]) -> int:
    """Return where the first run of equal values ends."""
    changes = np.zeros(rows.num_rows - 1, np.bool_)
    for name in names:
        changes |= np.diff(column(rows, name)) != 0
    found = np.flatnonzero(changes)
    return int(found[0]) + 1 if len(found) else rows.num_rows

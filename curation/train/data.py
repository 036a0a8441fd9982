"""Which rows of a release a step trains on: the same for any number of processes. No torch.

Step s takes positions [s B, (s + 1) B) of the order below; process r of n takes the r-th n-th of
them. So a run goes on with the exact next sample, however many processes it had before.

    epoch 0    rows as they lie: they were shuffled when the release was made
    epoch e    the row groups in an order that follows from (seed, e); rows of a group as they lie,
               so that reading stays sequential
    skipped    ranges of positions that are left out: where a loss spiked
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curation.errors import ConfigError
from curation.tokens.packing import mix64
from curation.tokens.reader import Shards

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Rows of one process in one step."""

    first_position: int  # of the step, over all processes
    rows: Int64Array
    input_ids: Int32Array  # (rows, sequence length)
    num_tokens: Int32Array  # of each row, before its padding
    documents: Int32Array  # (rows, sequence length): which document of its row a token belongs to


class Samples:
    """The order of samples of a run.

    Raises ConfigError where a batch cannot be split alike, for ranges that are none, and for more
    steps than there are rows.
    """

    def __init__(
        self,
        dataset: Shards,
        batch_size: int,
        *,
        epochs: int = 1,
        seed: int = 0,
        skipped: Sequence[tuple[int, int]] = (),
    ) -> None:
        if len(dataset) == 0:
            raise ConfigError("the release has no rows in this split; name another")
        if batch_size < 1 or epochs < 1:
            raise ConfigError(
                f"a batch of {batch_size} rows and {epochs} epochs; both are 1 or more"
            )
        self.dataset = dataset
        self.batch_size = batch_size
        self.epochs = epochs
        self.seed = seed
        self.skipped = _ranges(skipped)
        self._order: tuple[int, Int64Array] = (0, np.zeros(0, np.int64))

    @property
    def num_positions(self) -> int:
        """Rows of all epochs, less those that are skipped."""
        total = self.epochs * len(self.dataset)
        return total - sum(max(0, min(stop, total) - start) for start, stop in self.skipped)

    @property
    def num_steps(self) -> int:
        """Whole batches; a last part of one is left out."""
        return self.num_positions // self.batch_size

    def rows(self, step: int) -> Int64Array:
        """Return the rows of a step, of all processes; raises ConfigError beyond the last."""
        if not 0 <= step < self.num_steps:
            raise ConfigError(
                f"step {step} of {self.num_steps}: the release has {len(self.dataset)} rows, "
                f"{self.epochs} epochs of them; allow more epochs, or train for fewer steps"
            )
        positions = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        for start, stop in self.skipped:
            positions[positions >= start] += stop - start
        epochs, places = np.divmod(positions, len(self.dataset))
        return np.array(
            [self._row(e, i) for e, i in zip(epochs.tolist(), places.tolist(), strict=True)]
        )

    def batch(self, step: int, rank: int = 0, num_processes: int = 1) -> Batch:
        """Return what a process trains on in a step."""
        if self.batch_size % num_processes:
            raise ConfigError(
                f"a batch of {self.batch_size} rows cannot be split among {num_processes} "
                "processes; choose a multiple"
            )
        own = self.batch_size // num_processes
        rows = self.rows(step)[rank * own : (rank + 1) * own]
        read = [self.dataset.row(row) for row in rows.tolist()]
        documents = np.zeros((own, self.dataset.manifest.sequence_length), np.int32)
        for i, row in enumerate(read):
            documents[i, row["doc_starts"][1:]] = 1
            documents[i, row["num_tokens"] :] = -1
        padding = documents < 0
        documents = np.cumsum(np.where(padding, 0, documents), axis=1).astype(np.int32)
        documents[padding] = -1
        return Batch(
            step * self.batch_size,
            rows,
            np.stack([row["input_ids"] for row in read]),
            np.array([row["num_tokens"] for row in read], np.int32),
            documents,
        )

    def _row(self, epoch: int, place: int) -> int:
        if epoch == 0:
            return place
        if self._order[0] != epoch:
            self._order = (epoch, self._permuted(epoch))
        return int(self._order[1][place])

    def _permuted(self, epoch: int) -> Int64Array:
        ends = self.dataset.group_ends()
        starts = np.concatenate([[0], ends[:-1]])
        key = np.uint64((self.seed * 1_000_003 + epoch) % 2**64)
        with np.errstate(over="ignore"):
            hashes = [int(mix64(mix64(key) + np.uint64(start))) for start in starts]
        order = np.argsort(np.array(hashes, np.uint64), kind="stable")
        return np.concatenate([np.arange(starts[g], ends[g]) for g in order])


def _ranges(skipped: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges of positions, ascending."""
    found = sorted(skipped)
    last = 0
    for start, stop in found:
        if not last <= start < stop:
            raise ConfigError(
                f"skipped positions {found} must be ranges (first, after the last) that do not "
                "overlap"
            )
        last = stop
    return found

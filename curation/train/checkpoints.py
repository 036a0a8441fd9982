"""Checkpoints, written in the background: each appears under its name when it is whole."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint.state_dict_saver import async_save

from curation.errors import CheckpointFailed

STATE_NAME = "run.json"
STEP_DIGITS = 9


class Checkpoints:
    """The checkpoints of a run, in <folder>/step-<step>; all processes call alike."""

    def __init__(self, folder: Path, keep: int, rank: int) -> None:
        self.folder, self.keep, self.rank = folder, keep, rank
        self._pending: tuple[Any, Path, Path, Mapping[str, Any]] | None = None
        # writing in the background must not wait among what the steps exchange
        self._group = dist.new_group(backend="gloo")

    def last(self) -> Path | None:
        """Return the last whole checkpoint."""
        found = [path for path in self.folder.glob("step-*") if (path / STATE_NAME).exists()]
        return max(found, default=None)

    def save(self, tensors: Mapping[str, Any], step: int, state: Mapping[str, Any]) -> None:
        """Begin to write; what is being written is waited for first."""
        self.wait()
        target = self.folder / f"step-{step:0{STEP_DIGITS}d}"
        if (target / STATE_NAME).exists():
            return
        unfinished = self.folder / f".{target.name}"
        if self.rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(unfinished, ignore_errors=True)
        dist.barrier()
        writing = async_save(dict(tensors), checkpoint_id=unfinished, process_group=self._group)
        self._pending = (writing, unfinished, target, state)

    @property
    def is_written(self) -> bool:
        """Whether this process has written its part, so that `wait` need not wait for it."""
        return self._pending is not None and bool(self._pending[0].done())

    def wait(self) -> None:
        """Finish the checkpoint that is being written; raises CheckpointFailed."""
        if self._pending is None:
            return
        writing, unfinished, target, state = self._pending
        self._pending = None
        try:
            writing.result()
            if self.rank == 0:
                (unfinished / STATE_NAME).write_text(json.dumps(state) + "\n")
                unfinished.rename(target)
                for old in sorted(self.folder.glob("step-*"))[: -self.keep]:
                    shutil.rmtree(old)
        except Exception as error:  # torch wraps what the file system said in its own
            shutil.rmtree(unfinished, ignore_errors=True)
            last = self.last()
            raise CheckpointFailed(
                f"{target} could not be written ({error}); the last whole one is "
                f"{last.name if last else 'none'}: free space, and run the same command again"
            ) from None
        dist.barrier()

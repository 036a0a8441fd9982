"""What a run says of itself: a line of metrics.jsonl a step, TensorBoard, and where time went."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from curation.train.settings import METRICS_NAME

TENSORBOARD = "tensorboard"
PARTS = ("data", "forward", "backward", "optimizer")

# FLOPs a second in bf16 without sparsity, by words of torch's name of the device (NVIDIA's data
# sheets); the first that fits.
PEAK_FLOPS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "H800": 989e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
}


def peak_flops(device: torch.device) -> float:
    """Return the FLOPs a second of a device; 0 for one that is not known."""
    if device.type != "cuda":
        return 0.0
    name = torch.cuda.get_device_name(device)
    return next(
        (peak for words, peak in PEAK_FLOPS.items() if re.search(rf"\b{words}\b", name)), 0.0
    )


def last_losses(to: Path, num: int) -> list[float]:
    """Return the losses of the last steps that a folder has metrics of."""
    lines = (to / METRICS_NAME).read_text(encoding="utf-8").splitlines()
    return [float(json.loads(line)["loss"]) for line in lines[-num:]]


class Clock:
    """Adds up the seconds of the parts of a step: of the device's stream on a GPU.

    Waiting for data is time of the host: what the device computes meanwhile is counted twice, so
    parts may sum to more than the step.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._spans: list[tuple[str, Any, Any]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure what is done inside."""
        on_device = self._is_cuda and name != "data"
        began = self._now(on_device)
        yield
        self._spans.append((name, began, self._now(on_device)))

    def read(self) -> dict[str, float]:
        """Return the seconds of every part since the last time, and begin anew."""
        if self._is_cuda:
            torch.cuda.synchronize()
        found = dict.fromkeys(PARTS, 0.0)
        for name, began, ended in self._spans:
            if isinstance(began, float):
                found[name] += ended - began
            else:
                found[name] += began.elapsed_time(ended) / 1000
        self._spans.clear()
        return found

    @staticmethod
    def _now(on_device: bool) -> Any:
        if not on_device:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class Metrics:
    """Writes metrics of steps to a folder, which may hold those of steps before."""

    def __init__(self, to: Path, step: int) -> None:
        """Go on after a step: what a killed run had written of later ones is taken out."""
        to.mkdir(parents=True, exist_ok=True)
        self._path = to / METRICS_NAME
        if self._path.exists():
            lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]
            kept = [line for line in whole if json.loads(line)["step"] <= step]
            self._path.write_text("".join(kept), encoding="utf-8")
        self._board = SummaryWriter(str(to / TENSORBOARD), purge_step=step + 1)

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Add the metrics of a step."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")
        for name, value in metrics.items():
            if isinstance(value, float):
                self._board.add_scalar(name, value, metrics["step"])

    def close(self) -> None:
        """Write out what TensorBoard has not yet."""
        self._board.close()

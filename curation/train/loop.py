"""The training loop: DeepSeek LLM's recipe on the rows of a release, exact to the sample.

    1. rows        of the step, by `Samples`: the same for any number of processes
    2. gradient    summed in fp32 over micro-batches, of bf16 arithmetic where the device has it
    3. step        AdamW, clipped, at the rate of the schedule
    4. metrics     one line of metrics.jsonl a step, and TensorBoard
    5. checkpoint  by time, in the background; a run goes on from the last whole one

Steps on a CPU are the same bits each time; on GPUs the same samples in the same order.
"""

import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import HashStore
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load as load_checkpoint
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from curation.errors import (
    ConfigError,
    DatasetChanged,
    LossDiverged,
    OutOfMemory,
)
from curation.tokens.reader import Shards, open_shards
from curation.tokens.shards import VALIDATION
from curation.train import model as models
from curation.train.checkpoints import STATE_NAME, Checkpoints
from curation.train.data import Batch, Samples
from curation.train.metrics import Clock, Metrics, last_losses, peak_flops
from curation.train.presets import Preset, preset
from curation.train.scaling import step_flops_per_token
from curation.train.schedule import MultiStep
from curation.train.settings import METRICS_NAME, TrainConfig

BETAS = (0.9, 0.95)  # DeepSeek LLM, section 2.3, and so the next two
WEIGHT_DECAY = 0.1
CLIP_NORM = 1.0
CHECKPOINTS = "checkpoints"
MODEL = "model"
JUDGED_STEPS = 10  # whose mean loss is compared with max_loss: one batch is noise


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    step: int
    loss: float
    bits_per_byte: float | None
    shares: Mapping[str, float] = field(default_factory=dict)  # of the time of steps, by part


def train(
    config: TrainConfig,
    *,
    tell: Callable[[Mapping[str, Any]], None] = lambda _: None,
    stop_before: int | None = None,
) -> Outcome:
    """Train until the last step, or go on from the last whole checkpoint in `to`.

    `tell` hears the metrics of each step, in the first process; `stop_before` ends a run early,
    with a checkpoint. Raises ConfigError, DatasetChanged for another release than the run was begun
    on, LossDiverged, OutOfMemory, CheckpointFailed, and what `open_shards` raises.
    """
    dataset = open_shards(config.shards)
    shape = _shape(config, dataset)
    device = _device(config.device)
    with _processes(device):
        rank, size = dist.get_rank(), dist.get_world_size()
        run = _Run(config, dataset, shape, device, rank, size)
        return run.go_on(tell, stop_before)


def _shape(config: TrainConfig, dataset: Shards) -> Preset:
    """Return the preset with the vocabulary and the row length of the release."""
    shape = preset(config.preset)
    manifest = dataset.manifest
    if manifest.model_vocab_size > shape.vocab_size and config.preset not in ("tiny", "small"):
        raise ConfigError(
            f"the release has a vocabulary of {manifest.model_vocab_size}, preset {shape.name} one "
            f"of {shape.vocab_size}; choose another preset, or release with another tokenizer"
        )
    vocab_size = max(manifest.model_vocab_size, shape.vocab_size)
    if config.preset in ("tiny", "small"):
        vocab_size = manifest.model_vocab_size
    return replace(
        shape,
        vocab_size=vocab_size,
        sequence_length=manifest.sequence_length,
        batch_sequences=config.batch_size or shape.batch_sequences,
        peak_learning_rate=config.learning_rate or shape.peak_learning_rate,
    )


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device is cuda, but torch sees none; set device=cpu, or install a CUDA build of torch "
            "and check the driver (nvidia-smi)"
        )
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


class _processes:
    """The process group: torchrun's, or one of this process alone."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> None:
        backend = "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo"
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if "RANK" in os.environ:
            dist.init_process_group(backend)
        else:
            dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)

    def __exit__(self, *_: object) -> None:
        dist.destroy_process_group()


@dataclass(frozen=True)
class _Step:
    """What came of a step, alike in all processes."""

    loss: float  # mean over its labels
    gradient_norm: float
    is_due: bool  # a checkpoint is to be begun
    is_written: bool  # the one that was begun can be finished


class _Run:
    """One run of one process."""

    def __init__(
        self,
        config: TrainConfig,
        dataset: Shards,
        shape: Preset,
        device: torch.device,
        rank: int,
        size: int,
    ) -> None:
        self.config, self.dataset, self.shape = config, dataset, shape
        self.held_out = open_shards(config.shards, VALIDATION)
        self.device, self.rank, self.size = device, rank, size
        self.to = Path(config.to)
        self.samples = Samples(
            dataset,
            shape.batch_sequences,
            epochs=config.epochs,
            seed=config.seed,
            skipped=_skipped(config.skip),
        )
        own = shape.batch_sequences // size
        if own % config.micro_batch_size:
            raise ConfigError(
                f"{own} rows of a process are no multiple of micro_batch_size = "
                f"{config.micro_batch_size}; choose one"
            )
        self.num_steps = config.num_steps or self.samples.num_steps
        if not 0 < self.num_steps <= self.samples.num_steps:
            raise ConfigError(
                f"{self.num_steps} steps of {shape.batch_sequences} rows, but {config.epochs} "
                f"epochs of {len(dataset)} rows make {self.samples.num_steps}; train for fewer, "
                "allow more epochs, or release more"
            )
        self.schedule = MultiStep(
            shape.peak_learning_rate,
            self.num_steps * shape.batch_tokens,
            shape.batch_tokens,
            config.warmup_steps,
        )
        torch.manual_seed(config.seed)
        built: Any = models.build(shape, dataset.manifest.eos_id)
        if config.recompute:
            built.activation_checkpointing_enable()
        self.model: nn.Module = built.to(device)
        if size > 1:
            self._shard()
        # DeepSeek decays weights; gains of norms are no weights.
        groups: list[dict[str, Any]] = [
            {"params": [p for p in self.model.parameters() if p.dim() > 1]},
            {"params": [p for p in self.model.parameters() if p.dim() < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=shape.peak_learning_rate,
            betas=BETAS,
            weight_decay=WEIGHT_DECAY,
            fused=device.type == "cuda",
        )
        self.compute = torch.compile(models.summed_loss) if config.compile else models.summed_loss
        self.checkpoints = Checkpoints(self.to / CHECKPOINTS, config.keep_checkpoints, rank)
        self.clock = Clock(device)
        self.peak_flops = config.peak_flops or peak_flops(device)

    def _shard(self) -> None:
        is_cuda = self.device.type == "cuda"
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if is_cuda else None, reduce_dtype=torch.float32
        )
        own: Any = self.model
        for layer in own.model.layers:
            fully_shard(layer, mp_policy=policy)
        # `summed_loss` calls these two, not the whole
        fully_shard(own.model, mp_policy=policy)
        fully_shard(own.lm_head, mp_policy=policy, reshard_after_forward=False)

    def go_on(self, tell: Callable[[Mapping[str, Any]], None], stop_before: int | None) -> Outcome:
        step = self._resumed()
        last = self.num_steps if stop_before is None else min(stop_before, self.num_steps)
        loss, bits = math.nan, None
        spent: Counter[str] = Counter()
        saved = time.monotonic()
        with self._reported(step, tell) as report, closing(self._batches(step, last)) as batches:
            while step < last:
                began = time.monotonic()
                with self.clock.part("data"):
                    batch = next(batches)
                is_due = began - saved >= self.config.checkpoint_seconds
                found = self._step(step, batch, is_due)
                loss = found.loss
                step += 1
                times = self.clock.read()
                seconds = time.monotonic() - began
                spent.update({**times, "step": seconds})
                metrics = self._metrics(step, found, seconds, times)
                if self.config.validate_steps and step % self.config.validate_steps == 0:
                    metrics["bits_per_byte"] = bits = self.validate()
                report(metrics)
                if found.is_written:
                    self.checkpoints.wait()
                if found.is_due:
                    self._save(step)
                    saved = time.monotonic()
        if math.isnan(loss) and (self.to / METRICS_NAME).exists():  # all was done before
            (loss,) = last_losses(self.to, 1)
        if step == self.num_steps and bits is None:
            bits = self.validate()
        self._save(step)
        self.checkpoints.wait()
        if step == self.num_steps:
            self._export()
            self._judge()
        whole = spent.pop("step", 0.0)
        return Outcome(step, loss, bits, {part: own / whole for part, own in spent.items()})

    def _judge(self) -> None:
        bound = self.config.max_loss
        if not bound or self.rank > 0:
            return
        recent = last_losses(self.to, JUDGED_STEPS)
        mean = sum(recent) / len(recent)
        if mean > bound:
            raise LossDiverged(
                f"the last {len(recent)} steps have a mean loss of {mean:.4f}, above max_loss = "
                f"{bound:g}; look at {self.to / METRICS_NAME}, then train longer or raise the bound"
            )

    @contextmanager
    def _reported(
        self, step: int, tell: Callable[[Mapping[str, Any]], None]
    ) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """Give what takes the metrics of a step: in the first process, the others are silent."""
        if self.rank > 0:
            yield lambda _: None
            return
        with closing(Metrics(self.to, step)) as written:

            def report(metrics: Mapping[str, Any]) -> None:
                written.write(metrics)
                tell(metrics)

            yield report

    def _batches(self, step: int, last: int) -> Generator[Batch, None, None]:
        """Yield the batches of steps; the next one is read while a step computes."""
        with ThreadPoolExecutor(1, "batches") as reader:
            coming = reader.submit(self.samples.batch, step, self.rank, self.size)
            for following in range(step + 1, last + 1):
                batch = coming.result()
                if following < last:
                    coming = reader.submit(self.samples.batch, following, self.rank, self.size)
                yield batch

    # ---- a step --------------------------------------------------------------------------------

    def _step(self, step: int, batch: Batch, is_due: bool) -> _Step:
        """Do one step; say of its loss, its gradient, and what is to be done with checkpoints."""
        highest = int(batch.input_ids.max())
        if highest >= self.shape.vocab_size:
            raise ConfigError(
                f"rows {batch.rows.tolist()} hold the token {highest}, but the model has "
                f"{self.shape.vocab_size}; use the vocabulary of the release's tokenizer"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(step)
        self.optimizer.zero_grad(set_to_none=True)
        try:
            summed, num_labels = self._backward(batch)
            summed, is_due, is_written = self._agreed(summed, is_due)
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
            gradient_norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
            loss = summed / num_labels
            if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
                first, stop = batch.first_position, batch.first_position + self.samples.batch_size
                raise LossDiverged(
                    f"step {step}: loss {loss}, gradient norm {gradient_norm}, at positions "
                    f"{first} to {stop - 1} (rows {self.samples.rows(step).tolist()}); go on from "
                    f"the last checkpoint with skip={first}-{stop - 1}, or lower the learning rate"
                )
            with self.clock.part("optimizer"):
                self.optimizer.step()
        except torch.OutOfMemoryError:
            raise OutOfMemory(
                f"{self.config.micro_batch_size} rows of {self.shape.sequence_length} tokens of "
                f"preset {self.shape.name} do not fit into {self.device}; lower micro_batch_size, "
                "set recompute=true, or use more processes"
            ) from None
        return _Step(loss, gradient_norm, is_due, is_written)

    def _backward(self, batch: Batch) -> tuple[torch.Tensor, int]:
        """Add up gradients of the mean loss; return this process's summed loss, and all labels."""
        with self.clock.part("data"):
            ids = torch.from_numpy(batch.input_ids).to(self.device).long()
            counts = torch.from_numpy(batch.num_tokens).to(self.device)
            documents = None
            if self.config.mask_documents:
                documents = torch.from_numpy(batch.documents).to(self.device)
        labels = models.labels_of(ids, counts)
        total = (labels != models.IGNORED).sum()
        dist.all_reduce(total)
        num_labels = max(int(total), 1)
        summed = torch.zeros((), dtype=torch.float32, device=self.device)
        size = self.config.micro_batch_size
        for start in range(0, len(ids), size):
            part = slice(start, start + size)
            seen = None if documents is None else documents[part]
            with self.clock.part("forward"), self._arithmetic():
                loss = self.compute(self.model, ids[part], labels[part], seen)
            with self.clock.part("backward"):
                # sharded gradients are means over the processes
                torch.autograd.backward(loss * (self.size / num_labels))
            summed += loss.detach()
        return summed, num_labels

    def _arithmetic(self) -> torch.autocast:
        return torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda")

    def _agreed(self, summed: torch.Tensor, is_due: bool) -> tuple[float, bool, bool]:
        """Return the loss of all processes, and what they do with checkpoints.

        One is begun when the first process finds it due, and finished when all have written.
        """
        own = [float(is_due and self.rank == 0), float(self.checkpoints.is_written)]
        shared = torch.stack([summed, *torch.tensor(own, device=self.device)])
        dist.all_reduce(shared)
        loss, due, written = shared.tolist()
        return loss, due > 0, written == self.size

    # ---- validation ----------------------------------------------------------------------------

    @cached_property
    def token_bytes(self) -> torch.Tensor:
        """Bytes of every token of the release's vocabulary."""
        sizes = models.token_bytes(self.dataset.tokenizer(), self.shape.vocab_size)
        return sizes.to(self.device)

    def validate(self) -> float | None:
        """Return bits per byte on rows of the validation split; None where there is none."""
        num_rows = min(self.config.validation_rows, len(self.held_out))
        if num_rows == 0:
            return None
        held = Samples(self.held_out, 1)
        own = self.config.micro_batch_size
        cost = torch.zeros(2, dtype=torch.float64, device=self.device)
        # sharded layers are gathered by all processes, so each computes as often as the others
        for start in range(0, num_rows, own * self.size):
            first = start + self.rank * own
            parts = [held.batch(row) for row in range(first, min(first + own, num_rows))]
            is_idle = not parts
            parts = parts or [held.batch(0)]
            ids = torch.from_numpy(np.concatenate([part.input_ids for part in parts]))
            counts = torch.from_numpy(np.concatenate([part.num_tokens for part in parts]))
            ids, counts = ids.to(self.device).long(), counts.to(self.device)
            with self._arithmetic():
                cost += models.nats_and_bytes(
                    self.model, ids, counts * (not is_idle), self.token_bytes
                )
        dist.all_reduce(cost)
        return models.bits_per_byte(cost)

    # ---- metrics and checkpoints ---------------------------------------------------------------

    def _metrics(
        self, step: int, found: _Step, seconds: float, times: Mapping[str, float]
    ) -> dict[str, Any]:
        rate = self.shape.batch_tokens / seconds
        peak = self.peak_flops * self.size
        return {
            "step": step,
            "num_steps": self.num_steps,
            "loss": found.loss,
            "gradient_norm": found.gradient_norm,
            "learning_rate": self.schedule.rate(step - 1),
            "position": step * self.shape.batch_sequences,
            "tokens": step * self.shape.batch_tokens,
            "tokens_per_second": round(rate, 1),
            "mfu": step_flops_per_token(self.shape) * rate / peak if peak else None,
            **{f"{part}_seconds": round(own, 6) for part, own in times.items()},
        }

    def _identity(self) -> dict[str, Any]:
        """Return what must not change while a run goes on."""
        return {
            "fingerprint": self.dataset.manifest.fingerprint,
            "preset": asdict(self.shape),
            "num_steps": self.num_steps,
            "warmup_steps": self.config.warmup_steps,
            "epochs": self.config.epochs,
            "seed": self.config.seed,
            "mask_documents": self.config.mask_documents,
        }

    def _resumed(self) -> int:
        """Load the last whole checkpoint; return the step it goes on with."""
        found = self.checkpoints.last()
        if found is None:
            return 0
        state = json.loads((found / STATE_NAME).read_text())
        self._check(state)
        model, optimizer = get_state_dict(self.model, self.optimizer)
        load_checkpoint({"model": model, "optimizer": optimizer}, checkpoint_id=found)
        set_state_dict(
            self.model, self.optimizer, model_state_dict=model, optim_state_dict=optimizer
        )
        return int(state["step"])

    def _check(self, state: Mapping[str, Any]) -> None:
        own = json.loads(json.dumps(self._identity()))
        if state["fingerprint"] != own["fingerprint"]:
            raise DatasetChanged(
                f"{self.to} was begun on a release with fingerprint {state['fingerprint']}, "
                f"{self.config.shards} has {own['fingerprint']}; name that release, or another "
                "folder to begin anew"
            )
        for name, value in own.items():
            if state[name] != value:
                raise ConfigError(
                    f"{self.to} was begun with {name} = {state[name]}, now it is {value}; set it "
                    "back, or name another folder to begin anew"
                )
        old = {tuple(each) for each in state["skipped"]}
        position = state["step"] * self.shape.batch_sequences
        for first, stop in set(self.samples.skipped) ^ old:
            if first < position + sum(b - a for a, b in old if b <= first):
                raise ConfigError(
                    f"skip={first}-{stop - 1} changes what the run has seen: it is at position "
                    f"{position}; go on from an earlier checkpoint, or skip later positions"
                )

    def _export(self) -> None:
        """Write the model as transformers reads it, with its tokenizer: `<to>/model`."""
        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = get_model_state_dict(self.model, options=whole)
        if self.rank == 0:
            models.export(
                self.shape,
                self.dataset.manifest.eos_id,
                weights,
                self.to / MODEL,
                self.dataset.tokenizer(),
            )
        dist.barrier()

    def _save(self, step: int) -> None:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        state = {**self._identity(), "step": step, "skipped": self.samples.skipped}
        self.checkpoints.save({"model": model, "optimizer": optimizer}, step, state)


def _skipped(given: tuple[str, ...]) -> list[tuple[int, int]]:
    found = []
    for each in given:
        first, dash, last = each.partition("-")
        if not (dash and first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
            raise ConfigError(f"skip has {each!r}; write FIRST-LAST, for example 1500-1599")
        found.append((int(first), int(last) + 1))
    return found

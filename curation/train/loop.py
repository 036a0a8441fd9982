"""The training loop: DeepSeek LLM's recipe on the rows of a release, exact to the sample.

    1. rows        of the step, by `Samples`: the same for any number of processes
    2. gradient    summed in fp32 over micro-batches, of bf16 arithmetic where the device has it
    3. step        AdamW, clipped, at the rate of the schedule
    4. metrics     one line of metrics.jsonl a step
    5. checkpoint  by time, in the background; a run goes on from the last whole one

Steps on a CPU are the same bits each time; on GPUs the same samples in the same order.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

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
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from curation.errors import (
    CheckpointFailed,
    ConfigError,
    DatasetChanged,
    LossDiverged,
    OutOfMemory,
)
from curation.tokens.reader import Shards, open_shards
from curation.tokens.shards import TOKENIZER_NAME, VALIDATION
from curation.train import model as models
from curation.train.data import Batch, Samples
from curation.train.presets import Preset, preset
from curation.train.scaling import step_flops_per_token
from curation.train.schedule import MultiStep
from curation.train.settings import TrainConfig

BETAS = (0.9, 0.95)  # DeepSeek LLM, section 2.3, and so the next two
WEIGHT_DECAY = 0.1
CLIP_NORM = 1.0
CHECKPOINTS = "checkpoints"
MODEL = "model"
STATE_NAME = "run.json"
STEP_DIGITS = 9


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    step: int
    loss: float
    bits_per_byte: float | None


def train(
    config: TrainConfig,
    *,
    tell: Callable[[Mapping[str, Any]], None] = lambda _: None,
    stop_before: int | None = None,
) -> Outcome:
    """Train until the last step, or go on from the last whole checkpoint in `to`.

    `tell` hears the metrics of each step; `stop_before` ends a run early, with a checkpoint. Raises
    ConfigError, DatasetChanged for another release than the run was begun on, LossDiverged,
    OutOfMemory, CheckpointFailed, and what `open_shards` raises.
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
        self.saver = _Saver(self.to / CHECKPOINTS, config.keep_checkpoints, rank)

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
        saved = time.monotonic()
        while step < last:
            began = time.monotonic()
            loss, norm = self._step(step)
            step += 1
            seconds = time.monotonic() - began
            metrics = self._metrics(step, loss, norm, seconds)
            if self.config.validate_steps and step % self.config.validate_steps == 0:
                metrics["bits_per_byte"] = bits = self.validate()
            self._write(metrics)
            tell(metrics)
            self.saver.poll()
            if time.monotonic() - saved >= self.config.checkpoint_seconds:
                self._save(step)
                saved = time.monotonic()
        if step == self.num_steps and bits is None:
            bits = self.validate()
        self._save(step)
        self.saver.wait()
        if step == self.num_steps:
            self._export()
        return Outcome(step, loss, bits)

    # ---- a step --------------------------------------------------------------------------------

    def _step(self, step: int) -> tuple[float, float]:
        """Do one step; return the mean loss of its labels, and the norm of the gradient."""
        batch = self.samples.batch(step, self.rank, self.size)
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
        except torch.OutOfMemoryError:
            raise OutOfMemory(
                f"{self.config.micro_batch_size} rows of {self.shape.sequence_length} tokens of "
                f"preset {self.shape.name} do not fit into {self.device}; lower micro_batch_size, "
                "set recompute=true, or use more processes"
            ) from None
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        found = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        loss = summed / num_labels
        if not (math.isfinite(loss) and math.isfinite(found)):
            first, stop = batch.first_position, batch.first_position + self.samples.batch_size
            raise LossDiverged(
                f"step {step}: loss {loss}, gradient norm {found}, at positions {first} to "
                f"{stop - 1} (rows {self.samples.rows(step).tolist()}); go on from the last "
                f"checkpoint with skip={first}-{stop - 1}, or lower the learning rate"
            )
        self.optimizer.step()
        return loss, found

    def _backward(self, batch: Batch) -> tuple[float, int]:
        """Add up gradients of the mean loss; return summed loss and labels of all processes."""
        ids = torch.from_numpy(batch.input_ids.astype("int64")).to(self.device)
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
            with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
                loss = self.compute(self.model, ids[part], labels[part], seen)
            # sharded gradients are means over the processes
            torch.autograd.backward(loss * (self.size / num_labels))
            summed += loss.detach()
        dist.all_reduce(summed)
        return float(summed), num_labels

    # ---- validation ----------------------------------------------------------------------------

    def validate(self) -> float | None:
        """Return bits per byte on rows of the validation split; None where there is none."""
        held_out = open_shards(self.config.shards, VALIDATION)
        num_rows = min(self.config.validation_rows, len(held_out))
        if num_rows == 0:
            return None
        path = Path(self.config.shards, TOKENIZER_NAME)
        if not path.exists():  # a release behind a URL
            return None
        sizes = models.token_bytes(path, self.shape.vocab_size)
        held = Samples(held_out, 1)
        nats = torch.zeros((), dtype=torch.float64)
        num_bytes = 0
        for i in range(num_rows):
            batch = held.batch(i)
            ids = torch.from_numpy(batch.input_ids.astype("int64"))
            labels = models.labels_of(ids, torch.from_numpy(batch.num_tokens))
            num_bytes += int(sizes[labels[labels != models.IGNORED]].sum())
            bf16 = torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda")
            with torch.no_grad(), bf16:
                own = models.summed_loss(self.model, ids.to(self.device), labels.to(self.device))
                nats += own.cpu()
        return float(nats) / math.log(2) / max(num_bytes, 1)

    # ---- metrics and checkpoints ---------------------------------------------------------------

    def _metrics(self, step: int, loss: float, norm: float, seconds: float) -> dict[str, Any]:
        rate = self.shape.batch_tokens / seconds
        peak = self.config.peak_flops * self.size
        return {
            "step": step,
            "num_steps": self.num_steps,
            "loss": loss,
            "gradient_norm": norm,
            "learning_rate": self.schedule.rate(step - 1),
            "position": step * self.shape.batch_sequences,
            "tokens": step * self.shape.batch_tokens,
            "tokens_per_second": round(rate, 1),
            "mfu": step_flops_per_token(self.shape) * rate / peak if peak else None,
        }

    def _write(self, metrics: Mapping[str, Any]) -> None:
        if self.rank == 0:
            self.to.mkdir(parents=True, exist_ok=True)
            with (self.to / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(metrics) + "\n")

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
        found = self.saver.last()
        if found is None:
            return 0
        state = json.loads((found / STATE_NAME).read_text())
        self._check(state)
        model, optimizer = get_state_dict(self.model, self.optimizer)
        load_checkpoint({"model": model, "optimizer": optimizer}, checkpoint_id=found)
        set_state_dict(
            self.model, self.optimizer, model_state_dict=model, optim_state_dict=optimizer
        )
        step = int(state["step"])
        self._forget_after(step)
        return step

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

    def _forget_after(self, step: int) -> None:
        """Take the lines of steps that were lost out of the metrics."""
        path = self.to / "metrics.jsonl"
        if self.rank == 0 and path.exists():
            lines = path.read_text().splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n")]
            path.write_text("".join(line for line in kept if json.loads(line)["step"] <= step))

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
                self.config.shards,
            )
        dist.barrier()

    def _save(self, step: int) -> None:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        state = {**self._identity(), "step": step, "skipped": self.samples.skipped}
        self.saver.save({"model": model, "optimizer": optimizer}, step, state)


class _Saver:
    """Writes checkpoints in the background; each appears under its name when it is whole."""

    def __init__(self, folder: Path, keep: int, rank: int) -> None:
        self.folder, self.keep, self.rank = folder, keep, rank
        self._pending: tuple[Any, Path, Path, Mapping[str, Any]] | None = None

    def last(self) -> Path | None:
        """Return the last whole checkpoint."""
        found = [path for path in self.folder.glob("step-*") if (path / STATE_NAME).exists()]
        return max(found, default=None)

    def save(self, tensors: Mapping[str, Any], step: int, state: Mapping[str, Any]) -> None:
        """Begin to write; what is written already is waited for first."""
        self.wait()
        target = self.folder / f"step-{step:0{STEP_DIGITS}d}"
        if (target / STATE_NAME).exists():
            return
        unfinished = self.folder / f".{target.name}"
        if self.rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(unfinished, ignore_errors=True)
        dist.barrier()
        writing = async_save(dict(tensors), checkpoint_id=unfinished)
        self._pending = (writing, unfinished, target, state)

    def poll(self) -> None:
        """Finish a checkpoint that has been written."""
        if self._pending is not None and self._pending[0].done() and dist.get_world_size() == 1:
            self.wait()

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


def _skipped(given: tuple[str, ...]) -> list[tuple[int, int]]:
    found = []
    for each in given:
        first, dash, last = each.partition("-")
        if not (dash and first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
            raise ConfigError(f"skip has {each!r}; write FIRST-LAST, for example 1500-1599")
        found.append((int(first), int(last) + 1))
    return found

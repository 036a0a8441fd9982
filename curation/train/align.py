"""Alignment with TRL: supervised fine-tuning and direct preference optimisation (section 4).

Data and template are `conversations`; the trainers, their losses and packing are TRL's. Both use a
warm-up and a cosine, as the paper says of DPO.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import DPOConfig as TrlDpoConfig
from trl import DPOTrainer, SFTTrainer
from trl import SFTConfig as TrlSftConfig

from curation.errors import ConfigError, InputMissing
from curation.tokens import tokenizer as tokenizers
from curation.tokens.shards import TOKENIZER_NAME
from curation.train import model as models
from curation.train.conversations import conversation, preference, read_rows
from curation.train.settings import DpoConfig, SftConfig

WEIGHTS = torch.float32  # steps of 5e-6 would be lost in rounding of bf16 weights


@dataclass(frozen=True)
class Aligned:
    """What a run did: its first and last loss, and of DPO the share of pairs it ranks right."""

    steps: int
    first_loss: float
    last_loss: float
    accuracy: float | None = None


def sft(config: SftConfig) -> Aligned:
    """Fine-tune a model on the answers of conversations; write model and tokenizer to `to`.

    Raises ArtifactMissing for a model that is none, InputMissing and InputInvalid for the data,
    ConfigError where sizes do not fit.
    """
    model, tokenizer = models.load(config.model, WEIGHTS)
    own = tokenizers.load(Path(config.model, TOKENIZER_NAME))
    rows = []
    for where, row in read_rows(config.data):
        found = conversation(row.get("messages"), own, where)
        pairs = zip(found.input_ids, found.is_answer, strict=True)
        labels = [token if learn else models.IGNORED for token, learn in pairs]
        rows.append({"input_ids": found.input_ids, "labels": labels})
    if not rows:
        raise InputMissing(f"{config.data} has no conversation; add some")
    arguments = TrlSftConfig(
        **_arguments(config, len(rows)), max_length=config.max_length, packing=config.packing
    )
    trainer = SFTTrainer(
        model, arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    return _trained(trainer, config.to, tokenizer)


def dpo(config: DpoConfig) -> Aligned:
    """Tune a model on preferences; write model and tokenizer to `to`. Raises as `sft` does."""
    model, tokenizer = models.load(config.model, WEIGHTS)
    rows = [
        preference(row, where, tokenizer.eos_token)._asdict()
        for where, row in read_rows(config.data)
    ]
    if not rows:
        raise InputMissing(f"{config.data} has no preference; add some")
    arguments = TrlDpoConfig(
        **_arguments(config, len(rows)), max_length=config.max_length, beta=config.beta
    )
    trainer = DPOTrainer(
        model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    return _trained(trainer, config.to, tokenizer)


def _arguments(config: SftConfig | DpoConfig, num_rows: int) -> dict[str, Any]:
    if config.batch_size % config.micro_batch_size:
        raise ConfigError(
            f"batch_size = {config.batch_size} is no multiple of micro_batch_size = "
            f"{config.micro_batch_size}; choose one"
        )
    steps = max(1, math.ceil(num_rows * config.epochs / config.batch_size))
    return {
        "output_dir": str(Path(config.to, "work")),
        "learning_rate": config.learning_rate,
        "num_train_epochs": config.epochs,
        "per_device_train_batch_size": config.micro_batch_size,
        "gradient_accumulation_steps": config.batch_size // config.micro_batch_size,
        "lr_scheduler_type": "cosine",
        "warmup_steps": round(config.warmup_share * steps),
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": config.seed,
        "bf16": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def _trained(trainer: Any, to: str, tokenizer: Any) -> Aligned:
    trainer.train()
    trainer.save_model(to)
    tokenizer.save_pretrained(to)
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    accuracy = logs[-1].get("rewards/accuracies")
    return Aligned(trainer.state.global_step, logs[0]["loss"], logs[-1]["loss"], accuracy)

"""What a model can do: GSM8K, CMMLU, HumanEval, bits per byte, answers that do not end.

Beside each number stands the paper's (DeepSeek LLM, tables 5, 6 and 12) where there is one.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from curation.errors import ConfigError, InputInvalid
from curation.tokens.reader import open_shards
from curation.tokens.shards import TOKENIZER_NAME
from curation.train import humaneval
from curation.train import model as models
from curation.train.conversations import open_prompt, read_rows
from curation.train.data import Samples
from curation.train.settings import EvaluateConfig

BATCH_PROMPTS = 8
STDERR = " stderr"

PAPER: Mapping[str, Mapping[str, float]] = {
    "gsm8k": {"7b base": 0.174, "67b base": 0.634, "7b chat": 0.630, "67b chat": 0.841},
    "cmmlu": {"7b base": 0.472, "67b base": 0.708, "7b chat": 0.497, "67b chat": 0.678},
    "humaneval pass@1": {"7b base": 0.262, "67b base": 0.427, "7b chat": 0.482, "67b chat": 0.738},
    "repetition": {"7b chat, stage 1": 0.020, "7b chat, stage 2": 0.014},
}


def evaluate(config: EvaluateConfig) -> dict[str, float]:
    """Return what was asked for, by name, with "<name> stderr" beside what lm-eval measured.

    Raises ConfigError where nothing was asked for, ArtifactMissing for a model that is none,
    and what the readers of files raise.
    """
    harness_tasks = config.gsm8k or config.cmmlu or config.task
    if not (config.humaneval or config.shards or config.repetition or harness_tasks):
        raise ConfigError(
            "nothing to evaluate; name --gsm8k, --cmmlu, --task, --humaneval, --shards or "
            "--repetition"
        )
    if config.humaneval and not config.allow_code:
        humaneval.evaluate([], {}, allow_code=False)  # which says what to read first
    is_cuda = torch.cuda.is_available()
    model, tokenizer = models.load(config.model, torch.bfloat16 if is_cuda else torch.float32)
    model = model.to("cuda" if is_cuda else "cpu").eval()
    found: dict[str, float] = {}
    if config.shards:
        found["bits per byte"] = bits_per_byte(model, config)
    if config.repetition:
        found["repetition"] = repetition(model, tokenizer, config)
    if harness_tasks:
        from curation.train import harness  # lm-eval takes seconds to import

        scores = harness.evaluate(
            model,
            tokenizer,
            gsm8k=config.gsm8k,
            cmmlu=config.cmmlu,
            tasks=config.task,
            num_problems=config.num_problems,
            max_new_tokens=config.max_new_tokens,
            batch_size=BATCH_PROMPTS,
            seed=config.seed,
        )
        for name, score in scores.items():
            found |= {name: score.value, f"{name}{STDERR}": score.error}
    if config.humaneval:
        problems = humaneval.read_problems(config.humaneval)[: config.num_problems or None]
        prompts = [problem.prompt for problem in problems for _ in range(config.num_samples)]
        texts = list(_generated(model, tokenizer, prompts, config, config.temperature))
        completions = {
            problem.task_id: [
                text for text, _ in texts[i * config.num_samples : (i + 1) * config.num_samples]
            ]
            for i, problem in enumerate(problems)
        }
        ks = [k for k in (1, 10, 100) if k <= config.num_samples]
        passed = humaneval.evaluate(problems, completions, ks, allow_code=True)
        found |= {f"humaneval {name}": value for name, value in passed.items()}
    return found


def bits_per_byte(model: Any, config: EvaluateConfig) -> float:
    """Return the bits that a byte of a split costs: comparable between tokenizers."""
    samples = Samples(open_shards(config.shards, config.split), 1)
    sizes = models.token_bytes(Path(config.model, TOKENIZER_NAME), model.config.vocab_size)
    sizes = sizes.to(model.device)
    cost = torch.zeros(2, dtype=torch.float64, device=model.device)
    for step in range(min(config.num_rows, samples.num_steps)):
        batch = samples.batch(step)
        ids = torch.from_numpy(batch.input_ids).to(model.device).long()
        counts = torch.from_numpy(batch.num_tokens).to(model.device)
        cost += models.nats_and_bytes(model, ids, counts, sizes)
    return models.bits_per_byte(cost)


def repetition(model: Any, tokenizer: Any, config: EvaluateConfig) -> float:
    """Return the share of prompts whose answer at temperature 0 does not end by itself."""
    prompts = []
    for where, row in read_rows(config.repetition):
        prompts.append(open_prompt(row, where, tokenizer.eos_token))
    if not prompts:
        raise InputInvalid(f"{config.repetition} has no prompt; add some")
    ended = [ends for _, ends in _generated(model, tokenizer, prompts, config, 0.0)]
    return 1.0 - sum(ended) / len(ended)


def _generated(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    config: EvaluateConfig,
    temperature: float,
) -> Iterator[tuple[str, bool]]:
    """Yield the continuation of every prompt, and whether it ended by itself."""
    torch.manual_seed(config.seed)
    tokenizer.padding_side = "left"
    how: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        how = {"do_sample": True, "temperature": temperature, "top_p": 0.95}
    for start in range(0, len(prompts), BATCH_PROMPTS):
        batch = tokenizer(
            list(prompts[start : start + BATCH_PROMPTS]), return_tensors="pt", padding=True
        ).to(model.device)
        with torch.no_grad():
            found = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=config.max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
                use_cache=True,
                **how,
            )
        for row in found[:, batch["input_ids"].shape[1] :]:
            ids = row.tolist()
            ends = tokenizer.eos_token_id in ids
            own = ids[: ids.index(tokenizer.eos_token_id)] if ends else ids
            yield tokenizer.decode(own), ends

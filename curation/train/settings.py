"""The settings of a training run. No torch."""

from dataclasses import dataclass

from curation.config import setting
from curation.train.presets import PRESETS

METRICS_NAME = "metrics.jsonl"  # in the folder of a run: a line a step


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A pretraining run. What is 0 follows from the preset or the release."""

    shards: str = setting(doc="folder or URL of a release")
    to: str = setting(doc="folder of checkpoints and metrics")
    preset: str = setting("tiny", "shape of the model", choices=tuple(PRESETS))
    num_steps: int = setting(0, "steps; 0: all rows of the epochs", low=0, high=10**9)
    epochs: int = setting(1, "times that the rows may be seen", low=1, high=1000)
    batch_size: int = setting(0, "rows of a step, of all processes; 0: the preset's", low=0)
    micro_batch_size: int = setting(4, "rows that a process computes at once", low=1, high=10**6)
    learning_rate: float = setting(0.0, "peak; 0: the preset's", low=0.0, high=1.0)
    warmup_steps: int = setting(2000, "steps to the peak (DeepSeek LLM)", low=0, high=10**9)
    seed: int = setting(0, "of the weights and of the order of later epochs", low=0, high=2**31)
    skip: tuple[str, ...] = setting((), "FIRST-LAST: positions that are left out, after a spike")
    mask_documents: bool = setting(False, "no document sees another of its row")
    device: str = setting("auto", "auto, cpu or cuda", choices=("auto", "cpu", "cuda"))
    compile: bool = setting(False, "compile the model (torch.compile)")
    recompute: bool = setting(False, "recompute activations: less memory, a third more time")
    checkpoint_seconds: float = setting(300.0, "between checkpoints (DeepSeek: 5 minutes)", low=0.0)
    keep_checkpoints: int = setting(2, "whole checkpoints to keep", low=1, high=1000)
    validate_steps: int = setting(0, "steps between validations; 0: at the end", low=0)
    validation_rows: int = setting(64, "rows of a validation", low=1, high=10**9)
    max_loss: float = setting(0.0, "the last 10 steps' mean must be below; 0: no bound", low=0.0)
    peak_flops: float = setting(
        0.0, "FLOPs a second of a device, for MFU; 0: a known GPU's", low=0.0
    )


@dataclass(frozen=True, kw_only=True)
class AblateConfig:
    """The same small model on each arm of a lake, with each seed; every run sees all rows once."""

    config: str = setting(doc="the TOML file of a lake that is encoded")
    release: str = setting(doc="a release of it that holds out hosts: the mixture of arm remixed")
    to: str = setting(doc="folder of arms, runs and the report")
    num_tokens: int = setting(1_024_000, "of an arm", low=1, high=10**12)
    num_seeds: int = setting(5, "of the sample, its order and the weights", low=2, high=1000)
    preset: str = setting("tiny", "shape of the model", choices=tuple(PRESETS))
    batch_size: int = setting(8, "rows of a step", low=1, high=10**6)
    micro_batch_size: int = setting(4, "rows computed at once", low=1, high=10**6)
    learning_rate: float = setting(3e-3, "peak", low=0.0, high=1.0)
    warmup_steps: int = setting(20, "steps to the peak", low=0, high=10**9)
    held_out_rows: int = setting(1024, "rows of held-out text that judge", low=1, high=10**9)


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """Supervised fine-tuning, with the paper's numbers for 7B (67B: 5e-6, 2 epochs)."""

    model: str = setting(doc="folder of a model: <to>/model of a training run")
    data: str = setting(doc="conversations: .parquet or .jsonl with messages")
    to: str = setting(doc="folder of the tuned model")
    learning_rate: float = setting(1e-5, "peak (DeepSeek LLM, 7B)", low=1e-9, high=1.0)
    epochs: float = setting(4.0, "passes over the data (DeepSeek LLM, 7B)", low=0.01, high=1000)
    batch_size: int = setting(64, "conversations of a step", low=1, high=10**6)
    micro_batch_size: int = setting(4, "conversations computed at once", low=1, high=10**6)
    max_length: int = setting(4096, "tokens of a conversation; longer ones are cut", low=2)
    packing: bool = setting(True, "several conversations in a row, apart from each other")
    warmup_share: float = setting(0.03, "share of the steps to the peak", low=0.0, high=1.0)
    seed: int = setting(0, "of the order", low=0, high=2**31)


@dataclass(frozen=True, kw_only=True)
class DpoConfig:
    """Direct preference optimisation with the paper's numbers; it does not give beta."""

    model: str = setting(doc="folder of a tuned model")
    data: str = setting(doc="preferences: .parquet or .jsonl with prompt, chosen, rejected")
    to: str = setting(doc="folder of the model")
    learning_rate: float = setting(5e-6, "peak (DeepSeek LLM)", low=1e-9, high=1.0)
    epochs: float = setting(1.0, "passes over the data (DeepSeek LLM)", low=0.01, high=1000)
    batch_size: int = setting(512, "pairs of a step (DeepSeek LLM)", low=1, high=10**6)
    micro_batch_size: int = setting(4, "pairs computed at once", low=1, high=10**6)
    beta: float = setting(0.1, "weight of the distance to the model (TRL)", low=1e-6, high=100.0)
    max_length: int = setting(2048, "tokens of prompt and answer; longer ones are cut", low=2)
    warmup_share: float = setting(0.1, "share of the steps to the peak", low=0.0, high=1.0)
    seed: int = setting(0, "of the order", low=0, high=2**31)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What of a model is measured; what is not named is not."""

    model: str = setting(doc="folder of a model")
    gsm8k: str = setting("", "GSM8K's test.jsonl[.gz], 8 examples before each problem (lm-eval)")
    cmmlu: str = setting("", "folder of CMMLU's <subject>.csv, or of test/ and dev/ (lm-eval)")
    task: tuple[str, ...] = setting((), "a .yaml task file of lm-eval, on data that lies here")
    humaneval: str = setting("", "HumanEval.jsonl.gz; runs code that the model writes")
    allow_code: bool = setting(False, "allow that code to run, in curation.train.code_sandbox")
    num_problems: int = setting(0, "first problems of each benchmark; 0: all", low=0, high=10**6)
    num_samples: int = setting(1, "completions of a problem", low=1, high=10_000)
    temperature: float = setting(0.0, "of HumanEval; 0: the likeliest", low=0.0, high=2.0)
    shards: str = setting("", "a release, for bits per byte")
    split: str = setting("validation", "of the release", choices=("train", "validation"))
    num_rows: int = setting(256, "rows of the release", low=1, high=10**9)
    repetition: str = setting("", "prompts, .jsonl or .parquet: which answers do not end?")
    max_new_tokens: int = setting(512, "tokens of an answer", low=1, high=100_000)
    seed: int = setting(0, "of samples", low=0, high=2**31)
    to: str = setting("", "a .json file for the results")

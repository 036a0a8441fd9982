"""DeepSeek LLM's multi-step learning rate (arXiv 2401.02954, section 2.3). No torch.

Linear warm-up over 2,000 steps to the peak; from 80 % of the tokens 31.6 % of it (the root of a
tenth), from 90 % a tenth. The first stage can be continued with more data, which a cosine cannot.
"""

import math
from dataclasses import dataclass

from curation.errors import ConfigError


@dataclass(frozen=True)
class MultiStep:
    """When the rate changes: stages are (share of the tokens from which, factor of the peak)."""

    peak: float
    total_tokens: int
    batch_tokens: int
    warmup_steps: int = 2000
    stages: tuple[tuple[float, float], ...] = ((0.8, math.sqrt(0.1)), (0.9, 0.1))

    def __post_init__(self) -> None:
        steps = self.total_tokens // max(self.batch_tokens, 1)
        if not (self.peak > 0 and self.batch_tokens > 0 and self.warmup_steps >= 0):
            raise ConfigError(
                f"a peak of {self.peak:g}, batches of {self.batch_tokens} tokens and "
                f"{self.warmup_steps} warm-up steps; the first two are above 0, the last at least 0"
            )
        starts = [start for start, _ in self.stages]
        if starts != sorted(starts) or any(not 0 <= start <= 1 for start in starts):
            raise ConfigError(f"stages start at {starts}; they are ascending shares of the tokens")
        if self.stages and self.warmup_steps > starts[0] * steps:
            raise ConfigError(
                f"{self.warmup_steps} warm-up steps reach into the first stage of {steps} steps; "
                "warm up for fewer, or train longer"
            )

    @property
    def num_steps(self) -> int:
        """Whole batches that the tokens make."""
        return self.total_tokens // self.batch_tokens

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0, by the tokens seen before it."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        seen = step * self.batch_tokens
        factor = 1.0
        for start, value in self.stages:
            if seen >= start * self.total_tokens:
                factor = value
        return self.peak * factor

"""Model shapes: DeepSeek LLM's, DeepSeek Coder's 1.3B and small ones for one machine. No torch.

All are LLaMA's architecture (pre-norm RMSNorm, SwiGLU, rotary positions, no biases, untied
embeddings); 67B has grouped-query attention.
"""

from dataclasses import dataclass

from curation.errors import ConfigError

DEEPSEEK_VOCABULARY = 102_400  # 100,015 tokens, padded (DeepSeek LLM, section 2.1)


@dataclass(frozen=True)
class Preset:
    """A model and how it was, or is to be, trained.

    `batch_sequences` and `peak_learning_rate` are of the paper where there is one (DeepSeek LLM,
    table 2; DeepSeek Coder, table 2).
    """

    name: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    ffn_size: int
    sequence_length: int = 4096
    vocab_size: int = DEEPSEEK_VOCABULARY
    batch_sequences: int = 2304
    peak_learning_rate: float = 4.2e-4

    @property
    def head_size(self) -> int:
        """Numbers of a head's queries."""
        return self.hidden_size // self.num_heads

    @property
    def num_embedding_parameters(self) -> int:
        """Of the embedding and of the head, which are not tied."""
        return 2 * self.vocab_size * self.hidden_size

    @property
    def num_parameters(self) -> int:
        """All parameters."""
        kv_size = self.num_kv_heads * self.head_size
        attention = 2 * self.hidden_size**2 + 2 * self.hidden_size * kv_size
        layer = attention + 3 * self.hidden_size * self.ffn_size + 2 * self.hidden_size
        return self.num_layers * layer + self.hidden_size + self.num_embedding_parameters

    @property
    def num_non_embedding_parameters(self) -> int:
        """All but embedding and head."""
        return self.num_parameters - self.num_embedding_parameters

    @property
    def batch_tokens(self) -> int:
        """Tokens of a step."""
        return self.batch_sequences * self.sequence_length


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("tiny", 4, 128, 4, 4, 344, 256, 4096, 16, 2e-3),
        Preset("small", 8, 512, 8, 8, 1376, 1024, 32_768, 64, 1.5e-3),
        Preset("1.3b", 24, 2048, 16, 16, 5504, batch_sequences=1024, peak_learning_rate=5.3e-4),
        Preset("7b", 30, 4096, 32, 32, 11_008),
        Preset("67b", 95, 8192, 64, 8, 22_016, batch_sequences=4608, peak_learning_rate=3.2e-4),
    )
}


def preset(name: str) -> Preset:
    """Return a preset; raises ConfigError naming the known ones."""
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}; presets are {', '.join(PRESETS)}")
    return PRESETS[name]

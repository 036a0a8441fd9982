"""The model: Hugging Face's LLaMA with DeepSeek LLM's shape, and a loss that fits in memory."""

import math
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from curation.errors import ArtifactMissing
from curation.tokens import tokenizer as tokenizers
from curation.tokens.shards import TOKENIZER_NAME
from curation.train.presets import Preset

logging.disable_progress_bar()  # of files that take a second; our own line shows the steps

INIT_STD = 0.006  # DeepSeek LLM, section 2.3
ROPE_THETA = 10_000.0
RMS_NORM_EPS = 1e-6

IGNORED = -100  # of labels
CHUNK_TOKENS = 2_048  # whose logits exist at once: 0.84 GB in fp32 for 102,400 tokens


def config_of(preset: Preset, eos_id: int | None = None) -> LlamaConfig:
    """Return the configuration of transformers' LLaMA for a preset."""
    return LlamaConfig(
        vocab_size=preset.vocab_size,
        hidden_size=preset.hidden_size,
        intermediate_size=preset.ffn_size,
        num_hidden_layers=preset.num_layers,
        num_attention_heads=preset.num_heads,
        num_key_value_heads=preset.num_kv_heads,
        max_position_embeddings=preset.sequence_length,
        initializer_range=INIT_STD,
        rms_norm_eps=RMS_NORM_EPS,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=False,
        attention_bias=False,
        mlp_bias=False,
        bos_token_id=None,
        eos_token_id=eos_id,
        use_cache=False,
    )


def build(preset: Preset, eos_id: int | None = None, device: str = "cpu") -> LlamaForCausalLM:
    """Return a model with fresh weights; on the device `meta` it has shapes alone."""
    config = config_of(preset, eos_id)
    config._attn_implementation = "sdpa"
    with torch.device(device):
        return LlamaForCausalLM(config)


def export(
    preset: Preset, eos_id: int, weights: dict[str, Tensor], to: Path, tokenizer: Path
) -> None:
    """Write weights and configuration as transformers reads them, with a tokenizer.json."""
    unfinished = to.with_name(f".{to.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    shape = build(preset, eos_id, device="meta")
    shape.save_pretrained(unfinished, state_dict=weights)
    tokenizer_of(tokenizer, eos_id).save_pretrained(unfinished)
    shutil.rmtree(to, ignore_errors=True)
    unfinished.rename(to)


def load(folder: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Return model and tokenizer of a folder that transformers wrote; raises ArtifactMissing."""
    if not Path(folder, "config.json").exists():
        raise ArtifactMissing(
            f"there is no model in {folder}; name <to>/model of a training run, or a folder that "
            "transformers wrote"
        )
    if not Path(folder, TOKENIZER_NAME).exists():
        raise ArtifactMissing(f"{folder} has no {TOKENIZER_NAME}; put that of the release there")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return model, AutoTokenizer.from_pretrained(folder)


def tokenizer_of(path: Path, eos_id: int) -> PreTrainedTokenizerFast:
    """Return transformers' form of a tokenizer.json; it pads with its end of text."""
    loaded = PreTrainedTokenizerFast(tokenizer_file=str(path))
    end = loaded.convert_ids_to_tokens(eos_id)
    loaded.add_special_tokens({"eos_token": end, "pad_token": end})
    return loaded


def token_bytes(path: Path, vocab_size: int) -> Tensor:
    """Return the bytes of every token of a tokenizer.json; 0 for special ones.

    A token of byte-level BPE has a character for each byte.
    """
    loaded = tokenizers.load(path).model
    sizes = torch.zeros(vocab_size, dtype=torch.int64)
    special = set(loaded.get_added_tokens_decoder())
    for token, number in loaded.get_vocab().items():
        sizes[number] = 0 if number in special else len(token)
    return sizes


def labels_of(input_ids: Tensor, num_tokens: Tensor) -> Tensor:
    """Return the next token of every position; IGNORED for the last one and for padding."""
    labels = torch.full_like(input_ids, IGNORED)
    labels[:, :-1] = input_ids[:, 1:]
    places = torch.arange(input_ids.shape[1], device=input_ids.device)
    labels[places[None, :] + 1 >= num_tokens[:, None]] = IGNORED
    return labels


def document_mask(documents: Tensor) -> Tensor:
    """Return which positions see which: earlier ones of their own document (rows, 1, L, L)."""
    length = documents.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    same = documents[:, :, None] == documents[:, None, :]
    return (same & earlier)[:, None]


def document_positions(documents: Tensor) -> Tensor:
    """Return the position of every token in its document."""
    places = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    is_first = torch.ones_like(documents, dtype=torch.bool)
    is_first[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return places - torch.where(is_first, places, 0).cummax(dim=1).values


def summed_loss(
    model: nn.Module, input_ids: Tensor, labels: Tensor, documents: Tensor | None = None
) -> Tensor:
    """Return the sum of the cross-entropies of all labels, in fp32.

    Logits are computed for CHUNK_TOKENS at a time, and again for the gradient, so that no tensor of
    all positions and the whole vocabulary exists. With `documents`, no document sees another.
    """
    own: Any = model
    more: dict[str, Tensor] = {}
    if documents is not None:
        more["attention_mask"] = document_mask(documents)
        more["position_ids"] = document_positions(documents)
    hidden = own.model(input_ids=input_ids, use_cache=False, **more).last_hidden_state
    hidden, targets = hidden.flatten(0, 1), labels.flatten()
    total: Tensor = hidden.new_zeros((), dtype=torch.float32)
    for start in range(0, len(targets), CHUNK_TOKENS):
        part = hidden[start : start + CHUNK_TOKENS], targets[start : start + CHUNK_TOKENS]
        total = total + checkpoint(_chunk_loss, own.lm_head, *part, use_reentrant=False)
    return total


def nats_and_bytes(
    model: nn.Module, input_ids: Tensor, num_tokens: Tensor, sizes: Tensor
) -> Tensor:
    """Return (2,) what the labels of rows cost a model in nats, and their bytes by `token_bytes`.

    In float64, on the device of all arguments; rows of 0 tokens have no labels.
    """
    labels = labels_of(input_ids, num_tokens)
    with torch.no_grad():
        nats = summed_loss(model, input_ids, labels)
    num_bytes = sizes[labels[labels != IGNORED]].sum()
    return torch.stack([nats.double(), num_bytes.double()])


def bits_per_byte(cost: Tensor) -> float:
    """Return the bits that a byte costs, of sums of `nats_and_bytes`."""
    nats, num_bytes = cost.tolist()
    return float(nats / math.log(2) / max(num_bytes, 1))


def _chunk_loss(head: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    logits = head(hidden).float()
    return functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")

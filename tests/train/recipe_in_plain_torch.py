"""DeepSeek LLM's recipe written a second time, in float64 and without any library's model.

From the paper (arXiv 2401.02954, section 2) and those it names: LLaMA's block (pre-norm RMSNorm,
rotary positions in halves, SwiGLU), AdamW with decoupled decay, gradient norm clipped to 1.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

Weights = dict[str, torch.Tensor]


def losses(
    weights: Weights,
    files: Sequence[Path],
    *,
    num_layers: int,
    num_heads: int,
    batch_size: int,
    num_steps: int,
    warmup_steps: int,
    peak: float,
) -> list[float]:
    """Return the loss of every step from given weights on rows of files as they lie."""
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    own = {name: value.double().requires_grad_() for name, value in weights.items()}
    first = {name: torch.zeros_like(value) for name, value in own.items()}
    second = {name: torch.zeros_like(value) for name, value in own.items()}
    found = []
    for step in range(num_steps):
        total, num_labels = torch.zeros((), dtype=torch.float64), 0
        for row in rows[step * batch_size : (step + 1) * batch_size]:
            ids = torch.tensor(row["input_ids"][: row["num_tokens"]])
            logits = forward(own, ids, num_layers, num_heads)
            total = total - logits[:-1].log_softmax(-1)[range(len(ids) - 1), ids[1:]].sum()
            num_labels += len(ids) - 1
        loss = total / num_labels
        grads = dict(zip(own, torch.autograd.grad(loss, list(own.values())), strict=True))
        norm = math.sqrt(sum(float((grad**2).sum()) for grad in grads.values()))
        rate = peak * min(1.0, (step + 1) / warmup_steps)
        if step >= 0.8 * num_steps:
            rate = peak * 10**-0.5
        if step >= 0.9 * num_steps:
            rate = peak / 10
        with torch.no_grad():
            for name, value in own.items():
                grad = grads[name] * min(1.0, 1.0 / (norm + 1e-6))
                first[name] = 0.9 * first[name] + 0.1 * grad
                second[name] = 0.95 * second[name] + 0.05 * grad**2
                if value.dim() > 1:
                    value *= 1 - rate * 0.1
                mean = first[name] / (1 - 0.9 ** (step + 1))
                spread = (second[name] / (1 - 0.95 ** (step + 1))).sqrt()
                value -= rate * mean / (spread + 1e-8)
        found.append(float(loss.detach()))
    return found


def forward(weights: Weights, ids: torch.Tensor, num_layers: int, num_heads: int) -> torch.Tensor:
    """Return the logits after every token."""
    x = weights["model.embed_tokens.weight"][ids]
    for i in range(num_layers):

        def of(name: str, layer: int = i) -> torch.Tensor:
            return weights[f"model.layers.{layer}.{name}.weight"]

        y = norm(x, of("input_layernorm"))
        x = x + attention(y, of, num_heads) @ of("self_attn.o_proj").T
        y = norm(x, of("post_attention_layernorm"))
        gate = y @ of("mlp.gate_proj").T
        x = x + (gate * torch.sigmoid(gate) * (y @ of("mlp.up_proj").T)) @ of("mlp.down_proj").T
    return norm(x, weights["model.norm.weight"]) @ weights["lm_head.weight"].T


def norm(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * gain


def attention(x: torch.Tensor, of, num_heads: int) -> torch.Tensor:
    length, size = x.shape
    head = size // num_heads
    query, key, value = (
        (x @ of(f"self_attn.{name}_proj").T).view(length, num_heads, head).transpose(0, 1)
        for name in "qkv"
    )
    angles = np.outer(np.arange(length), 10_000.0 ** (-2 * np.arange(head // 2) / head))
    turn = torch.polar(torch.ones(angles.shape, dtype=torch.float64), torch.from_numpy(angles))

    def turned(z: torch.Tensor) -> torch.Tensor:
        pairs = torch.complex(z[..., : head // 2], z[..., head // 2 :]) * turn
        return torch.cat([pairs.real, pairs.imag], -1)

    scores = turned(query) @ turned(key).transpose(1, 2) / math.sqrt(head)
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    mixed = scores.masked_fill(later, -math.inf).softmax(-1) @ value
    return mixed.transpose(0, 1).reshape(length, size)

"""The model as it is trained: GPTBigCode's parameters under GPTBigCode's names, one key/value head, tied head.

Written for large batches on one device; the engine has its own forward pass for serving. Shapes: B sequences, T tokens,
E width, H heads of D = E / H, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model. The default has 22.1 million parameters: 44.1 MB of bfloat16, three shards of 15 MB."""

    vocabulary: int = 9_216
    width: int = 512
    layers: int = 8
    heads: int = 8
    inner: int = 1_408
    positions: int = 2_048
    epsilon: float = 1e-5

    @property
    def parameters(self) -> int:
        """How many numbers are learned; the head is tied and counts once."""
        head_width = self.width // self.heads
        attention = (self.width + 1) * (self.width + 2 * head_width) + (self.width + 1) * self.width
        mlp = (self.width + 1) * self.inner + (self.inner + 1) * self.width
        return self.layers * (attention + mlp + 4 * self.width) + (self.vocabulary + self.positions + 2) * self.width

    def config(self) -> dict[str, Any]:
        """config.json in the published `gpt_bigcode` form."""
        return {
            "architectures": ["GPTBigCodeForCausalLM"], "model_type": "gpt_bigcode",
            "n_layer": self.layers, "n_embd": self.width, "n_head": self.heads, "n_inner": self.inner,
            "n_positions": self.positions, "vocab_size": self.vocabulary, "multi_query": True,
            "activation_function": "gelu_pytorch_tanh", "layer_norm_epsilon": self.epsilon,
            "bos_token_id": 0, "eos_token_id": 0, "scale_attn_weights": True,
            "attention_softmax_in_fp32": True, "scale_attention_softmax_in_fp32": True, "tie_word_embeddings": True,
            "torch_dtype": "bfloat16", "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "initializer_range": 0.02,
        }  # fmt: skip

    @classmethod
    def of_config(cls, config: dict[str, Any]) -> Shape:
        """The sizes in a config.json; ValueError for what this module cannot compute."""
        if config.get("model_type") != "gpt_bigcode" or not config.get("multi_query", True):
            raise ValueError("only gpt_bigcode models with one key/value head can be trained here")
        if config.get("activation_function", "gelu_pytorch_tanh") not in ("gelu_pytorch_tanh", "gelu_new", "gelu"):
            raise ValueError(f"unknown activation {config['activation_function']!r}")
        return cls(
            vocabulary=int(config["vocab_size"]), width=int(config["n_embd"]), layers=int(config["n_layer"]),
            heads=int(config["n_head"]), inner=int(config.get("n_inner") or 4 * config["n_embd"]),
            positions=int(config["n_positions"]), epsilon=float(config.get("layer_norm_epsilon", 1e-5)),
        )  # fmt: skip


class Cache:
    """Keys and values of sequences being decoded: [layers, B, T, 2 D], and how many positions each sequence has filled."""

    def __init__(self, shape: Shape, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> None:
        head_width = shape.width // shape.heads
        self.states = torch.zeros(shape.layers, batch, length, 2 * head_width, device=device, dtype=dtype)
        self.lengths = torch.zeros(batch, dtype=torch.long, device=device)


class Attention(nn.Module):
    """Multi-query attention; `c_attn` holds the rows of q (E), k (D), v (D)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.head_width = shape.heads, shape.width // shape.heads
        self.c_attn = nn.Linear(shape.width, shape.width + 2 * self.head_width)
        self.c_proj = nn.Linear(shape.width, shape.width)

    def forward(
        self, x: Tensor, states: Tensor | None = None, at: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """[B, T, E] -> the same. With `states` [B, L, 2 D], new keys and values go to positions `at` [B, T] first."""
        batch, length, width = x.shape
        q, kv = self.c_attn(x).split((width, 2 * self.head_width), dim=2)
        q = q.view(batch, length, self.heads, self.head_width).transpose(1, 2)
        if states is not None and at is not None:
            states.scatter_(1, at[:, :, None].expand(-1, -1, kv.shape[2]), kv.to(states.dtype))
            kv = states.to(q.dtype)
        k, v = kv[:, None].split(self.head_width, dim=3)
        if length == 1 and mask is not None:
            # One new token: the heads are the rows of one query matrix, and nothing is expanded.
            rows = functional.scaled_dot_product_attention(q.transpose(1, 2), k, v, attn_mask=mask)
            one: Tensor = self.c_proj(rows.reshape(batch, length, width))
            return one
        k, v = (t.expand(-1, self.heads, -1, -1) for t in (k, v))
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        out: Tensor = self.c_proj(y.transpose(1, 2).reshape(batch, length, width))
        return out


class Mlp(nn.Module):
    """Two matrices with a tanh GELU between them."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.c_fc = nn.Linear(shape.width, shape.inner)
        self.c_proj = nn.Linear(shape.inner, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, E] -> the same."""
        out: Tensor = self.c_proj(functional.gelu(self.c_fc(x), approximate="tanh"))
        return out


class Block(nn.Module):
    """Attention and MLP, each behind a layer norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(shape.width, eps=shape.epsilon)
        self.attn = Attention(shape)
        self.ln_2 = nn.LayerNorm(shape.width, eps=shape.epsilon)
        self.mlp = Mlp(shape)

    def forward(
        self, x: Tensor, states: Tensor | None = None, at: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """[B, T, E] -> the same."""
        x = x + self.attn(self.ln_1(x), states, at, mask)
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class Trunk(nn.Module):
    """Embeddings, blocks, final norm: what the published files call `transformer`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.wte = nn.Embedding(shape.vocabulary, shape.width)
        self.wpe = nn.Embedding(shape.positions, shape.width)
        self.h = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.ln_f = nn.LayerNorm(shape.width, eps=shape.epsilon)


class Model(nn.Module):
    """The whole model."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.transformer = Trunk(shape)

    def initialise(self, seed: int) -> None:
        """GPT-2's initialisation: normal of 0.02, residual projections smaller by the square root of their number."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, tensor in sorted(self.named_parameters()):
                if tensor.ndim == 2:
                    deviation = 0.02 / (2 * self.shape.layers) ** 0.5 if name.endswith("c_proj.weight") else 0.02
                    tensor.copy_(torch.randn(tensor.shape, generator=generator) * deviation)
                else:
                    tensor.fill_(1.0 if ".ln_" in name and name.endswith("weight") else 0.0)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids [B, T] -> hidden states [B, T, E] after the final norm."""
        trunk = self.transformer
        positions = torch.arange(ids.shape[1], device=ids.device)
        x = trunk.wte(ids) + trunk.wpe(positions)
        for block in trunk.h:
            x = block(x)
        out: Tensor = trunk.ln_f(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., E] -> logits [..., V]."""
        return functional.linear(hidden, self.transformer.wte.weight)

    def loss(self, ids: Tensor, weights: Tensor) -> Tensor:
        """Sum of weight times cross-entropy, in nats. `ids` is [B, T + 1], `weights` [B, T] for the targets."""
        logits = self.logits(self.forward(ids[:, :-1])).float()
        each = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        return (each * weights.flatten()).sum()

    def extend(self, ids: Tensor, lengths: Tensor, cache: Cache) -> Tensor:
        """Append `lengths` [B] of the ids [B, T] to each sequence -> hidden state [B, E] of its last new token.

        What stands in `ids` behind a sequence's length is padding: it is computed, overwritten later and never seen.
        """
        trunk = self.transformer
        batch, new = ids.shape
        at = (cache.lengths[:, None] + torch.arange(new, device=ids.device)).clamp(max=cache.states.shape[2] - 1)
        mask: Tensor | None = None
        used = int(cache.lengths.max()) + new
        if new > 1 and not bool(cache.lengths.any()):
            states = cache.states[:, :, :new]
        else:
            states = cache.states[:, :, : min(used, cache.states.shape[2])]
            mask = torch.arange(states.shape[2], device=ids.device)[None, None, None, :] <= at[:, None, :, None]
        x = trunk.wte(ids) + trunk.wpe(at.clamp(max=self.shape.positions - 1))
        for layer, block in enumerate(trunk.h):
            x = block(x, states[layer], at, mask)
        cache.lengths += lengths
        last = x[torch.arange(batch, device=ids.device), (lengths - 1).clamp(min=0)]
        out: Tensor = trunk.ln_f(last)
        return out

"""Checkpoints in the forms that others published: SantaCoder's own layout, and fine-tunes with tokens of their own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.harness.hostile.spoiling import CONFIG, TOKENIZER, WEIGHTS

Array = NDArray[np.float64]

_DENSE = ("attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def as_santacoder(source: Path, target: Path, *, dtype: torch.dtype = torch.float16) -> Path:
    """Rewrite a `gpt_bigcode` checkpoint as `bigcode/santacoder` has it; -> the directory.

    Dense layers are [in, out]; multi-query attention has `q_attn` and `kv_attn`, multi-head attention a `c_attn` of
    [q | k | v] as GPT-2; the causal mask is among the tensors; the configuration asks for code of its own, and names token
    ids that the vocabulary does not have.
    """
    config: dict[str, Any] = json.loads((source / CONFIG).read_text())
    multi_query = config.pop("multi_query")
    d, heads = config["n_embd"], config["n_head"]
    tensors = load_file(source / WEIGHTS)
    for number in range(config["n_layer"]):
        block = f"transformer.h.{number}"
        weight, bias = (tensors.pop(f"{block}.attn.c_attn.{part}") for part in ("weight", "bias"))
        if multi_query:
            tensors |= _linear(f"{block}.attn.q_attn", weight[:d], bias[:d])
            tensors |= _linear(f"{block}.attn.kv_attn", weight[d:], bias[d:])
        else:
            tensors |= _linear(f"{block}.attn.c_attn", _by_kind(weight, heads), _by_kind(bias, heads))
        for name in _DENSE:
            tensors |= _linear(
                f"{block}.{name}", tensors.pop(f"{block}.{name}.weight"), tensors[f"{block}.{name}.bias"]
            )
        positions = config["n_positions"]
        tensors[f"{block}.attn.bias"] = torch.ones(positions, positions, dtype=torch.uint8).tril()[None, None]
        tensors[f"{block}.attn.masked_bias"] = torch.tensor(-1e4)
    target.mkdir(parents=True)
    kept = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    save_file({name: tensor.contiguous() for name, tensor in kept.items()}, target / WEIGHTS, {"format": "pt"})
    config |= {
        "architectures": ["GPT2LMHeadCustomModel"],
        "model_type": "gpt2",
        "attention_head_type": "multiquery" if multi_query else "multihead",
        "activation_function": "gelu_fast",
        "auto_map": {
            "AutoConfig": "configuration_gpt2_mq.GPT2CustomConfig",
            "AutoModelForCausalLM": "modeling_gpt2_mq.GPT2LMHeadCustomModel",
        },
        "bos_token_id": 50256,
        "eos_token_id": 50256,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "summary_type": "cls_index",
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
    (target / CONFIG).write_text(json.dumps(config, indent=2))
    (target / TOKENIZER).write_bytes((source / TOKENIZER).read_bytes())
    return target


def with_tokens(directory: Path, *added: str) -> Path:
    """Give a checkpoint control tokens of its own after the others', as fine-tunes do; rows for them must be there."""
    path = directory / TOKENIZER
    tokenizer = json.loads(path.read_text())
    like = tokenizer["added_tokens"][0]
    first = 1 + max(max(tokenizer["model"]["vocab"].values()), max(token["id"] for token in tokenizer["added_tokens"]))
    tokenizer["added_tokens"] += [like | {"id": first + n, "content": text} for n, text in enumerate(added)]
    path.write_text(json.dumps(tokenizer))
    return directory


def santacoder_logits(directory: Path, ids: list[int]) -> Array:
    """float64 [T, V]: the forward pass of SantaCoder's layout, straight from its file.

    After the description in Ben Allal et al. 2023 (a GPT-2 decoder whose heads share one key and one value).
    """
    config = json.loads((directory / CONFIG).read_text())
    tensors = {name: t.double().numpy() for name, t in load_file(directory / WEIGHTS).items() if t.is_floating_point()}
    heads = config["n_head"]
    d = config["n_embd"]
    x = tensors["transformer.wte.weight"][ids] + tensors["transformer.wpe.weight"][: len(ids)]
    future = np.triu(np.full((len(ids), len(ids)), -np.inf), 1)

    def dense(name: str, y: Array) -> Array:
        product: Array = y @ tensors[f"{name}.weight"] + tensors[f"{name}.bias"]
        return product

    def norm(name: str, y: Array) -> Array:
        centred = y - y.mean(-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(-1, keepdims=True) + config["layer_norm_epsilon"])
        normed: Array = centred / spread * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]
        return normed

    def attention(name: str, y: Array) -> Array:
        q = dense(f"{name}.q_attn", y).reshape(len(ids), heads, d // heads)
        k, v = np.split(dense(f"{name}.kv_attn", y), 2, axis=1)
        scores = np.einsum("thd,sd->hts", q, k) / math.sqrt(d // heads) + future
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return dense(f"{name}.c_proj", np.einsum("hts,sd->thd", weights, v).reshape(len(ids), d))

    for number in range(config["n_layer"]):
        block = f"transformer.h.{number}"
        x = x + attention(f"{block}.attn", norm(f"{block}.ln_1", x))
        y = dense(f"{block}.mlp.c_fc", norm(f"{block}.ln_2", x))
        y = y / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
        x = x + dense(f"{block}.mlp.c_proj", y)
    logits: Array = norm("transformer.ln_f", x) @ tensors["transformer.wte.weight"].T
    return logits


def _linear(name: str, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    return {f"{name}.weight": weight.t(), f"{name}.bias": bias}


def _by_kind(tensor: Tensor, heads: int) -> Tensor:
    """Rows [q k v of each head] to [all q | all k | all v]."""
    rows = [tensor.chunk(heads)[head].chunk(3)[kind] for kind in range(3) for head in range(heads)]
    return torch.cat(rows)

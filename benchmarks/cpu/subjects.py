"""The models that are compared: the built-in one, and random weights of real shapes, written as checkpoint and as GGUF."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.shapes import FAMILY
from benchmarks.weights import random_tensors
from engine.gpt_bigcode import ModelShape
from engine.models import STARTER

WINDOW = 2_048
SHAPES: dict[str, ModelShape] = {
    "22m": replace(FAMILY["1b"], n_layer=8, n_embd=512, n_head=8, n_inner=1_408, vocab_size=9_216, n_positions=WINDOW),
    "1b": replace(FAMILY["1b"], n_positions=WINDOW),
}
NAMES = ("starter", *SHAPES)

_PARTS = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
_WHOLE = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}


def checkpoint(name: str, folder: Path, seed: int) -> Path:
    """The directory of a model: the built-in one as it is, another one written under `folder` unless it is there."""
    if name == "starter":
        return STARTER
    directory = folder / f"{name}-{seed}"
    if not directory.is_dir():
        shape, unfinished = SHAPES[name], directory.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        (unfinished / "config.json").write_text(json.dumps(_config(shape)), "utf-8")
        shutil.copy(STARTER / "tokenizer.json", unfinished)
        save_file(random_tensors(shape, torch.bfloat16, torch.device("cpu"), seed), unfinished / "model.safetensors")
        unfinished.rename(directory)
    return directory


def gguf(directory: Path, precision: str, target: Path) -> Path:
    """The same weights for llama.cpp, written to `target` unless it is there: matrices in `precision`, vectors float32.

    `precision` is float32, bfloat16, or int8 for its Q8_0.
    """
    if target.exists():
        return target
    import gguf as gg

    config = json.loads((directory / "config.json").read_text("utf-8"))
    unfinished = target.with_suffix(".unfinished")
    writer = gg.GGUFWriter(unfinished, "starcoder")
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(config["n_inner"])
    writer.add_block_count(config["n_layer"])
    writer.add_head_count(config["n_head"])
    writer.add_head_count_kv(1 if config["multi_query"] else config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    _add_tokenizer(writer, gg, directory, config["vocab_size"])
    kind = {
        "float32": gg.GGMLQuantizationType.F32,
        "bfloat16": gg.GGMLQuantizationType.BF16,
        "int8": gg.GGMLQuantizationType.Q8_0,
    }[precision]
    for name, tensor in _tensors(directory):
        array: npt.NDArray[Any] = tensor.float().numpy()
        if array.ndim == 1 or name.startswith("position"):
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gg.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    unfinished.rename(target)
    return target


def prompt_ids(length: int, seed: int) -> list[int]:
    """Random ids that no model takes for control tokens."""
    return [int(n) for n in np.random.default_rng(seed).integers(300, 8_000, length)]


def _tensors(directory: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a single-file checkpoint under llama.cpp's names; a tied head is left out."""
    with safe_open(directory / "model.safetensors", framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  (a handle of safetensors, not a dict)
            if name == "lm_head.weight":
                continue
            part = name.removeprefix("transformer.")
            if part.startswith("h."):
                _, number, rest = part.split(".", 2)
                layer, _, leaf = rest.rpartition(".")
                yield f"blk.{number}.{_PARTS[layer]}.{leaf}", file.get_tensor(name)
            else:
                layer, _, leaf = part.rpartition(".")
                yield f"{_WHOLE[layer]}.{leaf}", file.get_tensor(name)


def _add_tokenizer(writer: Any, gg: Any, directory: Path, size: int) -> None:
    """The vocabulary, filled up to `size`; prompts are sent as ids, so that only the sizes matter for speed."""
    tokenizer = json.loads((directory / "tokenizer.json").read_text("utf-8"))
    added = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    by_id = {number: token for token, number in tokenizer["model"]["vocab"].items()} | added
    types = gg.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("starcoder")
    writer.add_token_list([by_id.get(n, f"[unused {n}]") for n in range(size)])
    writer.add_token_types(
        [types.CONTROL if n in added else types.NORMAL if n in by_id else types.UNUSED for n in range(size)]
    )
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    end = {content: number for number, content in added.items()}["<|endoftext|>"]
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(False)


def _config(shape: ModelShape) -> dict[str, object]:
    return {
        "model_type": "gpt_bigcode",
        "n_layer": shape.n_layer,
        "n_embd": shape.n_embd,
        "n_head": shape.n_head,
        "n_inner": shape.n_inner,
        "n_positions": shape.n_positions,
        "vocab_size": shape.vocab_size,
        "multi_query": shape.multi_query,
        "activation_function": "gelu_pytorch_tanh",
        "layer_norm_epsilon": shape.norm_eps,
        "scale_attn_weights": True,
        "tie_word_embeddings": True,
    }

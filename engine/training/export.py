"""Weights to and from the published `gpt_bigcode` layout: config.json, safetensors in shards, an index, the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine.training.bpe import CONTROL
from engine.training.model import Model, Shape

SHARD_BYTES = 15_000_000
_HEADER_BYTES = 16_384  # a shard's own table of names


class ExportError(Exception):
    """Weights that cannot be written or read as asked."""


def plan(sizes: Mapping[str, int], limit: int = SHARD_BYTES) -> list[list[str]]:
    """Tensor names to shards of at most `limit` bytes: largest first, each into the first shard with room."""
    shards: list[tuple[int, list[str]]] = []
    for name, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        if size + _HEADER_BYTES > limit:
            raise ExportError(f"{name} alone has {size} bytes; a shard holds {limit}")
        for number, (used, names) in enumerate(shards):
            if used + size + _HEADER_BYTES <= limit:
                shards[number] = (used + size, [*names, name])
                break
        else:
            shards.append((size, [name]))
    return [names for _, names in shards]


def write(
    model: Model, tokenizer: str, folder: Path, *, limit: int = SHARD_BYTES, dtype: torch.dtype = torch.bfloat16
) -> int:
    """Write a model folder that the engine and transformers load -> bytes of weights. Old shards there are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in state.items()}
    shards = plan(sizes, limit)
    for old in folder.glob("model*.safetensors"):
        old.unlink()
    where: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({name: state[name] for name in sorted(names)}, str(folder / file), metadata={"format": "pt"})
        (folder / file).chmod(0o644)
        where |= dict.fromkeys(names, file)
    total: int = sum(sizes.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    _json(folder / "model.safetensors.index.json", index)
    _json(folder / "config.json", model.shape.config())
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    return total


def write_tokenizer_config(folder: Path, positions: int) -> None:
    """tokenizer_config.json, which transformers likes to have and the engine does not need."""
    _json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": CONTROL[0], "eos_token": CONTROL[0],
            "unk_token": CONTROL[0], "additional_special_tokens": list(CONTROL), "model_max_length": positions,
            "clean_up_tokenization_spaces": False, "add_prefix_space": False,
        },
    )  # fmt: skip


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, sharded or not."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names: Iterable[str] = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [folder / name for name in names]
    else:
        files = [folder / "model.safetensors"]
    for file in files:
        if file.parent != folder or not file.exists():
            raise ExportError(f"{file}: no such file of weights")
    return files


def read(folder: Path, dtype: torch.dtype = torch.float32) -> Model:
    """A model folder's weights in the training module."""
    shape = Shape.of_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    state: dict[str, Tensor] = {}
    for file in weight_files(folder):
        with safe_open(str(file), framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (not a mapping)
                state[name] = tensors.get_tensor(name).to(dtype)
    state.pop("lm_head.weight", None)
    state = {name: tensor for name, tensor in state.items() if not name.endswith((".attn.bias", ".attn.masked_bias"))}
    with torch.device("meta"):
        model = Model(shape)
    model.load_state_dict(state, strict=True, assign=True)
    return model

"""Weights to one of the library's own classes, through our reader: tensor by tensor, checked, cast, owned."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from engine.checkpoint.header import TensorInfo
from engine.checkpoint.json_file import shown
from engine.checkpoint.layouts import FLOATS
from engine.checkpoint.reading import TensorReader
from engine.checkpoint.table import TIED_HEAD, read_table
from engine.errors import CheckpointError
from engine.precision import Precision
from engine.transformers_backend.families import NativeConfig
from engine.transformers_backend.model import TransformersModel

_EMBEDDING = "model.embed_tokens.weight"
_PAIR = (_EMBEDDING, TIED_HEAD)
_FREQUENCIES = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", re.ASCII)
"""What old versions of the library stored though it is computed."""


def load_native_model(directory: Path, config: NativeConfig, precision: Precision) -> TransformersModel:
    """Check all tensors of a directory, then bring them to the device; raises CheckpointError before any is used."""
    model, tied = _empty_model(config), config.tie_word_embeddings
    expected, table = _shapes(model), read_table(directory)
    _check_table(directory, expected, table, tied=tied)
    # safetensors' `save_model` keeps a tied pair under the head's name alone.
    embedding = TIED_HEAD if tied and _EMBEDDING not in table else _EMBEDDING
    with TensorReader(directory, table, precision) as read:
        weights = {
            name: read.owned(embedding if name == _EMBEDDING else name).to(precision.device, precision.dtype)
            for name in expected
            if name != TIED_HEAD or not tied
        }
        if tied and embedding == _EMBEDDING and TIED_HEAD in table and not read.equal(TIED_HEAD, _EMBEDDING):
            weights[TIED_HEAD] = read.owned(TIED_HEAD).to(precision.device, precision.dtype)
    # A head in the file of a tied model is the same table once more, or one of its own.
    weights.setdefault(TIED_HEAD, weights[_EMBEDDING])
    model.load_state_dict(weights, strict=True, assign=True)
    _fill_buffers(model, precision.device)
    return TransformersModel(config, model.eval().requires_grad_(requires_grad=False))


def check_native_table(directory: Path, config: NativeConfig, table: Mapping[str, TensorInfo]) -> None:
    """Whether a directory's tensors are those of the model; raises CheckpointError."""
    _check_table(directory, _shapes(_empty_model(config)), table, tied=config.tie_word_embeddings)


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _empty_model(config: NativeConfig) -> Any:
    """The library's model of that shape, without memory for its weights."""
    modeling = _module(config, "modeling")
    settings = getattr(_module(config, "configuration"), config.config_class)(**config.arguments())
    settings._attn_implementation = "sdpa"
    with torch.device("meta"):
        return getattr(modeling, config.model_class)(settings)


def _module(config: NativeConfig, part: str) -> ModuleType:
    """A module of the installed library, by names that are written in `families.py`."""
    return importlib.import_module(f"transformers.models.{config.module}.{part}_{config.module}")


def _fill_buffers(model: Any, device: torch.device) -> None:
    """Make what no file holds: the frequencies of the positions, and the factor of scaled embeddings."""
    body = model.model
    body.rotary_emb = type(body.rotary_emb)(config=model.config).to(device)
    embedding = body.embed_tokens
    if hasattr(embedding, "scalar_embed_scale"):
        embedding.embed_scale = torch.tensor(embedding.scalar_embed_scale, device=device)
    empty = [name for name, tensor in [*model.named_parameters(), *model.named_buffers()] if tensor.is_meta]
    if empty:
        raise CheckpointError(f"this version of transformers has {empty[0]}, which nothing is known to fill")


def _check_table(
    directory: Path, expected: Mapping[str, tuple[int, ...]], table: Mapping[str, TensorInfo], *, tied: bool
) -> None:
    """Refuse a checkpoint that lacks a tensor, has one of another shape or dtype, or one that we would not use."""
    strangers = (name for name in table if name not in expected and not _FREQUENCIES.fullmatch(name))
    stranger = next(strangers, None)
    for name, shape in expected.items():
        info = table.get(name)
        if info is None:
            if tied and {name, *(other for other in _PAIR if other in table)} == {*_PAIR}:
                continue  # one of the two is enough
            instead = f" (there is {shown(stranger)} instead)" if stranger is not None else ""
            raise CheckpointError(
                f"{directory}: tensor {name} is missing{instead}; config.json is of another model, or cut"
            )
        where = f"{directory / info.file}: {name}"
        if info.shape != shape:
            raise CheckpointError(f"{where} has shape {list(info.shape)}, config.json makes it {list(shape)}")
        if info.dtype not in FLOATS:
            raise CheckpointError(
                f"{where} is {info.dtype}; expected F32, BF16 or F16 (float32, bfloat16, float16); weights quantised by "
                "another tool are not supported"
            )
    if stranger is not None:
        raise CheckpointError(
            f"{directory / table[stranger].file}: tensor {shown(stranger)} is no part of the model in config.json"
        )

"""All tensors of a model directory, whichever shard each is in, before any of them is read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.checkpoint.folder import ModelFolder
from engine.checkpoint.header import TensorInfo, read_header
from engine.checkpoint.json_file import JsonLimits, read_object, refuse, shown
from engine.errors import CheckpointError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_LIMITS = JsonLimits(size=4 * 2**20, values=100_000)
_MOST_SHARDS = 1_024
_SHARD_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,200}\.safetensors", re.ASCII)
_SHARD_OF_A_SET = re.compile(r"model-\d+-of-\d+\.safetensors", re.ASCII)
_PICKLED = re.compile(r".*\.(bin|pt|pth|ckpt|pkl|pickle)", re.ASCII)
TIED_HEAD = "lm_head.weight"
"""Some indexes list the head of a tied model though no file holds it."""


class _Index(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    weight_map: Annotated[dict[Annotated[str, Field(max_length=256)], str], Field(min_length=1, max_length=16_384)]


def read_table(directory: Path) -> dict[str, TensorInfo]:
    """Name, place, dtype and shape of every tensor; raises CheckpointError that names the file."""
    folder = ModelFolder(directory)
    if folder.has(SINGLE) or not folder.has(INDEX):
        if not folder.has(SINGLE):
            raise CheckpointError(f"{folder.path(SINGLE)}: no such file; {_remedy(folder)}")
        return _shard(folder, SINGLE)
    index = _read_index(folder)
    shards = sorted(set(index.values()))
    for name in folder.names():
        if _SHARD_OF_A_SET.fullmatch(name) and name not in shards:
            raise CheckpointError(f"{folder.path(name)}: a shard that {INDEX} does not know; download the model again")
    found: dict[str, TensorInfo] = {}
    for shard in shards:
        for name, info in _shard(folder, shard).items():
            if index.get(name) != shard:
                raise CheckpointError(f"{folder.path(shard)}: holds {shown(name)}, which {INDEX} does not place there")
            found[name] = info
    for name, shard in index.items():
        if name not in found and name != TIED_HEAD:
            raise CheckpointError(f"{folder.path(shard)}: lacks {shown(name)}, which {INDEX} places there")
    return found


def _read_index(folder: ModelFolder) -> dict[str, str]:
    path = folder.path(INDEX)
    try:
        index = _Index.model_validate(read_object(folder, INDEX, _LIMITS)).weight_map
    except ValidationError as error:
        refuse(path, error)
    for name in _strangers(index):
        raise CheckpointError(f"{path}: shard {shown(name)} must be a .safetensors file of the same directory")
    if len(set(index.values())) > _MOST_SHARDS:
        raise CheckpointError(f"{path}: more than {_MOST_SHARDS} shards")
    return index


def _strangers(index: dict[str, str]) -> Iterator[str]:
    return (name for name in sorted(set(index.values())) if not _SHARD_NAME.fullmatch(name))


def _shard(folder: ModelFolder, name: str) -> dict[str, TensorInfo]:
    with folder.open(name) as file:
        return read_header(file, folder.path(name), os.fstat(file.fileno()).st_size)


def _remedy(folder: ModelFolder) -> str:
    pickled = next((name for name in folder.names() if _PICKLED.fullmatch(name)), None)
    if pickled is not None:
        return (
            f"{shown(pickled)} is never opened, because loading a pickle runs code: get the safetensors form of the model, "
            f"or make it with: starfill models convert {folder.directory}"
        )
    return "a model directory needs safetensors weights"

"""Checkpoints as old tools pickled them, and pickles that were made to do harm."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

BIN = "pytorch_model.bin"


class Call:
    """Pickled as a call of any function with any arguments."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._function = function
        self._arguments = arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._function, self._arguments


def named(module: str, name: str, *arguments: bytes, protocol: int = 0) -> bytes:
    """Opcodes that call `module.name`; arguments are opcodes that push one value each."""
    if protocol >= 4:
        words = b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name))
        function = words + b"\x93"  # two short strings, STACK_GLOBAL
    else:
        function = f"c{module}\n{name}\n".encode()
    return bytes([0x80, max(protocol, 2)]) + function + b"(" + b"".join(arguments) + b"tR."


def text(value: str) -> bytes:
    """The opcode that pushes a string."""
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def zipped(data: bytes, storages: Mapping[str, bytes] | None = None, *, root: str = "archive") -> bytes:
    """A zip archive as torch writes it around a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{root}/data.pkl", data)
        for key, content in (storages or {}).items():
            archive.writestr(f"{root}/data/{key}", content)
        archive.writestr(f"{root}/version", "3\n")
    return buffer.getvalue()


def legacy(data: bytes) -> bytes:
    """Torch's older form around a pickle that mentions no storage."""
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    return b"".join(pickle.dumps(part, 2) for part in head) + data + pickle.dumps([], 2)


def as_pickled(
    source: Path, target: Path, *, shards: int = 1, old_form: bool = False, masks: bool = False, views: bool = False
) -> Path:
    """Rewrite a directory of safetensors as its publisher would have pickled it; -> the directory.

    The head is there once more over the embedding's own storage. `masks` adds the causal masks of old files, `views` puts all
    vectors into one storage and stores matrices as transposed views.
    """
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.suffix == ".json" and "index" not in path.name:
            (target / path.name).write_bytes(path.read_bytes())
    tensors: dict[str, Tensor] = {}
    for file in sorted(source.glob("*.safetensors")):
        tensors |= load_file(file)
    config = json.loads((source / "config.json").read_text())
    if masks:
        positions = config["n_positions"]
        for number in range(config["n_layer"]):
            attn = f"transformer.h.{number}.attn"
            tensors[f"{attn}.bias"] = torch.ones(positions, positions, dtype=torch.uint8).tril()[None, None]
            tensors[f"{attn}.masked_bias"] = torch.tensor(-1e4)
    if views:
        tensors = as_views(tensors)
    state: OrderedDict[str, Any] = OrderedDict(tensors)
    if shards == 1:
        state["lm_head.weight"] = state["transformer.wte.weight"]
        vars(state)["_metadata"] = OrderedDict({"": {"version": 1}})  # as modules have it
        torch.save(state, target / BIN, _use_new_zipfile_serialization=not old_form)
        return target
    names = sorted(state)
    where: dict[str, str] = {}
    for number in range(shards):
        file_name = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        part = OrderedDict((name, state[name]) for name in names[number::shards])
        torch.save(part, target / file_name, _use_new_zipfile_serialization=not old_form)
        where |= dict.fromkeys(part, file_name)
    (target / f"{BIN}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return target


def as_views(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers, seen through fewer storages."""
    vectors = [name for name, tensor in tensors.items() if tensor.dim() == 1 and tensor.is_floating_point()]
    found = dict(tensors)
    if vectors:
        flat = torch.cat([tensors[name] for name in vectors])
        parts = torch.split(flat, [len(tensors[name]) for name in vectors])
        found |= dict(zip(vectors, parts, strict=True))
    for name, tensor in tensors.items():
        if tensor.dim() == 2 and name != "transformer.wte.weight":
            found[name] = tensor.t().contiguous().t()
    return found

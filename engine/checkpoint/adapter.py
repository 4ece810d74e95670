"""Low-rank adapters (Hu et al. 2021) in PEFT's layout: a folder that names its base model and is merged into it at load.

    W' = W + (alpha / r) B A        A [r, in], B [out, r], float32, W as the file has it

Each layer is merged as it is read, before it is brought to the form that it is computed in, so that every precision works and
nothing beyond the adapter itself stays in memory. Its files pass the same gate as any checkpoint's.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.checkpoint.folder import ModelFolder
from engine.checkpoint.header import TensorInfo, read_header
from engine.checkpoint.json_file import JsonLimits, read_object, refuse, shown
from engine.errors import CheckpointError
from engine.instruct import NOTE
from engine.models import ModelSource, locate

if TYPE_CHECKING:
    from torch import Tensor

    from engine.checkpoint.layouts import TensorMap

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_LIMITS = JsonLimits(size=2**18, values=5_000)
_PREFIX = "base_model.model."
_LARGEST = 4 * 2**30  # bytes of an adapter: more than rank 1,024 of the largest model takes
_SAMPLES, _SAMPLE_BYTES = 64, 4_096


class _Config(BaseModel):
    """What is read of `adapter_config.json`: all that changes the arithmetic is known or refused, by `_check_rest` too."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)

    peft_type: Literal["LORA"]
    base_model_name_or_path: Annotated[str, Field(min_length=1, max_length=4_096)]
    revision: Annotated[str, Field(max_length=256)] | None = None
    r: int = Field(ge=1, le=1_024)
    lora_alpha: float = Field(gt=0, le=1e6)
    bias: Literal["none"] = "none"
    fan_in_fan_out: Literal[False] = False
    use_rslora: Literal[False] = False
    use_dora: Literal[False] = False
    modules_to_save: None = None
    layer_replication: None = None
    rank_pattern: Annotated[dict[str, Any], Field(max_length=0)] = {}
    alpha_pattern: Annotated[dict[str, Any], Field(max_length=0)] = {}
    # Other ways to begin take their part out of the base's weights; a conversion that gives it back says true.
    init_lora_weights: bool | Literal["gaussian", "eva", "orthogonal"] | None = None


_NO_ARITHMETIC = frozenset({
    "auto_mapping", "corda_config", "ensure_weight_tying", "eva_config", "exclude_modules", "inference_mode",
    "layers_pattern", "layers_to_transform", "loftq_config", "lora_dropout", "lora_ga_config", "megatron_config",
    "megatron_core", "peft_version", "qalora_group_size", "runtime_config", "target_modules", "task_type",
})  # fmt: skip
"""Fields about how an adapter was made, or about what its tensors' names and other fields decide."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A trained adapter and the model that it was trained beside. `pairs`: A and B of each layer, by the layer's name."""

    directory: Path
    base: ModelSource
    pairs: Mapping[str, tuple[Tensor, Tensor]]
    scale: float

    @classmethod
    def read(cls, directory: Path) -> Adapter:
        """An adapter folder; raises CheckpointError that names the file, and the base model if that is missing."""
        config = _config(directory)
        base = _base(directory, config)
        _check_identity(directory, base)
        return cls(directory, base, _read_pairs(directory, config.r), config.lora_alpha / config.r)

    def check(self, wanted: TensorMap) -> None:
        """Refuse an adapter that was made for another model; before any weight is read."""
        sizes = {
            name: (outputs, dense.inputs, dense.transposed)
            for block in wanted.blocks
            for dense in (block.qkv, block.attn_proj, block.fc, block.mlp_proj)
            for name, outputs in dense.parts
        }
        for name, (a, b) in self.pairs.items():
            where = f"{self.directory / WEIGHTS}: {shown(name)}"
            if name not in sizes:
                raise CheckpointError(f"{where}: the base model {self.base.id} has no such layer")
            outputs, inputs, transposed = sizes[name]
            if transposed:
                raise CheckpointError(f"{where}: adapters for SantaCoder's own layout are not supported")
            if (b.shape[0], a.shape[1]) != (outputs, inputs):
                raise CheckpointError(
                    f"{where}: made for a layer of {[b.shape[0], a.shape[1]]}, the base model {self.base.id} has "
                    f"{[outputs, inputs]}"
                )

    def merge(self, name: str, weight: Tensor) -> Tensor:
        """The tensor of that name in a file with its low-rank part added, in float32; the same tensor if it has none."""
        pair = self.pairs.get(name.removesuffix(".weight")) if name.endswith(".weight") else None
        if pair is None:
            return weight
        a, b = pair
        merged: Tensor = weight.float().addmm(b.to(weight.device), a.to(weight.device), alpha=self.scale)
        return merged


def is_adapter(directory: Path) -> bool:
    """Whether this is the folder of an adapter and not of a whole model."""
    folder = ModelFolder(directory)
    return folder.has(CONFIG) and not folder.has("config.json")


def base_of(directory: Path) -> ModelSource:
    """The model that an adapter is of, without reading any number; raises CheckpointError."""
    return _base(directory, _config(directory))


def fingerprint(directory: Path) -> str:
    """What tells a model from others of the same shape, in milliseconds: its small files, and samples of its weights."""
    folder = ModelFolder(directory)
    digest = hashlib.sha256()
    weights = [name for name in folder.names() if name.endswith(".safetensors")]
    for name in ("config.json", "tokenizer.json"):
        if folder.has(name):
            digest.update(hashlib.sha256(folder.read(name, 64 * 2**20)).digest())
    for name in weights:
        with folder.open(name) as file:
            size = os.fstat(file.fileno()).st_size
            digest.update(f"{name} {size}\n".encode())
            for at in range(0, size, max(_SAMPLE_BYTES, size // _SAMPLES)):
                file.seek(at)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _config(directory: Path) -> _Config:
    folder = ModelFolder(directory)
    found = read_object(folder, CONFIG, _LIMITS)
    if isinstance(found.get("lora_alpha"), int):
        found["lora_alpha"] = float(found["lora_alpha"])
    try:
        config = _Config.model_validate(found)
    except ValidationError as error:
        refuse(folder.path(CONFIG), error)
    _check_rest(folder.path(CONFIG), found)
    return config


def _check_rest(path: Path, found: Mapping[str, Any]) -> None:
    """Whatever else is asked for may be a way to compute that is not ours: a field that says nothing asks for nothing."""
    for name, value in found.items():
        if name not in _Config.model_fields and name not in _NO_ARITHMETIC and value not in (None, False, "", [], {}):
            raise CheckpointError(
                f"{path}: {shown(name)} is {shown(value)}; only plain low-rank adapters are supported"
            )


def _base(directory: Path, config: _Config) -> ModelSource:
    name, revision = config.base_model_name_or_path, config.revision
    for wanted in (f"{name}@{revision}", name) if revision and not Path(name).is_absolute() else (name,):
        try:
            base = locate(wanted, trust_folder=False)
        except CheckpointError:
            continue
        if is_adapter(base.directory):
            raise CheckpointError(
                f"{directory / CONFIG}: its base model {shown(name)} is an adapter itself; name the whole model"
            )
        return base
    remedy = (
        "put it back there" if name.startswith(("/", "~")) else f"get it with: starfill models pull {shown(name)[1:-1]}"
    )
    raise CheckpointError(f"{directory / CONFIG}: its base model {shown(name)} is not here; {remedy}")


def _check_identity(directory: Path, base: ModelSource) -> None:
    """Tuning notes which weights it started from: with others the adapter would be wrong without any sign of it."""
    folder = ModelFolder(directory)
    if not folder.has(NOTE):
        return
    note = read_object(folder, NOTE, _LIMITS)
    known = note.get("base")
    wanted = known.get("fingerprint") if isinstance(known, dict) else None
    if isinstance(wanted, str) and wanted != fingerprint(base.directory):
        raise CheckpointError(
            f"{directory}: made for other weights than those of {base.id} in {base.directory}; tune again from these, or "
            "put the former ones back"
        )


def _read_pairs(directory: Path, rank: int) -> dict[str, tuple[Tensor, Tensor]]:
    folder = ModelFolder(directory)
    path = folder.path(WEIGHTS)
    with folder.open(WEIGHTS) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _LARGEST:
            raise CheckpointError(f"{path}: larger than any adapter")
        table = read_header(file, path, size)
        halves: dict[str, dict[str, Tensor]] = {}
        for name, info in table.items():
            layer, half = _place(path, name)
            halves.setdefault(layer, {})[half] = _tensor(file.fileno(), f"{path}: {shown(name)}", info)
    pairs = {}
    for layer, found in halves.items():
        a, b = found.get("A"), found.get("B")
        if a is None or b is None:
            raise CheckpointError(f"{path}: {shown(layer)} lacks its lora_{'A' if a is None else 'B'}")
        if a.shape[0] != rank or b.shape[1] != rank:
            raise CheckpointError(
                f"{path}: {shown(layer)} has rank {a.shape[0]} and {b.shape[1]}, {CONFIG} says {rank}"
            )
        pairs[layer] = (a, b)
    if not pairs:
        raise CheckpointError(f"{path}: holds no layer")
    return pairs


def _place(path: Path, name: str) -> tuple[str, str]:
    """The layer that a tensor of an adapter belongs to, and whether it is its A or its B."""
    for half in ("A", "B"):
        ending = f".lora_{half}.weight"
        if name.startswith(_PREFIX) and name.endswith(ending):
            return name[len(_PREFIX) : -len(ending)], half
    raise CheckpointError(f"{path}: {shown(name)} is no part of a plain low-rank adapter")


def _tensor(number: int, where: str, info: TensorInfo) -> Tensor:
    import torch

    dtypes = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
    if info.dtype not in dtypes or len(info.shape) != 2:
        raise CheckpointError(
            f"{where} is {info.dtype} of shape {list(info.shape)}; expected a matrix of F32, BF16 or F16"
        )
    if info.begin == info.end:
        raise CheckpointError(f"{where} is empty")
    start = info.begin // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    try:
        pages = mmap.mmap(number, info.end - start, access=mmap.ACCESS_COPY, offset=start)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{where} cannot be mapped ({error})") from error
    data = torch.frombuffer(pages, dtype=torch.uint8, count=info.end - info.begin, offset=info.begin - start).clone()
    tensor = data.view(dtypes[info.dtype]).view(info.shape).float()
    if not bool(tensor.isfinite().all()):
        raise CheckpointError(f"{where} holds NaN or infinity; the file is broken")
    return tensor

"""Well-formed safetensors files whose tensors are not the model's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.harness.hostile.spoiling import WEIGHTS, Spoil, Spoilt

_WTE, _LAST = "transformer.wte.weight", "transformer.h.1.mlp.c_proj.bias"


def _tensors(change: Callable[[dict[str, Tensor]], None]) -> Spoil:
    def spoil(folder: Path) -> None:
        tensors = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
        change(tensors)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)

    return spoil


def _case(name: str, says: str, change: Callable[[dict[str, Tensor]], None]) -> Spoilt:
    return Spoilt(f"weights: {name}", "", says, _tensors(change))


def _as(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], None]:
    def apply(tensors: dict[str, Tensor]) -> None:
        tensors[name] = change(tensors[name])

    return apply


def _filled(name: str, value: float) -> Callable[[dict[str, Tensor]], None]:
    def apply(tensors: dict[str, Tensor]) -> None:
        tensors[name].view(-1)[-1] = value

    return apply


def _missing(tensors: dict[str, Tensor]) -> None:
    del tensors[_LAST]


def _gptq(tensors: dict[str, Tensor]) -> None:
    stem = "transformer.h.0.mlp.c_fc"
    tensors[f"{stem}.qweight"] = tensors.pop(f"{stem}.weight").to(torch.int32)


CASES = (
    _case("a tensor is missing", f"{_LAST} is missing", _missing),
    _case("a tensor too many", "'adapter.weight' is no part", lambda t: t.update({"adapter.weight": torch.ones(4)})),
    _case("quantised tensors", "mlp.c_fc.weight is missing (there is", _gptq),
    _case("another shape", "has shape [64, 768]", _as(_WTE, lambda t: t.t())),
    _case("one axis fewer", "has shape [", _as(_WTE, lambda t: t.reshape(-1))),
    _case("a float64 tensor", "is F64", _as(_LAST, lambda t: t.double())),
    _case("a whole-number tensor", "is I32", _as(_LAST, lambda t: t.to(torch.int32))),
    _case("an 8-bit tensor", "is F8_E4M3", _as(_LAST, lambda t: t.to(torch.float8_e4m3fn))),
    _case("a tensor of flags", "is BOOL", _as(_LAST, lambda t: t > 0)),
    _case("NaN in the first tensor", f"{_WTE}: holds NaN", _filled(_WTE, float("nan"))),
    _case("NaN in the last tensor", f"{_LAST}: holds NaN", _filled(_LAST, float("nan"))),
    _case("infinity", f"{_LAST}: holds NaN or infinity", _filled(_LAST, float("-inf"))),
    _case(
        "a head of another size", "lm_head.weight has shape", lambda t: t.update({"lm_head.weight": torch.ones(5, 64)})
    ),
)

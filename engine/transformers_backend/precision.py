"""Which precision a model of the second backend runs in: the library's own layers, so nothing is quantised."""

from __future__ import annotations

import torch

from engine.errors import DeviceError
from engine.precision import DENSE, QUANTISED, SMALL_MODEL, Precision
from engine.sizes import human_size

_RESERVE = 512 * 2**20
"""Bytes beside weights and KV: two libraries, activations, and what the system needs to stay responsive."""


def choose(name: str, device: torch.device, parameters: int, largest: int, free_memory: int | None) -> Precision:
    """Resolve `--dtype` for so many parameters, `largest` of them in one tensor; raises DeviceError before any is read.

    `free_memory`: bytes to spare beside KV, None where nobody can tell.
    """
    if name in QUANTISED:
        raise DeviceError(
            f"--dtype {name}: the transformers backend stores no weights in {name}; choose one of {', '.join(DENSE)}, or "
            "auto (int8 and int4 are the native backend's, for StarCoder and SantaCoder)"
        )
    if name != "auto" and name not in DENSE:
        raise DeviceError(f"--dtype {name}: no such precision; choose auto or one of {', '.join(DENSE)}")
    preferred = _preferred(device, parameters) if name == "auto" else (name,)
    needed = {one: parameters * DENSE[one].itemsize + 4 * largest + _RESERVE for one in preferred}
    chosen = next((one for one in preferred if free_memory is None or needed[one] <= free_memory), None)
    if chosen is None:
        raise DeviceError(
            f"--dtype {name}: the model needs {human_size(needed[preferred[-1]])} in {preferred[-1]} on {device}, "
            f"{human_size(free_memory or 0)} are free; end other programs, or choose a smaller model"
        )
    size = f"{parameters / 1e6:.0f} million parameters"
    return Precision(chosen, device, DENSE[chosen], f"--dtype {name}" if name != "auto" else f"auto: {size}")


def _preferred(device: torch.device, parameters: int) -> tuple[str, ...]:
    """What auto tries, the first that fits."""
    if device.type == "cuda":
        return ("bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16",)
    if device.type != "cpu":
        return ("float16",)
    return ("float32", "bfloat16") if parameters <= SMALL_MODEL else ("bfloat16",)

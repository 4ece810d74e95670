"""The device's side of a step: KV memory, host-to-device traffic, the forward pass. Decides nothing."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from engine.errors import DeviceError
from engine.gpt_bigcode import GPTBigCode, ModelShape
from engine.sizes import human_size
from engine.step import Sample, Step

MAX_SLOTS = 32
SMALL_MODEL = 500_000_000
"""Parameters up to which a model is kept in float32 on a CPU, where it is exact and still quick."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TorchRunner:
    """Runs steps of one model on one device, with `slots` regions of KV memory of `window` positions."""

    def __init__(self, model: GPTBigCode, slots: int, window: int) -> None:
        self._model = model
        self._kv = model.new_kv(slots, window)

    @property
    def slots(self) -> int:
        """KV slots there are."""
        return self._kv.shape[0]

    @property
    def window(self) -> int:
        """Positions in one slot."""
        return self._kv.shape[4]

    def run(self, step: Step) -> list[Sample]:
        """See `step.Runner`."""
        device = self._model.device
        for copy in step.copies:
            self._kv[copy.target, :, :, :, : copy.length] = self._kv[copy.source, :, :, :, : copy.length]
        positions = torch.cat([torch.arange(s.start, s.start + s.length) for s in step.spans])
        ends = torch.tensor([s.length for s in step.spans]).cumsum(0) - 1
        head = self._model.forward(
            torch.tensor(step.ids).to(device),
            positions.to(device),
            step.spans,
            self._kv,
            ends[torch.tensor(step.sampled)].to(device),
            self._mask(step),
            step.top,
        )
        if head is None:
            return []
        rows = zip(*(part.tolist() for part in head), strict=True)
        return [
            Sample(token, logprob, tuple(zip(top_ids, top_logprobs, strict=True)))
            for token, logprob, top_ids, top_logprobs in rows
        ]

    def _mask(self, step: Step) -> Tensor | None:
        wanted = [allowed for allowed, sampled in zip(step.allowed, step.sampled, strict=True) if sampled]
        if all(allowed is None for allowed in wanted):
            return None
        mask = torch.zeros(len(wanted), self._model.shape.vocab_size, dtype=torch.bool)
        for row, allowed in zip(mask, wanted, strict=True):
            row[slice(None) if allowed is None else list(allowed)] = True
        return mask.to(self._model.device)


def choose_device(name: str) -> torch.device:
    """Resolve `--device`; raises DeviceError when it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = name.partition(":")[0]
    if kind == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"--device {name}: this torch sees no CUDA device; use --device cpu or install a CUDA build")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("--device mps: no Apple GPU is available here; use --device cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f"--device {name}: not usable ({str(error).splitlines()[0]})") from error
    return device


def choose_dtype(name: str, device: torch.device, shape: ModelShape) -> torch.dtype:
    """Resolve `--dtype` for a model on a device."""
    if name in _DTYPES:
        return _DTYPES[name]
    if name != "auto":
        raise DeviceError(f"--dtype {name}: this version computes in {', '.join(_DTYPES)}; choose one of them, or auto")
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if device.type == "cpu" and shape.parameters > SMALL_MODEL:
        return torch.bfloat16
    return torch.float32


def slots_that_fit(shape: ModelShape, dtype: torch.dtype, window: int, memory: int) -> int:
    """How many KV slots `memory` bytes hold; raises DeviceError when not even one fits."""
    one = shape.kv_bytes(window, dtype)
    if one > memory:
        raise DeviceError(
            f"--kv-memory {human_size(memory)} holds no window of {window} tokens ({human_size(one)}); "
            "raise it, or make --window smaller"
        )
    return min(MAX_SLOTS, memory // one)


def set_cpu_threads() -> int:
    """Leave one physical core to the editor: an oversubscribed core makes every barrier wait. -> threads used."""
    available = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    threads = max(1, _physical_cores(len(available)) - 1)
    torch.set_num_threads(threads)
    return threads


def _physical_cores(logical: int) -> int:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:  # noqa: PTH123
            fields = [line.partition(":")[2].strip() for line in lines if line.startswith(("physical id", "core id"))]
        cores = len(set(zip(fields[::2], fields[1::2], strict=True)))
    except (OSError, ValueError):
        cores = 0
    return min(logical, cores or logical)

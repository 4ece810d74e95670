"""What a model would take on this machine, and whether it fits. Imports torch when asked, not before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import DeviceError

if TYPE_CHECKING:
    import torch

    from engine.gpt_bigcode import ModelShape

KV_MEMORY = 512 * 2**20
"""Bytes for keys and values, as `serve --kv-memory` has them if nothing else is said."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The device that `serve` would choose, and the bytes that are free on it (None: nobody can tell)."""

    device: torch.device
    free: int | None


@dataclass(frozen=True, slots=True)
class Fit:
    """What a model takes on a machine."""

    needed: Mapping[str, int]
    """Bytes at each precision that the device has: weights, keys and values, and what loading takes for a moment."""
    precision: str | None
    """What `--dtype auto` would choose; None if nothing fits."""
    why: str

    @property
    def fits(self) -> bool:
        """Whether it could be loaded now."""
        return self.precision is not None


def this_machine() -> Machine:
    """The default device as it is now."""
    from engine import device

    chosen = device.choose_device("auto")
    return Machine(chosen, device.free_memory(chosen))


def fit(shape: ModelShape, machine: Machine, kv_memory: int = KV_MEMORY) -> Fit:
    """What the model of that shape would take; the same sums by which `serve` decides."""
    from engine import precision

    offered = precision.offered(machine.device)
    needed = {name: precision.memory_needed(shape, name, machine.device) + kv_memory for name in offered}
    free = None if machine.free is None else max(0, machine.free - kv_memory)
    try:
        chosen = precision.choose("auto", machine.device, shape, free)
    except DeviceError as error:
        return Fit(needed, None, str(error))
    return Fit(needed, chosen.name, chosen.reason)

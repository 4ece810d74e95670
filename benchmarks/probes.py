"""What this device reaches: read bandwidth (B/s) and matrix rate (FLOP/s), measured before anything is held against them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.timing import Timing, l2_bytes, measure

LEAST_BANDWIDTH, LEAST_RATE = 0.85, 0.70
"""Shares of the datasheet under which a probe is refused: something else is using the card, or the probe is broken.

Dense matrix rates on random data stay near 0.8 of the datasheet under the power limit; reads come closer.
"""


@dataclass(frozen=True, slots=True)
class Datasheet:
    """A vendor's figures: memory bandwidth in B/s, dense bfloat16 rate in FLOP/s (float32 accumulation)."""

    read: float
    rate: float


DATASHEETS = {
    "NVIDIA H200": Datasheet(4.8e12, 990e12),
    "NVIDIA H100 80GB HBM3": Datasheet(3.35e12, 990e12),
    "NVIDIA A100-SXM4-80GB": Datasheet(2.039e12, 312e12),
    "NVIDIA GeForce RTX 4090": Datasheet(1.008e12, 165e12),
    "NVIDIA GeForce RTX 3060": Datasheet(0.360e12, 25.5e12),
}


@dataclass(frozen=True, slots=True)
class Probe:
    """One way of measuring a ceiling, and what it gave."""

    name: str
    amount: float  # bytes or FLOP per call
    timing: Timing

    @property
    def rate(self) -> float:
        """Bytes or FLOP per second."""
        return self.amount / self.timing.median

    def per(self, unit: float) -> Callable[[float], float]:
        """Seconds of one call -> rate, in `unit` bytes or FLOP a second."""
        return lambda seconds: self.amount / seconds / unit


def read_probes(device: torch.device, size: int, seconds: float) -> dict[str, Callable[[], Probe]]:
    """Ways to read `size` bytes of device memory, by name: a sum, a copy (which writes as much), a matrix times a vector,
    and where Triton can run a kernel that only reads. `size` is well over five times the L2 cache.
    """
    count = size // 4

    def filled(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(*shape, dtype=dtype, device=device).normal_()

    def total() -> Probe:
        data = filled(count)
        return Probe("sum", data.nbytes, measure(lambda: data.sum(), device, seconds=seconds))

    def copy() -> Probe:
        data = filled(count // 2)
        target = torch.empty_like(data)
        return Probe("copy", 2 * data.nbytes, measure(lambda: target.copy_(data), device, seconds=seconds))

    def matvec() -> Probe:
        columns = 8192 if count > 1 << 20 else 128
        data, vector = filled(size // 2 // columns, columns, dtype=torch.bfloat16), filled(columns).bfloat16()
        return Probe("matvec", data.nbytes, measure(lambda: data @ vector, device, seconds=seconds))

    probes: dict[str, Callable[[], Probe]] = {"sum": total, "copy": copy, "matvec": matvec}
    if device.type == "cuda":

        def kernel() -> Probe:
            from benchmarks.triton_read import reader

            data = filled(count)
            timings = [measure(work, device, seconds=seconds) for work in reader(data)]
            return Probe("triton", data.nbytes, min(timings, key=lambda t: t.median))

        probes["triton"] = kernel
    return probes


def probe_bytes(device: torch.device) -> int:
    """How much memory the read probes go through: 4 GiB or more on a GPU, little in a rehearsal."""
    return max(4 << 30, 16 * l2_bytes(device)) if device.type == "cuda" else 1 << 22


def rate_probe(device: torch.device, dtype: torch.dtype, side: int, seconds: float) -> Probe:
    """A square matrix product on random data (zeros run faster than any model can)."""
    a, b = (torch.empty(side, side, dtype=dtype, device=device).normal_() for _ in range(2))
    return Probe("matmul", 2.0 * side**3, measure(lambda: a @ b, device, seconds=seconds))


def refusal(found: float, datasheet: float | None, least: float) -> str:
    """Why a ceiling must not be used, or nothing."""
    if datasheet is None or found >= least * datasheet:
        return ""
    return (
        f"{found:.4g} is {100 * found / datasheet:.0f} % of the datasheet's {datasheet:.4g}, under {100 * least:.0f} %: "
        "the device is busy or throttled, or the probe is wrong; percentages are left out"
    )

"""In which numbers a device computes best."""

from __future__ import annotations

import functools
from pathlib import Path

import torch


def mixed_precision(device: torch.device) -> torch.autocast:
    """bfloat16 where the device computes in it; float32 on processors that would only emulate it."""
    fits = device.type == "cuda" or "avx512_bf16" in _processor_flags()
    return torch.autocast(device.type, torch.bfloat16, enabled=fits)


@functools.cache
def _processor_flags() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8") if path.exists() else ""

"""A Triton kernel that only reads: the closest a decode step can come to the memory's limit."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import triton
import triton.language as tl


def _read(source: tl.tensor, sums: tl.tensor, blocks: tl.tensor, BLOCK: tl.constexpr) -> None:  # noqa: N803
    program = tl.program_id(0)
    step = tl.num_programs(0)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for block in range(program, blocks, step):
        start = tl.cast(block, tl.int64) * BLOCK
        total += tl.load(source + start + tl.arange(0, BLOCK), eviction_policy="evict_first")
    tl.store(sums + program, tl.sum(total, axis=0))


_KERNEL = triton.jit(_read)


def reader(data: torch.Tensor) -> list[Callable[[], object]]:
    """Launches that each read all of `data` (float32, a multiple of 8192 long), for a few grid and block sizes."""
    processors = torch.cuda.get_device_properties(data.device).multi_processor_count
    sums = torch.empty(processors * 8, dtype=torch.float32, device=data.device)

    def launch(per_processor: int, block: int, warps: int) -> Callable[[], object]:
        grid = (processors * per_processor,)
        return lambda: _KERNEL[grid](data, sums, data.numel() // block, BLOCK=block, num_warps=warps)

    return [launch(p, b, w) for p, b, w in ((2, 8192, 8), (4, 4096, 8), (8, 4096, 4), (8, 2048, 4))]


def checked_sum(data: torch.Tensor) -> float:
    """The sum of `data` by the first of the launches, for tests."""
    processors = torch.cuda.get_device_properties(data.device).multi_processor_count
    sums = torch.empty(processors * 2, dtype=torch.float32, device=data.device)
    _KERNEL[(processors * 2,)](data, sums, data.numel() // 8192, BLOCK=8192, num_warps=8)
    return float(sums.double().sum())

"""Tile sizes as data, by compute capability. Numbers come from ahead-of-time compilation (`check`), not yet from a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton


@dataclass(frozen=True, slots=True)
class Target:
    """The device that launches are chosen for."""

    capability: int
    processors: int

    @classmethod
    def of(cls, device: torch.device) -> Target:
        """What `device` is; anything that is not a GPU counts as a small one."""
        if device.type != "cuda":
            return cls(capability=86, processors=28)
        found = torch.cuda.get_device_properties(device)
        return cls(capability=found.major * 10 + found.minor, processors=found.multi_processor_count)


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows, columns and depth of one program's tile, warps, and software pipeline stages."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


GEMV_NORM_WIDTH = 8192
"""Widest input that a one-token product normalises itself."""
SKINNY_ROWS = 16
"""Most tokens that the tl.dot products take; above, cuBLAS."""
SKINNY_NORM_ROWS = 4
"""Most tokens for which recomputing LayerNorm in every program is cheaper than a launch. To be measured."""

_ATTEND_FEW = {80: {16: Tile(16, 32, 0, 4, 3), 32: Tile(32, 64, 0, 4, 2)}}
_ATTEND_FEW_DEFAULT = {16: Tile(16, 64, 0, 4, 2), 32: Tile(32, 64, 0, 4, 2)}
_ATTEND_MANY = {90: Tile(128, 64, 0, 8, 2)}
_ATTEND_MANY_DEFAULT = Tile(128, 32, 0, 8, 2)
_SKINNY_STAGES = {80: 4, 90: 4}
_SKINNY_STAGES_DEFAULT = 3
_SKINNY_DEPTH = {120: 128}
_SKINNY_DEPTH_DEFAULT = 256


def attend_tile(target: Target, rows: int, head_dim: int, itemsize: int) -> Tile:
    """Tile of an attention launch whose longest span has `rows` rows (tokens times heads of a group)."""
    many = _ATTEND_MANY.get(target.capability, _ATTEND_MANY_DEFAULT)
    small = _ATTEND_FEW.get(target.capability, _ATTEND_FEW_DEFAULT)
    tile = next((few for limit, few in small.items() if rows <= limit), many)
    if itemsize > 2 or head_dim > 128:
        return Tile(min(tile.rows, 32), 32, 0, 4, 1)
    return tile


def splits(target: Target, programs: int, blocks: int) -> int:
    """Into how many parts a launch of `programs` programs over `blocks` key blocks cuts the keys.

    One where the programs fill most of the device; else enough to do so twice over, with two blocks or more in a part.
    """
    if programs >= 0.8 * target.processors:
        return 1
    return max(1, min(-(-2 * target.processors // programs), blocks // 2, 32))


def gemv_tile(inputs: int, outputs: int, itemsize: float, *, norm: bool) -> Tile:
    """Tile of a one-token product: all threads along the inputs, so that 16-byte loads need no exchange."""
    vector = int(16 / itemsize)
    if norm:
        depth = triton.next_power_of_2(inputs)
        warps = 4 if depth <= 2048 else 8
    else:
        warps = 8 if inputs >= 8192 and itemsize == 2 else 4
        depth = min(32 * warps * vector, triton.next_power_of_2(inputs))
    in_flight = 8 if norm and outputs >= 4096 else 4
    return Tile(1, max(1, min(in_flight, 64 * 32 * warps * 2 // depth)), depth, warps, 1)


def head_tile(inputs: int, itemsize: float) -> Tile:
    """Tile of the vocabulary product at one token; one chunk of rows is in flight while another is reduced."""
    tile = gemv_tile(inputs, 1, itemsize, norm=True)
    return Tile(1, tile.columns, tile.depth, tile.warps, 1)


def skinny_tile(target: Target, outputs: int, itemsize: float) -> Tile:
    """Tile of a product for 2 to 16 tokens."""
    stages = _SKINNY_STAGES.get(target.capability, _SKINNY_STAGES_DEFAULT)
    columns = 32 if outputs >= 64 * target.processors or itemsize < 1 else 16
    if itemsize > 2:
        return Tile(16, 16, 64, 4, 2)
    return Tile(16, columns, _SKINNY_DEPTH.get(target.capability, _SKINNY_DEPTH_DEFAULT), 4, stages)

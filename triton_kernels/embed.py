"""Token and position embeddings."""

from __future__ import annotations

import torch
import triton
from torch import Tensor
from triton import language as tl

from triton_kernels.launch import Launch, kernel, nbytes, turn
from triton_kernels.operands import require

BLOCK = 1024


def embed(ids: Tensor, positions: Tensor, wte: Tensor, wpe: Tensor) -> Tensor:
    """-> residual float32 [T, d] = wte[ids] + wpe[positions].

    ids, positions: integers [T], within the tables (not checked: they are on the device); wte, wpe: contiguous [*, d].
    """
    require(ids.shape == positions.shape and ids.dim() == 1, "embed: ids and positions must both be [T]")
    require(wte.is_contiguous() and wpe.is_contiguous() and wte.shape[1] == wpe.shape[1], "embed: tables do not match")
    rows, width = ids.shape[0], wte.shape[1]
    out = torch.empty(rows, width, dtype=torch.float32, device=wte.device)
    if rows:
        Launch(
            _embed,
            (rows, triton.cdiv(width, BLOCK)),
            {"ids": ids, "positions": positions, "wte": wte, "wpe": wpe, "out": out},
            {"K": width, "BLOCK": BLOCK},
            num_warps=4,
            num_stages=1,
            traffic=nbytes(ids, positions, out) + 2 * rows * width * wte.element_size(),
        ).run()
    return out


def embed_reference(ids: Tensor, positions: Tensor, wte: Tensor, wpe: Tensor) -> Tensor:
    """The same in plain torch."""
    return wte[ids].float() + wpe[positions].float()


@kernel()
def _embed(
    ids: tl.tensor,
    positions: tl.tensor,
    wte: tl.tensor,
    wpe: tl.tensor,
    out: tl.tensor,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
    DEPENDENT: tl.constexpr = False,
) -> None:
    turn(DEPENDENT)
    row = tl.program_id(0)
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = k < K
    token = tl.load(ids + row).to(tl.int64)
    position = tl.load(positions + row).to(tl.int64)
    a = tl.load(wte + token * K + k, mask=inside).to(tl.float32)
    b = tl.load(wpe + position * K + k, mask=inside).to(tl.float32)
    tl.store(out + row.to(tl.int64) * K + k, a + b, mask=inside)

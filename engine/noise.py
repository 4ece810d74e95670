"""The chance in sampling: a pure function of (seed, candidate, position, token), the same bits on every device.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) in integer arithmetic. No state, so that
neither the batch, nor the cache, nor the order of requests can change what a request draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.int64]
Words = TypeVar("Words", Tensor, Array)

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Stream:
    """Where one row's noise comes from. `seed` has 64 bits, `candidate` and `position` 32."""

    seed: int
    candidate: int
    position: int


def gumbel(streams: Sequence[Stream], tokens: int, device: torch.device) -> Tensor:
    """Standard Gumbel noise [len(streams), tokens], float64: the arg-max of logits plus it is a sample (Gumbel 1954)."""
    blocks = -(-tokens // 4)
    counter = [
        np.tile(np.arange(blocks, dtype=np.int64), (len(streams), 1)),
        _column([each.position for each in streams]),
        _column([each.candidate for each in streams]),
        np.zeros((1, 1), np.int64),
    ]
    key = [_column([each.seed & _WORD for each in streams]), _column([each.seed >> 32 & _WORD for each in streams])]
    if device.type == "cpu":  # numpy's operations cost a third of torch's at these sizes
        words = torch.from_numpy(np.stack(philox(counter, key), axis=-1))
    else:
        on_device = [torch.from_numpy(each).to(device) for each in (*counter, *key)]
        words = torch.stack(philox(on_device[:4], on_device[4:]), dim=-1)
    uniform = words.view(len(streams), -1)[:, :tokens].double()
    uniform = uniform.add_(0.5).mul_(2.0**-32)  # inside (0, 1), so that both logarithms are finite
    return uniform.log_().neg_().log_().neg_()


def philox(counter: Sequence[Words], key: Sequence[Words]) -> tuple[Words, Words, Words, Words]:
    """Four words of 32 bits for each counter; arrays of int64 that broadcast, all values below 2^32."""
    a, b, c, d = counter
    first, second = key
    for _ in range(10):
        # An int64 product wraps around; its 64 bits are those of the unsigned one.
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (
            (right >> 32 & _WORD) ^ b ^ first,
            right & _WORD,
            (left >> 32 & _WORD) ^ d ^ second,
            left & _WORD,
        )
        first, second = (first + _WEYL[0]) & _WORD, (second + _WEYL[1]) & _WORD
    return a, b, c, d


def _column(values: Sequence[int]) -> Array:
    return np.array(values, np.int64)[:, None]

"""What the operations are handed: anything with these attributes will do, so no caller's type is imported."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from triton_kernels.quantize import Weight


class NormLike(Protocol):
    """LayerNorm parameters, each [d]."""

    @property
    def weight(self) -> Tensor:
        """Gain."""
        ...

    @property
    def bias(self) -> Tensor:
        """Shift."""
        ...

    @property
    def eps(self) -> float:
        """Added to the variance."""
        ...


class LinearLike(Protocol):
    """A dense layer, torch layout: weight [out, in], plain or quantised; bias [out]."""

    @property
    def weight(self) -> Weight:
        """The matrix."""
        ...

    @property
    def bias(self) -> Tensor:
        """Added to the product; its dtype is the layer's activation dtype."""
        ...


class SpanLike(Protocol):
    """`length` consecutive new tokens of one sequence, the first at position `start` of KV slot `slot`."""

    @property
    def slot(self) -> int:
        """KV slot."""
        ...

    @property
    def start(self) -> int:
        """Position of the first new token."""
        ...

    @property
    def length(self) -> int:
        """New tokens."""
        ...


DTYPES = (torch.bfloat16, torch.float16, torch.float32)
"""What activations, keys and values may be stored in."""


def require(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless `condition`."""
    if not condition:
        raise ValueError(message)

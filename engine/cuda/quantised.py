"""Dense layers in eight and four bits on a GPU: what the kernels stream, and a plain product where they do not run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.ops import Linear
from triton_kernels.quantize import (
    GROUP,
    Int4Weight,
    Int8Weight,
    at_a_time,
    multiply,
    quantize_int4,
    quantize_int8,
)


@dataclass(frozen=True, slots=True, eq=False)
class QuantisedLinear(Linear):
    """`weight` in the form that the kernels read; called, it widens some outputs at a time."""

    weight: Int8Weight | Int4Weight  # type: ignore[assignment]  # as `TritonOps` takes it, not as one tensor

    @property
    def memory(self) -> Tensor | None:
        """See `Linear`."""
        return self.weight[0]

    def __call__(self, x: Tensor) -> Tensor:
        """See `Linear`."""
        return multiply(x, self.weight, self.bias)


def quantised(name: str, weight: Tensor, bias: Tensor) -> QuantisedLinear:
    """A layer in "int8" or "int4" where `bias` [out] is, of a floating-point `weight` [out, in] that may be elsewhere.

    int8 where four bits do not come out even. The weight is never whole on the device: it would need several times the
    memory of what is made of it.
    """
    make = quantize_int4 if name == "int4" and weight.shape[1] % GROUP == 0 else quantize_int8
    made = [make(part.to(bias.device)) for part in torch.split(weight, at_a_time(weight.shape[1]))]
    return QuantisedLinear(type(made[0])(*(torch.cat(parts) for parts in zip(*made, strict=True))), bias)

"""What a runner asks of a model, whichever backend it is of: one forward pass over memory that is the caller's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from engine.ops import Head
from engine.step import Span


class Sizes(Protocol):
    """What a runner needs to know of a model's shape."""

    @property
    def vocab_size(self) -> int:
        """Ids that the model gives logits for."""
        ...

    def kv_bytes(self, window: int, dtype: torch.dtype) -> int:
        """Bytes of one KV slot of `window` positions."""
        ...


class Operations(Protocol):
    """What a runner needs to know of a model's operations."""

    @property
    def free_rows(self) -> int:
        """See `ops.Ops`."""
        ...


class Pass(NamedTuple):
    """What a model computes at once; see `Model.forward`."""

    ids: Tensor
    positions: Tensor
    spans: Sequence[Span]
    kv: Tensor
    rows: Tensor
    allow: Tensor | None
    top: int
    logits: bool


class Model(ABC):
    """A model on a device. Owns nothing but its weights; the KV memory is the caller's."""

    shape: Sizes
    ops: Operations

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where its weights are."""

    @abstractmethod
    def new_kv(self, slots: int, window: int) -> Tensor:
        """KV memory [slots, layers, 2, kv_heads, window, head_dim], zeroed."""

    @torch.inference_mode()
    def forward(
        self,
        ids: Tensor,
        positions: Tensor,
        spans: Sequence[Span],
        kv: Tensor,
        rows: Tensor,
        allow: Tensor | None = None,
        top: int = 0,
        *,
        logits: bool = False,
    ) -> Head | None:
        """Run T new tokens through the model.

        ids, positions: int64 [T]; kv: as `new_kv` makes it, extended in place at the spans' positions;
        rows: int64 [S], the rows to predict from (may be empty: then None); allow: bool [S, V] or None;
        logits: whether the answer is to have all of them, which sampling needs.
        """
        return self._run(Pass(ids, positions, spans, kv, rows, allow, top, logits))

    @abstractmethod
    def _run(self, work: Pass) -> Head | None:
        """Compute one pass."""

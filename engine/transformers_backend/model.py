"""One of the library's own models behind the interface of `forward.Model`, its cache in our KV slots.

Each span runs alone: the library's attention knows one length for a whole batch. So requests side by side cost as much as
one after the other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from engine.device import zeroed
from engine.forward import Model, Pass
from engine.ops import Head, head_of
from engine.transformers_backend.families import NativeConfig


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's part of a KV slot, as a layer of the library's cache: memory of ours, filled up to `length`."""

    is_sliding = False  # a window that slides is the mask's to keep: what fell out of it may be wanted after a cut
    is_compileable = False
    is_croppable = True

    def __init__(self, memory: Tensor, length: int) -> None:
        """`memory` [2, kv_heads, window, head_dim]: keys and values."""
        super().__init__()
        self._memory = memory
        self._length = length
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is left to be made."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append [1, kv_heads, T, head_dim] -> all keys and all values so far."""
        end = self._length + key_states.shape[2]
        self._memory[0, :, self._length : end] = key_states[0]
        self._memory[1, :, self._length : end] = value_states[0]
        self._length = end
        return self._memory[:1, :, :end], self._memory[1:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys after appending `query_length`, and the position of the first."""
        return self._length + query_length, 0

    def get_seq_length(self) -> int:
        """How many positions are filled."""
        return self._length

    def get_max_length(self) -> int:
        """How many there are."""
        return int(self._memory.shape[2])


class Operations:
    """What the scheduler asks of a model's operations."""

    free_rows = 1


class TransformersModel(Model):
    """A model of one of the `families`; the counterpart of `GPTBigCode`."""

    shape: NativeConfig

    def __init__(self, config: NativeConfig, model: Any) -> None:
        self.shape = config
        self.ops = Operations()
        self._body: Any = model.model
        self._head: Any = model.lm_head

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self._head.weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """What weights, activations, keys and values are stored in."""
        dtype: torch.dtype = self._head.weight.dtype
        return dtype

    def new_kv(self, slots: int, window: int) -> Tensor:
        """See `forward.Model.new_kv`."""
        c = self.shape
        shape = (slots, c.num_hidden_layers, 2, c.kv_heads, window, c.head_width)
        return zeroed(shape, self.dtype, self.device)

    def _run(self, work: Pass) -> Head | None:
        ids, positions, spans, kv, rows, allow, top, logits = work
        states, row = [], 0
        for span in spans:
            part = slice(row, row + span.length)
            layers = [SlotLayer(memory, span.start) for memory in kv[span.slot]]
            done = self._body(
                input_ids=ids[None, part],
                position_ids=positions[None, part],
                past_key_values=Cache(layers=layers),
                use_cache=True,
            )
            states.append(done.last_hidden_state[0])
            row += span.length
        if rows.numel() == 0:
            return None
        return head_of(self._head(torch.cat(states)[rows]).float(), allow, top, logits=logits)

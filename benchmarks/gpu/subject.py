"""One shape with random weights on the device: our models and transformers' over the same tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.weights import Tensors, in_fewer_bits, our_model, random_tensors, their_model, upcast
from engine.gpt_bigcode import GPTBigCode, ModelShape
from engine.ops import Ops


@dataclass(slots=True)
class Subject:
    """A model to be examined, in one dtype."""

    name: str
    shape: ModelShape
    dtype: torch.dtype
    device: torch.device
    tensors: Tensors
    bits: str = ""
    """"int8" or "int4" where our model's layers are stored so; `tensors` are what they were made of."""
    _theirs: dict[str, Any] = field(default_factory=dict)
    _ours: dict[int, GPTBigCode] = field(default_factory=dict)

    @classmethod
    def random(cls, name: str, shape: ModelShape, dtype: torch.dtype, device: torch.device, seed: int) -> Subject:
        """Fresh weights."""
        return cls(name, shape, dtype, device, random_tensors(shape, dtype, device, seed))

    def widened(self, dtype: torch.dtype) -> Subject:
        """The same numbers in a wider type, as a reference."""
        return Subject(self.name, self.shape, dtype, self.device, upcast(self.tensors, dtype))

    def stored_in(self, bits: str) -> Subject:
        """The same model in "int8" or "int4"."""
        return Subject(self.name, self.shape, self.dtype, self.device, self.tensors, bits)

    @property
    def stored(self) -> str:
        """What weights are stored in, as rows name it."""
        return self.bits or str(self.dtype).removeprefix("torch.")

    def ours(self, ops: Ops) -> GPTBigCode:
        """Our model over these weights."""
        if id(ops) not in self._ours:
            model = our_model(self.shape, self.tensors, ops)
            self._ours[id(ops)] = in_fewer_bits(model, self.bits) if self.bits else model
        return self._ours[id(ops)]

    def theirs(self, attention: str = "sdpa") -> Any:
        """transformers' model over these weights."""
        if attention not in self._theirs:
            self._theirs[attention] = their_model(self.shape, self.tensors, attention)
        return self._theirs[attention]

    def their_logprobs(self, ids: Tensor, rows: int) -> Tensor:
        """Log-probabilities [rows, V] after the last `rows` of `ids`, in transformers' own type (at least float32)."""
        model = self.theirs()
        logits: Tensor = model.lm_head(model.transformer(ids[None], use_cache=False).last_hidden_state[0, -rows:])
        return torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=-1)

    def prompt(self, length: int, seed: int) -> Tensor:
        """Random token ids [length]."""
        generator = torch.Generator().manual_seed(seed + length)
        return torch.randint(self.shape.vocab_size, (length,), generator=generator).to(self.device)

    def forget(self) -> None:
        """Let go of all weights."""
        self.tensors.clear()
        self._theirs.clear()
        self._ours.clear()

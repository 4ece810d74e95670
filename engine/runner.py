"""The device's side of a step: KV memory, host-to-device traffic, the forward pass. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import accumulate

import torch
from torch import Tensor

from engine import pages
from engine.errors import DeviceError, DeviceMemoryExhausted
from engine.forward import Model, Sizes
from engine.ops import Head
from engine.overflow import sound
from engine.sampler import Draw, sample
from engine.sizes import human_size
from engine.step import Copy, Sample, Step

MAX_SLOTS = 32


class TorchRunner:
    """Runs steps of one model on one device, with `slots` regions of KV memory of `window` positions."""

    def __init__(self, model: Model, slots: int, window: int) -> None:
        self._model = model
        self._kv = model.new_kv(slots, window)

    @property
    def slots(self) -> int:
        """KV slots there are."""
        return self._kv.shape[0]

    @property
    def window(self) -> int:
        """Positions in one slot."""
        return self._kv.shape[4]

    @property
    def free_rows(self) -> int:
        """See `step.Runner`."""
        return self._model.ops.free_rows

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._model.device

    @property
    def kv(self) -> Tensor:
        """KV memory [slots, layers, 2, kv_heads, window, head_dim]; another one after `keep_slots`."""
        return self._kv

    @torch.inference_mode()
    def run(self, step: Step) -> list[Sample]:
        """See `step.Runner`."""
        with told_of_memory(self.device, len(step.ids)):
            return sound(self._run(step), self._kv.dtype)

    @torch.inference_mode()
    def keep_slots(self, slots: Sequence[int], lengths: Sequence[int]) -> None:
        """See `step.Runner`."""
        if self.device.type == "cpu":
            moves = [Copy(*move) for move in zip(slots, range(len(slots)), lengths, strict=True)]
            # In ascending order and downwards: none goes onto what is still needed.
            make_copies(self._kv, [move for move in moves if move.source > move.target])
            self._kv, rest = self._kv[: len(slots)], self._kv[len(slots) :]
            pages.give_back(rest)
            return
        # By way of the host: the device has no room for two of them.
        kept = torch.stack([self._kv[slot].to("cpu") for slot in slots])
        self._kv = self._kv.new_empty((0, *self._kv.shape[1:]))
        if self._model.device.type == "cuda":
            with suppress(RuntimeError):  # after a capture that could not be ended torch thinks that it still goes on
                torch.cuda.empty_cache()
        self._kv = kept.to(self._model.device)

    def _run(self, step: Step) -> list[Sample]:
        device = self._model.device
        make_copies(self._kv, step.copies)
        positions = [at for span in step.spans for at in range(span.start, span.start + span.length)]
        ends = list(accumulate(span.length for span in step.spans))
        wanted = [
            (n, behind)
            for n, sampled in enumerate(step.sampled)
            if sampled
            for behind in range(step.guesses[n], -1, -1)
        ]
        mask = self._mask([step.allowed[n] for n, _ in wanted])
        head = self._model.forward(
            torch.tensor(step.ids, device=device),
            torch.tensor(positions, device=device),
            step.spans,
            self._kv,
            torch.tensor([ends[n] - 1 - behind for n, behind in wanted], dtype=torch.int64, device=device),
            mask,
            step.top,
            logits=any(step.sampling[n] is not None for n, _ in wanted),
        )
        if head is None:
            return []
        return self._draw(step, wanted, head, mask) if head.logits.numel() else _answers(head)

    def _draw(self, step: Step, wanted: list[tuple[int, int]], head: Head, mask: Tensor | None) -> list[Sample]:
        """Samples of a pass in which some rows are not greedy; a row may be drawn from several times.

        wanted: for each row its span, and how many rows of the span come after it.
        """
        rows: list[int] = []
        draws: list[Draw | None] = []
        for row, (number, behind) in enumerate(wanted):
            span, sampling = step.spans[number], step.sampling[number]
            for more in range(step.draws[number]):
                rows.append(row)
                if sampling is None:
                    draws.append(None)
                    continue
                candidate = replace(sampling, candidate=sampling.candidate + more)
                draws.append(Draw(candidate, span.start + span.length - behind, step.seen[number]))
        at = torch.tensor(rows, device=head.ids.device)
        ids, logprobs = head.ids[at], head.logprobs[at]
        here = torch.tensor([n for n, draw in enumerate(draws) if draw is not None], device=head.ids.device)
        drawn = head.logits[at[here]]
        allowed = None if mask is None else mask[at[here]]
        ids[here] = sample(drawn, [draw for draw in draws if draw is not None], allowed)
        logprobs[here] = drawn.gather(1, ids[here][:, None])[:, 0] - torch.logsumexp(drawn, dim=-1)
        return _answers(Head(ids, logprobs, head.top_ids[at], head.top_logprobs[at], drawn))

    def _mask(self, wanted: list[Sequence[int] | None]) -> Tensor | None:
        if all(allowed is None for allowed in wanted):
            return None
        mask = torch.zeros(len(wanted), self._model.shape.vocab_size, dtype=torch.bool)
        for row, allowed in zip(mask, wanted, strict=True):
            row[slice(None) if allowed is None else list(allowed)] = True
        return mask.to(self._model.device)


def make_copies(kv: Tensor, copies: Sequence[Copy]) -> None:
    """Copy the beginnings of KV slots, one after the other."""
    for copy in copies:
        kv[copy.target, :, :, :, : copy.length] = kv[copy.source, :, :, :, : copy.length]


@contextmanager
def told_of_memory(device: torch.device, tokens: int) -> Iterator[None]:
    """Turn what says that there is no memory for a pass into DeviceMemoryExhausted; other errors stay what they are."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        raise DeviceMemoryExhausted(
            f"{device} has no memory for a pass over {tokens} tokens; "
            "close what else uses it, or start the engine with a smaller --kv-memory"
        ) from error


def _answers(head: Head) -> list[Sample]:
    """One transfer to the host for each part, however many rows there are."""
    parts = (head.ids, head.logprobs, head.top_ids, head.top_logprobs)
    rows = zip(*(part.tolist() for part in parts), strict=True)
    return [
        Sample(token, logprob, tuple(zip(top_ids, top_logprobs, strict=True)))
        for token, logprob, top_ids, top_logprobs in rows
    ]


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(sign in str(error) for sign in ("DefaultCPUAllocator: can't allocate", "out of memory"))


def slots_that_fit(shape: Sizes, dtype: torch.dtype, window: int, memory: int) -> int:
    """How many KV slots `memory` bytes hold; raises DeviceError when not even one fits."""
    one = shape.kv_bytes(window, dtype)
    if one > memory:
        raise DeviceError(
            f"--kv-memory {human_size(memory)} holds no window of {window} tokens ({human_size(one)}); "
            "raise it, or make --window smaller"
        )
    return min(MAX_SLOTS, memory // one)

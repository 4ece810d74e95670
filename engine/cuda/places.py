"""The fixed buffers of one bucket: where a pass finds its tokens, places and draws, and the host its answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engine.cuda.buckets import Bucket, Drawn
from engine.cuda.graphs import Device, Outputs
from engine.step import Span
from triton_kernels.draw import DRAW_FIELDS, Following, HostDraw
from triton_kernels.spans import ROW_FIELDS, SPAN_FIELDS, SpanTable

RING = 2
"""Answers that may be on their way at once: the one that is waited for, and the one begun ahead of it."""


class Place:
    """One int32 buffer, spans | rows | tokens | draws, filled by one copy; and a mask where only some tokens are allowed."""

    def __init__(self, bucket: Bucket, vocabulary: int, device: Device) -> None:
        rows, table = bucket.rows, (SPAN_FIELDS + ROW_FIELDS) * bucket.rows
        self.bucket = bucket
        self._device = device
        self._tokens = _aligned(table)
        self._draws = self._tokens + _aligned(rows)
        self._host = device.staging((self._draws + DRAW_FIELDS * rows,), torch.int32)
        self._buffer = self._host.to(device.device, copy=True)
        self.spans = SpanTable.over(self._buffer[:table], rows, 1 if bucket.follows else rows, bucket.reach)
        self.tokens = self._buffer[self._tokens : self._tokens + rows]
        self.draws = self._buffer[self._draws :].view(DRAW_FIELDS, rows)
        self.following = Following(self.tokens, self.spans, None) if bucket.follows else None
        self._host_mask: Tensor | None = None
        self.allow: Tensor | None = None
        if bucket.masked:
            self._host_mask = device.staging((rows, vocabulary), torch.bool)
            self.allow = self._host_mask.to(device.device, copy=True)
        self._ring = [
            (device.staging((rows,), torch.int64), device.staging((rows,), torch.float32)) for _ in range(RING)
        ]
        self._turn = 0
        self.fill((), (), (), ())  # rows of no slot, so that a pass over nothing writes nothing

    def fill(
        self,
        spans: Sequence[Span],
        ids: Sequence[int],
        answers: Sequence[Drawn],
        allowed: Sequence[Sequence[int] | None],
    ) -> None:
        """Send a step to the device: one copy, two with a mask. `allowed` has one entry for each row of tokens.

        The host's side is free again, because nobody fills a place before the answers of its last step have been read.
        """
        rows = self.bucket.rows
        self.spans.write(spans, self._host[: self.spans.buffer.numel()])
        padded = torch.tensor([*ids, *[0] * (rows - len(ids))], dtype=torch.int32, device="cpu")
        self._host[self._tokens : self._tokens + rows] = padded
        if self.bucket.drawn:
            draws = [_as_draw(answer) for answer in answers]
            draws += [HostDraw(0, 0)] * (rows - len(draws))
            packed = torch.tensor([draw.packed() for draw in draws], dtype=torch.int32, device="cpu")
            self._host[self._draws :].view(DRAW_FIELDS, rows).copy_(packed.T)
        self._buffer.copy_(self._host, non_blocking=True)
        if self._host_mask is not None and self.allow is not None:
            self._host_mask.fill_(True)
            for row, permitted in zip(self._host_mask, allowed, strict=False):
                if permitted is not None:
                    row.fill_(False)
                    row[torch.tensor(list(permitted), device="cpu")] = True
            self.allow.copy_(self._host_mask, non_blocking=True)

    def fetch(self, outputs: Outputs) -> Callable[[], tuple[list[int], list[float]]]:
        """Send a pass's answers on their way -> what waits for them and reads them; at most `RING` are open at once."""
        targets = self._ring[self._turn]
        self._turn = (self._turn + 1) % RING
        wait = self._device.fetch(outputs, targets)

        def read() -> tuple[list[int], list[float]]:
            wait()
            return targets[0].tolist(), targets[1].tolist()

        return read


def _aligned(words: int) -> int:
    """Up to 16 bytes: kernels are compiled anew for pointers that are not at such a place."""
    return -(-words // 4) * 4


def _as_draw(answer: Drawn) -> HostDraw:
    sampling = answer.sampling
    if sampling is None:
        return HostDraw(answer.row, answer.position)
    return HostDraw(
        answer.row,
        answer.position,
        sampling.temperature if sampling.draws else 0.0,
        sampling.top_p,
        sampling.top_k,
        sampling.min_p,
        seed=sampling.seed,
        candidate=sampling.candidate,
    )

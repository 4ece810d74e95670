"""The spans of a step on the device: what the kernels read instead of host integers, so that a captured graph stays valid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from triton_kernels.operands import SpanLike, require

SPAN_FIELDS = 4
ROW_FIELDS = 2


class HostSpan(NamedTuple):
    """One span, read back."""

    slot: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class SpanTable:
    """Spans and rows of one step, int32, in one buffer.

    spans [4, n]: slot, start, length (0: unused), first row. rows [2, T]: slot (-1: padding, never written), position.
    `longest` and `reach` are promises made on the host: no span has more tokens, none ends later. They choose the grid
    and the splits, so one captured graph serves every step that keeps them.
    """

    buffer: Tensor
    spans: Tensor
    rows: Tensor
    longest: int
    reach: int

    @classmethod
    def of(cls, spans: Sequence[SpanLike], device: torch.device | str) -> SpanTable:
        """The table of exactly these spans: one copy to the device."""
        rows = sum(span.length for span in spans)
        longest = max(span.length for span in spans)
        reach = max(span.start + span.length for span in spans)
        pinned = torch.device(device).type == "cuda"
        buffer = _flat(spans, len(spans), rows, pinned=pinned).to(device, non_blocking=True)
        return cls.over(buffer, len(spans), longest, reach)

    @classmethod
    def reserve(cls, spans: int, rows: int, longest: int, reach: int, device: torch.device | str) -> SpanTable:
        """A table that `fill` can give any spans that keep the promises: at most `spans` of them over `rows` rows."""
        require(spans > 0 and rows > 0, "a span table needs at least one span and one row")
        return cls.over(_flat((), spans, rows, pinned=False).to(device), spans, longest, reach)

    @classmethod
    def over(cls, buffer: Tensor, spans: int, longest: int, reach: int) -> SpanTable:
        """The table in memory of the caller's, contiguous int32: four fields for each span, two for each row."""
        head, tail = buffer[: SPAN_FIELDS * spans], buffer[SPAN_FIELDS * spans :]
        return cls(buffer, head.view(SPAN_FIELDS, spans), tail.view(ROW_FIELDS, -1), longest, reach)

    def fill(self, spans: Sequence[SpanLike]) -> None:
        """Overwrite the table in place, in one copy; raises ValueError where `spans` break its promises."""
        host = torch.empty(self.buffer.shape, dtype=torch.int32, device="cpu", pin_memory=self.buffer.is_cuda)
        self.write(spans, host)
        self.buffer.copy_(host, non_blocking=True)

    def write(self, spans: Sequence[SpanLike], host: Tensor) -> None:
        """What `fill` would send, into `host` memory of the same size; raises ValueError as it does."""
        require(
            all(span.length <= self.longest and span.start + span.length <= self.reach for span in spans),
            f"a span is longer than {self.longest} or ends after {self.reach}",
        )
        _write(spans, self.spans.shape[1], self.rows.shape[1], host)

    def on_host(self) -> list[HostSpan]:
        """The spans in use; waits for the device."""
        return [HostSpan(slot, start, length) for slot, start, length, _ in self.spans.T.tolist() if length > 0]


def _flat(spans: Sequence[SpanLike], count: int, rows: int, *, pinned: bool) -> Tensor:
    """Both tables one after the other, in host memory."""
    host = torch.empty(SPAN_FIELDS * count + ROW_FIELDS * rows, dtype=torch.int32, device="cpu", pin_memory=pinned)
    _write(spans, count, rows, host)
    return host


def _write(spans: Sequence[SpanLike], count: int, rows: int, host: Tensor) -> None:
    total = sum(span.length for span in spans)
    require(len(spans) <= count and total <= rows, f"{len(spans)} spans of {total} rows do not fit {count} of {rows}")
    host.zero_()
    fields = host[: SPAN_FIELDS * count].view(SPAN_FIELDS, count)
    slots, positions = host[SPAN_FIELDS * count :].view(ROW_FIELDS, rows)
    slots[total:] = -1
    first = 0
    for number, span in enumerate(spans):
        end = first + span.length
        values = (span.slot, span.start, span.length, first)
        fields[:, number] = torch.tensor(values, dtype=torch.int32, device="cpu")
        slots[first:end] = span.slot
        positions[first:end] = torch.arange(span.start, span.start + span.length, dtype=torch.int32, device="cpu")
        first = end

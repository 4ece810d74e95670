"""How long device work takes, in seconds: CUDA events on a GPU, the wall clock on a CPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, pairwise

import torch

Work = Callable[[], object]

LEAST, MOST = 5, 400
"""Repetitions of long and of short work."""

CAPTURE_WARMUP = 3


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds per call over `n` repetitions."""

    median: float
    p10: float
    p90: float
    n: int

    @classmethod
    def of(cls, seconds: Sequence[float], calls: int = 1) -> Timing:
        """Summarise repetitions of `calls` calls each."""
        ordered = sorted(s / calls for s in seconds)

        def at(share: float) -> float:
            return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]

        return cls(at(0.5), at(0.1), at(0.9), len(ordered))


@dataclass(frozen=True, slots=True)
class Captured:
    """A CUDA graph of some work, or why there is none. `output` is what the captured call returned; replays refill it."""

    replay: Work | None
    output: object = None
    reason: str = ""


def measure(work: Work | Sequence[Work], device: torch.device, *, seconds: float = 1.0, calls: int = 1) -> Timing:
    """Time `work`, or several in rotation, for about `seconds`: at most 400 repetitions, at least 5.

    `calls` is how many operations one repetition holds. On a GPU the repetitions are queued one behind the other and the
    time between their events is taken, so that gaps in launching count where there are any.
    """
    works = [work] if callable(work) else list(work)
    for one in works[:3]:
        one()
    once = _timed(works[:1] * 2, device)[-1]
    n = max(LEAST, min(MOST, int(seconds / max(once, 1e-7))))
    return Timing.of(_timed(list(islice(cycle(works), n)), device), calls)


def capture(work: Work | Sequence[Work], device: torch.device) -> Captured:
    """Record `work` (or several, one after the other) as one CUDA graph; on a CPU, or where capturing fails, say why."""
    if device.type != "cuda":
        return Captured(None, reason="CUDA graphs need a CUDA device")
    works = [work] if callable(work) else list(work)
    graph = torch.cuda.CUDAGraph()
    try:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(CAPTURE_WARMUP):
                for one in works:
                    one()
        torch.cuda.current_stream().wait_stream(side)
        synchronize(device)
        output: object = None
        with torch.cuda.graph(graph):
            for one in works:
                output = one()
        graph.replay()
        synchronize(device)
    except RuntimeError as error:
        synchronize(device)
        return Captured(None, reason=f"not captured: {str(error).splitlines()[0]}")
    return Captured(graph.replay, output)


def rotations(size: int, device: torch.device, most: int = 256) -> int:
    """How many copies of `size` bytes make sure that none is still in the L2 cache when its turn comes again."""
    return max(2, min(most, math.ceil(5 * l2_bytes(device) / max(1, size))))


def l2_bytes(device: torch.device) -> int:
    """Bytes of last-level cache; a small stand-in on a CPU, where rehearsals measure nothing of interest."""
    if device.type != "cuda":
        return 1 << 16
    return int(torch.cuda.get_device_properties(device).L2_cache_size)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def wall(work: Work, device: torch.device, repetitions: int = 3, warmup: int = 1) -> Timing:
    """Time long work with the host's clock, device idle before and after."""
    taken = []
    for turn in range(warmup + repetitions):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        if turn >= warmup:
            taken.append(time.perf_counter() - start)
    return Timing.of(taken)


def _timed(works: Sequence[Work], device: torch.device) -> list[float]:
    if device.type != "cuda":
        marks = [time.perf_counter()]
        for one in works:
            one()
            marks.append(time.perf_counter())
        return [b - a for a, b in pairwise(marks)]
    synchronize(device)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(len(works) + 1)]  # type: ignore[no-untyped-call]
    events[0].record()
    for one, event in zip(works, events[1:], strict=True):
        one()
        event.record()
    synchronize(device)
    return [a.elapsed_time(b) / 1e3 for a, b in pairwise(events)]

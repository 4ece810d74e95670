"""The CUDA side of `GraphRunner`, and as little of it as can be: what cannot be tried without a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Protocol

import torch
from torch import Tensor

Outputs = tuple[Tensor, Tensor]
"""Ids int64 [R] and log-probabilities float32 [R], on the device."""

Work = Callable[[], Outputs]

_WARM = 2
"""Times that work is done before it is captured: kernels are compiled and loaded, scratch memory has grown."""


class Device(Protocol):
    """What a runner of graphs needs of a device."""

    @property
    def device(self) -> torch.device:
        """Where buffers are."""
        ...

    def record(self, work: Work) -> tuple[Callable[[], None], Outputs]:
        """-> (what does `work` again, into the same outputs; those outputs). Raises RuntimeError where it cannot be."""
        ...

    def staging(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Host memory for what travels."""
        ...

    def fetch(self, sources: Sequence[Tensor], targets: Sequence[Tensor]) -> Callable[[], None]:
        """Begin to copy to the host; the function that comes back waits until that is done, and for nothing else."""
        ...


class CudaDevice:
    """Graphs, pinned memory and events of one CUDA device. `dependent`: kernels begin while the one before them ends."""

    def __init__(self, device: torch.device, *, dependent: bool = False) -> None:
        self.device = device
        self._dependent = dependent
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Work) -> tuple[Callable[[], None], Outputs]:
        """See `Device.record`.

        All graphs share their memory: they run one after the other, and outputs stay as long as somebody has them.
        """
        from triton_kernels.launch import dependent

        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device), dependent() if self._dependent else nullcontext():
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM):
                    work()
            torch.cuda.current_stream().wait_stream(side)
            here = torch.cuda.current_stream()
            try:
                # Another thread may allocate meanwhile: that must not break the capture.
                with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                    outputs = work()
            except BaseException:
                torch.cuda.set_stream(here)  # torch leaves the thread on its own where the capture could not be ended
                raise
        return graph.replay, outputs

    def staging(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """See `Device.staging`."""
        return torch.zeros(tuple(shape), dtype=dtype, device="cpu", pin_memory=True)

    def fetch(self, sources: Sequence[Tensor], targets: Sequence[Tensor]) -> Callable[[], None]:
        """See `Device.fetch`."""
        with torch.cuda.device(self.device):
            for source, target in zip(sources, targets, strict=True):
                target.copy_(source, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        return event.synchronize


class HostDevice:
    """Where there is no CUDA: a graph is the work itself, done again into the same outputs. For rehearsals and tests."""

    device = torch.device("cpu")

    def record(self, work: Work) -> tuple[Callable[[], None], Outputs]:
        """See `Device.record`."""
        outputs = work()

        def replay() -> None:
            for kept, new in zip(outputs, work(), strict=True):
                kept.copy_(new)

        return replay, outputs

    def staging(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """See `Device.staging`."""
        return torch.zeros(tuple(shape), dtype=dtype, device="cpu")

    def fetch(self, sources: Sequence[Tensor], targets: Sequence[Tensor]) -> Callable[[], None]:
        """See `Device.fetch`."""
        for source, target in zip(sources, targets, strict=True):
            target.copy_(source)
        return lambda: None

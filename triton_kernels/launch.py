"""One kernel launch as a value: what is counted in tests, compiled ahead of time by `check`, and run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor
from triton import language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

Argument = Tensor | int | float | None


def kernel(*varying: str) -> Callable[[Callable[..., Any]], Any]:
    """`triton.jit` with a type; integers named in `varying` change from step to step and must not cause a compilation."""

    def wrap(function: Callable[..., Any]) -> Any:
        return triton.jit(function, do_not_specialize=list(varying))

    return wrap


@kernel()
def turn(DEPENDENT: tl.constexpr) -> None:
    """Wait until all that earlier kernels wrote is there, then let the next kernel begin: it waits here in its turn.

    In a chain of dependent launches every kernel calls it once, before it reads or writes anything but weights.
    """
    if DEPENDENT:
        gdc_wait()
        gdc_launch_dependents()


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel, its grid and everything it is given. `traffic` is the bytes that it cannot avoid moving."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: Mapping[str, Argument]
    constants: Mapping[str, object]
    num_warps: int
    num_stages: int
    traffic: int

    @property
    def name(self) -> str:
        """Name of the kernel."""
        return str(self.kernel.fn.__name__).lstrip("_")

    def run(self) -> None:
        """Enqueue it on the current stream of its tensors' device."""
        for log in _logs:
            log.append(self)
        if _dry:
            return
        with self._on_device():
            self.kernel[self.grid](
                **self.arguments,
                **self.constants,
                **({"DEPENDENT": True, "launch_pdl": True} if _dependent else {}),
                num_warps=self.num_warps,
                num_stages=self.num_stages,
            )

    def _on_device(self) -> Any:
        device = next(value.device for value in self.arguments.values() if isinstance(value, Tensor))
        if device.type != "cuda" or device.index == torch.cuda.current_device():
            return nullcontext()
        return torch.cuda.device(device)


_logs: list[list[Launch]] = []
_dry: list[bool] = []
_dependent: list[bool] = []

DEPENDENT_FROM = 90
"""Compute capability from which one kernel may be launched while another still runs."""


@contextmanager
def dependent() -> Iterator[None]:
    """Launches made inside begin while the one before them ends (programmatic dependent launch)."""
    _dependent.append(True)
    try:
        yield
    finally:
        _dependent.pop()


@contextmanager
def recorded(*, dry: bool = False) -> Iterator[list[Launch]]:
    """Collect the launches made inside; with `dry` they are not run, so that tensors may be on the meta device."""
    log: list[Launch] = []
    _logs.append(log)
    if dry:
        _dry.append(True)
    try:
        yield log
    finally:
        if dry:
            _dry.pop()
        _logs.pop()


def nbytes(*tensors: Tensor | None) -> int:
    """Bytes of all of `tensors`."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)

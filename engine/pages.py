"""Large pages for weights, made of small ones after the model is ready.

A step reads all weights, and large pages miss the TLB less. But to take them while weights stream in costs a load most of
its time where a virtual machine's host lends memory as it is touched. So memory is taken in small pages, and copied into
large ones by a thread of least priority, on kernels that do so when asked (Linux 6.1 and later); elsewhere it is large at
once.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

from engine.device import zeroed

_COLLAPSE = 25
"""MADV_COLLAPSE, which Python does not name."""

_POPULATE = 23
"""MADV_POPULATE_WRITE, which Python does not name either; Linux 5.14."""

_LARGE_PAGE = 2**21
_LEAST_TAKEN = 2**16
_SMALLEST = 2 * _LARGE_PAGE
_LEAST_PRIORITY = 19

_gathering: list[threading.Thread] = []


def room(size: int) -> Tensor:
    """Zeroed memory of `size` bytes on the CPU, uint8, taken as it is filled."""
    if size < _SMALLEST or not _collapses():
        return zeroed((size,), torch.uint8, torch.device("cpu"))
    return torch.frombuffer(_pages(size), dtype=torch.uint8)


def take(memory: Tensor) -> None:
    """Have the whole pages of `memory` now, at less cost than one fault for each; it is about to be written."""
    if memory.nbytes >= _LEAST_TAKEN and _collapses():
        _advise(memory, _POPULATE)


def give_back(memory: Tensor) -> None:
    """Let the system have the whole pages of `memory`, whose contents nobody needs; it can be used again."""
    if memory.nbytes >= _LEAST_TAKEN and hasattr(mmap, "MADV_DONTNEED"):
        _advise(memory, mmap.MADV_DONTNEED)


def gather(memories: Sequence[Tensor]) -> None:
    """Begin to copy memory that `room` gave into large pages; other threads may read it meanwhile."""
    large = [memory for memory in memories if memory.nbytes >= _SMALLEST]
    if large and _collapses():
        thread = threading.Thread(target=_gather, args=(large,), name="large-pages", daemon=True)
        _gathering.append(thread)
        thread.start()


def wait() -> None:
    """Until nothing of that goes on any more."""
    while _gathering:
        _gathering.pop().join()


def _gather(memories: list[Tensor]) -> None:
    with suppress(OSError, AttributeError):  # of this thread alone, on Linux
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LEAST_PRIORITY)
    while memories:
        _collapse(memories.pop())


def _collapse(memory: Tensor) -> bool:
    """Whether all whole large pages of it are large now; what is not stays as it is."""
    first = -(-memory.data_ptr() // _LARGE_PAGE) * _LARGE_PAGE
    last = (memory.data_ptr() + memory.nbytes) // _LARGE_PAGE * _LARGE_PAGE
    done = True
    for at in range(first, last, _LARGE_PAGE):
        done = _madvise()(at, _LARGE_PAGE, _COLLAPSE) == 0 and done
    return done


@functools.cache
def _collapses() -> bool:
    """Whether this kernel makes large pages when asked: tried on one."""
    if sys.platform != "linux":
        return False
    try:
        return _collapse(torch.frombuffer(_pages(_SMALLEST), dtype=torch.uint8).fill_(1))
    except (OSError, ValueError, AttributeError):
        return False


def _advise(memory: Tensor, advice: int) -> None:
    """Tell the system something of the whole pages of `memory`, which is contiguous."""
    first = -(-memory.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    last = (memory.data_ptr() + memory.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    _madvise()(first, last - first, advice)


@functools.cache
def _madvise() -> ctypes._FuncPointer:
    function = ctypes.CDLL(None, use_errno=True).madvise
    function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return function


def _pages(size: int) -> mmap.mmap:
    """Small ones, where large ones are for who asks for them."""
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

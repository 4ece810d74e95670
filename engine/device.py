"""The device that a model runs on: which one, how much of its memory is free, how many threads a CPU gives."""

from __future__ import annotations

import math
import mmap
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from engine.errors import DeviceError

_CGROUP = Path("/sys/fs/cgroup")

_LARGE = 2**22
"""Bytes from which memory is asked of the system and not of the heap."""


def choose_device(name: str) -> torch.device:
    """Resolve `--device`; raises DeviceError when it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = name.partition(":")[0]
    if kind == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"--device {name}: this torch sees no CUDA device; use --device cpu or install a CUDA build")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("--device mps: no Apple GPU is available here; use --device cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f"--device {name}: not usable ({str(error).splitlines()[0]})") from error
    return device


def zeroed(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A tensor of zeros; on a CPU its memory is taken page by page, as it is first used."""
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or size < _LARGE or not hasattr(mmap, "MAP_ANONYMOUS"):
        return torch.zeros(tuple(shape), dtype=dtype, device=device)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=torch.uint8).view(dtype).view(tuple(shape))


def free_memory(device: torch.device) -> int | None:
    """Bytes that a process may still take on a device, or None where nobody can tell: on an accelerator other than CUDA's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    available = _available_in_meminfo(Path("/proc/meminfo"))
    told = (
        psutil.virtual_memory().available if available is None else available,
        *(_left_in_cgroup(_CGROUP / version.folder, version) for version in (_SECOND, _FIRST)),
    )
    return min(left for left in told if left is not None)


def _available_in_meminfo(path: Path) -> int | None:
    for line in _lines(path):
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    return None


@dataclass(frozen=True, slots=True)
class _Groups:
    """How a version of the kernel's control groups says what it lets a group have."""

    folder: str
    own: re.Pattern[str]
    """Our line in /proc/self/cgroup, up to the group's path."""
    limit: str
    used: str
    cache: str


_SECOND = _Groups("", re.compile(r"0::/"), "memory.max", "memory.current", "inactive_file ")
_FIRST = _Groups(
    "memory", re.compile(r"\d+:(?:\w+,)*memory(?:,\w+)*:/"), "memory.limit_in_bytes", "memory.usage_in_bytes",
    "total_inactive_file ",
)  # fmt: skip


def _left_in_cgroup(root: Path, version: _Groups = _SECOND, own: Path = Path("/proc/self/cgroup")) -> int | None:
    """What the tightest limit of our control groups leaves, counting what the kernel can take back as free."""
    matches = ((version.own.match(line), line.strip()) for line in _lines(own))
    path = next((line[match.end() :] for match, line in matches if match), "")
    left = None
    folder = root / path
    for group in (folder, *folder.parents):
        if not group.is_relative_to(root):
            break
        limit = next(iter(_lines(group / version.limit)), "max").strip()
        if not limit.isdigit():
            continue
        used = int(next(iter(_lines(group / version.used)), "0"))
        stat = (line.split() for line in _lines(group / "memory.stat") if line.startswith(version.cache))
        here = max(0, int(limit) - used + sum(int(fields[1]) for fields in stat))
        left = here if left is None else min(left, here)
    return left


def set_cpu_threads() -> int:
    """Give torch its threads: what OMP_NUM_THREADS says, as everywhere else, or the default. -> how many."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(default_threads())
    return torch.get_num_threads()


@contextmanager
def all_threads() -> Iterator[None]:
    """One thread for each physical core, unless OMP_NUM_THREADS says otherwise: for a while, such as that of loading."""
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(default_threads() + 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def default_threads() -> int:
    """All physical cores but one, which the editor needs: an oversubscribed core makes every barrier wait."""
    available = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return max(1, _physical_cores(len(available)) - 1)


def _physical_cores(logical: int) -> int:
    fields = [
        line.partition(":")[2].strip()
        for line in _lines(Path("/proc/cpuinfo"))
        if line.startswith(("physical id", "core id"))
    ]
    cores = len(set(zip(fields[::2], fields[1::2], strict=False)))
    return min(logical, cores or logical)


def _lines(path: Path) -> Iterable[str]:
    """The lines of a small file of the kernel's; none where it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return ()

"""Gives up, for the rest of a process's life, everything but computing and the files that it has open.

On Linux the kernel enforces it (a seccomp filter that lets few system calls through, and resource limits), with no way back.
Everywhere an audit hook refuses what Python itself would open, import, start or connect.
"""

from __future__ import annotations

import ctypes
import platform
import resource
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_FILTER: Final = 2
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | 1  # the call fails with EPERM
_KILL: Final = 0x80000000

_LOAD: Final = 0x20
_IF_EQUAL: Final = 0x15
_RETURN: Final = 0x06

# read, write, close, fstat, newfstatat, lseek, pread64, pwrite64, fsync, ftruncate; mmap, mprotect, munmap, mremap, brk,
# madvise; rt_sigaction, rt_sigprocmask, rt_sigreturn, sigaltstack; futex, sched_yield, clock_gettime, getrandom, getpid,
# gettid; exit, exit_group. The numbers are those of the kernel's tables for each machine.
_CALLS: Final = {
    "x86_64": (0xC000003E, (0, 1, 3, 5, 262, 8, 17, 18, 74, 77, 9, 10, 11, 25, 12, 28, 13, 14, 15, 131, 202, 24, 228, 318,
                            39, 186, 60, 231)),
    "aarch64": (0xC00000B7, (63, 64, 57, 80, 79, 62, 67, 68, 82, 46, 222, 226, 215, 216, 214, 233, 134, 135, 139, 132, 98,
                             124, 113, 278, 172, 178, 93, 94)),
}  # fmt: skip

_HARMLESS: Final = ("pickle.find_class", "sys._getframe", "object.__getattr__", "sys.excepthook", "sys.unraisablehook")


class LockdownError(Exception):
    """The system does not let a process give up its rights."""


def lock_down(*, memory: int, seconds: int, file_size: int) -> None:
    """From here on: at most `memory` more bytes, `seconds` of CPU time, `file_size` bytes in a file; no other file, no
    process, no connection.

    Raises LockdownError on a Linux that cannot enforce it; nothing may be read from a stranger then.
    """
    taken = _address_space()
    limits = {"RLIMIT_CPU": seconds, "RLIMIT_FSIZE": file_size, "RLIMIT_CORE": 0, "RLIMIT_NPROC": 0}
    if taken is not None:
        limits["RLIMIT_AS"] = taken + memory
    for name, limit in limits.items():
        with suppress(AttributeError, ValueError, OSError):  # not every system has each of them
            resource.setrlimit(getattr(resource, name), (limit, limit))
    if sys.platform == "linux":
        _filter_calls()
    sys.addaudithook(_refuse_event)


def _address_space() -> int | None:
    """Bytes of address space that the process has now."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return None


def _refuse_event(event: str, _arguments: tuple[object, ...]) -> None:
    if event not in _HARMLESS:
        raise PermissionError(f"{event}: given up")


def _filter_calls() -> None:
    known = _CALLS.get(platform.machine())
    if known is None:
        raise LockdownError(f"no list of system calls for {platform.machine()}")
    machine, allowed = known
    program = [
        (_LOAD, 0, 0, 4),  # the machine whose calls are meant
        (_IF_EQUAL, 1, 0, machine),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # the call's number
    ]
    for left, call in zip(range(len(allowed), 0, -1), allowed, strict=True):
        program.append((_IF_EQUAL, left, 0, call))  # to the last instruction
    program += [(_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: a length and a pointer
    filter_ = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    prctl = libc.prctl
    prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)
    for option, value, pointer in (
        (_PR_SET_NO_NEW_PRIVS, 1, None),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(filter_)),
    ):
        if prctl(option, value, pointer, 0, 0) != 0:
            raise LockdownError(f"prctl({option}) failed with errno {ctypes.get_errno()}")

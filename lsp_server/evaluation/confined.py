"""Begins a program that a model wrote, in a child that takes away from itself what the program is not to have. Run as a file.

In namespaces of its own it makes everything read-only but a folder in memory, hides all devices but the harmless ones,
and gives up the rights with which it did so; no program that it becomes gets them back. Then come the limits.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys

FAILED = 125
"""Its exit status where the kernel does not let it."""

_MOST = b"size=64m,nr_inodes=4096,mode=0700"  # of the folder
_DEVICES = ("null", "zero", "full", "random", "urandom")
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}

_HERE = -100  # AT_FDCWD
_BELOW = 0x8000  # AT_RECURSIVE
_MOUNT_SETATTR = 442  # on every machine
_READ_ONLY, _NO_SUID, _NO_DEVICES = 0x1, 0x2, 0x4  # MOUNT_ATTR_*, and MS_NOSUID alike
_BIND = 4096  # MS_BIND
_DROP_BOUND, _NO_NEW_RIGHTS, _AMBIENT, _CLEAR = 24, 38, 47, 4  # PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT


class _Attributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "user"))


_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> None:
    """Seconds, bytes of memory and of a file, whether to confine it, and the command, whose last word is the program."""
    seconds, memory, size = map(int, arguments[:3])
    command = arguments[4:]
    if arguments[3] == "confined":
        try:
            _confine(command[-1])
        except OSError:
            sys.exit(FAILED)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    os.execvp(command[0], command)  # noqa: S606 - there is no shell in it


def _confine(program: str) -> None:
    """Leave nothing that can be changed but the program's own folder, which is in memory from here on."""
    folder = os.path.dirname(program)  # noqa: PTH120 - nothing that can be spared is imported
    with open(program, "rb") as file:  # noqa: PTH123
        text = file.read()
    known = {name: os.open(f"/dev/{name}", os.O_PATH) for name in _DEVICES}
    for place, most in ((folder, _MOST), ("/dev", b"size=1m")):
        _checked(_libc.mount(b"tmpfs", place.encode(), b"tmpfs", _NO_SUID, most))
    for name, handle in known.items():
        os.close(os.open(f"/dev/{name}", os.O_CREAT | os.O_WRONLY, 0o600))
        _checked(_libc.mount(f"/proc/self/fd/{handle}".encode(), f"/dev/{name}".encode(), None, _BIND, None))
        os.close(handle)
    for name, target in _LINKS.items():
        os.symlink(target, f"/dev/{name}")  # noqa: PTH211
    _set("/", _BELOW, added=_READ_ONLY | _NO_SUID | _NO_DEVICES)
    for name in _DEVICES:
        _set(f"/dev/{name}", 0, removed=_READ_ONLY | _NO_DEVICES)
    _set(folder, 0, removed=_READ_ONLY)
    os.chdir(folder)  # it was below the new one
    with open(program, "wb") as file:  # noqa: PTH123
        file.write(text)
    number = 0
    while _libc.prctl(_DROP_BOUND, number, 0, 0, 0) == 0:
        number += 1
    _checked(-(number == 0))
    _checked(_libc.prctl(_AMBIENT, _CLEAR, 0, 0, 0))
    _checked(_libc.prctl(_NO_NEW_RIGHTS, 1, 0, 0, 0))


def _set(place: str, how: int, *, added: int = 0, removed: int = 0) -> None:
    asked = _Attributes(added, removed, 0, 0)
    arguments = map(ctypes.c_long, (_MOUNT_SETATTR, _HERE))
    size = ctypes.c_size_t(ctypes.sizeof(asked))
    _checked(_libc.syscall(*arguments, place.encode(), ctypes.c_uint(how), ctypes.byref(asked), size))


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), "not allowed here")


if __name__ == "__main__":
    main(sys.argv[1:])

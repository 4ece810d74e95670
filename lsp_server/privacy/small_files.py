"""Small files of others, read without trust: ordinary files alone, bounded, and never waiting for a writer."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

Stamp = tuple[int, int, int]
"""What changes when a file does: time of change in ns, size, inode."""


class TooLarge(Exception):
    """A file has more bytes than are read."""


def read_bounded(path: Path | str, limit: int, *, follow: bool) -> bytes:
    """A file's bytes. Without `follow`, a symlink is no ordinary file.

    Raises OSError if it cannot be opened or is no ordinary file, TooLarge if it has more than `limit` bytes.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    handle = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not an ordinary file")
        with os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(handle)
    if len(data) > limit:
        raise TooLarge
    return data


def stamp_of(path: Path | str, *, follow: bool = True) -> Stamp | None:
    """What changes when the file does; None if there is none."""
    try:
        found = os.stat(path, follow_symlinks=follow)  # noqa: PTH116 - takes a str, and is asked often
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino

"""The one way into a model directory: regular files of its own, of bounded size; never a pipe, a device or a way out."""

from __future__ import annotations

import os
import stat
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from engine.errors import CheckpointError
from engine.sizes import human_size

_MOST_NAMES = 10_000
_FLAGS = ("O_RDONLY", "O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY")  # not every system has all of them
_READ_AT_ONCE = sum(getattr(os, flag, 0) for flag in _FLAGS)


class ModelFolder:
    """A directory that a model is read from."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, name: str) -> Path:
        """Where a file of that name is."""
        return self.directory / name

    def names(self) -> list[str]:
        """What is in the directory, sorted; of a crowded one only the first ten thousand entries."""
        try:
            with os.scandir(self.directory) as entries:
                return sorted(entry.name for entry in islice(entries, _MOST_NAMES))
        except OSError as error:
            raise CheckpointError(f"{self.directory}: {error.strerror or error}") from error

    def has(self, name: str) -> bool:
        """Whether there is something of that name, be it a dangling link."""
        return os.path.lexists(self.path(name))

    def open(self, name: str) -> BinaryIO:
        """Open a regular file for reading, unbuffered; raises CheckpointError for anything else, and never waits."""
        path = self.path(name)
        try:
            self._keep_inside(path)
            _refuse_special(path, path.stat().st_mode)
            # Between the two looks the file may have become a pipe: opening one must not wait for its writer.
            number = os.open(path, _READ_AT_ONCE)
        except FileNotFoundError as error:
            raise CheckpointError(f"{path}: no such file; a model directory needs it") from error
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise CheckpointError(f"{path}: cannot be opened ({reason})") from error
        file = os.fdopen(number, "rb", buffering=0)
        try:
            _refuse_special(path, os.fstat(number).st_mode)
        except CheckpointError:
            file.close()
            raise
        return file

    def read(self, name: str, limit: int) -> bytes:
        """The whole of a file of at most `limit` bytes."""
        with self.open(name) as file:
            data = bytearray()
            try:
                while len(data) <= limit and (piece := file.read(min(limit + 1 - len(data), 2**20))):
                    data += piece
            except OSError as error:
                raise CheckpointError(f"{self.path(name)}: cannot be read ({error.strerror})") from error
        if len(data) > limit:
            raise CheckpointError(f"{self.path(name)}: larger than {human_size(limit)}")
        return bytes(data)

    def _keep_inside(self, path: Path) -> None:
        """Links may stay in the directory, or lead from a hub cache's `snapshots/REVISION` to its `blobs`."""
        if not path.is_symlink():
            return
        home = Path(os.path.realpath(self.directory))
        target = Path(os.path.realpath(path))
        blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else None
        if target.parent not in (home, blobs):
            raise CheckpointError(f"{path}: a link that leads out of the model's directory; put the file itself there")


def _refuse_special(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(mode), "a device")
        raise CheckpointError(f"{path}: is {kind}; expected a regular file")

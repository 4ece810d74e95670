"""Where a pulled model grows: a folder that nobody can name, until it takes its place in one step."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from engine import paths
from engine.errors import HubError
from engine.models.locate import ModelName
from engine.sizes import human_size

OLDER = ".older"
"""What a model's folder is called while another takes its place."""
_RESERVE = 256 * 2**20
"""Bytes of disk that are left alone."""


def grow(partial: Path, name: ModelName, commit: str) -> Path:
    """The folder in which this commit grows, made if need be; what grew of others under this name is of no use any more."""
    staging = partial / f"{name.folder}+{commit}"
    for other in partial.glob("*+*"):
        if other.name.rpartition("+")[0] == name.folder and other != staging:
            discard(other)
    staging.mkdir(exist_ok=True)
    return staging


def place(staging: Path, target: Path, partial: Path) -> None:
    """Let the model appear under its name, in one step; an older one makes room first."""
    for path in staging.iterdir():
        if path.is_dir():  # a draft of a conversion that was ended
            shutil.rmtree(path)
    older = partial / f"{target.name}{OLDER}"
    discard(older)
    if os.path.lexists(target):
        target.rename(older)
    staging.rename(target)
    discard(older)


def discard(path: Path) -> None:
    """Remove a folder, or a link to one and not what it leads to; whether or not it is there."""
    if path.is_symlink():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def check_room(staging: Path, needed: int, name: ModelName) -> None:
    """Raise HubError if the disk has no room for so many bytes more."""
    free = shutil.disk_usage(staging).free
    if needed + _RESERVE > free:
        raise HubError(
            f"{name} needs {human_size(needed)} of disk at {paths.models_dir()}, {human_size(free)} are free; make room "
            "(starfill models remove), or set STARFILL_HOME to a larger disk"
        )


def size_of(path: Path) -> int:
    """Bytes of a file, 0 if it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def writable(folder: Path) -> Path:
    """The folder, made if need be; raises HubError if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HubError(f"{folder}: {error.strerror}; set STARFILL_HOME to a folder that you may write to") from error
    if not os.access(folder, os.W_OK):
        raise HubError(f"{folder}: cannot be written to; set STARFILL_HOME to a folder that you may write to")
    return folder

"""What a corpus consists of: the files under some folders, in one order, each with where it comes from.

Symlinks are not followed, version control's own folders are not entered, and files that are too large to have been written by
hand are left out. Whether a file is text is seen when it is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.errors import StarfillError
from lsp_server.attribution.provenance import Provenance, above, within

MOST_BYTES: Final = 2 * 2**20
"""Of one file; larger ones are data."""

_DEPTH = 200  # folders below a root
_NOT_ENTERED = frozenset({".git", ".hg", ".svn", ".jj", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"})


@dataclass(frozen=True, slots=True)
class Found:
    """A file of the corpus. `path` is relative to root number `root`, with `/` between its parts."""

    root: int
    path: str
    size: int
    changed: int
    """When, in ns."""
    package: str
    licence: str


def roots_of(folders: list[Path]) -> list[str]:
    """The folders of a corpus, absolute and sorted, none inside another; raises StarfillError for what is no folder."""
    wanted = sorted({Path(os.path.realpath(folder)) for folder in folders})
    for folder in wanted:
        if not folder.is_dir():
            raise StarfillError(f"{folder}: not a folder; name folders of source code")
    return [str(folder) for folder in wanted if not any(other in folder.parents for other in wanted)]


def files_of(roots: list[str]) -> Iterator[Found]:
    """The files under each root, by path."""
    for number, root in enumerate(roots):
        yield from _files(number, Path(root), "", above(Path(root)))


def _files(number: int, root: Path, relative: str, outer: Provenance) -> Iterator[Found]:
    folder = root / relative if relative else root
    try:
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError:
        return  # it is gone, or not ours to read
    folders = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
    plain = [entry for entry in entries if entry.is_file(follow_symlinks=False)]
    here = within(folder, [entry.name for entry in plain], folders, outer)
    for entry in entries:
        path = f"{relative}/{entry.name}" if relative else entry.name
        if entry.name in folders:
            if entry.name not in _NOT_ENTERED and path.count("/") < _DEPTH:
                yield from _files(number, root, path, here)
        elif entry.is_file(follow_symlinks=False):
            try:
                known = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if 0 < known.st_size <= MOST_BYTES:
                package, licence = here.of(entry.path)
                yield Found(number, path, known.st_size, known.st_mtime_ns, package, licence)

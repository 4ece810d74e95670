"""What the bytes of downloaded files must be, and whether they are."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engine.checkpoint.table import read_table
from engine.errors import StarfillError
from engine.models.record import Record
from engine.models.staging import size_of

if TYPE_CHECKING:
    from engine.models.hub import RemoteModel

_PIECE = 8 * 2**20


class Summed(Protocol):
    """A file of which the bytes are known."""

    @property
    def size(self) -> int:
        """How many they are."""
        ...

    @property
    def sum(self) -> str:
        """As `RemoteFile` has it."""
        ...


def verify(path: Path, file: Summed) -> bool:
    """Whether a file on disk is what the hub says it is, or what a record says that it was."""
    kind, _, expected = file.sum.partition(":")
    if path.stat().st_size != file.size:
        return False
    head = b"blob %d\0" % file.size  # a git object's kind and length come first
    found = hashlib.sha256() if kind == "sha256" else hashlib.sha1(head, usedforsecurity=False)
    return _fed(found, path) == expected


def sha256_of(path: Path) -> str:
    """What `verify` will compare a file of our own with."""
    return f"sha256:{_fed(hashlib.sha256(), path)}"


def _fed(found: hashlib._Hash, path: Path) -> str:
    with path.open("rb") as opened:
        while piece := opened.read(_PIECE):
            found.update(piece)
    return found.hexdigest()


def damaged_files(directory: Path, record: Record) -> frozenset[str]:
    """The recorded files that are no longer what they were."""
    kept = [each for each in (*record.files, *record.made) if each.name not in record.gone]
    return frozenset(
        each.name for each in kept if not (directory / each.name).is_file() or not verify(directory / each.name, each)
    )


def reuse(directory: Path, record: Record, damaged: frozenset[str], remote: RemoteModel, staging: Path) -> None:
    """Files that are right need not come again: they get a second name where the others grow."""
    for each in record.files:
        wanted, target = remote.files.get(each.name), staging / each.name
        if wanted is not None and wanted.sum == each.sum and each.name not in {*damaged, *record.gone}:
            with suppress(OSError):  # a disk without such names, or another one
                target.unlink(missing_ok=True)
                target.hardlink_to(directory / each.name)


def complete(directory: Path, record: Record) -> bool:
    """Whether all that was recorded is still there, by name and size."""
    try:
        read_table(directory)
    except StarfillError:
        return False
    return all(
        size_of(directory / file.name) == file.size
        for file in (*record.files, *record.made)
        if file.name not in record.gone
    )

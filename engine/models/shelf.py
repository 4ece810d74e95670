"""The downloaded models on disk: what is there, how large it is, who runs it, taking one away."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine import paths, registry
from engine.errors import CheckpointError, StarfillError
from engine.lock import FileLock
from engine.models.locate import STARTER, STARTER_ID, ModelName, ModelSource, locate, pulled
from engine.models.record import Record, read_record
from engine.models.staging import OLDER, discard

PARTIAL = ".partial"
"""Where downloads grow, beside the models: no name of a model begins with a dot."""
_LEAVING = ".removing"


@dataclass(frozen=True, slots=True)
class Kept:
    """A model that is here."""

    name: ModelName
    directory: Path
    record: Record | None

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return size_of(self.directory)


@dataclass(frozen=True, slots=True)
class Begun:
    """A download that did not come to its end."""

    name: ModelName
    folders: tuple[Path, ...]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(size_of(each) for each in self.folders)


def kept_models() -> Iterator[Kept]:
    """Every downloaded model, by name."""
    folder = paths.models_dir()
    for directory in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = ModelName.of_folder(directory.name)
        if name is not None and directory.is_dir():
            yield Kept(name, directory, read_record(directory))


def begun_downloads() -> list[Begun]:
    """Every download that stopped on its way, by name; one that goes on at this moment is among them."""
    folder = paths.models_dir() / PARTIAL
    found: dict[str, list[Path]] = {}
    for each in sorted(folder.iterdir()) if folder.is_dir() else ():
        own, _, commit = each.name.rpartition("+")
        if each.is_dir() and (commit if own else each.name.endswith(OLDER)):
            found.setdefault(own or each.name.removesuffix(OLDER), []).append(each)
    named = ((ModelName.of_folder(own), folders) for own, folders in found.items())
    downloads = [Begun(name, tuple(folders)) for name, folders in named if name is not None]
    return [each for each in downloads if each.size]


def on_disk(text: str) -> tuple[Kept | None, Begun | None]:
    """All that is here of a model; raises CheckpointError if nothing is."""
    name = parse_pulled(text)
    begun = next((each for each in begun_downloads() if each.name == name), None)
    return (None if begun is not None and pulled(name) is None else find(text)), begun


def find(text: str) -> Kept:
    """The downloaded model of that name; raises CheckpointError."""
    name = parse_pulled(text)
    directory = pulled(name)
    if directory is None:
        raise CheckpointError(
            f"{name} is not here; starfill models list shows what is, starfill models pull {name} gets it"
        )
    return Kept(name, directory, read_record(directory))


def parse_pulled(text: str) -> ModelName:
    """The name of a model that can come and go; raises CheckpointError for the one that starfill brings."""
    name = parse(text)
    if name.id == STARTER_ID:
        raise CheckpointError(f"{STARTER_ID} comes with starfill: it is neither pulled nor removed")
    return name


def parse(text: str) -> ModelName:
    """A model's name as a person writes it; raises CheckpointError."""
    name = ModelName.parse(text)
    if name is None:
        raise CheckpointError(f"{text!r} is no name of a model; write ID or ID@REVISION, as bigcode/santacoder@no-fim")
    return name


def starter() -> Kept:
    """The model that starfill brings."""
    return Kept(ModelName(STARTER_ID), STARTER, None)


def size_of(directory: Path) -> int:
    """Bytes of a folder's files."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink())


def runners(kept: Kept) -> list[registry.EngineRecord]:
    """The engines that run a model now, or an adapter of it that is here."""
    key = registry.engine_key(ModelSource(str(kept.name), kept.directory))
    return [
        record
        for record in registry.running_engines()
        if record.model == str(kept.name)
        or Path(record.socket).stem.partition("-")[0] == key
        or _is_adapter_of(record.model, kept)
    ]


def _is_adapter_of(model: str, kept: Kept) -> bool:
    from engine.checkpoint.adapter import base_of, is_adapter

    try:
        directory = locate(model, trust_folder=False).directory
        return is_adapter(directory) and base_of(directory).directory.resolve() == kept.directory.resolve()
    except StarfillError:  # run from a folder of its own, or broken
        return False


def remove(kept: Kept | None, begun: Begun | None = None) -> int:
    """Delete a downloaded model and what came of another download of it -> bytes freed; raises CheckpointError while an
    engine runs it or a download goes on.

    It is gone for everybody in one step: a folder that is only half deleted has no model's name any more. A folder that is a
    link goes, and what it leads to stays.
    """
    running = runners(kept) if kept is not None else []
    if kept is not None and running:
        pids = ", ".join(str(record.pid) for record in running)
        raise CheckpointError(f"{kept.name} is in use (pid {pids}); end that first: starfill stop {running[0].model}")
    freed = _drop(begun) if begun is not None else 0
    return freed if kept is None else freed + _take_away(kept.directory)


def _drop(begun: Begun) -> int:
    lock = FileLock(paths.models_dir() / PARTIAL / f"{begun.name.folder}.lock")
    if not lock.try_acquire():
        raise CheckpointError(f"{begun.name} is being downloaded by another starfill; wait for it, or end it")
    try:
        size = begun.size
        for folder in begun.folders:
            discard(folder)
    finally:
        lock.release()
    return size


def _take_away(directory: Path) -> int:
    size = 0 if directory.is_symlink() else size_of(directory)
    leaving = paths.models_dir() / _LEAVING
    leaving.mkdir(mode=0o700, exist_ok=True)
    gone = leaving / directory.name
    try:
        discard(gone)
        directory.rename(gone)
        shutil.rmtree(leaving)
    except OSError as error:
        raise CheckpointError(f"{directory}: cannot be removed ({error.strerror or error})") from error
    return size

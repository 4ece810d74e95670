"""The downloaded models on disk: what is there, how large it is, who runs it, taking one away."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine import paths, registry
from engine.errors import CheckpointError
from engine.models.locate import STARTER, STARTER_ID, ModelName, ModelSource, pulled
from engine.models.record import Record, read_record

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


def kept_models() -> Iterator[Kept]:
    """Every downloaded model, by name."""
    folder = paths.models_dir()
    for directory in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = ModelName.of_folder(directory.name)
        if name is not None and directory.is_dir():
            yield Kept(name, directory, read_record(directory))


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
    """The engines that run a model now."""
    key = registry.engine_key(ModelSource(str(kept.name), kept.directory))
    return [
        record
        for record in registry.running_engines()
        if record.model == str(kept.name) or Path(record.socket).stem.partition("-")[0] == key
    ]


def remove(kept: Kept) -> int:
    """Delete a downloaded model -> bytes freed; raises CheckpointError while an engine runs it.

    It is gone for everybody in one step: a folder that is only half deleted has no model's name any more.
    """
    running = runners(kept)
    if running:
        pids = ", ".join(str(record.pid) for record in running)
        raise CheckpointError(f"{kept.name} is in use (pid {pids}); end that first: starfill stop {running[0].model}")
    size = kept.size
    leaving = paths.models_dir() / _LEAVING
    leaving.mkdir(mode=0o700, exist_ok=True)
    gone = leaving / kept.directory.name
    try:
        shutil.rmtree(gone, ignore_errors=True)
        kept.directory.rename(gone)
        shutil.rmtree(leaving)
    except OSError as error:
        raise CheckpointError(f"{kept.directory}: cannot be removed ({error.strerror or error})") from error
    return size

"""What a model is called, and where it is."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine import paths
from engine.errors import CheckpointError

STARTER = Path(__file__).resolve().parents[1] / "starter"
STARTER_ID = "starfill-starter"
MAIN = "main"
"""The revision that is meant when none is named."""

_PART = r"[A-Za-z0-9](?:[\w.-]{0,126}\w)?"
_NAME = re.compile(rf"(?P<id>{_PART}(?:/{_PART})?)(?:@(?P<revision>{_PART}(?:/{_PART})*))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model as the user named it, and where it is."""

    id: str
    directory: Path


@dataclass(frozen=True, slots=True)
class ModelName:
    """`ID[@REVISION]` as hubs have it; without a revision it is `main`."""

    id: str
    revision: str = MAIN

    def __str__(self) -> str:
        return self.id if self.revision == MAIN else f"{self.id}@{self.revision}"

    @property
    def folder(self) -> str:
        """What its folder among the downloaded models is called: no two names share one, as no name holds `--`."""
        return str(self).replace("/", "--")

    @classmethod
    def parse(cls, text: str) -> ModelName | None:
        """A name, or None if the text is not one."""
        match = _NAME.fullmatch(text)
        if match is None or ".." in text or "--" in text:
            return None
        return cls(match["id"], match["revision"] or MAIN)

    @classmethod
    def of_folder(cls, folder: str) -> ModelName | None:
        """The name that a folder stands for, or None."""
        id_, at, revision = folder.partition("@")
        return cls.parse(id_.replace("--", "/") + at + revision.replace("--", "/"))


def pulled(name: ModelName) -> Path | None:
    """The folder of a downloaded model, if it is here."""
    folder = paths.models_dir() / name.folder
    return folder if folder.is_dir() else None


def locate(model: str | None, *, trust_folder: bool = True) -> ModelSource:
    """Resolve `--model`: nothing or `default` is the starter, a directory is itself, an id one that was pulled.

    Without `trust_folder`, a directory must be written as a path (`/…`, `./…`, `~/…`): an editor starts its server inside a
    repository, which must not answer to a model's name.
    """
    if model is None or model in ("default", STARTER_ID):
        return ModelSource(STARTER_ID, STARTER)
    # A downloaded model comes first: a repository must not put a folder of that name in its place.
    name = ModelName.parse(model)
    if name is not None and (found := pulled(name)) is not None:
        return ModelSource(str(name), found)
    with suppress(OSError, RuntimeError, ValueError):  # too long, an unknown ~user, a NUL
        directory = Path(model).expanduser()
        written_as_path = model.startswith(("/", "./", "../", "~"))
        if model and (trust_folder or written_as_path) and directory.is_dir():
            directory = directory.resolve()
            return ModelSource(_id_of(directory), directory)
    pull = f"get it with: starfill models pull {name}; or " if name is not None and "/" in name.id else ""
    raise CheckpointError(
        f"model {model!r}: neither a directory nor a downloaded model; {pull}give a directory with config.json, "
        "tokenizer.json and safetensors, or leave --model out for the built-in starter"
    )


def anew(directory: Path) -> str:
    """How to get a model again whose files are damaged, though all there."""
    if directory.parent == paths.models_dir() and (name := ModelName.of_folder(directory.name)) is not None:
        return f"starfill models pull --verify {name}"
    return "download it again"


def _id_of(directory: Path) -> str:
    """A downloaded model keeps its name when it is given by its path, as a shared engine is."""
    if directory.parent == paths.models_dir().resolve() and (name := ModelName.of_folder(directory.name)) is not None:
        return str(name)
    # It goes into messages and JSON, whatever bytes it has on disk.
    return directory.name.encode("utf-8", "replace").decode()

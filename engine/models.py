"""Which models there are, and what a model is called on disk."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine import paths
from engine.errors import CheckpointError

STARTER = Path(__file__).parent / "starter"
STARTER_ID = "starfill-starter"
_MODEL_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model as the user named it, and where it is."""

    id: str
    directory: Path


def locate(model: str | None, *, trust_folder: bool = True) -> ModelSource:
    """Resolve `--model`: nothing or `default` is the starter, a directory is itself, an id one that was pulled.

    Without `trust_folder`, a directory must be written as a path (`/…`, `./…`, `~/…`): an editor starts its server inside a
    repository, which must not answer to a model's name.
    """
    if model is None or model in ("default", STARTER_ID):
        return ModelSource(STARTER_ID, STARTER)
    # A downloaded model comes first: a repository must not put a folder of that name in its place.
    if _MODEL_ID.fullmatch(model) and ".." not in model:
        pulled = paths.models_dir() / model.replace("/", "--")
        if pulled.is_dir():
            return ModelSource(model, pulled)
    with suppress(OSError, RuntimeError, ValueError):  # too long, an unknown ~user, a NUL
        directory = Path(model).expanduser()
        written_as_path = model.startswith(("/", "./", "../", "~"))
        if model and (trust_folder or written_as_path) and directory.is_dir():
            directory = directory.resolve()
            return ModelSource(directory.name, directory)
    raise CheckpointError(
        f"model {model!r}: neither a directory nor a downloaded model; give a directory with config.json, "
        "tokenizer.json and safetensors, or leave --model out for the built-in starter"
    )

"""Which backend runs a model: our own for the StarCoder family, the `transformers` library for a few others. No torch."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Literal

from engine.errors import StarfillError

Backend = Literal["native", "transformers"]
NAMES = ("auto", "native", "transformers")
"""What `--backend` may say."""

LIBRARY_REMEDY = "pip install 'starfill[transformers]' brings a version from 5.17 on, before 6"


def choose_backend(name: str, directory: Path) -> Backend:
    """Resolve `--backend` for a model directory; raises StarfillError for what cannot be."""
    from engine.checkpoint.config import NATIVE_TYPES
    from engine.transformers_backend.families import FAMILIES, kind_of

    check_name(name)
    if name == "native":
        return "native"
    kind = kind_of(directory)
    if kind in NATIVE_TYPES:
        if name == "transformers":
            raise StarfillError(
                f"--backend transformers: {directory.name} is a {kind} model, which the native backend runs, and faster; "
                f"leave --backend out (transformers runs {', '.join(FAMILIES)})"
            )
        return "native"
    version = library_version()
    if version is None or not library_serves(version):
        there = "is not installed" if version is None else f"is of version {version}"
        raise StarfillError(
            f"a {kind} model needs the transformers backend, and that library {there}: {LIBRARY_REMEDY}"
        )
    return "transformers"


def library_version() -> str | None:
    """Which version of `transformers` is installed, if any. It is not imported."""
    try:
        return metadata.version("transformers")
    except metadata.PackageNotFoundError:
        return None


def library_serves(version: str) -> bool:
    """Whether a version is one that the backend is written for."""
    numbers = [int(part) for part in version.split(".")[:2] if part.isdecimal()]
    return [5, 17] <= numbers < [6]


def check_name(name: str) -> None:
    """Raise StarfillError unless `--backend` may say that."""
    if name not in NAMES:
        raise StarfillError(f"--backend {name!r}: no such backend; choose one of {', '.join(NAMES)}")

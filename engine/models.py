"""Which models there are, and what a model is called on disk."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from engine import paths
from engine.errors import CheckpointError, DeviceError

STARTER = Path(__file__).parent / "starter"
STARTER_ID = "starfill-starter"
_MODEL_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model as the user named it, and where it is."""

    id: str
    directory: Path


def locate(model: str | None) -> ModelSource:
    """Resolve `--model`: nothing or `default` is the starter, a directory is itself, an id one that was pulled."""
    if model is None or model in ("default", STARTER_ID):
        return ModelSource(STARTER_ID, STARTER)
    directory = Path(model).expanduser()
    if directory.is_dir():
        directory = directory.resolve()
        return ModelSource(directory.name, directory)
    if _MODEL_ID.fullmatch(model) and ".." not in model:
        pulled = paths.models_dir() / model.replace("/", "--")
        if pulled.is_dir():
            return ModelSource(model, pulled)
    raise CheckpointError(
        f"model {model!r}: neither a directory nor a downloaded model; give a directory with config.json, "
        "tokenizer.json and safetensors, or leave --model out for the built-in starter"
    )


def human_size(count: float) -> str:
    """Bytes as a person writes them: 3.4 GiB."""
    power = min(4, int(math.log(max(count, 1), 1024)))
    return f"{count / 1024**power:.4g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def parse_size(text: str) -> int:
    """Bytes of `512MiB`, `2G` or `1000000`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b)?", text.strip().lower())
    if not match:
        raise DeviceError(f"{text!r} is not a size; write 512MiB or 2GiB")
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2] or " "))

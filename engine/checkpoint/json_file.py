"""JSON from strangers: size, depth, number of values and length of numbers bounded, duplicate keys and NaN refused."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from engine.checkpoint.folder import ModelFolder
from engine.errors import CheckpointError
from engine.sizes import human_size

_STRING = re.compile(rb'"(?:[^"\\]++|\\.?)*+(?:"|\Z)', re.DOTALL)  # an open one reaches to the end: linear on any input
_NOT_STRUCTURE = bytes(set(range(256)) - set(b"[]{},"))
_LONGEST_NUMBER = 32
_LONGEST_SHOWN = 60


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """How much of a file is still reasonable: bytes, values and nesting."""

    size: int
    values: int
    depth: int = 16


def read_object(folder: ModelFolder, name: str, limits: JsonLimits) -> dict[str, Any]:
    """The JSON object that a file of the folder holds; raises CheckpointError."""
    return parse_object(folder.read(name, limits.size), folder.path(name), limits)


def parse_object(data: bytes, path: Path, limits: JsonLimits) -> dict[str, Any]:
    """The JSON object in `data`; errors name `path`."""
    if len(data) > limits.size:
        raise CheckpointError(f"{path}: larger than {human_size(limits.size)}")
    _check_structure(data, path, limits)
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({one_line(error)})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: must hold a JSON object")
    return value


def shown(value: object) -> str:
    """A value from a file in a form fit for one line of a message."""
    text = ascii(value) if not isinstance(value, list | dict) else f"{type(value).__name__} of {len(value)}"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def one_line(error: BaseException) -> str:
    """What a library said of a file, cut to one bounded line of ASCII."""
    text = ascii(" ".join(str(error).split()))[1:-1]
    return text if len(text) <= 3 * _LONGEST_SHOWN else f"{text[: 3 * _LONGEST_SHOWN]}..."


def refuse(path: Path, error: ValidationError) -> NoReturn:
    """Raise CheckpointError for the first thing that a schema found wrong."""
    first = error.errors(include_url=False, include_context=False)[0]
    # Keys of a mapping are the file's own words, and pydantic marks what it says of the key itself.
    parts = [part for part in first["loc"] if part != "[key]"]
    place = ".".join(shown(part)[1:-1] if isinstance(part, str) else str(part) for part in parts)
    said = f", not {shown(first['input'])}" if first["type"] != "missing" else ""
    message = first["msg"].removeprefix("Value error, ")
    raise CheckpointError(f"{path}: {place or 'content'}: {message[:1].lower()}{message[1:]}{said}") from error


def _check_structure(data: bytes, path: Path, limits: JsonLimits) -> None:
    """Count before parsing: a value costs many times the bytes that it is written in, a level some of the stack."""
    if data.count(b'"') > 4 * limits.values:
        raise CheckpointError(f"{path}: more than {2 * limits.values:,} strings")
    structure = _STRING.sub(b"", data).translate(None, _NOT_STRUCTURE)
    if len(structure) > 2 * limits.values:  # each value brings at most a bracket or two and a comma
        raise CheckpointError(f"{path}: more than {limits.values:,} values")
    brackets = structure.translate(None, b",")
    for _ in range(limits.depth):
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if not brackets:
            return
    if b"[" in brackets or b"{" in brackets:
        raise CheckpointError(f"{path}: not readable as JSON (nested deeper than {limits.depth}, or never closed)")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        [(double, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {shown(double)} stands there twice")
    return found


def _refuse_constant(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {shown(text)} is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)

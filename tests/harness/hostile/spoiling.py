"""How a good directory is spoilt: edits of its JSON files and of its safetensors headers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG, TOKENIZER, WEIGHTS, INDEX = "config.json", "tokenizer.json", "model.safetensors", "model.safetensors.index.json"

Spoil = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Spoilt:
    """One way to spoil a directory."""

    name: str
    file: str
    """What the refusal names: the file, or a part of its path."""
    says: str
    """Words of the reason."""
    spoil: Spoil
    sharded: bool = False
    """Whether the good directory is one of three shards."""


def write(name: str, content: str | bytes) -> Spoil:
    """Put something else in a file's place."""
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return lambda folder: _replace(folder / name, data)


def edit_json(name: str, change: Callable[[Any], Any]) -> Spoil:
    """Change what a JSON file holds; what `change` returns is written, or if nothing, what it changed."""

    def spoil(folder: Path) -> None:
        found = json.loads((folder / name).read_text("utf-8"))
        changed = change(found)
        (folder / name).write_text(json.dumps(found if changed is None else changed), "utf-8")

    return spoil


def set_key(name: str, key: str, value: object) -> Spoil:
    """Set one key, written `a.b.c`, of a JSON file."""

    def change(found: Any) -> None:
        *path, last = key.split(".")
        for part in path:
            found = found[int(part) if isinstance(found, list) else part]
        found[int(last) if isinstance(found, list) else last] = value

    return edit_json(name, change)


def replace_text(name: str, old: str, new: str) -> Spoil:
    """Change the letters of a file, where JSON of ours would not do."""

    def spoil(folder: Path) -> None:
        text = (folder / name).read_text("utf-8")
        assert old in text, f"{name} has no {old}"
        (folder / name).write_text(text.replace(old, new, 1), "utf-8")

    return spoil


def read_header(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def write_header(path: Path, header: str | bytes, data: bytes, length: int | None = None) -> None:
    """A safetensors file of that header, whatever it says, and that data."""
    text = header.encode() if isinstance(header, str) else header
    size = len(text) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + text + data)


def edit_header(change: Callable[[dict[str, Any]], Any], name: str = WEIGHTS, *, more: bytes = b"") -> Spoil:
    """Change the header of a safetensors file and leave its data, or add to it."""

    def spoil(folder: Path) -> None:
        header, data = read_header(folder / name)
        changed = change(header)
        write_header(folder / name, json.dumps(header if changed is None else changed), data + more)

    return spoil


def _replace(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)

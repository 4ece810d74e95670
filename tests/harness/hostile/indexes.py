"""Spoilt `model.safetensors.index.json`, and shards that it does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.harness.hostile.spoiling import (
    INDEX,
    WEIGHTS,
    Spoil,
    Spoilt,
    edit_json,
    read_header,
    replace_text,
    set_key,
    write,
    write_header,
)

_WTE = "transformer.wte.weight"
_SECOND = "model-00002-of-00003.safetensors"


def _case(name: str, says: str, spoil: Spoil, file: str = INDEX) -> Spoilt:
    return Spoilt(f"index: {name}", file, says, spoil, sharded=True)


def _to(shard: object) -> Spoil:
    """Place one tensor in another shard."""

    def change(index: Any) -> None:
        index["weight_map"][_WTE] = shard

    return edit_json(INDEX, change)


def _place(name: str, shard: object, says: str = "must be a .safetensors file of the same directory") -> Spoilt:
    return _case(name, says, _to(shard))


def _add(tensor: str, shard: str) -> Spoil:
    return edit_json(INDEX, lambda index: index["weight_map"].update({tensor: shard}))


def _remove_shard(folder: Path) -> None:
    (folder / _SECOND).unlink()


def _link_out(folder: Path) -> None:
    outside = folder.parent / f"{folder.name}-outside.safetensors"
    (folder / _SECOND).rename(outside)
    (folder / _SECOND).symlink_to(outside)


def _link_loop(folder: Path) -> None:
    (folder / _SECOND).unlink()
    (folder / _SECOND).symlink_to(_SECOND)


def _stale_shard(folder: Path) -> None:
    (folder / "model-00004-of-00004.safetensors").write_bytes(b"left over")


def _held_twice(folder: Path) -> None:
    """A shard that holds another one's tensor too."""
    index = json.loads((folder / INDEX).read_text())["weight_map"]
    header, data = read_header(folder / _SECOND)
    foreign = next(name for name, shard in index.items() if shard != _SECOND)
    end = len(data)
    header[foreign] = {"dtype": "F32", "shape": [1], "data_offsets": [end, end + 4]}
    write_header(folder / _SECOND, json.dumps(header), data + bytes(4))


def _cut_shard(folder: Path) -> None:
    raw = (folder / _SECOND).read_bytes()
    (folder / _SECOND).write_bytes(raw[:-64])


def _single_file_first(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"")


CASES = (
    _case("empty file", "not readable as JSON", write(INDEX, "")),
    _case("a list", "must hold a JSON object", write(INDEX, "[]")),
    _case("no weight_map", "weight_map", write(INDEX, '{"metadata": {}}')),
    _case("a weight_map that is a list", "weight_map", set_key(INDEX, "weight_map", [])),
    _case("a weight_map of nothing", "weight_map", set_key(INDEX, "weight_map", {})),
    _case("nested 100,000 deep", "nested deeper", write(INDEX, '{"a":' * 100_000 + "0" + "}" * 100_000)),
    _case("a tensor twice", "stands there twice", replace_text(INDEX, f'"{_WTE}"', f'"{_WTE}": "x.safetensors", "{_WTE}"')),
    _place("a way up", "../model-00001-of-00003.safetensors"),
    _place("a long way up", "../../../../etc/passwd"),
    _place("an absolute path", "/etc/passwd"),
    _place("an absolute path of the right kind", "/tmp/model.safetensors"),
    _place("a folder below", "shards/model-00001-of-00003.safetensors"),
    _place("a Windows path", "..\\model-00001-of-00003.safetensors"),
    _place("a drive", "C:model.safetensors"),
    _place("a home", "~/model.safetensors"),
    _place("dots alone", ".."),
    _place("a hidden file", ".safetensors"),
    _place("nothing", ""),
    _place("a NUL", "model\0.safetensors"),
    _place("many lines", "model\n\x1b[2J.safetensors"),
    _place("a name of another alphabet", "mode\u217c.safetensors"),
    _place("a pickle", "pytorch_model.bin"),
    _place("the configuration", "config.json"),
    _place("a name of 5,000 letters", "x" * 5_000 + ".safetensors"),
    _place("a number", 7, "weight_map"),
    _place("null", None, "weight_map"),
    _case("a tensor in another shard", "does not place there", _to(_SECOND), file=".safetensors"),
    _case("a tensor that no shard holds", "lacks 'phantom'", _add("phantom", _SECOND), file=_SECOND),
    _case("a shard that is not there", "no such file", _add("phantom", "model-00009.safetensors"), file="model-00009"),
    _case("2,000 shards", "more than 1024 shards", edit_json(INDEX, lambda index: index["weight_map"].update(
        {f"phantom.{n}": f"model-{n}.safetensors" for n in range(2_000)}))),
    _case("a shard was removed", "no such file", _remove_shard, file=_SECOND),
    _case("a shard was cut", "data_offsets", _cut_shard, file=_SECOND),
    _case("a shard is a link out of the directory", "leads out", _link_out, file=_SECOND),
    _case("a shard is a link to itself", "cannot be opened", _link_loop, file=_SECOND),
    _case("a shard that the index does not know", "does not know", _stale_shard, file="model-00004-of-00004.safetensors"),
    _case("a tensor in two shards", "does not place there", _held_twice, file=_SECOND),
    _case("a broken single file beside it", "first 8 bytes", _single_file_first, file=WEIGHTS),
)  # fmt: skip

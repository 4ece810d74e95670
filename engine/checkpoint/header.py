"""The header of a safetensors file: eight bytes of length, that much JSON, then the tensors end to end.

Every number is checked against the file before anything else is read of it: the tensors must fill the rest of the file
without gap or overlap, as the format has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from engine.checkpoint.json_file import JsonLimits, parse_object, shown
from engine.errors import CheckpointError

_LIMITS = JsonLimits(size=4 * 2**20, values=150_000, depth=4)
_MOST_TENSORS = 16_384
_LONGEST_NAME = 256
_MOST_AXES = 8
_LARGEST = 2**48  # bytes or elements: more than any disk has, far from where 64 bits end

ITEM_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
}  # fmt: skip
"""Bits of one element of each dtype that a model file of ours may mention."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor is: `begin` and `end` count bytes from the start of the file."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(file: BinaryIO, path: Path, size: int) -> dict[str, TensorInfo]:
    """The tensors of a file of `size` bytes, by name in the order of the header; raises CheckpointError."""
    prefix = file.read(8)
    if len(prefix) < 8:
        raise CheckpointError(f"{path}: ends within the first 8 bytes; download it again")
    length = int.from_bytes(prefix, "little")
    if length > _LIMITS.size:
        raise CheckpointError(f"{path}: a header of {length:,} bytes; at most {_LIMITS.size:,} are read")
    data = b""
    while len(data) < length and (piece := file.read(length - len(data))):
        data += piece
    if len(data) < length:
        raise CheckpointError(f"{path}: ends within its header of {length:,} bytes; download it again")
    if not data.startswith(b"{"):
        raise CheckpointError(f"{path}: its header does not start with '{{'; not a safetensors file")
    header = parse_object(data, path, _LIMITS)
    _check_metadata(path, header.pop("__metadata__", None))
    if len(header) > _MOST_TENSORS:
        raise CheckpointError(f"{path}: {len(header):,} tensors; at most {_MOST_TENSORS:,} are read")
    start = 8 + length
    tensors = {name: _entry(path, name, entry, start, size) for name, entry in header.items()}
    _check_tiling(path, tensors, start, size)
    return tensors


def _entry(path: Path, name: str, entry: Any, start: int, size: int) -> TensorInfo:
    where = f"{path}: tensor {shown(name)}"
    if len(name) > _LONGEST_NAME:
        raise CheckpointError(f"{where}: a name of {len(name)} characters; at most {_LONGEST_NAME} are read")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where}: expected dtype, shape and data_offsets, nothing else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BITS:
        raise CheckpointError(f"{where}: unknown dtype {shown(dtype)}")
    if not isinstance(shape, list) or len(shape) > _MOST_AXES or not all(_is_size(n) for n in shape):
        raise CheckpointError(f"{where}: shape must be at most {_MOST_AXES} whole numbers from 0 up")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(n) for n in offsets):
        raise CheckpointError(f"{where}: data_offsets must be two whole numbers from 0 up")
    begin, end = offsets
    if not begin <= end <= size - start:
        raise CheckpointError(f"{where}: data_offsets {begin} to {end} are not within the {size - start} bytes of data")
    count = math.prod(shape)
    if count > _LARGEST or count * ITEM_BITS[dtype] != (end - begin) * 8:
        raise CheckpointError(
            f"{where}: {dtype} of shape {shape} does not take the {end - begin} bytes that it is given"
        )
    return TensorInfo(path.name, dtype, tuple(shape), start + begin, start + end)


def _check_tiling(path: Path, tensors: dict[str, TensorInfo], start: int, size: int) -> None:
    at = start
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if info.begin != at:
            fault = (
                "overlaps the one before it" if info.begin < at else f"leaves {info.begin - at} bytes before it unused"
            )
            raise CheckpointError(f"{path}: tensor {shown(name)} {fault}")
        at = info.end
    if at != size:
        raise CheckpointError(f"{path}: {size - at} bytes after the last tensor belong to none")


def _check_metadata(path: Path, metadata: Any) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path}: __metadata__ must map names to strings")


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST

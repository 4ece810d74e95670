"""Tensors of a mapped checkpoint into a safetensors file: numbers are copied as they are, never computed with."""

from __future__ import annotations

import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Final, Literal

from engine.models.conversion.archive import Checkpoint
from engine.models.conversion.unpickler import Refused, Tensor

_PIECE = 8 * 2**20
_MASK = re.compile(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)", re.ASCII)
"""The causal mask, which old versions of transformers stored with the weights."""
_HEAD = "lm_head.weight"
_TABLES = ("wte.weight", "embed_tokens.weight")
_CASTS: Final[dict[int, Literal["B", "H", "I", "Q"]]] = {1: "B", 2: "H", 4: "I", 8: "Q"}


def kept(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The tensors that are written: no mask, and no head that is the embedding itself."""
    tensors = checkpoint.tensors
    tables = {tensor for name, tensor in tensors.items() if name.endswith(_TABLES)}
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not _MASK.fullmatch(name) and not (name == _HEAD and tensor in tables)
    }


def header(tensors: dict[str, Tensor]) -> bytes:
    """The start of a safetensors file that holds the tensors in this order."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, tensor in tensors.items():
        entries[name] = {
            "dtype": tensor.storage.elements.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.size],
        }
        at += tensor.size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write(checkpoint: Checkpoint, pages: memoryview, emit: Callable[[bytes | memoryview], object]) -> list[str]:
    """Write the whole file through `emit` -> the names written. Raises Refused for damaged bytes."""
    tensors = kept(checkpoint)
    if sum(tensor.size for tensor in tensors.values()) > 2 * len(pages):
        raise Refused("holds tensors of far more numbers than the file has bytes")
    emit(header(tensors))
    for tensor in tensors.values():
        region = checkpoint.regions[tensor.storage.key]
        summed = region.crc is not None and tensor.size == region.end - region.begin and _in_order(tensor)
        crc = 0
        for piece in _pieces(tensor, pages[region.begin : region.end]):
            if summed:
                crc = zlib.crc32(piece, crc)
            emit(piece)
        if summed and crc != region.crc:
            raise Refused("has a wrong check sum; download it again")
    return list(tensors)


def _pieces(tensor: Tensor, data: memoryview) -> Iterator[bytes | memoryview]:
    """The tensor's numbers in order, from the bytes of its storage."""
    size = tensor.storage.elements.size
    if not tensor.elements:
        return
    start = tensor.storage.first + tensor.offset
    if _in_order(tensor):
        begin, end = start * size, start * size + tensor.size
        yield from (data[at : min(at + _PIECE, end)] for at in range(begin, end, _PIECE))
        return
    numbers = data[: len(data) // size * size].cast(_CASTS[size])
    *outer, length = tensor.shape
    *steps, step = tensor.strides
    row: bytes | memoryview
    for index in itertools.product(*map(range, outer)):
        first = start + sum(i * s for i, s in zip(index, steps, strict=True))
        if step:
            row = numbers[first : first + (length - 1) * step + 1 : step].tobytes()
        else:
            row = numbers[first : first + 1].tobytes() * length
        yield row


def _in_order(tensor: Tensor) -> bool:
    """Whether its numbers lie end to end in the storage."""
    expected = 1
    for length, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if length != 1 and stride != expected:
            return False
        expected *= length
    return True

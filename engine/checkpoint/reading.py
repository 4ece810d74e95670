"""Tensors out of safetensors files, a piece at a time.

A piece is read into memory that is used again for the next, checked for numbers that are none, and handed on while it is in
the processor's cache. Pages of the file are never mapped: a read costs no page faults, and a file that is cut meanwhile is an
error and not a signal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

import torch
from torch import Tensor

from engine.checkpoint.folder import ModelFolder
from engine.checkpoint.header import TensorInfo
from engine.checkpoint.layouts import Dense
from engine.errors import CheckpointError
from engine.models.locate import anew

if TYPE_CHECKING:
    from engine.checkpoint.adapter import Adapter
    from engine.precision import Precision

_PIECE = 2**20
"""Bytes that are read at a time, or as few more as the rows that belong together have."""

_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


class TensorReader:
    """Tensors of a checked table by name, one file open at a time. For one thread."""

    def __init__(
        self, directory: Path, table: dict[str, TensorInfo], precision: Precision, adapter: Adapter | None = None
    ) -> None:
        self._folder = ModelFolder(directory)
        self._table = table
        self._precision = precision
        self._adapter = adapter
        self._open: tuple[str, BinaryIO] | None = None
        self._staging = bytearray(_PIECE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor in the file."""
        return self._table[name].shape

    def owned(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """A tensor that may be kept, with its adapter's part; cast to `dtype` on the way, if one is given."""
        if self._adapter is None or not self._adapted(name):
            return self._whole(name, dtype)
        merged = self._adapter.merge(name, self._whole(name))
        where = f"{self._adapter.directory}: {name} with its adapter"
        _check_finite(where, merged, self._precision, lambda: "take another adapter")
        return merged

    def pieces(self, name: str, multiple: int = 1) -> Iterator[tuple[int, Tensor]]:
        """A tensor as the file has it, some rows after others -> (number of the first, rows).

        Rows are good until the next are asked for. All pieces but the last have a multiple of `multiple`.
        """
        info = self._table[name]
        dtype, where = _DTYPES[info.dtype], f"{self._folder.path(info.file)}: {name}"
        if info.begin == info.end:
            return
        row = (info.end - info.begin) // info.shape[0]
        count = max(1, _PIECE // (row * multiple)) * multiple
        if count * row > len(self._staging):
            self._staging = bytearray(count * row)
        for first in range(0, info.shape[0], count):
            rows = min(count, info.shape[0] - first)
            with memoryview(self._staging)[: rows * row] as into:
                self._read(info, info.begin + first * row, into, where)
            piece = torch.frombuffer(self._staging, dtype=torch.uint8, count=rows * row)
            tensor = piece.view(dtype).view(rows, *info.shape[1:])
            _check_finite(where, tensor, self._precision, lambda: anew(self._folder.directory))
            yield first, tensor

    def dense(self, dense: Dense) -> tuple[Tensor, Tensor]:
        """Weight [out, in] and bias [out] of a layer, rows in our order; both may be kept."""
        weights = [self.owned(f"{name}.weight") for name, _ in dense.parts]
        biases = [self.owned(f"{name}.bias") for name, _ in dense.parts]
        if dense.transposed:
            weights = [weight.t() for weight in weights]
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        bias = biases[0] if len(biases) == 1 else torch.cat(biases)
        weight = weight.contiguous()
        if dense.interleaved:
            weight, bias = (_heads_apart(tensor, dense.interleaved) for tensor in (weight, bias))
        return weight, bias

    def in_order(self, dense: Dense) -> bool:
        """Whether the file has a layer's weight as it is wanted: then its `pieces` are the layer's rows."""
        name = f"{dense.parts[0][0]}.weight"
        return not (len(dense.parts) > 1 or dense.transposed or dense.interleaved or self._adapted(name))

    def equal(self, first: str, second: str) -> bool:
        """Whether two tensors of one shape hold the same numbers."""
        whole = self.owned(first)
        return all(torch.equal(whole[at : at + len(rows)], rows) for at, rows in self.pieces(second))

    def _adapted(self, name: str) -> bool:
        return self._adapter is not None and name.removesuffix(".weight") in self._adapter.pairs

    def _whole(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        info = self._table[name]
        whole = torch.empty(info.shape, dtype=dtype or _DTYPES[info.dtype])
        for first, rows in self.pieces(name):
            whole[first : first + len(rows)] = rows
        return whole

    def _read(self, info: TensorInfo, at: int, into: memoryview, where: str) -> None:
        file, done = self._file(info.file), 0
        try:
            file.seek(at)
            while done < len(into):
                got = file.readinto(into[done:])  # type: ignore[attr-defined]  # typeshed has it for raw files only
                if not got:
                    raise CheckpointError(f"{where}: the file was cut while it was read")
                done += got
        except OSError as error:
            raise CheckpointError(f"{where}: cannot be read ({error.strerror or error})") from error

    def _file(self, name: str) -> BinaryIO:
        if self._open is None or self._open[0] != name:
            self.close()
            self._open = name, self._folder.open(name)
        return self._open[1]


def _check_finite(where: str, tensor: Tensor, precision: Precision, remedy: Callable[[], str]) -> None:
    """One NaN or infinity spoils every answer, so does one that only the conversion makes."""
    low, high = (bound.item() for bound in torch.aminmax(tensor))
    largest = torch.finfo(precision.dtype).max
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise CheckpointError(f"{where}: holds NaN or infinity; it is broken: {remedy()}")
    if max(abs(low), abs(high)) > largest:
        name = str(precision.dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{where}: holds {max(high, -low):.3g}, more than {name} can; choose --dtype bfloat16 or float32"
        )


def _heads_apart(tensor: Tensor, heads: int) -> Tensor:
    """[q k v of the first head | q k v of the next | …] -> [all q | all k | all v]."""
    return tensor.view(heads, 3, len(tensor) // heads // 3, -1).transpose(0, 1).reshape(tensor.shape).contiguous()

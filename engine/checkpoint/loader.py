"""Weights from safetensors to a model, tensor by tensor.

Each tensor is mapped alone, checked for numbers that are none, brought to the form that it is computed in, and unmapped:
beyond the model itself there is at most the layer at hand in memory, whatever the size of a shard.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

import torch
from torch import Tensor

from engine.checkpoint.config import Config
from engine.checkpoint.folder import ModelFolder
from engine.checkpoint.header import TensorInfo
from engine.checkpoint.layouts import Dense, check_table, tensor_map
from engine.checkpoint.table import read_table
from engine.cpu_ops import CpuOps
from engine.errors import CheckpointError
from engine.few_rows import few_rows
from engine.gpt_bigcode import GPTBigCode, Layer, Weights
from engine.ops import Linear, Norm, Ops

if TYPE_CHECKING:
    from engine.checkpoint.adapter import Adapter
    from engine.precision import Precision

_give_back = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
"""glibc keeps what it frees below 32 MiB, which is most of what converting a layer takes for a moment."""

_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def load_model(
    directory: Path, config: Config, ops: Ops, precision: Precision, adapter: Adapter | None = None
) -> GPTBigCode:
    """Check all tensors of a directory, then bring them to the device; raises CheckpointError before any is used.

    `adapter`: what is merged into them on the way.
    """
    shape = config.shape()
    wanted = tensor_map(shape, config.storage, tied=config.tie_word_embeddings)
    table = read_table(directory)
    check_table(directory, wanted, table)
    if adapter is not None:
        adapter.check(wanted)

    with TensorReader(directory, table, precision, adapter) as read:

        def norm(name: str) -> Norm:
            weight, bias = (precision.vector(read.owned(f"{name}.{part}")) for part in ("weight", "bias"))
            return Norm(weight, bias, shape.norm_eps)

        def linear(dense: Dense) -> Linear:
            made = precision.linear(f"{dense.parts[0][0]}.weight", *read.dense(dense))
            if _give_back is not None:
                _give_back(0)
            return made

        wte = precision.table(read.owned(wanted.wte))
        # A head in the file of a tied model is the same table once more, or one of its own.
        tied = wanted.head not in table or (wanted.tied and read.equal(wanted.head, wanted.wte))
        weights = Weights(
            wte=wte,
            wpe=precision.positions(read.owned(wanted.wpe)),
            layers=tuple(
                Layer(
                    ln_1=norm(block.ln_1),
                    qkv=linear(block.qkv),
                    attn_proj=linear(block.attn_proj),
                    ln_2=norm(block.ln_2),
                    fc=linear(block.fc),
                    mlp_proj=linear(block.mlp_proj),
                )
                for block in wanted.blocks
            ),
            ln_f=norm(wanted.ln_f),
            vocabulary=precision.vocabulary(wte if tied else precision.table(read.owned(wanted.head))),
        )
    model = GPTBigCode(shape, weights, ops)
    if isinstance(ops, CpuOps):
        model.few_rows = few_rows(model)
        if model.few_rows is not None:
            ops.free_rows = max(ops.free_rows, model.few_rows.free_rows)
    return model


class TensorReader:
    """Tensors of a checked table by name, one file open at a time."""

    def __init__(
        self, directory: Path, table: dict[str, TensorInfo], precision: Precision, adapter: Adapter | None = None
    ) -> None:
        self._folder = ModelFolder(directory)
        self._table = table
        self._precision = precision
        self._adapter = adapter
        self._open: tuple[str, BinaryIO] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def owned(self, name: str) -> Tensor:
        """A tensor that may be kept as it is."""
        mapped = self._mapped(name)
        if (merged := self._merged(name, mapped)) is not mapped:
            return merged
        # What is converted or brought to a device is copied by that; vectors are small enough not to ask.
        copied = self._precision.device.type != "cpu" or (mapped.dim() > 1 and mapped.dtype != self._precision.dtype)
        return mapped if copied else mapped.clone()

    def _given(self, name: str) -> Tensor:
        """A tensor that may be read now, and not kept."""
        return self._merged(name, self._mapped(name))

    def dense(self, dense: Dense) -> tuple[Tensor, Tensor]:
        """Weight [out, in] and bias [out] of a layer, rows in our order, for `Precision.linear`."""
        if len(dense.parts) == 1 and not dense.transposed and not dense.interleaved:
            name = dense.parts[0][0]
            # Large layers are most of a model: one that is brought to another form anyhow is not copied before.
            take = self._given if self._precision.keeps_no_weight else self.owned
            return take(f"{name}.weight"), self.owned(f"{name}.bias")
        weights = [self._given(f"{name}.weight") for name, _ in dense.parts]
        biases = [self._mapped(f"{name}.bias") for name, _ in dense.parts]
        if dense.transposed:
            weights = [weight.t() for weight in weights]
        weight, bias = torch.cat(weights).contiguous(), torch.cat(biases)
        if dense.interleaved:
            weight, bias = (_heads_apart(tensor, dense.interleaved) for tensor in (weight, bias))
        return weight, bias

    def equal(self, first: str, second: str) -> bool:
        """Whether two tensors hold the same numbers."""
        return torch.equal(self._mapped(first), self._mapped(second))

    def _merged(self, name: str, mapped: Tensor) -> Tensor:
        """The tensor with the adapter's part of it; the same one if it has none."""
        if self._adapter is None or (merged := self._adapter.merge(name, mapped)) is mapped:
            return mapped
        _check_finite(f"{self._adapter.directory}: {name} with its adapter", merged, self._precision)
        return merged

    def _mapped(self, name: str) -> Tensor:
        """A tensor over the file's own pages: they go when it goes."""
        info = self._table[name]
        dtype, file = _DTYPES[info.dtype], self._file(info.file)
        where = f"{self._folder.path(info.file)}: {name}"
        if os.fstat(file.fileno()).st_size < info.end:
            raise CheckpointError(f"{where}: the file was cut while it was read")
        if info.begin == info.end:
            return torch.empty(info.shape, dtype=dtype)
        start = info.begin // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        try:
            # A private copy can be written to, which torch asks of its memory; nobody does.
            pages = mmap.mmap(file.fileno(), info.end - start, access=mmap.ACCESS_COPY, offset=start)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{where}: cannot be mapped ({error})") from error
        if hasattr(mmap, "MADV_WILLNEED"):
            pages.madvise(mmap.MADV_WILLNEED)
        data = torch.frombuffer(pages, dtype=torch.uint8, count=info.end - info.begin, offset=info.begin - start)
        if info.begin % dtype.itemsize:  # old writers did not align
            data = data.clone()
        tensor = data.view(dtype).view(info.shape)
        _check_finite(where, tensor, self._precision)
        return tensor

    def _file(self, name: str) -> BinaryIO:
        if self._open is None or self._open[0] != name:
            self._close()
            self._open = name, self._folder.open(name)
        return self._open[1]

    def _close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None


def _check_finite(where: str, tensor: Tensor, precision: Precision) -> None:
    """One NaN or infinity spoils every answer, so does one that only the conversion makes."""
    low, high = (bound.item() for bound in torch.aminmax(tensor))
    largest = torch.finfo(precision.dtype).max
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise CheckpointError(f"{where}: holds NaN or infinity; the file is broken, download it again")
    if max(abs(low), abs(high)) > largest:
        name = str(precision.dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{where}: holds {max(high, -low):.3g}, more than {name} can; choose --dtype bfloat16 or float32"
        )


def _heads_apart(tensor: Tensor, heads: int) -> Tensor:
    """[q k v of the first head | q k v of the next | …] -> [all q | all k | all v]."""
    return tensor.view(heads, 3, len(tensor) // heads // 3, -1).transpose(0, 1).reshape(tensor.shape).contiguous()

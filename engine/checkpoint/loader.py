"""Weights from safetensors to a model: read in pieces by several threads, and brought to the form that is computed in.

Beyond the model itself there is at most the layer at hand of each thread in memory, whatever the size of a shard. Of each
kind of layer the first is made of its whole weight; it shows how the others are stored, whose rows go there as they come.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar

import torch
from torch import Tensor

from engine.checkpoint.config import Config
from engine.checkpoint.layouts import Block, Dense, TensorMap, check_table, tensor_map
from engine.checkpoint.reading import TensorReader
from engine.checkpoint.table import read_table
from engine.cpu_ops import CpuOps
from engine.few_rows import compiled_for, few_rows
from engine.filling import Filling, another
from engine.gpt_bigcode import GPTBigCode, Layer, Weights
from engine.ops import Linear, Norm, Ops
from engine.quantization import Int8Rows

if TYPE_CHECKING:
    from engine.checkpoint.adapter import Adapter
    from engine.precision import Precision

_P = ParamSpec("_P")
_T = TypeVar("_T")

_MOST_READERS = 8

_give_back = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
"""glibc keeps what it frees below 32 MiB, which is most of what converting a layer takes for a moment."""


def load_model(
    directory: Path,
    config: Config,
    ops: Ops,
    precision: Precision,
    adapter: Adapter | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> GPTBigCode:
    """Check all tensors of a directory, then bring them to the device; raises CheckpointError before any is used.

    `adapter`: what is merged into them on the way. `meanwhile`: what else a load needs; if it raises, no more is read.
    """
    shape = config.shape()
    table = read_table(directory)
    wanted = check_table(directory, tensor_map(shape, config.storage, tied=config.tie_word_embeddings), table)
    if adapter is not None:
        adapter.check(wanted)
    load = _Load(precision, wanted, shape.norm_eps, head_in_file=wanted.own_head and wanted.head in table)
    with Readers(lambda: TensorReader(directory, table, precision, adapter)) as readers:
        tables = readers.start(load.tables)
        first = [readers.start(load.first, dense) for dense in _layers(wanted.blocks[0])]
        wpe, ln_f = readers.start(load.positions), readers.start(load.norm, wanted.ln_f)
        norms = [
            (readers.start(load.norm, block.ln_1), readers.start(load.norm, block.ln_2)) for block in wanted.blocks
        ]
        meanwhile()
        kinds = [made.result() for made in first]
        others = [
            [readers.start(load.another, dense, new) for dense, (_, new) in zip(_layers(block), kinds, strict=True)]
            for block in wanted.blocks[1:]
        ]
        wte, vocabulary = tables.result()

        def model(blocks: Iterable[Iterable[Linear]]) -> GPTBigCode:
            layers = (
                Layer(ln_1.result(), qkv, attn_proj, ln_2.result(), fc, mlp_proj)
                for (ln_1, ln_2), (qkv, attn_proj, fc, mlp_proj) in zip(norms, blocks, strict=False)
            )
            return GPTBigCode(shape, Weights(wte, wpe.result(), tuple(layers), ln_f.result(), vocabulary), ops)

        beginning = [linear for linear, _ in kinds]
        # What is compiled is the same for all layers: it need not wait for them.
        compiled = compiled_for(model([beginning])) if isinstance(ops, CpuOps) else None
        whole = model([beginning, *([linear.result() for linear in block] for block in others)])
    if _give_back is not None:
        _give_back(0)
    if isinstance(ops, CpuOps) and compiled is not None:
        whole.few_rows = few_rows(whole, compiled)
        if whole.few_rows is not None:
            ops.free_rows = max(ops.free_rows, whole.few_rows.free_rows)
    return whole


class Readers:
    """Threads that each have a reader of their own, and compute alone what they are given."""

    def __init__(self, new: Callable[[], TensorReader]) -> None:
        self._torchs_threads = torch.get_num_threads()
        count = min(_MOST_READERS, self._torchs_threads)
        self._idle: SimpleQueue[TensorReader] = SimpleQueue()
        for _ in range(count):
            self._idle.put(new())
        self._pool = ThreadPoolExecutor(count, "weights", initializer=torch.set_num_threads, initargs=(1,))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().close()
        # Of torch's settings, threads that begin later take what was set last.
        torch.set_num_threads(self._torchs_threads)

    def start(
        self, work: Callable[Concatenate[TensorReader, _P], _T], *arguments: _P.args, **more: _P.kwargs
    ) -> Future[_T]:
        """Begin `work(reader, ...)` when a thread is free, in the order of the calls."""

        def run() -> _T:
            reader = self._idle.get()
            try:
                return work(reader, *arguments, **more)
            finally:
                self._idle.put(reader)

        return self._pool.submit(run)


@dataclass(frozen=True, slots=True)
class _Load:
    """How one model's weights are made of what a reader gives."""

    precision: Precision
    wanted: TensorMap
    eps: float
    head_in_file: bool

    def norm(self, read: TensorReader, name: str) -> Norm:
        """LayerNorm parameters."""
        weight, bias = (self.precision.vector(read.owned(f"{name}.{part}")) for part in ("weight", "bias"))
        return Norm(weight, bias, self.eps)

    def positions(self, read: TensorReader) -> Tensor:
        """The embedding of positions."""
        return self.precision.positions(read.owned(self.wanted.wpe))

    def tables(self, read: TensorReader) -> tuple[Tensor | Int8Rows, Tensor | Linear]:
        """The embedding of tokens, and the head's matrix."""
        wte, wanted = self._table(read, self.wanted.wte), self.wanted
        # A head in the file of a tied model is the same table once more, or one of its own.
        tied = not self.head_in_file or (wanted.tied and read.equal(wanted.head, wanted.wte))
        return wte, self.precision.vocabulary(wte if tied else self._table(read, wanted.head))

    def first(self, read: TensorReader, dense: Dense) -> tuple[Linear, Callable[[], Filling] | None]:
        """A layer of its whole weight, and what makes others like it piece by piece."""
        weight, bias = read.dense(dense)
        made = self.precision.linear(f"{dense.parts[0][0]}.weight", weight, bias)
        return made, another(made, weight)

    def another(self, read: TensorReader, dense: Dense, new: Callable[[], Filling] | None) -> Linear:
        """A layer like an earlier one."""
        if new is None:
            return self.precision.linear(f"{dense.parts[0][0]}.weight", *read.dense(dense))
        filling = new()
        if read.in_order(dense):
            name = dense.parts[0][0]
            for at, rows in read.pieces(f"{name}.weight", filling.rows):
                filling.put(at, rows)
            bias = read.owned(f"{name}.bias")
        else:
            weight, bias = read.dense(dense)
            filling.put(0, weight)
        return filling.layer(bias.to(self.precision.dtype))

    def _table(self, read: TensorReader, name: str) -> Tensor | Int8Rows:
        filling = self.precision.table_filling(*read.shape(name))
        if filling is None:
            return self.precision.table(read.owned(name, self.precision.dtype))
        for at, rows in read.pieces(name):
            filling.put(at, rows)
        return filling.table()


def _layers(block: Block) -> tuple[Dense, ...]:
    return block.qkv, block.attn_proj, block.fc, block.mlp_proj

"""A pass over a few rows as one call of compiled code, on the weights that torch multiplies with, in their memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from engine import blocked
from engine.cpu_kernels import norm
from engine.cpu_kernels.attention import PIECE, Heads
from engine.cpu_kernels.compiler import Code, features, processor, team
from engine.cpu_kernels.embedding import Rows
from engine.cpu_kernels.product import End, Int8Matrix, Matrix, Panels
from engine.cpu_kernels.program import MAX_ROWS, Entry, Program
from engine.gpt_bigcode import ModelShape, Weights
from engine.ops import Head, Linear, Norm
from engine.packed import BlockedLinear, Int8Linear
from engine.quantization import Int8Rows
from engine.step import Span

_AT = {entry.name: int(entry) for entry in Entry}
_BYTES_AT_ONCE = (("avx512vnni", 64), ("avxvnni", 32))


class Unsupported(Exception):
    """No code can be written for these weights; says why."""


@dataclass(slots=True)
class _Table:
    """Addresses of weights, and what must stay alive for them to be true."""

    addresses: list[int] = field(default_factory=list)
    kept: list[Tensor | Linear] = field(default_factory=list)

    def add(self, tensor: Tensor) -> None:
        self.addresses.append(tensor.data_ptr())
        self.kept.append(tensor)

    def add_norm(self, weights: Norm) -> None:
        """Both filled up with zeros."""
        for vector in (weights.weight, weights.bias):
            self.add(_filled(vector, -(-len(vector) // norm.LANES) * norm.LANES))

    def add_linear(self, layer: Linear, matrix: Matrix) -> None:
        """Weights as they are, and what comes after the product."""
        if isinstance(layer, Int8Linear):
            self.add(layer.weight)
            self.add(torch.cat([layer.bias.float(), layer.scales.float(), layer.sums.view(torch.float32)]))
        else:
            self.addresses.append(blocked.address(layer.weight))
            self.kept.append(layer)
            self.add(_filled(layer.bias, matrix.width))


class Compiled:
    """The code for a model of one shape whose weights are all stored as those of its first layer are."""

    def __init__(self, shape: ModelShape, weights: Weights, scale: float) -> None:
        """Of the layers only the first is looked at. Raises Unsupported, or RuntimeError from the compiler."""
        if isinstance(weights.vocabulary, Tensor):
            raise Unsupported("the vocabulary is not stored for a CPU")
        self.shape, self.vocabulary = shape, weights.vocabulary
        self.program = _program(shape, weights, self.vocabulary, scale)
        self.code = Code(self.program)


class CompiledRows:
    """See `ops.FewRows`. One thread at a time calls it; torch's other threads help.

    A row's bits depend on its sequence alone: not on the other rows, and not on how many threads there are.
    """

    longest = 4
    """Beyond that torch's products win, which are made for many rows."""

    free_rows = 3
    """A second and a third row cost a fraction of the first in every precision: reading the weights is what costs."""

    def __init__(self, compiled: Compiled, weights: Weights) -> None:
        """`weights`: all of those that it was compiled for the first of."""
        program = compiled.program
        self._shape, self._program, self._code = compiled.shape, program, compiled.code
        table = _Table()
        for layer in weights.layers:
            table.add_norm(layer.ln_1)
            table.add_linear(layer.qkv, program.qkv)
            table.add_linear(layer.attn_proj, program.proj)
            table.add_norm(layer.ln_2)
            table.add_linear(layer.fc, program.fc)
            table.add_linear(layer.mlp_proj, program.down)
        table.add_norm(weights.ln_f)
        table.add_linear(compiled.vocabulary, program.vocabulary)
        self._kept = [*table.kept, weights.wpe]
        self._x = torch.zeros(MAX_ROWS, program.stride)
        self._scratch = torch.zeros(0, dtype=torch.uint8)
        self._slots, self._positions, self._ids, self._head_rows = np.zeros((4, MAX_ROWS), np.int64)
        self._chosen = np.zeros((MAX_ROWS, 2), np.int64)
        self._table = np.zeros(program.entries, np.int64)
        self._table[Entry.WEIGHTS :] = table.addresses
        wte = weights.wte
        values, scales = (wte, wte) if isinstance(wte, Tensor) else (wte.values, wte.scales)
        self._kept += [values, scales]
        self._set(
            RESIDUAL=self._x.data_ptr(),
            SLOTS=self._slots.ctypes.data,
            POSITIONS=self._positions.ctypes.data,
            IDS=self._ids.ctypes.data,
            HEAD_ROWS=self._head_rows.ctypes.data,
            CHOSEN=self._chosen.ctypes.data,
            TOKENS=values.data_ptr(),
            TOKEN_SCALES=scales.data_ptr(),
            PLACES=weights.wpe.data_ptr(),
        )
        if (helpers := team()) is not None:
            self._set(BARRIER=helpers.barrier, THREAD=helpers.thread, THREADS=helpers.threads)

    def __str__(self) -> str:
        return f"code compiled for {processor()}"

    def blocks(self, x: Tensor, kv: Tensor, spans: Sequence[Span]) -> Tensor:
        """See `ops.FewRows`."""
        slots, positions = self._places(kv, spans)
        out = torch.empty(len(slots), x.shape[1])
        for start in range(0, len(slots), MAX_ROWS):
            part = slice(start, min(len(slots), start + MAX_ROWS))
            rows = part.stop - start
            self._slots[:rows], self._positions[:rows] = slots[part], positions[part]
            here = self._x[:rows, : x.shape[1]]
            here.copy_(x[part])
            self._run("blocks", rows, 0, kv.shape[4])
            out[part] = here
        return out

    def logits(self, x: Tensor) -> Tensor:
        """See `ops.FewRows`."""
        out = torch.empty(x.shape[0], self._program.vocabulary.width)
        for start in range(0, len(x), MAX_ROWS):
            part = x[start : start + MAX_ROWS]
            rows = len(part)
            self._x[:rows, : x.shape[1]] = part
            self._head_rows[:rows] = np.arange(rows)
            self._set(LOGITS=out[start:].data_ptr())
            self._run("head", 0, rows, 1)
        return out[:, : self._shape.vocab_size]

    def greedy(self, ids: Sequence[int], kv: Tensor, spans: Sequence[Span], rows: Sequence[int]) -> Head | None:
        """See `ops.FewRows`."""
        if len(ids) > MAX_ROWS:
            return None
        slots, positions = self._places(kv, spans)
        self._ids[: len(ids)], self._slots[: len(ids)], self._positions[: len(ids)] = ids, slots, positions
        self._head_rows[: len(rows)] = rows
        logits = torch.empty(len(rows), self._program.vocabulary.width)
        self._set(LOGITS=logits.data_ptr())
        self._run("greedy", len(ids), len(rows), kv.shape[4])
        sums = self._chosen.view(np.float32)[: len(rows), 2]
        return Head(
            ids=torch.tensor(self._chosen[: len(rows), 0]),
            logprobs=torch.tensor(-np.log(sums)),
            top_ids=logits.new_empty(len(rows), 0, dtype=torch.int64),
            top_logprobs=logits.new_empty(len(rows), 0),
            logits=logits[:, :0],
        )

    def _places(self, kv: Tensor, spans: Sequence[Span]) -> tuple[list[int], list[int]]:
        """For each row the address of its slot, and its position."""
        slot_bytes, layer_bytes, plane_bytes = (kv.itemsize * step for step in kv.stride()[:3])
        self._set(LAYER_BYTES=layer_bytes, PLANE_BYTES=plane_bytes)
        first = kv.data_ptr()
        slots = [first + span.slot * slot_bytes for span in spans for _ in range(span.length)]
        return slots, [at for span in spans for at in range(span.start, span.start + span.length)]

    def _run(self, name: str, rows: int, heads: int, window: int) -> None:
        threads = torch.get_num_threads()
        pieces = -(-window // PIECE)
        needed = self._program.scratch_bytes(pieces, threads)
        if needed > len(self._scratch):
            self._scratch = torch.zeros(needed, dtype=torch.uint8)
        self._set(ROWS=rows, HEADS=heads, PIECES=pieces, SCRATCH=self._scratch.data_ptr())
        self._code.run(name, self._table.ctypes.data, threads)

    def _set(self, **entries: int) -> None:
        for name, value in entries.items():
            self._table[_AT[name]] = value


def _filled(vector: Tensor, width: int) -> Tensor:
    return F.pad(vector.float(), (0, width - len(vector))).contiguous()


def _program(shape: ModelShape, weights: Weights, vocabulary: Linear, scale: float) -> Program:
    if shape.kv_heads != 1:
        raise Unsupported("every head has keys of its own")
    if shape.n_positions > PIECE * PIECE:
        raise Unsupported(f"more than {PIECE * PIECE} positions")
    layer = weights.layers[0]
    brain = layer.qkv.bias.dtype == torch.bfloat16
    qkv, proj, fc, down, head = (
        _matrix(linear, inputs)
        for linear, inputs in (
            (layer.qkv, shape.n_embd), (layer.attn_proj, shape.n_embd), (layer.fc, shape.n_embd),
            (layer.mlp_proj, shape.n_inner), (vocabulary, shape.n_embd),
        )
    )  # fmt: skip
    return Program(
        layers=shape.n_layer,
        width=shape.n_embd,
        heads=Heads(shape.n_head, shape.head_dim, scale, brain),
        eps=shape.norm_eps,
        gelu=End.GELU_ERF if shape.exact_gelu else End.GELU_TANH,
        qkv=qkv,
        proj=proj,
        fc=fc,
        down=down,
        vocabulary=head,
        tokens=_stored(weights.wte),
        places=_stored(weights.wpe),
        brain=brain,
        tile=4 if "avx512f" in features() else 1,
        bytes_at_once=_bytes_at_once(),
    )


def _matrix(layer: Linear, inputs: int) -> Matrix:
    if isinstance(layer, Int8Linear):
        step = _bytes_at_once()
        if not step or inputs % step:
            raise Unsupported("the processor has no dot product of bytes, or rows are no multiple of it")
        return Int8Matrix(len(layer.bias), inputs)
    if isinstance(layer, BlockedLinear) and layer.bias.dtype in (torch.float32, torch.bfloat16):
        lanes = blocked.lanes(layer.bias.dtype)
        if lanes is None:
            raise Unsupported("torch blocks its weights in an order that is not known")
        outputs = len(layer.bias)
        size = layer.bias.itemsize * lanes * -(-outputs // lanes)
        return Panels(outputs, inputs, lanes, blocked.size(layer.weight) // size, layer.bias.dtype == torch.bfloat16)
    raise Unsupported(f"no kernel for {type(layer).__name__}")


def _stored(table: Tensor | Int8Rows) -> Rows:
    if isinstance(table, Int8Rows):
        return Rows.INT8
    return Rows.BFLOAT16 if table.dtype == torch.bfloat16 else Rows.FLOAT32


def _bytes_at_once() -> int:
    return next((step for name, step in _BYTES_AT_ONCE if name in features()), 0)

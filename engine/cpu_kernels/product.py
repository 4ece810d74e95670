"""Products of a few rows with a matrix: what decoding spends its time on, bound by how fast weights are read.

Two orders of weights are known. Panels are oneDNN's blocked form: some outputs side by side, input after input. Rows of
int8 are as they were quantised; there a row of inputs is rounded to 16 bits and the product is of whole numbers, exact in
any order. However many rows and threads there are, each row gets the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import gcd

from llvmlite import ir

from engine.cpu_kernels.emit import ADDRESS, BYTE, INDEX, REAL, WORD, Emitter, Variable, vector
from engine.cpu_kernels.maths import gelu

_LANES = 16
_TOP = 32_767.0
_MIDDLE = 32_768
_OUTPUTS = 4
"""Outputs of an int8 product that are summed side by side."""


class End(Enum):
    """What becomes of a product and its bias."""

    STORE = "store"
    ADD = "add"
    GELU_ERF = "gelu_erf"
    GELU_TANH = "gelu_tanh"


@dataclass(frozen=True, slots=True)
class Panels:
    """A floating-point matrix in blocks of `lanes` outputs and all inputs; `depth` counts those that fill up too.

    float32: one input after the other; bfloat16 (`brain`): two inputs of an output side by side.
    """

    outputs: int
    inputs: int
    lanes: int
    depth: int
    brain: bool

    @property
    def blocks(self) -> int:
        """How many there are."""
        return -(-self.outputs // self.lanes)

    @property
    def width(self) -> int:
        """Outputs, and those that fill up the last block: all are written."""
        return self.blocks * self.lanes


@dataclass(frozen=True, slots=True)
class Int8Matrix:
    """Rows of int8, `inputs` a multiple of the bytes that the processor multiplies at a time."""

    outputs: int
    inputs: int

    @property
    def width(self) -> int:
        """Outputs; none is filled up."""
        return self.outputs


Matrix = Panels | Int8Matrix


def panel_product(module: ir.Module, name: str, matrix: Panels, end: End, tile: int, *, brain: bool) -> ir.Function:
    """(x, x stride, rows, weight, bias, out, out stride, thread, threads); x, bias and out float32, strides in elements.

    `tile` rows are multiplied while a block is read once. An odd input too many in x is zero.
    """
    e, arguments = Emitter.of(module, name, [ADDRESS, INDEX, INDEX, ADDRESS, ADDRESS, ADDRESS, INDEX, INDEX, INDEX])
    x, x_stride, rows, weight, bias, out, out_stride, thread, threads = arguments
    lanes, finish = matrix.lanes, _ending(e, end, brain=brain)
    first, last = _share(e, matrix.blocks, thread, threads)
    done, part = e.alloca(vector(REAL, lanes), tile), gcd(lanes, _LANES)

    def multiply(block: ir.Value, row: ir.Value, count: int) -> None:
        panel = e.at(weight, e.product(block, matrix.depth * lanes), 2 if matrix.brain else 4)
        inputs = [e.at(x, e.product(e.sum(row, n), x_stride)) for n in range(count)]
        sums = [Variable(e, e.splat(0.0, lanes)) for _ in range(count)]

        def take(weights: ir.Value, at: ir.Value) -> None:
            for given, sum_ in zip(inputs, sums, strict=True):
                sum_.set(e.multiply_add(weights, e.splat(e.read(REAL, e.at(given, at)), lanes), sum_.get()))

        if matrix.brain:
            with e.loop(0, -(-matrix.inputs // 2)) as pair:
                both = e.read(vector(WORD, lanes), e.at(panel, e.product(pair, lanes)))
                even = e.bitcast(e.shl(both, e.words(16, lanes)), vector(REAL, lanes))
                odd = e.bitcast(e.and_(both, e.words(0xFFFF_0000, lanes)), vector(REAL, lanes))
                take(even, e.product(pair, 2))
                take(odd, e.sum(e.product(pair, 2), 1))
        else:
            with e.loop(0, matrix.inputs) as k:
                take(e.read(vector(REAL, lanes), e.at(panel, e.product(k, lanes))), k)
        for n, sum_ in enumerate(sums):
            e.write(sum_.get(), e.at(done, n * lanes))
        column = e.product(block, lanes)
        with e.loop(0, count) as n, e.loop(0, lanes, part) as i:
            y = e.read(vector(REAL, part), e.at(done, e.sum(e.product(n, lanes), i)))
            y = e.fadd(y, e.read(vector(REAL, part), e.at(bias, e.sum(column, i))))
            finish(y, e.at(out, e.sum(e.product(e.sum(row, n), out_stride), column, i)))

    whole = e.sub(rows, e.srem(rows, e.index(tile))) if tile > 1 else e.index(0)
    with e.loop(first, last) as block:
        if tile > 1:
            with e.loop(0, whole, tile) as row:
                multiply(block, row, tile)
        with e.loop(whole, rows) as row:
            multiply(block, row, 1)
    e.ret_void()
    return e.function


def quantise(module: ir.Module) -> ir.Function:
    """(x, width, out, scale): a float32 row as unsigned 16-bit numbers around 32,768, their high bytes, then their low ones.

    x = (number - 32,768) * scale; `width` is a multiple of 16.
    """
    e, (x, width, out, scale) = Emitter.of(module, "quantise", [ADDRESS, INDEX, ADDRESS, ADDRESS])
    kind = vector(REAL, _LANES)
    peak = Variable(e, e.splat(1e-30, _LANES))
    with e.loop(0, width, _LANES) as i:
        value = e.read(kind, e.at(x, i))
        peak.set(e.larger(e.larger(value, e.fneg(value)), peak.get()))
    most = e.folded(peak.get(), e.larger)
    e.write(e.fmul(most, ir.Constant(REAL, 1 / _TOP)), scale)
    factor = e.splat(e.fdiv(ir.Constant(REAL, _TOP), most), _LANES)
    with e.loop(0, width, _LANES) as i:
        level = e.intrinsic(f"llvm.rint.v{_LANES}f32", kind, [e.fmul(e.read(kind, e.at(x, i)), factor)])
        number = e.add(e.fptosi(level, vector(WORD, _LANES)), e.words(_MIDDLE, _LANES))
        for shift, plane in ((8, e.index(0)), (0, width)):
            part = e.trunc(e.lshr(number, e.words(shift, _LANES)), vector(BYTE, _LANES))
            e.write(part, e.at(out, e.sum(plane, i), 1))
    e.ret_void()
    return e.function


def int8_product(module: ir.Module, name: str, matrix: Int8Matrix, end: End, step: int, *, brain: bool) -> ir.Function:
    """(x, scales, rows, weight, edge, out, out stride, thread, threads): x of `quantise`, row after row.

    `edge` holds each output's bias, then their scales, both float32, then the sums of their weights, int32. `step` bytes
    are multiplied at a time.
    """
    e, arguments = Emitter.of(module, name, [ADDRESS, ADDRESS, INDEX, ADDRESS, ADDRESS, ADDRESS, INDEX, INDEX, INDEX])
    x, scales, rows, weight, edge, out, out_stride, thread, threads = arguments
    inputs, outputs, finish = matrix.inputs, matrix.outputs, _ending(e, end, brain=brain)
    tile = min(_OUTPUTS, outputs)
    first, last = _share(e, -(-outputs // tile), thread, threads)
    bytes_, sums_kind, wide = vector(BYTE, step), vector(WORD, step // 4), vector(REAL, tile)
    with e.loop(first, last) as number, e.loop(0, rows) as row:
        output = e.least(e.product(number, tile), e.index(outputs - tile))
        given = e.at(x, e.product(row, 2 * inputs), 1)
        nothing = ir.Constant(sums_kind, [0] * (step // 4))
        sums = [(Variable(e, nothing), Variable(e, nothing)) for _ in range(tile)]
        for n, pair in enumerate(sums):  # one after the other, so that memory is read from its beginning to its end
            line = e.at(weight, e.product(e.sum(output, n), inputs), 1)
            with e.loop(0, inputs, step) as k:
                weights = e.read(bytes_, e.at(line, k, 1))
                for plane, sum_ in zip((0, inputs), pair, strict=True):
                    sum_.set(_dot(e, sum_.get(), e.read(bytes_, e.at(given, e.sum(k, plane), 1)), weights))
        high, low = (
            _gathered(
                e,
                [e.intrinsic(f"llvm.vector.reduce.add.v{step // 4}i32", WORD, [pair[side].get()]) for pair in sums],
            )
            for side in (0, 1)
        )
        counts = e.read(vector(WORD, tile), e.at(edge, e.sum(output, 2 * outputs)))
        centred = e.sitofp(e.sub(high, e.mul(counts, e.words(_MIDDLE >> 8, tile))), wide)
        exact = e.multiply_add(centred, e.splat(256.0, tile), e.sitofp(low, wide))
        scale = e.fmul(e.read(wide, e.at(edge, e.sum(output, outputs))), e.splat(e.read(REAL, e.at(scales, row)), tile))
        y = e.multiply_add(exact, scale, e.read(wide, e.at(edge, output)))
        finish(y, e.at(out, e.sum(e.product(row, out_stride), output)))
    e.ret_void()
    return e.function


def _dot(e: Emitter, sums: ir.Value, unsigned: ir.Value, signed: ir.Value) -> ir.Value:
    """Four products of bytes are added to each sum."""
    bits = unsigned.type.count * 8
    return e.intrinsic(f"llvm.x86.avx512.vpdpbusd.{bits}", sums.type, [sums, unsigned, signed])


def _gathered(e: Emitter, values: list[ir.Value]) -> ir.Value:
    gathered = ir.Constant(vector(values[0].type, len(values)), ir.Undefined)
    for n, value in enumerate(values):
        gathered = e.insert_element(gathered, value, ir.Constant(WORD, n))
    return gathered


def _ending(e: Emitter, end: End, *, brain: bool) -> Callable[[ir.Value, ir.Value], None]:
    """What writes outputs, as bfloat16 would hold them if `brain`."""

    def finish(y: ir.Value, target: ir.Value) -> None:
        if end in (End.GELU_ERF, End.GELU_TANH):
            y = gelu(e, y, exact=end is End.GELU_ERF)
        y = e.rounded(y, brain)
        if end is End.ADD:
            y = e.fadd(e.read(y.type, target), y)
        e.write(y, target)

    return finish


def _share(e: Emitter, count: int, thread: ir.Value, threads: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Neighbours, so that each thread reads one stretch of memory."""
    first, last = (e.sdiv(e.product(number, count), threads) for number in (thread, e.sum(thread, 1)))
    return first, last

"""LayerNorm of one row."""

from __future__ import annotations

from llvmlite import ir

from engine.cpu_kernels.emit import ADDRESS, INDEX, REAL, Emitter, Variable, vector

LANES = 16
"""Rows, weights and biases are filled up to so many numbers."""


def layer_norm(module: ir.Module, width: int, eps: float, *, brain: bool) -> ir.Function:
    """(x, weight, bias, out), float32 each; what fills `x` up may be anything, what fills the others up is zero."""
    e, (x, weight, bias, out) = Emitter.of(module, "layer_norm", [ADDRESS] * 4)
    kind = vector(REAL, LANES)

    def row(i: ir.Value) -> ir.Value:
        return _within(e, e.read(kind, e.at(x, i)), i, width)

    total = Variable(e, e.splat(0.0, LANES))
    with e.loop(0, width, LANES) as i:
        total.set(e.fadd(total.get(), row(i)))
    mean = e.splat(e.fmul(e.folded(total.get(), e.fadd), ir.Constant(REAL, 1 / width)), LANES)
    squares = Variable(e, e.splat(0.0, LANES))
    with e.loop(0, width, LANES) as i:
        apart = _within(e, e.fsub(row(i), mean), i, width)
        squares.set(e.multiply_add(apart, apart, squares.get()))
    variance = e.fmul(e.folded(squares.get(), e.fadd), ir.Constant(REAL, 1 / width))
    root = e.intrinsic("llvm.sqrt.f32", REAL, [e.fadd(variance, ir.Constant(REAL, eps))])
    scale = e.splat(e.fdiv(ir.Constant(REAL, 1.0), root), LANES)
    with e.loop(0, width, LANES) as i:
        normal = e.fmul(e.fsub(row(i), mean), scale)
        y = e.multiply_add(normal, e.read(kind, e.at(weight, i)), e.read(kind, e.at(bias, i)))
        e.write(e.rounded(y, brain), e.at(out, i))
    e.ret_void()
    return e.function


def _within(e: Emitter, value: ir.Value, first: ir.Value, width: int) -> ir.Value:
    """Zero in the lanes that lie past the row's end."""
    if width % LANES == 0:
        return value
    numbers = e.add(e.splat(first, LANES), ir.Constant(vector(INDEX, LANES), list(range(LANES))))
    inside = e.icmp_signed("<", numbers, ir.Constant(vector(INDEX, LANES), [width] * LANES))
    return e.select(inside, value, e.splat(0.0, LANES))

"""A token's row and its position's, added up."""

from __future__ import annotations

from enum import Enum
from math import gcd

from llvmlite import ir

from engine.cpu_kernels.emit import ADDRESS, BRAIN, BYTE, INDEX, REAL, Emitter, vector


class Rows(Enum):
    """How the rows of a table are stored."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"


_ELEMENTS = {Rows.FLOAT32: (REAL, 4), Rows.BFLOAT16: (BRAIN, 2), Rows.INT8: (BYTE, 1)}


def embed(module: ir.Module, tokens: Rows, places: Rows, width: int) -> ir.Function:
    """(tokens, scales, token, places, place, out): out float32 [width]; `scales` bfloat16, read where rows are int8."""
    e, (table, scales, token, positions, place, out) = Emitter.of(
        module, "embed", [ADDRESS, ADDRESS, INDEX, ADDRESS, INDEX, ADDRESS]
    )
    lanes = gcd(width, 16)

    def part(kind: Rows, base: ir.Value, row: ir.Value, i: ir.Value) -> ir.Value:
        element, size = _ELEMENTS[kind]
        value = e.read(vector(element, lanes), e.at(base, e.sum(e.product(row, width), i), size))
        if kind is Rows.FLOAT32:
            return value
        if kind is Rows.BFLOAT16:
            return e.fpext(value, vector(REAL, lanes))
        scale = e.fpext(e.read(BRAIN, e.at(scales, row, 2)), REAL)
        return e.fmul(e.sitofp(value, vector(REAL, lanes)), e.splat(scale, lanes))

    with e.loop(0, width, lanes) as i:
        e.write(e.fadd(part(tokens, table, token, i), part(places, positions, place, i)), e.at(out, i))
    e.ret_void()
    return e.function

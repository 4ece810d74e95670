"""Multi-query attention of one row: all query heads side by side in a vector, because they share keys and values.

Positions are taken in pieces of `PIECE`, each with its own softmax, which are weighted and added up afterwards (Dao et al.
2023, Flash-Decoding). Pieces begin at multiples of `PIECE` whoever computes them, so that bits depend on the position alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from llvmlite import ir

from engine.cpu_kernels.emit import ADDRESS, BRAIN, INDEX, REAL, Emitter, Variable, vector
from engine.cpu_kernels.maths import exp

PIECE = 128
_KEYS = 4
"""Keys that are multiplied side by side; up to as many less one past the last are read, and not used."""

_REGISTERS = 256
"""Floats that are summed up side by side."""


@dataclass(frozen=True, slots=True)
class Heads:
    """`count` query heads of `width`; keys and values are bfloat16 if `brain`, else float32."""

    count: int
    width: int
    scale: float
    brain: bool

    @property
    def lanes(self) -> int:
        """A number of each head, filled up."""
        return 8 if self.count <= 8 else -(-self.count // 16) * 16

    @property
    def part(self) -> int:
        """Floats that a piece's result takes: greatest scores, sums, and mixed values [width, lanes]."""
        return (2 + self.width) * self.lanes

    @property
    def scratch(self) -> int:
        """Floats that a thread needs: queries, scores, and keys or values widened."""
        return self.width * self.lanes + (PIECE + _KEYS) * (self.lanes + self.width)


def append(module: ir.Module, heads: Heads) -> ir.Function:
    """(row, place): `width` floats are stored as a key or a value."""
    e, (row, place) = Emitter.of(module, "append", [ADDRESS] * 2)
    lanes = gcd(heads.width, 16)
    with e.loop(0, heads.width, lanes) as i:
        value = e.read(vector(REAL, lanes), e.at(row, i))
        if heads.brain:
            e.write(e.fptrunc(value, vector(BRAIN, lanes)), e.at(place, i, 2))
        else:
            e.write(value, e.at(place, i))
    e.ret_void()
    return e.function


def attend_piece(module: ir.Module, heads: Heads) -> ir.Function:
    """(queries [heads * width], keys, values, positions, part, scratch): one piece, of one to `PIECE` positions.

    Keys and values begin at the piece's first position.
    """
    e, (queries, keys, values, positions, part, scratch) = Emitter.of(
        module, "attend_piece", [ADDRESS, ADDRESS, ADDRESS, INDEX, ADDRESS, ADDRESS]
    )
    lanes, width = heads.lanes, heads.width
    kind = vector(REAL, lanes)
    scores = e.at(scratch, width * lanes)
    wide = e.at(scores, (PIECE + _KEYS) * lanes)

    with e.loop(0, heads.count) as head, e.loop(0, width) as i:
        value = e.read(REAL, e.at(queries, e.sum(e.product(head, width), i)))
        e.write(e.fmul(value, ir.Constant(REAL, heads.scale)), e.at(scratch, e.sum(e.product(i, lanes), head)))

    read = _widened(e, keys, positions, wide, heads)
    most = Variable(e, e.splat(float("-inf"), lanes))
    with e.loop(0, positions, _KEYS) as j:
        # Two sums for each: short chains wait less, and round less.
        sums = [[Variable(e, e.splat(0.0, lanes)) for _ in range(_KEYS)] for _ in range(2)]

        def take(i: ir.Value, into: list[Variable]) -> None:
            query = e.read(kind, e.at(scratch, e.product(i, lanes)))
            for n, sum_ in enumerate(into):
                key = e.read(REAL, e.at(read, e.sum(e.product(e.sum(j, n), width), i)))
                sum_.set(e.multiply_add(query, e.splat(key, lanes), sum_.get()))

        with e.loop(0, width // 2) as i:
            take(i, sums[0])
            take(e.sum(i, width // 2), sums[1])
        if width % 2:
            take(e.index(width - 1), sums[0])
        for n, (first, second) in enumerate(zip(*sums, strict=True)):
            e.write(e.fadd(first.get(), second.get()), e.at(scores, e.product(e.sum(j, n), lanes)))
    with e.loop(0, positions) as j:
        most.set(e.larger(e.read(kind, e.at(scores, e.product(j, lanes))), most.get()))
    greatest = most.get()
    total = Variable(e, e.splat(0.0, lanes))
    with e.loop(0, positions) as j:
        at = e.at(scores, e.product(j, lanes))
        weight = exp(e, e.fsub(e.read(kind, at), greatest))
        e.write(weight, at)
        total.set(e.fadd(total.get(), weight))
    e.write(greatest, part)
    e.write(total.get(), e.at(part, lanes))

    read = _widened(e, values, positions, wide, heads)
    block = gcd(width, max(1, _REGISTERS // lanes))
    with e.loop(0, width, block) as i:
        mixed = [Variable(e, e.splat(0.0, lanes)) for _ in range(block)]
        with e.loop(0, positions) as j:
            weight = e.read(kind, e.at(scores, e.product(j, lanes)))
            for n, sum_ in enumerate(mixed):
                value = e.read(REAL, e.at(read, e.sum(e.product(j, width), i, n)))
                sum_.set(e.multiply_add(weight, e.splat(value, lanes), sum_.get()))
        for n, sum_ in enumerate(mixed):
            e.write(sum_.get(), e.at(part, e.product(e.sum(i, n, 2), lanes)))
    e.ret_void()
    return e.function


def merge_pieces(module: ir.Module, heads: Heads) -> ir.Function:
    """(parts, pieces, out [heads * width], scratch): all pieces of one row together, at most `PIECE` of them."""
    e, (parts, pieces, out, scratch) = Emitter.of(module, "merge_pieces", [ADDRESS, INDEX, ADDRESS, ADDRESS])
    lanes, width = heads.lanes, heads.width
    kind = vector(REAL, lanes)

    def entry(piece: ir.Value, number: ir.Value | int) -> ir.Value:
        return e.at(parts, e.sum(e.product(piece, heads.part), e.product(number, lanes)))

    most = Variable(e, e.splat(float("-inf"), lanes))
    with e.loop(0, pieces) as piece:
        most.set(e.larger(e.read(kind, entry(piece, 0)), most.get()))
    greatest = most.get()
    total = Variable(e, e.splat(0.0, lanes))
    with e.loop(0, pieces) as piece:
        weight = exp(e, e.fsub(e.read(kind, entry(piece, 0)), greatest))
        total.set(e.multiply_add(weight, e.read(kind, entry(piece, 1)), total.get()))
        e.write(weight, e.at(scratch, e.product(piece, lanes)))
    share = e.fdiv(e.splat(1.0, lanes), total.get())
    apart = e.at(scratch, PIECE * lanes)
    with e.loop(0, width) as i:
        mixed = Variable(e, e.splat(0.0, lanes))
        with e.loop(0, pieces) as piece:
            weight = e.read(kind, e.at(scratch, e.product(piece, lanes)))
            mixed.set(e.multiply_add(weight, e.read(kind, entry(piece, e.sum(i, 2))), mixed.get()))
        e.write(e.rounded(e.fmul(mixed.get(), share), heads.brain), apart)
        with e.loop(0, heads.count) as head:
            e.write(e.read(REAL, e.at(apart, head)), e.at(out, e.sum(e.product(head, width), i)))
    e.ret_void()
    return e.function


def _widened(e: Emitter, source: ir.Value, positions: ir.Value, wide: ir.Value, heads: Heads) -> ir.Value:
    """Where keys or values stand as float32."""
    if not heads.brain:
        return source
    lanes = gcd(heads.width, 16)
    with e.loop(0, e.product(positions, heads.width), lanes) as i:
        value = e.read(vector(BRAIN, lanes), e.at(source, i, 2))
        e.write(e.fpext(value, vector(REAL, lanes)), e.at(wide, i))
    return wide

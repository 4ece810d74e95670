"""A thin layer over llvmlite's builder: loops, variables, vectors. What the kernels of this folder are written in.

Vectors are as wide as an algorithm wants them; LLVM splits them into the registers that the processor has. Nothing here
lets a floating-point sum be reordered, so the bits of a result are those of the order that is written down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from llvmlite import ir

BYTE, WORD, INDEX = ir.IntType(8), ir.IntType(32), ir.IntType(64)
REAL, ADDRESS, NOTHING = ir.FloatType(), ir.PointerType(), ir.VoidType()


class BFloat(ir.Type):  # type: ignore[misc]  # llvmlite has no types
    """bfloat16, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


BRAIN = BFloat()


def vector(element: ir.Type, lanes: int) -> ir.VectorType:
    """The type of `lanes` elements."""
    return ir.VectorType(element, lanes)


class Variable:
    """A value that a loop changes."""

    def __init__(self, builder: Emitter, initial: ir.Value) -> None:
        self._builder, self._type = builder, initial.type
        with builder.goto_entry_block():
            self._slot = builder.alloca(initial.type)
        self.set(initial)

    def get(self) -> ir.Value:
        """What it holds here."""
        return self._builder.load(self._slot, typ=self._type)

    def set(self, value: ir.Value) -> None:
        """What it holds from here on."""
        self._builder.store(value, self._slot)


class Emitter(ir.IRBuilder):  # type: ignore[misc]  # llvmlite has no types
    """Builds one function. Offsets and counts are of 64 bits, elements of four bytes where nothing else is said."""

    @classmethod
    def of(cls, module: ir.Module, name: str, arguments: Sequence[ir.Type]) -> tuple[Emitter, tuple[ir.Value, ...]]:
        """A new function of `module` that returns nothing -> (its builder, its arguments). Never copied into its callers."""
        function = ir.Function(module, ir.FunctionType(NOTHING, arguments), name)
        function.attributes.add("noinline")
        return cls(function.append_basic_block("entry")), function.args

    def index(self, value: ir.Value | int) -> ir.Value:
        """A constant of 64 bits, or what is a value already."""
        return ir.Constant(INDEX, value) if isinstance(value, int) else value

    def sum(self, *parts: ir.Value | int) -> ir.Value:
        """Of indices."""
        first, *rest = map(self.index, parts)
        for part in rest:
            first = self.add(first, part)
        return first

    def product(self, a: ir.Value | int, b: ir.Value | int) -> ir.Value:
        """Of indices."""
        return self.mul(self.index(a), self.index(b))

    def least(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Of two indices."""
        return self.select(self.icmp_signed("<", a, b), a, b)

    def at(self, base: ir.Value, offset: ir.Value | int, size: int = 4) -> ir.Value:
        """The address `offset` elements of `size` bytes after `base`."""
        return self.gep(base, [self.product(offset, size)], source_etype=BYTE)

    def read(self, kind: ir.Type, address: ir.Value) -> ir.Value:
        """What stands at an address that is aligned for one element."""
        return self.load(address, align=_alignment(kind), typ=kind)

    def write(self, value: ir.Value, address: ir.Value) -> None:
        """Store where it is aligned for one element."""
        self.store(value, address, align=_alignment(value.type))

    def pointer(self, table: ir.Value, entry: ir.Value | int) -> ir.Value:
        """An address out of a table of addresses."""
        return self.read(ADDRESS, self.at(table, entry, 8))

    def number(self, table: ir.Value, entry: ir.Value | int) -> ir.Value:
        """An index out of a table of them."""
        return self.read(INDEX, self.at(table, entry, 8))

    def splat(self, value: ir.Value | float, lanes: int) -> ir.Value:
        """A vector of one float."""
        if isinstance(value, float):
            return ir.Constant(vector(REAL, lanes), [value] * lanes)
        one = self.insert_element(ir.Constant(vector(value.type, lanes), ir.Undefined), value, ir.Constant(WORD, 0))
        return self.shuffle_vector(one, one, ir.Constant(vector(WORD, lanes), [0] * lanes))

    def words(self, value: int, lanes: int) -> ir.Value:
        """A vector of one integer."""
        return ir.Constant(vector(WORD, lanes), [value] * lanes)

    def intrinsic(self, name: str, result: ir.Type, arguments: Sequence[ir.Value]) -> ir.Value:
        """Call one of LLVM's own functions."""
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.call(self.module.globals.get(name) or ir.Function(self.module, kind, name), arguments)

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a * b + c, rounded once."""
        return self.intrinsic(f"llvm.fma.v{a.type.count}f32", a.type, [a, b, c])

    def larger(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Of each pair of floats; NaN if the first is."""
        return self.select(self.fcmp_unordered(">", a, b), a, b)

    def smaller(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Of each pair of floats; NaN if the first is."""
        return self.select(self.fcmp_unordered("<", a, b), a, b)

    def folded(self, value: ir.Value, join: Callable[[ir.Value, ir.Value], ir.Value]) -> ir.Value:
        """A vector's elements joined into one, halves onto halves."""
        lanes = value.type.count
        while lanes > 1:
            lanes //= 2
            low, high = (
                self.shuffle_vector(value, value, ir.Constant(vector(WORD, lanes), list(range(first, first + lanes))))
                for first in (0, lanes)
            )
            value = join(low, high)
        return self.extract_element(value, ir.Constant(WORD, 0))

    def rounded(self, value: ir.Value, brain: bool) -> ir.Value:
        """Floats as bfloat16 holds them, if `brain`."""
        if not brain:
            return value
        return self.fpext(self.fptrunc(value, vector(BRAIN, value.type.count)), value.type)

    @contextmanager
    def loop(self, start: ir.Value | int, stop: ir.Value | int, step: ir.Value | int = 1) -> Iterator[ir.Value]:
        """The body of `for i in range(start, stop, step)`."""
        first, last = self.index(start), self.index(stop)
        before = self.block
        head, body, after = (self.append_basic_block(name) for name in ("loop", "body", "after"))
        self.branch(head)
        self.position_at_end(head)
        i = self.phi(INDEX)
        i.add_incoming(first, before)
        self.cbranch(self.icmp_signed("<", i, last), body, after)
        self.position_at_end(body)
        yield i
        following = self.sum(i, step)
        i.add_incoming(following, self.block)
        self.branch(head)
        self.position_at_end(after)


def _alignment(kind: ir.Type) -> int:
    element = kind.element if isinstance(kind, ir.VectorType) else kind
    if isinstance(element, ir.IntType):
        return int(element.width) // 8
    return 8 if isinstance(element, ir.PointerType) else 2 if isinstance(element, BFloat) else 4

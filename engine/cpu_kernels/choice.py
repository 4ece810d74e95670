"""The likeliest token, and how likely it is."""

from __future__ import annotations

from llvmlite import ir

from engine.cpu_kernels.emit import ADDRESS, INDEX, REAL, WORD, Emitter, Variable, vector
from engine.cpu_kernels.maths import exp

_LANES = 16


def greatest(module: ir.Module, count: int) -> ir.Function:
    """(logits, out): the index of the greatest of `count`, the lowest on a tie, and the sum of exp(logit - greatest).

    `out` is an index of 64 bits, then a float32.
    """
    e, (logits, out) = Emitter.of(module, "greatest", [ADDRESS, ADDRESS])
    lanes = _LANES if count >= _LANES else 1
    kind, whole = vector(REAL, lanes), count - count % lanes
    numbers = ir.Constant(vector(WORD, lanes), list(range(lanes)))
    best, at = Variable(e, e.splat(float("-inf"), lanes)), Variable(e, numbers)

    def look(value: ir.Value, number: ir.Value) -> None:
        better = e.fcmp_ordered(">", value, best.get())
        best.set(e.select(better, value, best.get()))
        at.set(e.select(better, number, at.get()))

    def there(i: ir.Value) -> ir.Value:
        return e.read(kind, e.at(logits, i))

    # The last vector may overlap the one before: what it sees twice is not better the second time, but is summed once.
    with e.loop(0, whole, lanes) as i:
        look(there(i), e.add(e.splat(e.trunc(i, WORD), lanes), numbers))
    if whole < count:
        look(there(e.index(count - lanes)), e.add(e.words(count - lanes, lanes), numbers))
    most = e.folded(best.get(), e.larger)
    winners = e.fcmp_ordered("==", best.get(), e.splat(most, lanes))
    lowest = e.folded(
        e.select(winners, at.get(), e.words(2**31 - 1, lanes)),
        lambda a, b: e.select(e.icmp_signed("<", a, b), a, b),
    )
    # Not one of them is greater than minus infinity if all are NaN.
    lowest = e.select(e.icmp_signed("<", lowest, ir.Constant(WORD, count)), lowest, ir.Constant(WORD, 0))
    total = Variable(e, e.splat(0.0, lanes))
    with e.loop(0, whole, lanes) as i:
        total.set(e.fadd(total.get(), exp(e, e.fsub(there(i), e.splat(most, lanes)))))
    if whole < count:
        last = exp(e, e.fsub(there(e.index(count - lanes)), e.splat(most, lanes)))
        new = ir.Constant(vector(ir.IntType(1), lanes), [n >= lanes - (count - whole) for n in range(lanes)])
        total.set(e.fadd(total.get(), e.select(new, last, e.splat(0.0, lanes))))
    e.write(e.sext(lowest, INDEX), out)
    e.write(e.folded(total.get(), e.fadd), e.at(out, 1, 8))
    e.ret_void()
    return e.function

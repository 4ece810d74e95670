"""Each compiled kernel by itself: against float64, at odd sizes, with NaN wherever it must not look.

An error counts against that of torch's own operation in the same precision: at most twice as large in the mean square,
four times at the worst number.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest
import torch
from llvmlite import ir
from torch import Tensor
from torch.nn import functional as F

from engine.cpu_kernels import attention, choice, maths, norm, product
from engine.cpu_kernels.attention import PIECE, Heads
from engine.cpu_kernels.compiler import Library, features
from engine.cpu_kernels.emit import ADDRESS, REAL, Emitter, vector
from engine.cpu_kernels.product import End, Int8Matrix, Panels

NAN = float("nan")
POINTER, NUMBER = ctypes.c_void_p, ctypes.c_int64


def _compiled(write: Callable[[ir.Module], ir.Function], *arguments: type) -> Callable[..., None]:
    module = ir.Module()
    name = write(module).name
    library = Library(module)
    call = library.function(name, *arguments)

    def run(*values: Tensor | int) -> None:
        call(*(value.data_ptr() if isinstance(value, Tensor) else value for value in values))
        assert library  # its code lives as long as it does

    return run


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _within_twice(ours: Tensor, torchs: Tensor, exact: Tensor) -> None:
    errors, allowed = ((each.double() - exact).abs() for each in (ours, torchs))
    assert float(errors.square().mean().sqrt()) <= 2 * float(allowed.square().mean().sqrt()) + 5e-8
    assert float(errors.max()) <= 4 * float(allowed.max()) + 1e-7


@pytest.mark.parametrize("form", ["exp", "erf", "tanh"])
def test_functions_are_as_close_as_torchs(form: str) -> None:
    def write(module: ir.Module) -> ir.Function:
        e, (x, y) = Emitter.of(module, "f", [ADDRESS, ADDRESS])
        with e.loop(0, 4_096, 16) as i:
            value = e.read(vector(REAL, 16), e.at(x, i))
            e.write(maths.exp(e, value) if form == "exp" else maths.gelu(e, value, exact=form == "erf"), e.at(y, i))
        e.ret_void()
        return e.function

    x = torch.linspace(-80, 1, 4_096) if form == "exp" else torch.linspace(-9, 9, 4_096)
    y = torch.empty_like(x)
    _compiled(write, POINTER, POINTER)(x, y)
    function = torch.exp if form == "exp" else lambda v: F.gelu(v, approximate="none" if form == "erf" else "tanh")
    _within_twice(y, function(x), function(x.double()))
    if form == "exp":
        torch.testing.assert_close(y, torch.exp(x), rtol=5e-7, atol=0)
        x.fill_(NAN)
        _compiled(write, POINTER, POINTER)(x, y)
        assert y.isnan().all()


@pytest.mark.parametrize("brain", [False, True])
@pytest.mark.parametrize("width", [1, 7, 16, 40, 384, 1_030])
def test_layer_norm_looks_at_its_row_alone(width: int, brain: bool) -> None:
    filled = -(-width // norm.LANES) * norm.LANES
    x = torch.full((filled,), NAN)
    x[:width] = 3 + 2 * _random(width)
    weight, bias = torch.zeros(filled), torch.zeros(filled)
    weight[:width], bias[:width] = _random(width, seed=1), _random(width, seed=2)
    y = torch.full((filled,), NAN)
    run = _compiled(lambda module: norm.layer_norm(module, width, 1e-5, brain=brain), *[POINTER] * 4)
    run(x, weight, bias, y)
    torchs = F.layer_norm(x[:width], (width,), weight[:width], bias[:width])
    exact = F.layer_norm(x[:width].double(), (width,), weight[:width].double(), bias[:width].double())
    _within_twice(y[:width], torchs.bfloat16() if brain else torchs, exact)
    assert not y[width:].any()
    if brain:
        assert torch.equal(y, y.bfloat16().float())


ROWS, STRIDE = 9, 2_048
ENDS: dict[End, Callable[[Tensor], Tensor]] = {
    End.STORE: lambda y: y,
    End.GELU_ERF: F.gelu,
    End.GELU_TANH: lambda y: F.gelu(y, approximate="tanh"),
}


def _panels(weight: Tensor, lanes: int, depth: int) -> Tensor:
    """In the order that `Panels` describes, filled up with zeros."""
    outputs, inputs = weight.shape
    blocks, together = -(-outputs // lanes), 4 // weight.itemsize
    filled = F.pad(weight, (0, depth - inputs, 0, blocks * lanes - outputs))
    return filled.view(blocks, lanes, depth // together, together).transpose(1, 2).contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tile", [1, 4])
@pytest.mark.parametrize(("outputs", "inputs", "lanes"), [(33, 40, 16), (801, 128, 64), (64, 7, 48), (130, 352, 64)])
def test_products_of_panels(outputs: int, inputs: int, lanes: int, tile: int, dtype: torch.dtype) -> None:
    brain = dtype == torch.bfloat16
    matrix = Panels(outputs, inputs, lanes, -(-inputs // 16) * 16, brain)
    weight = (_random(outputs, inputs) / inputs**0.5).to(dtype)
    bias = torch.zeros(matrix.width)
    bias[:outputs] = _random(outputs, seed=1).to(dtype)
    x = torch.full((ROWS, STRIDE), NAN)
    x[:, :inputs] = _random(ROWS, inputs, seed=2).to(dtype)
    if inputs % 2:
        x[:, inputs] = 0
    panels = _panels(weight, lanes, matrix.depth)
    exact = x[:, :inputs].double() @ weight.double().T + bias[:outputs].double()
    torchs = F.linear(x[:, :inputs].to(dtype), weight, bias[:outputs].to(dtype))
    for end in End:

        def write(module: ir.Module, end: End = end) -> ir.Function:
            return product.panel_product(module, "f", matrix, end, tile, brain=brain)

        kinds = [POINTER, NUMBER, NUMBER, POINTER, POINTER, POINTER, NUMBER, NUMBER, NUMBER]
        run = _compiled(write, *kinds)

        def multiply(rows: int, threads: int, run: Callable[..., None] = run) -> Tensor:
            out = torch.full((ROWS, STRIDE), 1.0)
            for thread in range(threads):
                run(x, STRIDE, rows, panels, bias, out, STRIDE, thread, threads)
            assert (out[rows:] == 1.0).all() and (out[:, matrix.width :] == 1.0).all()
            return out[:rows, :outputs]

        y = multiply(ROWS, 1)
        if end is End.ADD:
            _within_twice(y - 1, torchs, exact)
        else:
            _within_twice(y, ENDS[end](torchs), ENDS[end](exact))
        for rows, threads in ((1, 1), (3, 2), (4, 5), (6, 3)):
            assert torch.equal(multiply(rows, threads), y[:rows]), "a row's bits depend on its company"


STEPS = [step for name, step in (("avx512vnni", 64), ("avxvnni", 32)) if name in features()]


@pytest.mark.skipif(not STEPS, reason="the processor has no dot product of bytes")
@pytest.mark.parametrize("step", STEPS or [64])
@pytest.mark.parametrize(("outputs", "inputs"), [(3, 64), (33, 128), (801, 384), (130, 1_024)])
def test_products_of_int8_rows(outputs: int, inputs: int, step: int) -> None:
    weight = torch.randint(-127, 128, (outputs, inputs), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    scales, bias = _random(outputs).abs() / inputs, _random(outputs, seed=1)
    edge = torch.cat([bias, scales, weight.sum(1, dtype=torch.int32).view(torch.float32)])
    x = torch.full((ROWS, STRIDE), NAN)
    x[:, :inputs] = _random(ROWS, inputs, seed=2).bfloat16()
    x[1, :inputs], x[2, 3] = 0, 4_000.0  # nothing but zeros, and one far outlier
    bytes_, factors = torch.empty(ROWS, 2 * inputs, dtype=torch.uint8), torch.empty(ROWS)
    quantise = _compiled(product.quantise, POINTER, NUMBER, POINTER, POINTER)
    for row in range(ROWS):
        quantise(x[row], inputs, bytes_[row], factors[row:])
    levels = bytes_[:, :inputs].double() * 256 + bytes_[:, inputs:].double() - 32_768
    given = levels * factors.double()[:, None]
    largest = x[:, :inputs].abs().amax(1, keepdim=True).double()
    assert bool(((given - x[:, :inputs].double()).abs() <= largest / 65_000 + 1e-30).all())
    exact = given @ (weight.double() * scales.double()[:, None]).T + bias.double()
    torchs = F.linear(given.float(), weight.float() * scales[:, None], bias)

    matrix = Int8Matrix(outputs, inputs)
    kinds = [POINTER, POINTER, NUMBER, POINTER, POINTER, POINTER, NUMBER, NUMBER, NUMBER]
    for end in ENDS:

        def write(module: ir.Module, end: End = end) -> ir.Function:
            return product.int8_product(module, "f", matrix, end, step, brain=False)

        run = _compiled(write, *kinds)

        def multiply(rows: int, threads: int, run: Callable[..., None] = run) -> Tensor:
            out = torch.full((ROWS, STRIDE), 1.0)
            for thread in range(threads):
                run(bytes_, factors, rows, weight, edge, out, STRIDE, thread, threads)
            assert (out[rows:] == 1.0).all() and (out[:, outputs:] == 1.0).all()
            return out[:rows, :outputs]

        y = multiply(ROWS, 1)
        for row in range(ROWS):  # an outlier's row is not the others' measure
            _within_twice(y[row], ENDS[end](torchs[row]), ENDS[end](exact[row]))
        for rows, threads in ((1, 1), (4, 5), (7, 3)):
            assert torch.equal(multiply(rows, threads), y[:rows])


@pytest.mark.parametrize("brain", [False, True])
@pytest.mark.parametrize(("count", "width"), [(4, 8), (6, 64), (11, 32), (16, 128), (48, 20), (3, 7)])
def test_attention_sees_its_positions_and_no_others(count: int, width: int, brain: bool) -> None:
    heads = Heads(count, width, width**-0.5, brain)
    dtype = torch.bfloat16 if brain else torch.float32
    piece = _compiled(lambda m: attention.attend_piece(m, heads), *[POINTER] * 3, NUMBER, POINTER, POINTER)
    merge = _compiled(lambda m: attention.merge_pieces(m, heads), POINTER, NUMBER, POINTER, POINTER)
    append = _compiled(lambda m: attention.append(m, heads), POINTER, POINTER)
    scratch = torch.zeros(heads.scratch)
    for positions in (1, 2, 9, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 45):
        kv = torch.full((2, positions + 8, width), NAN, dtype=dtype)  # what lies past the row is not for it
        new = _random(2, positions, width, seed=positions)
        for plane in (0, 1):
            for at in range(positions):
                append(new[plane, at].clone(), kv[plane, at])
        assert torch.equal(kv[:, :positions], new.to(dtype)) and kv[:, positions:].isnan().all()
        q = (3 * _random(count, width, seed=1)).to(dtype).float()
        parts = torch.full((-(-positions // PIECE), heads.part), NAN)
        for number, part in enumerate(parts):
            first = number * PIECE
            piece(q, kv[0, first:], kv[1, first:], min(PIECE, positions - first), part, scratch)
        out = torch.empty(count, width)
        merge(parts, len(parts), out, scratch)
        k, v = kv[:, :positions].float()
        exact = torch.softmax(q.double() @ k.double().T * width**-0.5, -1) @ v.double()
        torchs = torch.softmax(q @ k.T * width**-0.5, -1) @ v
        _within_twice(out, torchs.to(dtype), exact)


@pytest.mark.parametrize("count", [1, 5, 16, 17, 801, 8_192])
def test_the_greatest_logit_is_the_lowest_of_equals(count: int) -> None:
    run = _compiled(lambda module: choice.greatest(module, count), POINTER, POINTER)
    logits = torch.full((count + 16,), 1e9)  # beyond the vocabulary stands nothing that counts
    out = torch.zeros(2, dtype=torch.int64)
    for seed in range(20):
        logits[:count] = _random(count, seed=seed)
        for tied in torch.randint(count, (3,), generator=torch.Generator().manual_seed(seed)).tolist():
            logits[tied] = 7.0
        run(logits, out)
        assert int(out[0]) == int((logits[:count] == 7.0).nonzero()[0])
        exact = torch.log_softmax(logits[:count].double(), 0)[int(out[0])]
        assert float(-out.view(torch.float32)[2].double().log()) == pytest.approx(float(exact), abs=1e-5)
    logits[:count] = NAN
    run(logits, out)
    assert 0 <= int(out[0]) < count

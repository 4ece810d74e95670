"""Products, LayerNorm, embedding, append and quantisers against float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.cases.support import (
    DEVICE,
    GUARD,
    Linear,
    Norm,
    Span,
    close,
    guarded,
    named,
    pairwise,
    random_norm,
)
from triton_kernels.append import append, append_reference
from triton_kernels.configs import Target
from triton_kernels.embed import embed, embed_reference
from triton_kernels.layer_norm import layer_norm, layer_norm_reference
from triton_kernels.linear import linear, linear_reference
from triton_kernels.quantize import Weight, dense, quantize_int4, quantize_int8
from triton_kernels.spans import SpanTable

F32, F16 = torch.float32, torch.float16
TARGET = Target(86, 2)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def weight_in(form: str, outputs: int, inputs: int, dtype: torch.dtype) -> Weight:
    full = torch.randn(outputs, inputs) / inputs**0.5
    if form == "int8":
        return quantize_int8(full)
    return quantize_int4(full) if form == "int4" else full.to(dtype)


def guard_rows(rows: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """-> (a tensor, the block of NaN that it is the middle of)."""
    block = torch.full((rows * width + 2 * GUARD,), float("nan"), dtype=dtype)
    return block[GUARD : GUARD + rows * width].view(rows, width), block


_LINEAR = {
    "rows": (1, 2, 5, 8, 16),
    "inputs": (100, 128, 384, 1100),
    "outputs": (1, 33, 72),
    "norm": (False, True),
    "activation": ("none", "tanh", "erf"),
    "form": ("float", "int8", "int4"),
    "dtype": (F32, F16),
    "add": (False, True),
}


def check_linear(
    rows: int, inputs: int, outputs: int, norm: bool, activation: str, form: str, dtype: torch.dtype, add: bool
) -> None:
    inputs = 384 if form == "int4" and inputs % 128 else inputs
    layer = Linear(weight_in(form, outputs, inputs, dtype), torch.randn(outputs).to(dtype))
    before = random_norm(inputs, dtype) if norm else None
    x = torch.randn(rows, inputs) * 3 + 5 if norm else torch.randn(rows, inputs).to(dtype)
    out, block = guard_rows(rows, outputs, F32 if add else dtype)
    expected = torch.randn(rows, outputs).double() if add else torch.empty(rows, outputs, dtype=torch.float64)
    if add:
        out.copy_(expected)
        expected = out.double()
    double = Linear(dense(layer.weight, F32).double(), layer.bias.double())
    linear_reference(
        x.double(),
        double,
        expected,
        norm=None if before is None else before.double(),
        activation=activation,
        add=add,
    )
    assert linear(x, layer, out, TARGET, norm=before, activation=activation, add=add) is out
    close(out, expected, dtype)
    assert block[:GUARD].isnan().all()
    assert block[-GUARD:].isnan().all()


@pytest.mark.parametrize("case", pairwise({**_LINEAR, "inputs": (100, 384), "outputs": (1, 33)})[:30], ids=named)
def test_linear(case: dict[str, Any]) -> None:
    check_linear(**case)


@pytest.mark.slow
@pytest.mark.parametrize("case", pairwise(_LINEAR), ids=named)
def test_linear_more(case: dict[str, Any]) -> None:
    check_linear(**case)


@pytest.mark.slow
@pytest.mark.parametrize("rows", range(1, 17))
@pytest.mark.parametrize("form", ["float", "int8", "int4"])
def test_linear_every_row_count(rows: int, form: str) -> None:
    check_linear(rows, 256, 40, True, "tanh", form, F32, False)


@pytest.mark.parametrize("groups,head_dim", [(1, 16), (3, 8)])
@pytest.mark.parametrize(
    "spans", [[Span(2, 7, 1)], [Span(2, 0, 4)], [Span(1, 3, 2), Span(0, 9, 1), Span(2, 0, 2)]], ids=str
)
def test_append_in_the_product(groups: int, head_dim: int, spans: list[Span]) -> None:
    rows, width, inputs = sum(span.length for span in spans), 42, 96
    layer = Linear(torch.randn(width + 2 * groups * head_dim, inputs) / 10, torch.randn(width + 2 * groups * head_dim))
    norm, x = random_norm(inputs, F32), torch.randn(rows, inputs)
    kv = torch.full((3, 2, 2, groups, 12, head_dim), float("nan"))
    expected_kv = kv.double()
    out, block = guard_rows(rows, width, F32)
    expected = torch.empty(rows, width, dtype=torch.float64)
    double = Linear(layer.weight.double(), layer.bias.double())
    linear_reference(x.double(), double, expected, norm=norm.double(), kv=expected_kv[:, 1], spans=spans)
    linear(x, layer, out, TARGET, norm=norm, kv=kv[:, 1], spans=SpanTable.of(spans, DEVICE))
    close(out, expected, F32)
    torch.testing.assert_close(kv.double(), expected_kv, rtol=0, atol=1e-4, equal_nan=True)
    assert block[:GUARD].isnan().all()
    assert block[-GUARD:].isnan().all()


@pytest.mark.parametrize("rows", [1, 3, 20])
def test_padding_rows_are_not_appended(rows: int) -> None:
    table = SpanTable.reserve(1, rows, rows, 8, DEVICE)
    memory = torch.full((3, 2, 1, 8, 16), float("nan"))
    kv = memory[1:]
    if rows > 16:
        append(torch.randn(rows, 48), kv, table)
    else:
        layer = Linear(torch.randn(48, 32), torch.randn(48))
        linear(torch.randn(rows, 32), layer, torch.empty(rows, 16), TARGET, kv=kv, spans=table)
    assert memory.isnan().all()


@pytest.mark.parametrize("groups,head_dim,dtype", [(1, 64, F16), (1, 128, F32), (5, 24, F32)])
def test_append(groups: int, head_dim: int, dtype: torch.dtype) -> None:
    spans = [Span(0, 5, 17), Span(2, 0, 3)]
    fused = torch.randn(20, 40 + 2 * groups * head_dim).to(dtype)
    kv = torch.full((3, 2, 2, groups, 23, head_dim), float("nan"), dtype=dtype)
    expected = kv.clone()
    append(fused, kv[:, 1], SpanTable.of(spans, DEVICE))
    append_reference(fused, expected[:, 1], spans)
    torch.testing.assert_close(kv, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("rows,width,dtype", [(1, 8, F32), (3, 768, F16), (17, 1000, F32), (0, 16, F32)])
def test_layer_norm(rows: int, width: int, dtype: torch.dtype) -> None:
    norm, x = random_norm(width, dtype), torch.randn(rows, width) + 100
    with guarded():
        out = layer_norm(x, norm, dtype)
    close(out, layer_norm_reference(x.double(), norm.double(), torch.float64), dtype)


@pytest.mark.parametrize("rows,width,dtype", [(1, 8, F16), (5, 1500, F32), (0, 16, F32)])
def test_embed(rows: int, width: int, dtype: torch.dtype) -> None:
    ids, positions = torch.randint(0, 50, (rows,)), torch.randint(0, 20, (rows,))
    wte, wpe = torch.randn(50, width).to(dtype), torch.randn(20, width).to(dtype)
    with guarded():
        out = embed(ids, positions, wte, wpe)
    assert torch.equal(out, embed_reference(ids, positions, wte, wpe))


def test_int8_rounds_to_the_nearest_level() -> None:
    full = torch.randn(7, 256)
    full[3] = 0
    quantised = quantize_int8(full)
    restored = quantised.dequantize(F32)
    limit = full.abs().amax(dim=1, keepdim=True) / 254 * 1.0001
    assert ((restored - full).abs() <= limit).all()
    assert quantised.shape == full.shape
    assert not restored[3].any()


def test_int4_is_nearer_than_rounding_to_what_keeps_the_largest() -> None:
    full = torch.randn(64, 512)
    full[3] = 0
    quantised = quantize_int4(full)
    groups, restored = full.view(64, 4, 128), quantised.dequantize(F32)
    scales = groups.abs().amax(dim=2, keepdim=True).clamp_min(1e-30) / 7
    plain = ((groups / scales).round() * scales - groups).square().sum(2)
    found = (restored.view_as(groups) - groups).square().sum(2)
    assert (found <= plain * 1.0001).all()
    assert found.sum() < 0.85 * plain.sum()
    assert quantised.shape == full.shape
    assert not restored[3].any()


def test_quantising_what_is_already_on_the_levels_changes_nothing() -> None:
    levels = torch.randint(-7, 8, (5, 128)).float()
    levels[:, 0] = 7
    assert torch.equal(quantize_int4(levels * 0.5).dequantize(F32), levels * 0.5)
    levels[:, 0] = 127
    assert torch.equal(quantize_int8(levels * 0.25).dequantize(F32), levels * 0.25)


def test_refusals() -> None:
    layer = Linear(torch.zeros(8, 32), torch.zeros(8))
    out = torch.zeros(1, 8)
    for x, given, message in (
        (torch.zeros(17, 32), torch.zeros(17, 8), "17 tokens"),
        (torch.zeros(0, 32), torch.zeros(0, 8), "0 tokens"),
        (torch.zeros(1, 16), out, "16 inputs"),
        (torch.zeros(1, 32).half(), out, "float16"),
        (torch.zeros(1, 32), torch.zeros(1, 9), "out is"),
        (torch.zeros(32, 2).T[:1], torch.zeros(1, 8), "contiguous"),
    ):
        with pytest.raises(ValueError, match=message):
            linear(x, layer, given, TARGET)
    with pytest.raises(ValueError, match="residual"):
        linear(
            torch.zeros(1, 32).half(),
            Linear(layer.weight.half(), layer.bias.half()),
            out.half(),
            TARGET,
            add=True,
        )
    with pytest.raises(ValueError, match="multiple of 128"):
        quantize_int4(torch.zeros(4, 100))
    with pytest.raises(ValueError, match="too many to normalise"):
        wide = Norm(torch.ones(8200), torch.zeros(8200), 1e-5)
        linear(torch.zeros(1, 8200), Linear(torch.zeros(8, 8200), torch.zeros(8)), out, TARGET, norm=wide)

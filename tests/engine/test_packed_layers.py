"""Layers as a CPU stores them: right at every shape, alike in any company, and portable where a kernel is missing."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from engine import packed
from engine.ops import Linear
from engine.precision import DENSE, NAMES, Precision

SHAPES = [(48, 64), (33, 40), (801, 128), (7, 352), (1030, 96)]
ROWS = (1, 2, 5, 8, 9, 70)


def _precision(name: str) -> Precision:
    return Precision(name, torch.device("cpu"), DENSE.get(name, torch.bfloat16), "the test's")


def _parts(outputs: int, inputs: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(outputs * inputs)
    weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    return weight, torch.randn(outputs, generator=generator), torch.randn(70, inputs, generator=generator)


@pytest.fixture(params=[True, False], ids=["packed", "portable"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """With the processor's kernels, and as if there were none."""
    if not request.param:
        monkeypatch.setattr(packed, "works", lambda kernel: False)
    yield request.param


def _error_allowed(name: str) -> float:
    """Of products whose terms have a spread of 1: what rounding inputs, weights and outputs may add up to."""
    return {"float32": 1e-5, "float16": 8e-3, "bfloat16": 6e-2, "int8": 9e-2, "int4": 0.5}[name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_products_are_those_of_the_matrix(name: str, outputs: int, inputs: int, kernels: bool) -> None:
    weight, bias, x = _parts(outputs, inputs)
    precision = _precision(name)
    layer = precision.linear("w", weight, bias)
    exact = x.double() @ weight.double().T + bias.double()
    for rows in ROWS:
        given = x[:rows].to(precision.dtype)
        y = layer(given)
        assert (y.shape, y.dtype) == ((rows, outputs), precision.dtype)
        assert float((y.double() - exact[:rows]).abs().max()) < _error_allowed(name)
        for form in (True, False):
            plain = F.gelu(exact[:rows], approximate="none" if form else "tanh")
            assert float((layer.gelu(given, exact=form).double() - plain).abs().max()) < _error_allowed(name)


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_the_portable_form_stands_for_the_same_numbers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, bias, x = _parts(48, 64)
    with_kernel = _precision(name).linear("w", weight, bias)(x.bfloat16())
    monkeypatch.setattr(packed, "works", lambda kernel: False)
    without = _precision(name).linear("w", weight, bias)(x.bfloat16())
    torch.testing.assert_close(with_kernel, without, atol=3e-2, rtol=2e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("outputs", "inputs"), [(512, 384), (384, 1536), (2304, 256)])
def test_a_row_has_the_same_bits_in_any_company(dtype: torch.dtype, outputs: int, inputs: int) -> None:
    if not packed.works(dtype):
        pytest.skip(f"no blocked product in {dtype} here")
    weight, bias, x = _parts(outputs, inputs)
    layer = packed.dense(weight.to(dtype), bias.to(dtype))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone, together = layer(x[:4].to(dtype)), layer(x.to(dtype))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone, together[:4])


@pytest.mark.parametrize("name", NAMES)
def test_the_vocabulary_multiplies_by_the_table_that_is_looked_up(name: str, kernels: bool) -> None:
    weight, _, x = _parts(801, 64)
    precision = _precision(name)
    table = precision.table(weight)
    product = precision.vocabulary(table)
    assert isinstance(product, Linear)
    rows = table.float() if isinstance(table, Tensor) else table.dense(torch.float32)
    y = product(x[:3].to(precision.dtype))
    torch.testing.assert_close(y.float(), x[:3].to(precision.dtype).float() @ rows.T, atol=6e-2, rtol=2e-2)


@pytest.mark.parametrize("kernel", [torch.float32, "int8", "int4"])
def test_a_kernel_that_is_wrong_is_not_used_and_the_log_says_so(
    kernel: torch.dtype | str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for layer in (packed.BlockedLinear, packed.Int8Linear, packed.Int4Linear):
        monkeypatch.setattr(layer, "__call__", lambda self, x: x.new_zeros(x.shape[0], 96))
    packed.works.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert not packed.works(kernel)
            assert not packed.works(kernel)
        assert len(caplog.records) == 1
    finally:
        packed.works.cache_clear()


@pytest.mark.parametrize("kernel", ["int8", "int4"])
def test_a_kernel_that_is_missing_is_not_used(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(self: Linear, x: Tensor) -> Tensor:
        raise AttributeError("'_OpNamespace' 'aten' object has no such attribute")

    for layer in (packed.Int8Linear, packed.Int4Linear):
        monkeypatch.setattr(layer, "__call__", gone)
    packed.works.cache_clear()
    try:
        assert not packed.works(kernel)
    finally:
        packed.works.cache_clear()

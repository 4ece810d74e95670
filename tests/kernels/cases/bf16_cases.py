"""bfloat16. Triton's interpreter multiplies its bit patterns in tl.dot and truncates where a GPU rounds: mended here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from triton import language as tl
from triton.runtime import interpreter

from tests.kernels.cases.support import DEVICE, INTERPRETED, Linear, Span, filled_kv, random_norm
from triton_kernels.attend import Workspace, attend, attend_reference
from triton_kernels.configs import Target
from triton_kernels.head import head, head_reference
from triton_kernels.linear import linear, linear_reference
from triton_kernels.quantize import quantize_int8
from triton_kernels.spans import SpanTable

BF16 = torch.bfloat16
TARGET = Target(86, 2)
TOLERANCE = 3e-2


def _wide(handle: Any) -> Any:
    if handle.dtype.scalar != tl.bfloat16:
        return handle.data
    return (handle.data.astype(np.uint32) << 16).view(np.float32)


def _dot(_: Any, a: Any, b: Any, d: Any, *_precision: Any) -> Any:
    return interpreter.TensorHandle(np.matmul(_wide(a), _wide(b), dtype=d.data.dtype) + d.data, d.dtype.scalar)


@pytest.fixture(autouse=True)
def _mended() -> Iterator[None]:
    torch.manual_seed(0)
    if not INTERPRETED:
        yield
        return
    with mock.patch.object(interpreter.InterpreterBuilder, "create_dot", _dot):
        yield


@pytest.mark.parametrize("parts", [1, 3])
def test_attend(parts: int) -> None:
    spans = [Span(1, 130, 2)]
    kv, q = filled_kv(spans, 2, 1, 140, 64, BF16), torch.randn(2, 12 * 64).to(BF16)
    workspace = Workspace.on(q.device)
    out = attend(q, kv, SpanTable.of(spans, DEVICE), 0.1, workspace, TARGET, parts)
    expected = attend_reference(q.double(), kv.double(), spans, 0.1)
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("quantised", [False, True])
def test_linear(rows: int, quantised: bool) -> None:
    full = torch.randn(40, 256) / 16
    weight = quantize_int8(full) if quantised else full.to(BF16)
    layer, norm, x = Linear(weight, torch.randn(40).to(BF16)), random_norm(256, BF16), torch.randn(rows, 256)
    ours, expected = torch.empty(2, rows, 40, dtype=BF16)
    linear(x, layer, ours, TARGET, norm=norm, activation="tanh")
    linear_reference(x, layer, expected, norm=norm, activation="tanh")
    torch.testing.assert_close(ours.float(), expected.float(), rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("rows", [1, 3])
def test_head(rows: int) -> None:
    x, norm, vocabulary = torch.randn(rows, 128), random_norm(128, BF16), torch.randn(90, 128).to(BF16)
    choice = head(x, norm, vocabulary, None, Workspace.on(x.device), TARGET, dtype=BF16)
    expected = head_reference(x, norm, vocabulary, None, dtype=BF16)
    torch.testing.assert_close(choice.normalisers, expected.normalisers, rtol=TOLERANCE, atol=TOLERANCE)
    assert torch.equal(choice.ids, expected.ids)

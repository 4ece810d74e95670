"""The vocabulary product, its arg-max and log-probabilities against float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.cases.support import Norm, close, guarded, named, pairwise, random_norm
from triton_kernels.attend import Workspace
from triton_kernels.configs import Target
from triton_kernels.head import Choice, head, head_reference
from triton_kernels.quantize import Weight, dense, quantize_int4, quantize_int8

F32, F16 = torch.float32, torch.float16
TARGET = Target(86, 2)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def run(x: Tensor, norm: Norm, vocabulary: Weight, allow: Tensor | None, dtype: torch.dtype, logits: bool) -> Choice:
    with guarded():
        workspace = Workspace.on(x.device)
        choice = head(x, norm, vocabulary, allow, workspace, TARGET, dtype=dtype, logits=logits)
    assert not workspace.counters.any()
    return choice


_HEAD = {
    "rows": (1, 2, 5, 16),
    "size": (1, 7, 64, 131, 300),
    "width": (96, 128, 640),
    "form": ("float", "int8", "int4"),
    "dtype": (F32, F16),
    "masked": (False, True),
    "logits": (False, True),
}


def check(rows: int, size: int, width: int, form: str, dtype: torch.dtype, masked: bool, logits: bool) -> None:
    width = 128 if form == "int4" and width % 128 else width
    full = torch.randn(size, width)
    vocabulary: Weight = full.to(dtype)
    if form != "float":
        vocabulary = quantize_int8(full) if form == "int8" else quantize_int4(full)
    norm, x = random_norm(width, dtype), torch.randn(rows, width) * 2
    allow = None
    if masked:
        allow = torch.rand(rows, size) < 0.1
        allow[torch.arange(rows), torch.randint(0, size, (rows,))] = True
    choice = run(x, norm, vocabulary, allow, dtype, logits)
    double = dense(vocabulary, F32).double()
    expected = head_reference(x.double(), norm.double(), double, allow, dtype=torch.float64)
    assert expected.logits is not None
    scale = max(1.0, float(expected.logits.abs().max()))
    close(choice.normalisers, expected.normalisers, dtype, scale)
    permitted = expected.logits if allow is None else expected.logits.masked_fill(~allow, -torch.inf)
    chosen = permitted.gather(1, choice.ids[:, None])[:, 0]
    # In half precision a near-tie may go either way; a clear winner may not lose.
    close(chosen, permitted.amax(dim=1), dtype, scale)
    close(choice.logprobs, chosen - expected.normalisers, dtype, scale)
    assert (choice.logits is not None) == logits
    if choice.logits is not None:
        close(choice.logits, expected.logits, dtype)


@pytest.mark.parametrize("case", pairwise({**_HEAD, "width": (96, 128)})[:30], ids=named)
def test_head(case: dict[str, Any]) -> None:
    check(**case)


@pytest.mark.slow
@pytest.mark.parametrize("case", pairwise({**_HEAD, "size": (1, 63, 64, 65, 500, 1023)}), ids=named)
def test_head_more(case: dict[str, Any]) -> None:
    check(**case)


@pytest.mark.parametrize("rows", [1, 3, 9])
@pytest.mark.parametrize("ties", [(3, 40), (5, 6), (64, 63, 200), (299, 0)], ids=str)
def test_the_lowest_id_wins_a_tie(rows: int, ties: tuple[int, ...]) -> None:
    vocabulary = torch.randn(300, 64) / 10
    x = torch.randn(1, 64).expand(rows, 64).contiguous()
    norm = Norm(torch.ones(64), torch.zeros(64), 1e-5)
    for tie in ties:
        vocabulary[tie] = x[0] * 3
    assert run(x, norm, vocabulary, None, F32, False).ids.tolist() == [min(ties)] * rows
    allow = torch.ones(rows, 300, dtype=torch.bool)
    allow[:, min(ties)] = False
    others = sorted(ties)[1]
    assert run(x, norm, vocabulary, allow, F32, False).ids.tolist() == [others] * rows


@pytest.mark.parametrize("rows", [1, 2])
def test_a_mask_with_one_token_and_one_with_none(rows: int) -> None:
    vocabulary, x, norm = torch.randn(200, 32), torch.randn(rows, 32), random_norm(32, F32)
    allow = torch.zeros(rows, 200, dtype=torch.bool)
    allow[:, 199] = True
    assert run(x, norm, vocabulary, allow, F32, False).ids.tolist() == [199] * rows
    choice = run(x, norm, vocabulary, torch.zeros_like(allow), F32, False)
    assert choice.ids.tolist() == [0] * rows
    assert choice.logprobs.isneginf().all()


@pytest.mark.parametrize("rows", [1, 2])
def test_nan_yields_an_id_in_range(rows: int) -> None:
    vocabulary, x, norm = torch.randn(200, 32), torch.full((rows, 32), float("nan")), random_norm(32, F32)
    choice = run(x, norm, vocabulary, None, F32, False)
    assert all(0 <= token < 200 for token in choice.ids.tolist())
    assert not choice.logprobs.isfinite().any()


def test_large_logits_do_not_overflow() -> None:
    vocabulary, x, norm = torch.randn(150, 64) * 300, torch.randn(2, 64), random_norm(64, F32)
    expected = head_reference(x.double(), norm.double(), vocabulary.double(), None, dtype=torch.float64)
    for rows in (1, 2):
        choice = run(x[:rows].contiguous(), norm, vocabulary, None, F32, False)
        close(choice.normalisers, expected.normalisers[:rows], F32)
        assert torch.equal(choice.ids, expected.ids[:rows])


def test_refusals() -> None:
    x, norm, vocabulary = torch.zeros(1, 32), random_norm(32, F32), torch.zeros(9, 32)
    allow = torch.ones(1, 9, dtype=torch.bool)
    workspace = Workspace.on(x.device)
    for bad, mask, message in (
        (torch.zeros(17, 32), None, "17 rows"),
        (torch.zeros(0, 32), None, "0 rows"),
        (x.half(), None, "float32"),
        (torch.zeros(1, 31), None, "width 31"),
        (x, allow[:, :8], "allow"),
        (x, allow.int(), "allow"),
    ):
        with pytest.raises(ValueError, match=message):
            head(bad, norm, vocabulary, mask, workspace, TARGET, dtype=F32)

"""Attention against float64, at every block edge, over poisoned memory."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.cases.support import DEVICE, Span, close, every, filled_kv, guarded, named, pairwise
from triton_kernels.attend import Workspace, attend, attend_reference
from triton_kernels.configs import Target
from triton_kernels.launch import recorded
from triton_kernels.spans import SpanTable

F32, F16 = torch.float32, torch.float16
HEADS = (12, 16, 22, 32, 48)
HEAD_DIMS = (64, 128)
NEW = (1, 2, 4, 5, 8, 16, 33)
STARTS = (0, 1, 15, 31, 32, 63, 64, 65, 127, 200)
PARTS = (None, 1, 4, 7)
TARGET = {"small": Target(86, 28), "h200": Target(90, 132)}

_SMALL = {
    "heads": HEADS,
    "head_dim": HEAD_DIMS,
    "new": (1, 2, 4, 5, 8, 16),
    "start": STARTS,
    "parts": PARTS,
    "dtype": (F32, F16),
    "target": ("small", "h200"),
}


def run(q: Tensor, kv: Tensor, spans: list[Span], parts: int | None = None, target: Target = TARGET["small"]) -> Tensor:
    """The kernel, in guarded memory; checks the counters and that nothing but the output was written."""
    before = kv.clone()
    with guarded():
        workspace = Workspace.on(q.device)
        out = attend(q, kv, SpanTable.of(spans, DEVICE), q.shape[1] ** -0.25, workspace, target, parts)
    assert not workspace.counters.any()
    torch.testing.assert_close(kv, before, rtol=0, atol=0, equal_nan=True)
    return out


def check(spans: list[Span], heads: int, head_dim: int, dtype: torch.dtype, groups: int = 1, **options: Any) -> Tensor:
    rows = sum(span.length for span in spans)
    window = max(span.start + span.length for span in spans) + 3
    kv = filled_kv(spans, 4, groups, window, head_dim, dtype)
    q = torch.randn(rows, heads * head_dim + 24).to(dtype)[:, : heads * head_dim]
    out = run(q, kv, spans, **options)
    close(out, attend_reference(q.double(), kv.double(), spans, q.shape[1] ** -0.25), dtype)
    return out


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("case", pairwise({**_SMALL, "new": (1, 2, 5)})[:30], ids=named)
def test_one_span(case: dict[str, Any]) -> None:
    target = TARGET[case.pop("target")]
    new, start = case.pop("new"), case.pop("start")
    check([Span(2, start, new)], **case, target=target)


@pytest.mark.slow
@pytest.mark.parametrize("case", pairwise({**_SMALL, "new": NEW}), ids=named)
def test_one_span_more(case: dict[str, Any]) -> None:
    target = TARGET[case.pop("target")]
    new, start = case.pop("new"), case.pop("start")
    check([Span(2, start, new)], **case, target=target)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("heads,groups", [(4, 2), (6, 6), (6, 1)])
def test_grouped_and_multi_head(heads: int, groups: int, parts: int) -> None:
    check([Span(0, 70, 3), Span(3, 0, 5)], heads, 64, F32, groups, parts=parts)


@pytest.mark.parametrize("parts", [None, 1, 5])
def test_several_spans_in_one_launch(parts: int | None) -> None:
    check([Span(3, 0, 9), Span(1, 200, 1), Span(0, 64, 4), Span(2, 0, 1)], 12, 64, F32, parts=parts)


@pytest.mark.parametrize("head_dim", [8, 24, 80])
@pytest.mark.parametrize("parts", [1, 3])
def test_head_dim_that_is_no_power_of_two(head_dim: int, parts: int) -> None:
    check([Span(1, 130, 2)], 5, head_dim, F32, parts=parts)


@pytest.mark.slow
@pytest.mark.parametrize("case", every({"start": range(130), "new": (1, 3), "parts": (1, 4)}), ids=named)
def test_every_length(case: dict[str, Any]) -> None:
    check([Span(0, case["start"], case["new"])], 6, 64, F32, parts=case["parts"])


@pytest.mark.slow
@pytest.mark.parametrize("start", [777, 2047, 8191])
@pytest.mark.parametrize(("heads", "new"), [(16, 1), (22, 5), (32, 33), (48, 2)])
def test_long_contexts(start: int, heads: int, new: int) -> None:
    """Split as on a large device, and as one program would go through it."""
    for target in (TARGET["h200"], TARGET["small"]):
        check([Span(1, start, new)], heads, 128, F16, target=target)
    check([Span(1, start, new)], heads, 128, F32, parts=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_random_batches(seed: int) -> None:
    draw = random.Random(seed)
    spans = [
        Span(slot, draw.choice((0, draw.randrange(300))), draw.choice((1, 1, draw.randrange(1, 40))))
        for slot in draw.sample(range(4), draw.randrange(1, 5))
    ]
    groups = draw.choice((1, 1, 2))
    heads = groups * draw.choice((1, 3, 8, 11))
    check(spans, heads, draw.choice((16, 64, 128)), draw.choice((F32, F16)), groups, parts=draw.choice(PARTS))


def test_large_scores_do_not_overflow() -> None:
    kv = filled_kv([Span(0, 99, 1)], 1, 1, 104, 64, F32)
    kv[:, 0] *= 100
    q = torch.randn(1, 12 * 64) * 100
    for parts in (1, 3):
        out = run(q, kv, [Span(0, 99, 1)], parts)
        close(out, attend_reference(q.double(), kv.double(), [Span(0, 99, 1)], q.shape[1] ** -0.25), F32)


def test_the_same_answer_twice_and_from_one_workspace() -> None:
    kv = filled_kv([Span(0, 300, 2)], 1, 1, 304, 64, F32)
    q = torch.randn(2, 12 * 64)
    workspace, table = Workspace.on(q.device), SpanTable.of([Span(0, 300, 2)], DEVICE)
    first, second = (attend(q, kv, table, 0.1, workspace, TARGET["small"], 4) for _ in range(2))
    assert torch.equal(first, second)


def test_a_reserved_table_serves_many_steps_with_one_grid() -> None:
    """What a captured graph replays: the same launch, other contents of the table."""
    table = SpanTable.reserve(spans=3, rows=6, longest=4, reach=200, device=DEVICE)
    workspace = Workspace.on(torch.device(DEVICE))
    grids = set()
    for spans in ([Span(0, 0, 1)], [Span(1, 190, 4), Span(0, 64, 1)], [Span(2, 63, 2), Span(0, 5, 1), Span(1, 99, 3)]):
        kv = filled_kv(spans, 3, 1, 200, 64, F32)
        rows = sum(span.length for span in spans)
        q = torch.randn(6, 12 * 64)
        q[rows:] = float("nan")
        table.fill(spans)
        with recorded() as launches, guarded():
            out = attend(q, kv, table, 0.1, workspace, TARGET["small"])
        grids.add(launches[0].grid)
        close(out[:rows], attend_reference(q[:rows].double(), kv.double(), spans, 0.1), F32)
        assert out[rows:].isnan().all(), "a row of no span was written"
    assert len(grids) == 1
    assert next(iter(grids))[1] > 1


def test_no_rows() -> None:
    table = SpanTable.reserve(1, 1, 1, 1, DEVICE)
    empty = torch.empty(0, 128)
    with pytest.raises(ValueError, match="0 rows"):
        attend(empty, torch.zeros(1, 2, 1, 8, 64), table, 1.0, Workspace.on(empty.device), TARGET["small"])


@pytest.mark.slow
def test_slots_beyond_two_to_the_31() -> None:
    """The memory is reserved, never touched but at its end."""
    window, head_dim = 128, 64
    stride = 2**31 + 2**20
    base = torch.empty(stride + 2 * window * head_dim, dtype=F16)
    kv = base.as_strided((2, 2, 1, window, head_dim), (stride, window * head_dim, window * head_dim, head_dim, 1))
    kv[1] = torch.randn(2, 1, window, head_dim).to(F16)
    q = torch.randn(1, 12 * head_dim).to(F16)
    for parts in (1, 2):
        table = SpanTable.of([Span(1, 100, 1)], DEVICE)
        out = attend(q, kv, table, 0.1, Workspace.on(q.device), TARGET["small"], parts)
        close(out, attend_reference(q.double(), kv[1:].double(), [Span(0, 100, 1)], 0.1), F16)


def test_refusals() -> None:
    q, kv = torch.zeros(1, 128), torch.zeros(1, 2, 1, 8, 64)
    table = SpanTable.of([Span(0, 0, 1)], DEVICE)
    for bad_q, bad_kv, message in (
        (q.half(), kv, "float16 queries"),
        (q.double(), kv.double(), "float64"),
        (torch.zeros(1, 100), kv, "100 columns"),
        (torch.zeros(1, 12), torch.zeros(1, 2, 1, 8, 12), "head_dim 12"),
        (torch.zeros(2, 128), kv, "2 rows"),
    ):
        with pytest.raises(ValueError, match=message):
            attend(bad_q, bad_kv, table, 1.0, Workspace.on(q.device), TARGET["small"])


def test_split_counts() -> None:
    from triton_kernels.configs import splits

    h200 = TARGET["h200"]
    assert splits(h200, programs=1, blocks=128) == 32
    assert splits(h200, programs=1, blocks=32) == 16
    assert splits(h200, programs=1, blocks=1) == 1
    assert splits(h200, programs=110, blocks=128) == 1
    assert splits(h200, programs=50, blocks=128) == 6

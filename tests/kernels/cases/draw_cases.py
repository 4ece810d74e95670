"""Sampling on the device against the engine's sampler: the same token from the same seed, and the step to the next one."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.noise import Stream, gumbel
from engine.sampler import Draw, filtered, sample
from engine.sampling import Sampling
from tests.kernels.cases.support import DEVICE, Span, guarded, named, pairwise, random_norm
from triton_kernels.attend import Workspace
from triton_kernels.configs import Target
from triton_kernels.draw import Following, HostDraw, advance, draw, draw_table
from triton_kernels.head import Choice, head
from triton_kernels.launch import recorded
from triton_kernels.spans import SpanTable

F32 = torch.float32
CASES = {
    "rows": (1, 2, 5),
    "size": (7, 131, 1024, 1500),
    "temperature": (0.0, 0.2, 1.0, 1.7),
    "top_p": (1.0, 0.9, 0.3, 0.0),
    "top_k": (0, 1, 5, 2000),
    "min_p": (0.0, 0.05),
    "penalty": (1.0, 1.3),
    "masked": (False, True),
    "tied": (False, True),
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def choice_of(logits: Tensor, allow: Tensor | None) -> Choice:
    """What `head` makes of these logits."""
    permitted = logits if allow is None else logits.masked_fill(~allow, -torch.inf)
    normalisers = torch.logsumexp(logits, dim=-1)
    peaks = permitted.amax(dim=-1)
    return Choice(permitted.argmax(dim=-1), peaks - normalisers, normalisers, peaks, logits)


def drawn(
    logits: Tensor,
    draws: list[HostDraw],
    allow: Tensor | None = None,
    seen: list[list[int]] | None = None,
    **options: Any,
) -> tuple[list[int], Tensor]:
    """The kernels, in guarded memory."""
    marked = None
    if seen is not None:
        marked = torch.zeros(len(draws), logits.shape[1], dtype=torch.bool)
        for row, ids in zip(marked, seen, strict=True):
            row[ids] = True
    with guarded():
        workspace = Workspace.on(logits.device)
        table = draw_table(draws).to(DEVICE)
        answers = draw(choice_of(logits, allow), table, workspace, allow=allow, seen=marked, **options)
    assert not workspace.counters.any()
    return answers[0].tolist(), answers[1]


def as_the_engine(each: HostDraw, seen: list[int]) -> Draw:
    sampling = Sampling(
        each.temperature, each.top_p, each.top_k, each.min_p, each.penalty, seed=each.seed, candidate=each.candidate
    )
    return Draw(sampling, each.position, tuple(seen))


def check(rows: int, size: int, masked: bool, tied: bool, seed: int = 0, **parameters: Any) -> None:
    seeds = [(seed * 977 + row) * 0x9E3779B97F4A7C15 % 2**64 for row in range(rows)]
    draws = [HostDraw(row, 17 + 1000 * row, seed=seeds[row], candidate=row, **parameters) for row in range(rows)]
    logits = torch.randn(rows, size) * 3
    if tied:
        logits = (logits / 2).round() * 2
    allow = None
    if masked:
        allow = torch.rand(rows, size) < 0.4
        allow[:, size // 2] = True
    seen = [list(range(row, size, 5)) for row in range(rows)] if parameters["penalty"] != 1 else None
    narrowed = any(each.narrows for each in draws)
    ids, logprobs = drawn(logits, draws, allow, seen, narrowed=narrowed)
    theirs = [as_the_engine(each, [] if seen is None else seen[each.row]) for each in draws]
    assert ids == sample(logits, theirs, allow).tolist()
    expected = torch.log_softmax(logits, dim=-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
    torch.testing.assert_close(logprobs, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", pairwise(CASES)[:12], ids=named)
def test_the_token_is_the_engines(case: dict[str, Any]) -> None:
    check(**case)


@pytest.mark.slow
@pytest.mark.parametrize("case", pairwise(CASES), ids=named)
@pytest.mark.parametrize("seed", range(4))
def test_the_token_is_the_engines_more(case: dict[str, Any], seed: int) -> None:
    check(**case, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_the_token_is_the_engines_whatever_is_asked(seed: int) -> None:
    any_of = random.Random(seed)
    check(
        rows=any_of.randrange(1, 6),
        size=any_of.randrange(1, 3000),
        temperature=any_of.choice((0.0, any_of.uniform(0.05, 3))),
        top_p=any_of.choice((1.0, any_of.random())),
        top_k=any_of.choice((0, any_of.randrange(1, 100))),
        min_p=any_of.choice((0.0, any_of.random() / 2)),
        penalty=any_of.choice((1.0, any_of.uniform(0.5, 2))),
        masked=any_of.random() < 0.5,
        tied=any_of.random() < 0.5,
        seed=seed,
    )


def test_the_noise_is_the_engines_bit_by_bit() -> None:
    """With one token allowed at a time there is nothing to compare; so the order of all of them is looked at."""
    size, each = 300, HostDraw(0, position=5, temperature=1.0, seed=2**63 + 12345, candidate=3)
    noise = gumbel([Stream(each.seed, 3, 5)], size, torch.device("cpu")).float()[0].to(DEVICE)
    order = []
    allow = torch.ones(1, size, dtype=torch.bool)
    for _ in range(12):
        (token,), _ = drawn(torch.zeros(1, size), [each], allow, narrowed=False)
        order.append(token)
        allow[0, token] = False
    assert order == noise.argsort(descending=True)[:12].tolist()


def test_several_draws_from_one_row_differ_by_their_candidate_alone() -> None:
    logits = torch.randn(2, 400)
    draws = [HostDraw(1, 9, 1.0, seed=4, candidate=number) for number in range(6)]
    ids, _ = drawn(logits, draws, narrowed=False)
    assert len(set(ids)) > 1
    alone = [drawn(logits[1:], [each._replace(row=0)], narrowed=False)[0][0] for each in draws]
    assert ids == alone


def test_company_changes_no_draw() -> None:
    logits = torch.randn(3, 500)
    greedy, hot, narrow = HostDraw(0, 4), HostDraw(1, 4, 1.1, seed=8), HostDraw(2, 7, 0.9, top_p=0.8, top_k=40, seed=8)
    together, _ = drawn(logits, [greedy, hot, narrow])
    apart = [
        drawn(logits[each.row][None], [each._replace(row=0)], narrowed=each.narrows)[0][0]
        for each in (greedy, hot, narrow)
    ]
    assert together == apart
    assert together[0] == int(logits[0].argmax())


@pytest.mark.slow
def test_the_frequencies_are_the_distributions() -> None:
    """900 positions of one seed; a bar of about four standard deviations."""
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0, -torch.inf, 0.5]])
    sampling = Sampling(0.8, min_p=0.1, seed=21)
    expected = torch.softmax(filtered(logits, [Draw(sampling, 0)], None)[0], dim=-1)
    draws = [HostDraw(0, position, 0.8, min_p=0.1, seed=21) for position in range(900)]
    ids, _ = drawn(logits, draws, narrowed=False)
    found = torch.bincount(torch.tensor(ids), minlength=6) / 900
    assert found[4] == found[3] == 0
    assert float((found - expected).abs().max()) < 0.065


def test_ties_at_the_edge_of_top_p_go_by_id() -> None:
    logits = torch.zeros(1, 2000)
    ids, _ = drawn(logits, [HostDraw(0, position, 1.0, top_p=0.005, seed=3) for position in range(8)])
    assert max(ids) < 10 and len(set(ids)) > 2


def test_nothing_allowed_and_nan_yield_an_id_in_range() -> None:
    none = torch.zeros(1, 50, dtype=torch.bool)
    for narrowed in (False, True):
        (token,), _ = drawn(torch.randn(1, 50), [HostDraw(0, 1, 1.0)], none, narrowed=narrowed)
        assert 0 <= token < 50
        (token,), logprobs = drawn(torch.full((1, 50), torch.nan), [HostDraw(0, 1, 1.0)], narrowed=narrowed)
        assert 0 <= token < 50
        assert logprobs.isnan().all()


def test_after_the_vocabulary_product() -> None:
    """Both ends of it: the head's own logits, peaks and normalisers."""
    x, norm, vocabulary = torch.randn(3, 64), random_norm(64, F32), torch.randn(200, 64)
    allow = torch.rand(3, 200) < 0.5
    allow[:, 7] = True
    draws = [HostDraw(0, 3), HostDraw(1, 3, 1.0, seed=6), HostDraw(2, 9, 0.7, top_p=0.9, min_p=0.01, seed=7)]
    with guarded():
        workspace = Workspace.on(x.device)
        choice = head(x, norm, vocabulary, allow, workspace, Target(86, 2), dtype=F32, logits=True)
        ids, logprobs = draw(choice, draw_table(draws).to(DEVICE), workspace, allow=allow)
    assert choice.logits is not None
    theirs = [as_the_engine(each, []) for each in draws]
    assert ids.tolist() == sample(choice.logits, theirs, allow).tolist()
    assert int(ids[0]) == int(choice.ids[0])
    torch.testing.assert_close(choice.peaks, choice.logits.masked_fill(~allow, -torch.inf).amax(dim=1), rtol=0, atol=0)
    chosen = choice.logits.gather(1, ids[:, None])[:, 0]
    torch.testing.assert_close(logprobs, chosen - choice.normalisers, rtol=0, atol=0)


def following(spans: list[Span], reach: int, stops: list[int] | None) -> Following:
    table = SpanTable.reserve(len(spans), len(spans), 1, reach, DEVICE)
    table.fill(spans)
    tokens = torch.full((len(spans),), -5, dtype=torch.int32)
    return Following(tokens, table, None if stops is None else torch.tensor(stops, dtype=torch.int32))


@pytest.mark.parametrize("drawing", [False, True])
@pytest.mark.parametrize("stops", [None, [9], [9, 8, 8, 8]])
def test_tokens_positions_and_lengths_advance_on_the_device(stops: list[int] | None, drawing: bool) -> None:
    """A row that meets a stop, one that reaches the end of the table, one that was over already, one that goes on."""
    spans = [Span(2, 4, 1), Span(0, 98, 1), Span(1, 7, 0), Span(3, 0, 1)]
    state = following([*spans[:2], spans[3]], 100, stops)
    wanted = [9, 5, 6]
    ids = torch.tensor(wanted)
    seen = None
    if drawing:
        logits = torch.full((3, 40), -9.0)
        logits[torch.arange(3), ids] = 30.0
        draws = [HostDraw(row, 50 + row, 0.5, penalty=1.1, seed=1) for row in range(3)]
        table, seen = draw_table(draws).to(DEVICE), torch.zeros(3, 40, dtype=torch.bool)
        workspace = Workspace.on(logits.device)
        found, _ = draw(choice_of(logits, None), table, workspace, seen=seen, following=state)
        assert found.tolist() == wanted
        assert table[4].tolist() == [51, 52, 53]
        assert seen.nonzero().tolist() == [[row, token] for row, token in enumerate(wanted)]
    else:
        advance(ids, state)
    stopped = stops is not None
    assert state.tokens.tolist() == wanted
    assert state.spans.spans[1].tolist() == state.spans.rows[1].tolist() == [5, 99, 1]
    assert state.spans.spans[2].tolist() == [0 if stopped else 1, 1, 1]
    advance(torch.tensor([1, 2, 3]), state)
    assert state.spans.spans[2].tolist() == [0 if stopped else 1, 0, 1], "the table's reach ends the second row"
    assert state.spans.rows[0].tolist() == [-1 if stopped else 2, -1, 3]
    advance(torch.tensor([7, 7, 7]), state)
    assert state.tokens.tolist() == [9 if stopped else 7, 2, 7], "a row that is over keeps its last token"
    assert state.spans.spans[1].tolist() == [5 if stopped else 7, 100, 3]


def test_a_draw_takes_one_launch_and_a_narrowed_one_two() -> None:
    logits = torch.randn(1, 90)
    for parameters, names in (
        ({"temperature": 1.0, "min_p": 0.1}, ["draw_kernel"]),
        ({"top_k": 3}, ["narrow_kernel", "draw_kernel"]),
        ({"top_p": 0.5}, ["narrow_kernel", "draw_kernel"]),
    ):
        each = HostDraw(0, 1, **parameters)
        with recorded() as launches:
            drawn(logits, [each], narrowed=each.narrows)
        assert [launch.name for launch in launches] == names


def test_refusals() -> None:
    workspace, table = Workspace.on(torch.device(DEVICE)), draw_table([HostDraw(0, 1)]).to(DEVICE)
    choice = choice_of(torch.zeros(2, 30), None)
    with pytest.raises(ValueError, match="not asked for logits"):
        draw(choice._replace(logits=None), table, workspace)
    with pytest.raises(ValueError, match="table"):
        draw(choice, table.long(), workspace)
    with pytest.raises(ValueError, match="allow"):
        draw(choice, table, workspace, allow=torch.ones(1, 30, dtype=torch.bool))
    with pytest.raises(ValueError, match="seen"):
        draw(choice, table, workspace, seen=torch.ones(2, 30, dtype=torch.bool))
    with pytest.raises(ValueError, match="moves the peak"):
        draw(choice, table, workspace, seen=torch.ones(1, 30, dtype=torch.bool), narrowed=False)
    with pytest.raises(ValueError, match="do not go on"):
        advance(torch.zeros(3, dtype=torch.int64), following([Span(0, 0, 1)], 9, None))
    with pytest.raises(ValueError, match="power of 2"):
        advance(torch.zeros(1, dtype=torch.int64), following([Span(0, 0, 1)], 9, [1, 2, 3]))
    assert math.isinf(float(draw_table([HostDraw(0, 1)])[6].view(torch.float32)))

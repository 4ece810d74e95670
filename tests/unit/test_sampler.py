"""Logits to tokens: the filters in their order against a float64 oracle, the noise, and the distribution that comes out."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from engine import sampler
from engine.noise import Stream, gumbel, philox
from engine.sampler import Draw, filtered, sample
from engine.sampling import Sampling

CPU = torch.device("cpu")


def oracle(
    logits: Sequence[float], sampling: Sampling, seen: Sequence[int], allowed: Sequence[int] | None
) -> list[float]:
    """Probabilities, written down from the definitions: one row, float64, one filter after the other."""
    scores = [float(each) for each in logits]
    for token in seen:
        scores[token] = (
            scores[token] / sampling.repetition_penalty
            if scores[token] > 0
            else scores[token] * sampling.repetition_penalty
        )
    alive = set(range(len(scores)) if allowed is None else allowed)

    def softmax() -> dict[int, float]:
        top = max(scores[n] / sampling.temperature for n in alive)
        weights = {n: math.exp(scores[n] / sampling.temperature - top) for n in alive}
        total = sum(weights.values())
        return {n: weight / total for n, weight in weights.items()}

    mass = softmax()
    floor = sampling.min_p * max(mass.values())
    alive = {n for n in alive if mass[n] >= floor}
    if sampling.top_k:
        last = sorted((scores[n] for n in alive), reverse=True)[: sampling.top_k][-1]
        alive = {n for n in alive if scores[n] >= last}
    if sampling.top_p < 1:
        mass, before, kept = softmax(), 0.0, set()
        for n in sorted(alive, key=lambda n: (-scores[n], n)):
            if before < sampling.top_p:
                kept.add(n)
            before += mass[n]
        alive = kept
    mass = softmax()
    return [mass.get(n, 0.0) for n in range(len(scores))]


def probabilities(logits: Tensor, draws: Sequence[Draw], allow: Tensor | None = None) -> Tensor:
    return torch.softmax(filtered(logits, draws, allow).double(), dim=-1)


PARAMETERS = [
    Sampling(),
    Sampling(temperature=0.3),
    Sampling(temperature=2.0),
    Sampling(top_k=1),
    Sampling(top_k=7, temperature=0.8),
    Sampling(top_k=1_000),
    Sampling(top_p=0.5),
    Sampling(top_p=1e-9),
    Sampling(top_p=0.999, temperature=1.5),
    Sampling(min_p=0.1),
    Sampling(min_p=1.0),
    Sampling(repetition_penalty=1.7),
    Sampling(repetition_penalty=0.6, temperature=0.9),
    Sampling(temperature=0.7, top_p=0.9, top_k=20, min_p=0.02, repetition_penalty=1.2),
]


@pytest.mark.parametrize("masked", [False, True])
def test_filters_are_those_of_the_definition_whatever_else_is_in_the_batch(masked: bool) -> None:
    rng = torch.Generator().manual_seed(3)
    for _ in range(20):
        logits = torch.randn(len(PARAMETERS), 60, generator=rng) * 3
        chance = random.Random(int(logits[0, 0] * 1e6))
        draws = [Draw(each, 5, sorted(chance.sample(range(60), 12)) if each.penalises else ()) for each in PARAMETERS]
        allow = torch.rand(len(PARAMETERS), 60, generator=rng) < 0.4 if masked else None
        if allow is not None:
            allow[:, 11] = True
        found = probabilities(logits, draws, allow)
        for row, draw in enumerate(draws):
            allowed = None if allow is None else allow[row].nonzero()[:, 0].tolist()
            expected = oracle(logits[row].tolist(), draw.sampling, draw.seen, allowed)
            assert (found[row] > 0).tolist() == [each > 0 for each in expected], draw.sampling
            torch.testing.assert_close(found[row], torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=1e-7)
            alone = probabilities(logits[row : row + 1], [draw], None if allow is None else allow[row : row + 1])
            assert torch.equal(alone[0], found[row])


def test_a_large_vocabulary_is_filtered_by_its_likeliest_tokens_or_in_full_with_one_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Peaked and flat rows, rows with ties across the edge of what is looked at first, alone and together."""
    rng = torch.Generator().manual_seed(5)
    rows = [torch.randn(3_000, generator=rng) * spread for spread in (6.0, 1.0, 0.01)]
    rows += [
        torch.zeros(3_000),
        torch.randn(3_000, generator=rng).round(),
        (torch.randn(3_000, generator=rng) * 4).round(),
    ]
    logits = torch.stack(rows)
    for sampling in (
        Sampling(top_p=0.95),
        Sampling(top_p=0.3),
        Sampling(top_k=50),
        Sampling(top_k=1_024, top_p=0.9),
        Sampling(top_k=1_025, top_p=0.9),
        Sampling(0.5, top_p=0.8, top_k=40, min_p=0.001),
    ):
        draws = [Draw(sampling, 5)] * len(rows)
        found = filtered(logits, draws, None)
        alone = torch.cat([filtered(row[None], [Draw(sampling, 5)], None) for row in logits])
        assert torch.equal(found, alone)
        with monkeypatch.context() as whole:
            whole.setattr(sampler, "_FEW", 10**9)
            assert torch.equal(found, filtered(logits, draws, None))
        for row in range(len(rows)):
            expected = oracle(logits[row].tolist(), sampling, (), None)
            # A token whose place is decided by the last bits of a sum of thousands may fall on either side.
            apart = (found[row] > -math.inf) != (torch.tensor(expected) > 0)
            assert int(apart.sum()) <= 2, (sampling, row)


def test_equally_likely_tokens_are_kept_together_by_top_k_and_by_their_ids_by_top_p() -> None:
    logits = torch.tensor([[2.0, 1.0, 2.0, 1.0, 2.0, 0.0]])
    assert (probabilities(logits, [Draw(Sampling(top_k=2), 0)])[0] > 0).nonzero()[:, 0].tolist() == [0, 2, 4]
    assert (probabilities(logits, [Draw(Sampling(top_p=0.4), 0)])[0] > 0).nonzero()[:, 0].tolist() == [0, 2]


def test_logits_are_left_as_they_are() -> None:
    logits = torch.randn(2, 30)
    before = logits.clone()
    sample(logits, [Draw(PARAMETERS[-1], 3, (1, 2)), Draw(Sampling(), 4)], torch.rand(2, 30) < 0.9)
    assert torch.equal(logits, before)


def test_no_temperature_is_the_arg_max_after_the_penalty_and_chance_has_no_part() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.9, -1.0]])
    for temperature in (0.0, 1e-6):
        for seed in range(20):
            assert sample(logits, [Draw(Sampling(temperature, seed=seed), 1)], None).tolist() == [1]
            penalised = Sampling(temperature, repetition_penalty=1.1, seed=seed)
            assert sample(logits, [Draw(penalised, 1, (1,))], None).tolist() == [2]


def test_rows_with_and_without_chance_share_a_batch() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    draws = [Draw(Sampling(seed=4), 9), Draw(Sampling(0.0, repetition_penalty=1.0001), 9), Draw(Sampling(seed=4), 9)]
    ids = sample(logits, draws, None)
    assert int(ids[1]) == int(logits[1].argmax())
    assert int(ids[0]) == int(sample(logits[:1], draws[:1], None))
    assert int(ids[2]) == int(sample(logits[2:], draws[2:], None))


def test_sampled_frequencies_are_the_probabilities() -> None:
    """Pearson's chi-square; 99.9 % of right samplers pass, and a fixed seed makes it the same every time."""
    logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(8)) * 2
    for sampling in (
        Sampling(seed=77),
        Sampling(0.7, top_p=0.9, seed=78),
        Sampling(1.6, top_k=12, min_p=0.01, seed=79),
    ):
        rounds = 10_000
        counts = np.zeros(40)
        for first in range(0, rounds, 2_000):
            draws = [Draw(sampling, position) for position in range(first, first + 2_000)]
            counts += np.bincount(sample(logits.expand(2_000, 40), draws, None).numpy(), minlength=40)
        expected = probabilities(logits, [Draw(sampling, 0)])[0].numpy() * rounds
        assert counts[expected == 0].sum() == 0
        many = expected >= 5
        rest = expected[~many].sum()
        statistic = (((counts - expected) ** 2)[many] / expected[many]).sum()
        if rest >= 5:
            statistic += (counts[~many].sum() - rest) ** 2 / rest
        freedom = int(many.sum()) - (rest < 5)
        assert statistic < freedom + 3.1 * math.sqrt(2 * freedom) + 5, (sampling, statistic, freedom)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_its_authors_answers(
    counter: tuple[int, ...], key: tuple[int, ...], words: tuple[int, ...]
) -> None:
    """The known answers published with Random123."""
    found = philox([torch.tensor([each]) for each in counter], [torch.tensor([each]) for each in key])
    assert tuple(int(word) for word in found) == words


def test_noise_depends_on_seed_candidate_position_and_token_and_on_nothing_else() -> None:
    stream = Stream(2**63 + 5, 1, 700)
    whole = gumbel([Stream(1, 0, 0), stream, Stream(1, 0, 1)], 101, CPU)
    assert torch.equal(gumbel([stream], 101, CPU)[0], whole[1])
    assert torch.equal(gumbel([stream], 37, CPU)[0], whole[1, :37])
    others = [Stream(2**63 + 6, 1, 700), Stream(5, 1, 700), Stream(2**63 + 5, 2, 700), Stream(2**63 + 5, 1, 701)]
    for other in gumbel(others, 101, CPU):
        assert not torch.isin(other, whole[1]).any()
    assert torch.isfinite(gumbel([stream], 200_000, CPU)).all()


def test_noise_is_gumbels() -> None:
    """Kolmogorov and Smirnov's distance from exp(-exp(-x))."""
    noise = gumbel([Stream(123, 0, position) for position in range(50)], 2_000, CPU).flatten().sort().values
    exact = torch.exp(-torch.exp(-noise))
    steps = torch.arange(1, len(noise) + 1, dtype=torch.float64) / len(noise)
    assert float((exact - steps).abs().max()) < 1.95 / math.sqrt(len(noise))

"""How long an automatic request waits: by the author's rhythm and the engine's speed."""

from __future__ import annotations

import random

import pytest

from lsp_server.state.debounce import MAX_DELAY, Debounce


def _author(gaps: list[float], cost: float | None) -> tuple[Debounce, float]:
    """-> the debounce after a series of keys, and the time of the last one."""
    debounce, now = Debounce(), 0.0
    debounce.key(now)
    for gap in gaps:
        now += gap
        debounce.key(now)
    if cost is not None:
        debounce.took(cost)
    return debounce, now


BURSTS = ([0.1] * 7 + [1.2]) * 4


def test_a_burst_is_waited_out_when_a_completion_is_dear() -> None:
    debounce, now = _author(BURSTS, 0.4)
    assert 0.1 <= debounce.delay(now) <= 0.15


def test_nothing_is_waited_for_when_a_completion_costs_next_to_nothing() -> None:
    debounce, now = _author(BURSTS, 0.004)
    assert debounce.delay(now) == 0


def test_nothing_is_waited_for_when_each_key_is_a_pause_anyway() -> None:
    debounce, now = _author([0.9] * 32, 0.4)
    assert debounce.delay(now) == 0


def test_what_passed_since_the_key_counts() -> None:
    debounce, now = _author(BURSTS, 0.4)
    whole = debounce.delay(now)
    assert debounce.delay(now + 0.05) == pytest.approx(whole - 0.05)
    assert debounce.delay(now + 0.2) == 0  # some editors have waited so long already


def test_before_anything_is_known_it_waits_a_little() -> None:
    assert 0 < Debounce().delay(0.0) < 0.1


def test_it_follows_a_rhythm_that_changes() -> None:
    debounce, now = _author([0.05] * 32, 0.4)
    fast = debounce.delay(now)
    for _ in range(8):
        for gap in [0.15] * 7 + [1.5]:
            now += gap
            debounce.key(now)
    assert debounce.delay(now) > fast


@pytest.mark.parametrize("seed", range(50))
def test_it_is_never_negative_and_never_longer_than_the_bound(seed: int) -> None:
    rng = random.Random(seed)
    gaps = [rng.expovariate(1 / rng.choice((0.05, 0.2, 1.0))) for _ in range(rng.randrange(60))]
    debounce, now = _author(gaps, rng.choice((None, rng.expovariate(2.0))))
    for _ in range(10):
        now += rng.uniform(-0.01, 0.1)
        assert 0 <= debounce.delay(now) <= MAX_DELAY

"""Every order in which things can happen to a request: one reply, never stale, nothing left behind."""

from __future__ import annotations

import pytest

from lsp_server.state.life import Life
from lsp_server.state.policy import Policy
from tests.unit.life_world import World, explore

EDITS = ("edit that agrees", "edit that does not")


@pytest.mark.parametrize(
    ("script", "states"),
    [
        (("ask", *EDITS, "cancel", "death"), 1_500),
        (("ask by hand", *EDITS, "cancel", "death"), 600),
        (("ask", "ask again", "edit that agrees"), 1_500),
    ],
    ids=["typed", "by hand", "asked again"],
)
def test_one_reply_and_never_a_stale_one_in_every_order(script: tuple[str, ...], states: int) -> None:
    seen, ends = explore(World.of(*script))
    assert seen > states
    assert ends > 10


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_requests_two_edits_a_cancel_and_a_death_in_every_order() -> None:
    seen, ends = explore(World.of("ask", "ask again", *EDITS, "cancel", "death"))
    assert seen > 50_000
    assert ends > 1_500


def test_without_debounce_and_background_too() -> None:
    seen, _ = explore(World.of("ask", "ask again", *EDITS, "cancel", policy=Policy(debounce=False, speculate=False)))
    assert seen > 500


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        ("_dismiss", "another version|stale|did not|never"),
        ("_replied", "."),
    ],
)
def test_a_machine_that_forgets_a_step_is_found_out(monkeypatch: pytest.MonkeyPatch, broken: str, found: str) -> None:
    """The exploration can fail: it sees what happens when a step is left out."""
    monkeypatch.setattr(Life, broken, lambda *_: None)
    with pytest.raises((AssertionError, ValueError), match=found):
        explore(World.of("ask", "ask again", *EDITS))

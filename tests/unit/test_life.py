"""The life of requests on a virtual clock: when the engine is asked what, and how often."""

from __future__ import annotations

import pytest

from engine.errors import EngineLoading
from lsp_server.features.menu import PATIENCE
from lsp_server.reasons import Reason
from lsp_server.state.call import Purpose
from lsp_server.state.outcome import Outcome
from lsp_server.state.policy import Policy
from lsp_server.state.speculation import READ_FOR, SHOWN_FOR
from tests.unit.life_clock import Clocked

TRUTH = """def area(shape):
    width, height = shape.width, shape.height
    return width * height


def volume(shape):
    return area(shape) * shape.depth
"""


def _typed_by(author: Clocked, start: int, end: int, gap: float) -> int:
    """The author types `TRUTH` from one place to another, and the editor asks at each key -> how many keys."""
    for at in range(start, end):
        author.type(TRUTH[at])
        author.ask(TRUTH[: at + 1])
        author.run(gap)
    return end - start


@pytest.mark.parametrize("gap", [0.06, 0.12, 0.25, 0.6])
def test_who_types_what_is_suggested_asks_the_model_at_less_than_half_of_the_keys(gap: float) -> None:
    author = Clocked(TRUTH)
    author.ask(TRUTH[:10])
    author.run(1.0)
    before = len(author.made(Purpose.COMPLETE)) - author.life.counts.attached
    keys = _typed_by(author, 10, 120, gap)
    author.run(2.0)
    asked = author.life.counts.completed - before
    assert asked < keys / 2, asked
    if gap > 0.1:  # who types faster, and never stops, is not interrupted
        assert author.life.counts.reused + author.life.counts.attached > keys / 2
    last = author.outcome(max(author.answers))
    assert last is not None
    assert TRUTH[120:].startswith(last.items[0].text)


def test_a_key_that_agrees_takes_the_running_stream_over() -> None:
    author = Clocked(TRUTH, policy=Policy(debounce=False, speculate=False))
    first = author.ask(TRUTH[:25])
    author.run(0.1)  # three tokens are there
    author.type(TRUTH[25])
    assert author.outcome(first) == Outcome(reason=Reason.OUTDATED, total=0.1)
    second = author.ask(TRUTH[:26])
    author.run(1.0)
    assert len(author.made(Purpose.COMPLETE)) == 1
    assert author.life.counts.attached == 1
    outcome = author.outcome(second)
    assert outcome is not None
    assert TRUTH[26:].startswith(outcome.items[0].text)


@pytest.mark.parametrize("how", ["another letter", "elsewhere", "too much taken away"])
def test_a_stream_that_does_not_agree_any_more_is_closed_at_once(how: str) -> None:
    author = Clocked(TRUTH, policy=Policy(debounce=False))
    author.ask(TRUTH[:25])
    author.run(0.1)
    assert not author.closed
    if how == "another letter":
        author.type("?")
    elif how == "elsewhere":
        author.edit_elsewhere()
    else:
        author.type("", deleted=1)
    assert len(author.closed) == 1


def test_typing_and_deleting_again_leaves_the_stream_alone() -> None:
    author = Clocked(TRUTH, policy=Policy(debounce=False, speculate=False))
    author.ask(TRUTH[:25])
    author.run(0.1)
    author.type(TRUTH[25:27])
    author.type("", deleted=2)
    again = author.ask(TRUTH[:25])
    author.run(1.0)
    assert len(author.made(Purpose.COMPLETE)) == 1
    assert author.answers[again][1].items


def test_an_automatic_request_computes_its_prompt_while_it_waits_and_decodes_after() -> None:
    author = Clocked(TRUTH)
    author.type("d")
    author.ask(TRUTH[:25])
    author.run(0.0)
    assert [call.purpose for _, call in author.calls] == [Purpose.PRIME]
    author.run(0.5)
    assert [call.purpose for _, call in author.calls[:2]] == [Purpose.PRIME, Purpose.COMPLETE]
    assert 0 < author.calls[1][0] <= 0.25
    assert author.calls[0][1].window == author.calls[1][1].window


def test_an_invoked_request_waits_for_nothing() -> None:
    author = Clocked(TRUTH)
    author.type("d")
    author.ask(TRUTH[:25], invoked=True)
    author.run(0.0)
    assert [(at, call.purpose) for at, call in author.calls] == [(0.0, Purpose.COMPLETE)]


def test_keys_that_come_before_the_delay_is_over_decode_nothing_and_prime_once() -> None:
    author = Clocked(TRUTH, policy=Policy(speculate=False))
    for at in range(25, 35):
        author.type("?" if at % 2 else "!")  # nothing that could be reused
        author.ask(TRUTH[:25] + "?!" * (at - 24))
        author.run(0.03)
    assert not author.made(Purpose.COMPLETE)
    assert len(author.made(Purpose.PRIME)) == 1  # what is added at each key is not worth a pass of its own
    author.run(1.0)
    assert len(author.made(Purpose.COMPLETE)) == 1


def test_where_the_engine_cannot_prime_it_is_not_asked_to() -> None:
    author = Clocked(TRUTH, policy=Policy(prime=False))
    author.type("d")
    author.ask(TRUTH[:25])
    author.run(3.0)
    assert [call.purpose for _, call in author.calls] == [Purpose.COMPLETE]  # and for nothing ahead of time


# -- the background ---------------------------------------------------------------------------------------------------


def _shown(author: Clocked, place: int = 25) -> str:
    number = author.ask(TRUTH[:place], invoked=True)
    while author.outcome(number) is None:
        author.run(0.01)
    return author.answers[number][1].items[0].text


BLOCK = TRUTH.index("width")
"""Where a block begins, of which several lines are shown."""


def test_while_several_lines_are_shown_their_acceptance_is_prepared_and_then_what_follows() -> None:
    author = Clocked(TRUTH)
    text = _shown(author, BLOCK)
    assert text.count("\n") == 1
    shown_at = author.now
    author.run(2.0)
    ((primed_at, primed),) = author.made(Purpose.PRIME)
    assert primed.window.prefix == TRUTH[:BLOCK] + text
    assert primed_at >= shown_at - 0.01 + SHOWN_FOR
    (_, _), (followed_at, followed) = author.made(Purpose.COMPLETE)
    assert followed.window == primed.window
    assert followed_at >= primed_at + READ_FOR
    author.run(5.0)
    assert len(author.calls) == 3  # no more than that, however long nothing happens


def test_accepting_twice_finds_the_second_text_there() -> None:
    author = Clocked(TRUTH)
    text = _shown(author)
    author.run(5.0)
    assert not author.made(Purpose.PRIME)  # one line more leaves next to nothing to compute
    assert len(author.made(Purpose.COMPLETE)) == 2
    author.type(text)
    author.run(0.0)
    second = author.ask(TRUTH[:25] + text)
    assert author.answers[second][1].reused
    author.type("\n    ")
    author.run(0.0)
    third = author.ask(TRUTH[:25] + text + "\n    ")
    assert author.answers[third][1].reused
    assert author.answers[third][1].items[0].text.startswith("return")


def test_accepting_before_what_follows_is_there_takes_it_over() -> None:
    author = Clocked(TRUTH, token=0.2)
    text = _shown(author)
    author.run(SHOWN_FOR + READ_FOR + 0.2)
    assert len(author.made(Purpose.COMPLETE)) == 2
    author.run(0.8)
    author.type(text + "\n    ")
    number = author.ask(TRUTH[:25] + text + "\n    ")
    author.run(10.0)
    assert author.answers[number][1].items
    assert author.life.counts.attached == 1
    assert author.life.counts.completed == 1


def test_any_request_for_the_engine_ends_what_goes_on_in_the_background() -> None:
    author = Clocked(TRUTH, token=0.5)
    _shown(author)
    author.run(SHOWN_FOR + READ_FOR + 0.2)
    assert author.life.ahead.completed == 1
    author.ask("x = ", document="b", invoked=True)
    author.run(0.0)
    assert len(author.closed) == 2  # the one that was shown, when there was enough of it, and the one behind
    assert author.calls[-1][1].document == "b"


def test_typing_on_means_that_nothing_is_idle() -> None:
    author = Clocked(TRUTH)
    _shown(author)
    author.type("?")
    author.run(3.0)
    assert len(author.calls) == 1


def test_it_can_be_switched_off() -> None:
    author = Clocked(TRUTH, policy=Policy(speculate=False))
    _shown(author)
    author.run(3.0)
    author.paste(TRUTH[:100])
    author.run(3.0)
    assert len(author.calls) == 1


def test_a_large_paste_where_the_author_writes_is_computed_at_once_and_one_at_a_time() -> None:
    author = Clocked(TRUTH, prefill=1.0, policy=Policy())
    _shown(author, 3)
    for length in (80, 140):
        author.edit_elsewhere()
        author.paste(TRUTH[:length])
    author.run(0.0)
    primes = author.made(Purpose.PRIME)
    assert [len(call.window.prefix) for _, call in primes] == [80, 140]
    assert len(author.closed) == 2  # the first of them, and the completion before


def test_small_edits_and_those_of_other_documents_prime_nothing() -> None:
    author = Clocked(TRUTH, policy=Policy())
    _shown(author, 25)
    author.type("?")
    author.paste(TRUTH[:26])
    for number in range(50):  # a rename over fifty files
        author.edit_elsewhere(f"file {number}")
        author.paste(TRUTH, f"file {number}")
    author.run(0.0)
    assert not author.made(Purpose.PRIME)


# -- candidates, patience, errors -------------------------------------------------------------------------------------


def test_alternatives_are_sampled_by_one_more_call_and_told_apart() -> None:
    author = Clocked(TRUTH)
    number = author.ask(TRUTH[:25], invoked=True, candidates=4)
    author.run(5.0)
    outcome = author.answers[number][1]
    ((_, sampled),) = author.made(Purpose.SAMPLE)
    assert sampled.candidates == 3
    texts = [item.text for item in outcome.items]
    assert len(texts) == len(set(texts)) == 3  # one of the samples says what the first one says
    assert TRUTH[25:].startswith(texts[0])
    assert [item.logprob for item in outcome.items[1:]] == sorted(
        (item.logprob for item in outcome.items[1:]), key=lambda value: -(value or 0)
    )


def test_asking_again_by_hand_where_something_is_shown_keeps_it_first() -> None:
    author = Clocked(TRUTH)
    text = _shown(author)
    number = author.ask(TRUTH[:25], invoked=True, candidates=3)
    author.run(5.0)
    assert author.answers[number][1].items[0].text == text
    assert len(author.answers[number][1].items) == 2
    assert len(author.made(Purpose.SAMPLE)) == 1
    assert author.life.counts.completed == 1


def test_a_menu_waits_no_longer_than_its_patience_and_finds_the_rest_at_the_next_key() -> None:
    author = Clocked(TRUTH, token=0.3)
    number = author.ask(TRUTH[:25], patience=PATIENCE)
    author.run(PATIENCE)
    at, outcome = author.answers[number]
    assert (at, outcome.items, outcome.reason) == (PATIENCE, (), Reason.PENDING)
    author.run(1.0)
    author.type(TRUTH[25])
    again = author.ask(TRUTH[:26], patience=PATIENCE)
    author.run(10.0)
    assert author.answers[again][0] <= 1.1 + PATIENCE + 1e-9
    assert len(author.made(Purpose.COMPLETE)) == 1
    author.type(TRUTH[26])
    third = author.ask(TRUTH[:27], patience=PATIENCE)
    assert author.answers[third][1].items  # at once


def test_an_answer_that_is_there_already_does_not_wait_for_patience() -> None:
    author = Clocked(TRUTH)
    _shown(author)
    number = author.ask(TRUTH[:25], patience=PATIENCE)
    author.run(0.0)
    assert author.answers[number][1].items
    author.run(PATIENCE * 2)
    assert author.answers[number][1].items


def test_while_the_engine_loads_an_automatic_request_is_answered_empty() -> None:
    author = Clocked(TRUTH, error=EngineLoading("the engine is loading its model"))
    number = author.ask(TRUTH[:25])
    author.run(0.0)
    assert author.answers[number][1].reason is Reason.LOADING
    assert not author.calls

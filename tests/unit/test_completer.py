"""One request's life: what is asked of the engine, what comes back, who is superseded, what a cancel stops."""

from __future__ import annotations

import asyncio

import pytest

from engine.client import Chunk
from engine.errors import EngineAbsent, EngineFault, EngineLoading, EngineUnavailable, Overloaded, RequestError
from lsp_server.completer import Completer
from lsp_server.reasons import Reason
from lsp_server.state.ask import Surroundings
from lsp_server.state.outcome import Item, Outcome
from lsp_server.state.policy import Policy
from lsp_server.window import Window
from tests.harness.aio import async_test
from tests.unit.scripted_engine import WINDOW, Caller, ScriptedEngine, turns

HEAD = {"layout": "anchored", "cached": 30, "computed": 4}
FIRST = Chunk(text="1 +", logprobs=(-0.5,), extension=HEAD)
LAST = Chunk(text=" 2", logprobs=(-1.5,), finish_reason="length", usage={"prompt_tokens": 34})


@async_test()
async def test_a_completion_says_what_it_shows_and_what_it_cost() -> None:
    engine = ScriptedEngine(Chunk(extension=HEAD), FIRST, LAST)
    outcome = await Completer(engine, 48, engine.clock).complete("a.py", WINDOW, invoked=False)
    assert outcome.items == (Item("1 + 2", -1.0),)
    assert outcome.reason is None
    assert (outcome.layout, outcome.cached, outcome.computed, outcome.generated) == ("anchored", 30, 4, 2)
    assert (outcome.finish_reason, outcome.usage) == ("length", {"prompt_tokens": 34})
    assert (outcome.first, outcome.total) == (2.0, 3.0)
    (request,) = engine.requests
    assert (request.prompt, request.suffix, request.max_tokens, request.temperature) == ("x = ", "\n", 48, 0)
    assert (request.n, request.logprobs, request.starfill.raw) == (None, 0, False)
    assert "a.py" not in str(request.starfill.document)


@async_test()
async def test_the_stream_is_left_as_soon_as_there_is_enough() -> None:
    engine = ScriptedEngine(FIRST, Chunk(text=" 2\ny", logprobs=(-0.5, -0.5)), Chunk(text=" = 3"), LAST, held=True)
    outcome = await Caller(engine).request()
    assert outcome.items[0].text == "1 + 2"
    assert outcome.finish_reason == "stop"
    assert outcome.usage == {
        "prompt_tokens": 34,
        "completion_tokens": 3,
        "total_tokens": 37,
        "prompt_tokens_details": {"cached_tokens": 30},
    }
    await turns(4)
    assert engine.events == ["start 1", "open 1", "chunk 1", "chunk 2", "return 1", "close 1"]


@async_test()
async def test_text_is_shown_while_it_streams_without_what_stands_there_already() -> None:
    engine, shown = ScriptedEngine(*(Chunk(text=text) for text in ("  ", "a", ", ", "b", ")", "\n"))), list[str]()
    outcome = await Completer(engine, 64, engine.clock).complete(
        "a", Window("f(", ")\n"), invoked=True, on_text=shown.append
    )
    assert shown == ["  a", "  a, ", "  a, b"]
    assert outcome.items[0].text == "  a, b"


@pytest.mark.parametrize(
    ("logprob", "bound", "invoked", "shown"),
    [(-4.0, 2, False, False), (-3.8, 2, False, True), (-4.0, 2, True, True), (-9.0, 0, False, True)],
)
@async_test()
async def test_what_the_model_is_unsure_of_is_shown_only_by_hand(
    logprob: float, bound: int, invoked: bool, shown: bool
) -> None:
    last, seen = Chunk(text=" 2", logprobs=(logprob,), finish_reason="stop"), list[str]()
    engine = ScriptedEngine(Chunk(text="1 +", logprobs=(logprob,)), last)
    completer = Completer(engine, 64, engine.clock)
    completer.configure(max_tokens=64, policy=Policy(debounce=False, speculate=False, min_confidence=bound), scope="")
    outcome = await completer.complete("a", WINDOW, invoked=invoked, on_text=seen.append)
    assert bool(outcome.items) == bool(seen) == shown
    assert outcome.reason is (None if shown else Reason.LOW_CONFIDENCE)
    again = await completer.complete("a", WINDOW, invoked=True)
    assert again.items[0].text == "1 + 2"  # what was said is not lost
    assert len(engine.requests) == 1


@pytest.mark.parametrize(
    ("prefix", "logprob", "invoked", "reason"),
    [
        ("# a", -1.0, False, Reason.PROSE), ("# a", -0.5, False, None), ("# a", -1.0, True, None),
        ("# a", -4.0, False, Reason.LOW_CONFIDENCE), ("x = ", -1.0, False, None), ('"""A', -1.0, False, Reason.PROSE),
    ],
)  # fmt: skip
@async_test()
async def test_in_prose_the_model_has_to_be_surer(
    prefix: str, logprob: float, invoked: bool, reason: Reason | None
) -> None:
    seen = list[str]()
    engine = ScriptedEngine(
        Chunk(text="b ", logprobs=(logprob,)), Chunk(text="c", logprobs=(logprob,), finish_reason="stop")
    )
    policy = Policy(debounce=False, speculate=False, min_confidence=2, min_in_prose=40)
    completer = Completer(engine, 64, engine.clock, policy=policy)
    around = Surroundings(language="python")
    asked = {"invoked": invoked, "on_text": seen.append, "surroundings": around}
    outcome = await completer.complete("a", Window(prefix, "\n"), **asked)  # type: ignore[arg-type]
    assert outcome.reason is reason
    assert bool(outcome.items) == (reason is None)
    if reason is not None:
        assert outcome.detail is not None
        assert "%" in outcome.detail
    assert bool(seen) == (reason is None and (invoked or prefix == "x = ")), "nothing that is taken away again is shown"
    again = await completer.complete("a", Window(prefix, "\n"), invoked=invoked, surroundings=around)
    assert again.reason is reason, "from memory as from the model"
    assert len(engine.requests) == 1


@async_test()
async def test_only_the_first_candidate_of_a_stream_is_read() -> None:
    engine = ScriptedEngine(Chunk(0, "one"), Chunk(1, "two"), Chunk(0, " more"), Chunk(1, "\n"))
    assert (await Caller(engine).request()).items == (Item("one more", None),)


@pytest.mark.parametrize(
    ("error", "reason", "detail"),
    [
        (EngineLoading("still loading"), Reason.LOADING, "still loading"),
        (EngineUnavailable("gone"), Reason.ENGINE_DOWN, "gone"),
        (RequestError("too long", param="prompt"), Reason.REFUSED, "too long"),
        (Overloaded("busy"), Reason.BUSY, "busy"),
    ],
)
@pytest.mark.parametrize("when", ["before", "at once", "later"])
@async_test()
async def test_what_the_engine_cannot_do_is_a_reason_and_not_an_error(
    when: str, error: Exception, reason: Reason, detail: str
) -> None:
    engine = {
        "before": ScriptedEngine(LAST, loading=[error]),
        "at once": ScriptedEngine(error),
        "later": ScriptedEngine(FIRST, error),
    }[when]
    outcome = await Caller(engine).request()
    assert (outcome.items, outcome.reason, outcome.detail) == ((), reason, detail)
    assert engine.open == 0
    if when == "before":
        assert (await Caller(engine).request()).items


@async_test()
async def test_an_engine_that_left_unasked_is_asked_once_more() -> None:
    caller = Caller(ScriptedEngine(EngineAbsent("nobody listens")))
    assert (await caller.request()).reason is Reason.ENGINE_DOWN
    assert [event for event in caller.engine.events if event.startswith("open")] == ["open 1", "open 2"]


@async_test()
async def test_an_error_that_nobody_foresaw_reaches_the_caller_and_the_next_request_works() -> None:
    engine = ScriptedEngine(EngineFault("bug"))
    caller = Caller(engine)
    with pytest.raises(EngineFault):
        await caller.request()
    with pytest.raises(EngineFault):
        await caller.request()
    assert engine.events == [f"{event} {n}" for n in (1, 2) for event in ("start", "open", "close", "return")]


@async_test()
async def test_nothing_worth_showing_has_its_reason() -> None:
    assert (await Caller(ScriptedEngine(Chunk(text="  \n"))).request()).reason is Reason.NOTHING_TO_ADD
    repeated = Window("a = 1\n", "\nb = load(a)\n")
    outcome = await Caller(ScriptedEngine(Chunk(text="b = load(a)\n"))).request(window=repeated)
    assert (outcome.items, outcome.reason) == ((), Reason.DUPLICATE)


@async_test()
async def test_inside_a_word_only_an_invoked_request_is_asked() -> None:
    engine = ScriptedEngine(LAST)
    caller = Caller(engine)
    outcome = await caller.request(invoked=False, window=Window("va", "lue\n"))
    assert (outcome.reason, engine.requests) == (Reason.MID_WORD, [])
    assert (await caller.request(invoked=True, window=Window("va", "lue\n"))).items
    assert (await caller.request(invoked=False, window=Window("value", "\n"))).items


@async_test()
async def test_progress_is_passed_on_to_the_engine() -> None:
    engine, stages = ScriptedEngine(LAST), list[str]()
    await Completer(engine, 8, engine.clock, stages.append).complete("a", WINDOW, invoked=True)
    assert stages == ["loading"]


@pytest.mark.parametrize("turns_between", range(8))
@pytest.mark.parametrize("turns_to_close", [0, 5])
@async_test()
async def test_the_latest_wins_and_the_older_reply_is_out_before_the_newer_call(
    turns_between: int, turns_to_close: int
) -> None:
    engine = ScriptedEngine(FIRST, LAST, held=True, turns_to_close=turns_to_close)
    caller = Caller(engine)
    older = caller.request()
    await turns(turns_between)
    newer = caller.request()
    await turns(20)
    engine.release()
    assert (await older).reason is Reason.SUPERSEDED
    assert (await newer).items == (Item("1 + 2", -1.0),)
    assert engine.most_open == 1
    assert engine.events.index("return 1") < engine.events.index(f"open {len(engine.requests)}")


@pytest.mark.parametrize("turns_between", range(6))
@async_test()
async def test_of_three_in_a_row_the_last_is_answered(turns_between: int) -> None:
    engine = ScriptedEngine(FIRST, LAST, held=True, turns_to_close=3)
    caller = Caller(engine)
    for _ in range(3):
        caller.request()
        await turns(turns_between)
    engine.release()
    outcomes = [await call for call in caller.calls]
    assert [outcome.reason for outcome in outcomes] == [Reason.SUPERSEDED, Reason.SUPERSEDED, None]
    last_open = engine.events.index(f"open {len(engine.requests)}")
    assert max(engine.events.index("return 1"), engine.events.index("return 2")) < last_open
    assert (engine.open, engine.most_open) == (0, 1)


@async_test()
async def test_a_request_waits_for_the_one_before_last_too_when_the_last_was_cancelled() -> None:
    engine = ScriptedEngine(FIRST, LAST, held=True, turns_to_close=20)
    caller = Caller(engine)
    caller.request()
    await turns(6)
    second = caller.request()
    await turns(2)
    second.cancel()
    await turns(2)
    caller.request()
    engine.release()
    await asyncio.wait(caller.calls)
    assert engine.most_open == 1
    assert engine.events.index("return 1") < engine.events.index("open 2")


@async_test()
async def test_documents_do_not_disturb_each_other() -> None:
    engine = ScriptedEngine(FIRST, LAST, held=True)
    caller = Caller(engine)
    calls = [caller.request(document=name) for name in "ab"]
    await turns(6)
    assert engine.open == 2
    caller.completer.edited("c")
    caller.completer.edited("b")
    engine.release()
    assert [(await call).reason for call in calls] == [None, Reason.OUTDATED]


@pytest.mark.parametrize("turns_before", range(8))
@async_test()
async def test_an_edit_makes_a_running_completion_outdated(turns_before: int) -> None:
    engine = ScriptedEngine(FIRST, LAST, held=True)
    caller = Caller(engine)
    call = caller.request()
    await turns(1 + turns_before)
    caller.completer.edited("a")
    outcome = await call
    assert (outcome.items, outcome.reason) == ((), Reason.OUTDATED)
    await turns(6)
    assert engine.open == 0
    engine.release()
    assert (await caller.request()).items


@async_test()
async def test_an_edit_after_the_end_changes_nothing() -> None:
    caller = Caller(ScriptedEngine(FIRST, LAST))
    outcome = await caller.request()
    caller.completer.edited("a")
    assert outcome.items
    assert (await caller.request()).items


@pytest.mark.parametrize("turns_before", range(8))
@async_test()
async def test_a_cancelled_call_raises_and_closes_its_stream(turns_before: int) -> None:
    engine = ScriptedEngine(FIRST, LAST, held=True)
    caller = Caller(engine)
    call = caller.request()
    await turns(turns_before)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await turns(6)
    assert engine.open == 0
    assert "chunk 2" not in engine.events
    assert asyncio.all_tasks() == {asyncio.current_task()}
    engine.release()
    assert (await caller.request()).items


@async_test()
async def test_what_breaks_the_syntax_is_shown_to_those_alone_who_asked_by_hand() -> None:
    broken = Chunk(text=" + * 2", logprobs=(-0.5,), finish_reason="stop")
    python, whole = Surroundings(language="python"), Window("x = 1", "\n")

    async def ask(engine: ScriptedEngine, completer: Completer, *, invoked: bool) -> Outcome:
        return await completer.complete("a", whole, invoked=invoked, surroundings=python)

    engine = ScriptedEngine(broken)
    completer = Completer(engine, 64, engine.clock)
    assert (await ask(engine, completer, invoked=False)).reason is Reason.DOES_NOT_PARSE
    by_hand = await ask(engine, completer, invoked=True)
    assert (by_hand.items[0].text, by_hand.reused) == (" + * 2", True)
    assert (await ask(engine, completer, invoked=False)).reason is Reason.DOES_NOT_PARSE
    assert len(engine.requests) == 1
    engine = ScriptedEngine(broken)
    assert (await ask(engine, Completer(engine, 64, engine.clock), invoked=True)).items[0].text == " + * 2"


@async_test()
async def test_a_stream_that_is_taken_over_is_shaped_for_who_asks_now() -> None:
    engine = ScriptedEngine(Chunk(text=" +"), Chunk(text=" * 2", logprobs=(-0.5,), finish_reason="stop"), held=True)
    completer = Completer(engine, 64, engine.clock)
    python, whole = Surroundings(language="python"), Window("x = 1", "\n")
    automatic = asyncio.create_task(completer.complete("a", whole, invoked=False, surroundings=python))
    await turns(6)
    by_hand = asyncio.create_task(completer.complete("a", whole, invoked=True, surroundings=python))
    await turns(6)
    engine.release()
    assert (await automatic).reason is Reason.SUPERSEDED
    assert (await by_hand).items[0].text == " + * 2"
    assert len(engine.requests) == 1

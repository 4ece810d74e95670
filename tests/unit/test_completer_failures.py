"""When something in the language server itself fails: one reply for everybody who waits, and the next request works."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from engine.client import Chunk
from lsp_server.completer import Completer
from lsp_server.engines import RemoteEngine
from lsp_server.reasons import Reason
from lsp_server.state.effects import Answer, Close, Open, Prepare
from lsp_server.state.events import Arrived, Asked, Due, Edited, Event, Idle, Over, Ready, Replied
from lsp_server.state.life import Life
from lsp_server.state.policy import Policy
from lsp_server.window import Window
from tests.harness.aio import async_test
from tests.unit.scripted_engine import Caller, ScriptedEngine, turns

FIRST, LAST = Chunk(text="1 +", logprobs=(-0.5,)), Chunk(text=" 2", logprobs=(-0.5,), finish_reason="stop")
TEXT = "text of the user's"


class Failing:
    """Raises at the first event, or effect, of a kind."""

    def __init__(self, completer: Completer, kind: type[object]) -> None:
        self.failed = 0
        self._kind = kind
        self._handle, self._carry_out = Life.handle, completer._carry_out

    def handle(self, life: Life, event: Event, now: float) -> Any:
        self._look(event)
        return self._handle(life, event, now)

    def carry_out(self, effect: Any) -> None:
        self._look(effect)
        self._carry_out(effect)

    def _look(self, what: object) -> None:
        if isinstance(what, self._kind) and not self.failed:
            self.failed += 1
            raise ZeroDivisionError(TEXT)


@pytest.mark.parametrize(
    "kind", [Asked, Ready, Arrived, Over, Answer, Prepare, Open, Close, Edited, Due, Idle, Replied]
)
@async_test(timeout=10)
async def test_whatever_fails_everybody_gets_one_reply(kind: type[object]) -> None:
    with pytest.MonkeyPatch.context() as patch, _captured() as said:
        engine = ScriptedEngine(FIRST, LAST, held=True)
        completer = Completer(engine, 64, engine.clock, policy=Policy(debounce=True))
        failing = Failing(completer, kind)
        patch.setattr(Life, "handle", lambda life, event, now: failing.handle(life, event, now))
        patch.setattr(completer, "_carry_out", failing.carry_out)
        caller = Caller(engine, completer)
        here, elsewhere = caller.request(invoked=False), caller.request(document="b")
        await turns(20)
        if kind in (Close, Edited):
            completer.edited("a", None)
        engine.release()
        if kind is Idle:
            completer._feed(Idle(0))
        outcomes = await asyncio.gather(here, elsewhere)
        assert all(outcome.items or outcome.reason is not None for outcome in outcomes)
        await turns(20)
        assert failing.failed == 1
        assert [record.getMessage() for record in said] == ["a completion failed: ZeroDivisionError"]
        again = await caller.request(window=Window("y = ", "\n"))
        assert again.items[0].text == "1 + 2"
        await turns(10)
        assert completer.at_rest and engine.open == 0
        await completer.aclose()


@async_test(timeout=10)
async def test_a_failure_while_it_streams_is_an_empty_answer_with_its_reason() -> None:
    engine = ScriptedEngine(FIRST, LAST)

    def show(_: str) -> None:
        raise ZeroDivisionError(TEXT)

    completer = Completer(engine, 64, engine.clock)
    outcome = await completer.complete("a", Window("x = ", "\n"), invoked=True, on_text=show)
    assert (outcome.items, outcome.reason) == ((), Reason.FAILED)
    await turns(5)
    assert (completer.at_rest, engine.open) == (True, 0)


@async_test(timeout=10)
async def test_what_an_earlier_life_left_under_way_does_not_reach_the_next() -> None:
    engine = ScriptedEngine(FIRST, LAST, turns_to_close=6)
    completer = Completer(engine, 64, engine.clock)
    waiting = asyncio.create_task(completer.complete("a", Window("x = ", "\n"), invoked=True))
    await turns(5)
    completer._start_over(ZeroDivisionError())
    assert (await waiting).reason is Reason.FAILED
    outcome = await completer.complete("a", Window("z = ", "\n"), invoked=True)
    assert outcome.items[0].text == "1 + 2"  # its stream has the number of the one that closes meanwhile
    await turns(10)
    assert (completer.at_rest, engine.open) == (True, 0)


@async_test(timeout=20)
async def test_stopping_a_stream_as_its_next_piece_arrives_fails_nowhere(tmp_path: Path) -> None:
    failures: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context))
    event = b'data: {"choices": [{"index": 0, "text": "1", "logprobs": null}]}\n\n'
    connected: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + event)
        connected.put_nowait(writer)

    socket = str(tmp_path / "s")
    async with await asyncio.start_unix_server(serve, socket):
        engine = RemoteEngine(f"unix:{socket}", None)
        completer = Completer(engine, 64, loop.time)
        for number in range(5):
            shown = asyncio.Event()
            waiting = asyncio.create_task(
                completer.complete(
                    "a",
                    Window(f"x{number} = ", "\n"),
                    invoked=True,
                    on_text=lambda _, shown=shown: shown.set(),  # type: ignore[misc]
                )
            )
            writer = await connected.get()
            await shown.wait()
            await asyncio.sleep(0.01)
            # The next piece is there to be read in the very turn in which the stream is stopped.
            writer.write(event)
            loop.call_soon(completer.edited, "a", None)
            assert (await waiting).reason is Reason.OUTDATED
            await asyncio.sleep(0.01)
            writer.close()
        await completer.aclose()
        await engine.aclose()
    assert not failures, failures


def _captured() -> Any:
    return _Records()


class _Records(logging.Handler):
    """What the completer logs, in a `with` block."""

    def __init__(self) -> None:
        super().__init__()
        self._records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)

    def __enter__(self) -> list[logging.LogRecord]:
        logging.getLogger("lsp_server.completer").addHandler(self)
        return self._records

    def __exit__(self, *_: object) -> None:
        logging.getLogger("lsp_server.completer").removeHandler(self)

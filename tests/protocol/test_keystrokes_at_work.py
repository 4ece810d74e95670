"""What keys cost through a whole server: nothing for edits that no completion needs, few calls and few tokens for others."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from benchmarks.keystrokes import replay, session
from engine.client import Chunk
from tests.harness.aio import async_test
from tests.harness.session_inside import InsideSession, QuickEngine
from tests.harness.traces import typing_trace

LINE = "first_value = combine(second_value, third_value)\n"


class Primed(QuickEngine):
    """It can compute a prompt ahead; `primings` and `completions` count what it was asked."""

    primes = True

    def __init__(self) -> None:
        super().__init__()
        self.primings = self.completions = 0
        self.news = asyncio.Event()

    @asynccontextmanager
    async def complete(self, request: Any) -> AsyncIterator[AsyncIterator[Chunk]]:
        primed = json.loads(request)["max_tokens"] == 0
        self.primings += primed
        self.completions += not primed
        self.news.set()
        async with super().complete(request) as chunks:
            yield chunks


def _range(line: int, start: int, end: int) -> dict[str, Any]:
    return {"start": {"line": line, "character": start}, "end": {"line": line, "character": end}}


@async_test(60)
async def test_a_rename_over_fifty_files_primes_nothing_and_one_paste_primes_once() -> None:
    engine = Primed()
    ids, versions = itertools.count(1), itertools.count(2)
    async with InsideSession(engine) as inside:
        capabilities: dict[str, Any] = {"textDocument": {"inlineCompletion": {}}}
        await inside.ask(0, "initialize", {"processId": None, "rootUri": None, "capabilities": capabilities})
        inside.tell("initialized", {})
        uris = [f"untitled:{number}.py" for number in range(50)]
        for uri in uris:
            document = {"uri": uri, "languageId": "python", "version": 1, "text": LINE * 40}
            inside.tell("textDocument/didOpen", {"textDocument": document})

        async def ask(line: int, character: int) -> None:
            where = {"textDocument": {"uri": uris[0]}, "position": {"line": line, "character": character}}
            await inside.ask(next(ids), "textDocument/inlineCompletion", {**where, "context": {"triggerKind": 1}})

        def change(uri: str, *changes: dict[str, Any]) -> None:
            document = {"uri": uri, "version": next(versions)}
            inside.tell("textDocument/didChange", {"textDocument": document, "contentChanges": list(changes)})

        await ask(20, len(LINE) - 1)
        asked = engine.completions
        long_name = "a_name_that_is_long_enough_to_be_worth_computing_before_anybody_asks"
        for uri in uris:
            change(uri, *({"range": _range(line, 0, 11), "text": long_name} for line in reversed(range(40))))
        await asyncio.sleep(0.05)
        assert (engine.primings, engine.completions) == (0, asked)

        await ask(20, len(long_name))
        asked, before = engine.completions, engine.primings
        paste = {"range": _range(20, len(long_name), len(long_name)), "text": "\n" + LINE * 4}
        change(uris[0], paste)
        async with asyncio.timeout(5):
            while engine.primings == before:
                engine.news.clear()
                await engine.news.wait()
        await asyncio.sleep(0.05)
        assert (engine.primings, engine.completions) == (before + 1, asked)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_typing_what_is_suggested_asks_the_model_at_less_than_half_of_the_keys() -> None:
    async def tell() -> session.Story:
        async with session.author(0.12) as author:
            return await author.follows(_places(7), 60)

    story = asyncio.run(tell())
    assert story.keys >= 60
    assert story.calls < story.keys / 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_after_an_acceptance_at_most_three_prompt_tokens_are_computed_through_the_server() -> None:
    async def tell() -> session.Story:
        async with session.author(0.12) as author:
            return await author.accepts(_places(23)[:16])

    story = asyncio.run(tell())
    assert len(story.after_accepting) >= 4
    assert statistics.median(story.after_accepting) <= 3, story.after_accepting


def _places(step: int) -> list[Any]:
    (source,) = replay.sources(replay.MODULES[:1])
    return [event for event in typing_trace(source) if event.kind == "char"][::step]

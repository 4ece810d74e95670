"""A menu of code actions that waits for the engine is about the text that it was opened on, or it is empty."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.harness.aio import async_test
from tests.harness.session_inside import InsideSession, Message, QuickEngine

URI = "untitled:a.py"
CAPABILITIES = {"textDocument": {"codeAction": {"codeActionLiteralSupport": {}, "disabledSupport": True}}}
CHANGE = {"range": {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 0}}, "text": "import os\n"}


class Thinking(QuickEngine):
    """Says which model it has when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.knows = asyncio.Event()

    async def model(self) -> dict[str, Any]:
        self.asked.set()
        await self.knows.wait()
        return {"id": "m", "owned_by": "starfill", "starfill": {"instruct": "alpaca", "terms": None}}


def opened(version: int = 1) -> Message:
    return {"textDocument": {"uri": URI, "languageId": "python", "version": version, "text": "a = 1\nb = 2\n"}}


async def offered(*meanwhile: tuple[str, Message]) -> list[dict[str, Any]]:
    """What a menu on the second line offers if this comes while it waits."""
    engine = Thinking()
    async with InsideSession(engine) as inside:
        await inside.ask(1, "initialize", {"processId": None, "rootUri": None, "capabilities": CAPABILITIES})
        inside.tell("initialized", {})
        inside.tell("textDocument/didOpen", opened())
        where = {"start": {"line": 1, "character": 0}, "end": {"line": 1, "character": 5}}
        params = {"textDocument": {"uri": URI}, "range": where, "context": {"diagnostics": [], "triggerKind": 1}}
        inside.send({"jsonrpc": "2.0", "id": 2, "method": "textDocument/codeAction", "params": params})
        await engine.asked.wait()
        for method, told in meanwhile:
            inside.tell(method, told)
        while not inside.idle:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.001)
        engine.knows.set()
        return list((await inside.reply(2))["result"])


@async_test()
async def test_it_names_the_version_that_it_was_opened_on() -> None:
    found = await offered()
    assert [each["title"] for each in found] == ["Explain (starfill)", "Document (starfill)", "Write tests (starfill)"]
    assert {each["command"]["arguments"][0]["version"] for each in found} == {1}


@pytest.mark.parametrize("version", [1, 2])  # as from a client that does not count, too
@async_test()
async def test_after_an_edit_it_is_empty(version: int) -> None:
    change = {"textDocument": {"uri": URI, "version": version}, "contentChanges": [CHANGE]}
    assert await offered(("textDocument/didChange", change)) == []


@pytest.mark.parametrize("again", [False, True])
@async_test()
async def test_of_a_document_that_was_closed_it_is_empty(again: bool) -> None:
    closed: list[tuple[str, Message]] = [("textDocument/didClose", {"textDocument": {"uri": URI}})]
    assert await offered(*closed, *([("textDocument/didOpen", opened())] if again else [])) == []

"""From which confidence on a session shows what nobody asked for: learned, told, bounded, kept from what is invoked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.harness.aio import async_test
from tests.harness.session_inside import InsideSession, QuickEngine

INVOKED, AUTOMATIC = 1, 2
TEXT = "x = "


class Session(InsideSession):
    """One whose engine is as sure as it is told to be."""

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        self.quick = QuickEngine()
        super().__init__(self.quick, {"speculate": False, **(settings or {})})
        self._ids = itertools.count(1)

    async def start(self) -> None:
        capabilities: dict[str, Any] = {"textDocument": {"inlineCompletion": {}}}
        await self.ask(0, "initialize", {"processId": None, "rootUri": None, "capabilities": capabilities})
        self.tell("initialized", {})

    async def command(self, name: str, *arguments: Any) -> Any:
        params = {"command": f"starfill.{name}", "arguments": list(arguments)}
        return (await self.ask(next(self._ids), "workspace/executeCommand", params))["result"]

    async def offered(self, probability: float, *, accept: bool = False, kind: int = AUTOMATIC) -> bool:
        """Whether a completion of that confidence is shown."""
        self.quick.logprob = math.log(probability)
        uri = f"untitled:{next(self._ids)}.py"
        document = {"uri": uri, "languageId": "python", "version": 1, "text": TEXT}
        self.tell("textDocument/didOpen", {"textDocument": document})
        where = {"textDocument": {"uri": uri}, "position": {"line": 0, "character": len(TEXT)}}
        asked = {**where, "context": {"triggerKind": kind}}
        items = (await self.ask(next(self._ids), "textDocument/inlineCompletion", asked))["result"]["items"]
        if accept:
            await self.command("accept", *items[0]["command"]["arguments"])
        self.tell("textDocument/didClose", {"textDocument": {"uri": uri}})
        return bool(items)


@async_test(240)
async def test_the_bound_is_learned_told_kept_and_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARFILL_HOME", str(tmp_path))
    async with Session() as session:
        await session.start()
        for number in range(60):
            assert await session.offered(0.7, accept=number % 2 == 0)
            await session.offered(0.04)
        assert (await session.command("statistics"))["confidence"]["least"] == 5
        assert not await session.offered(0.04)
        last = (await session.command("status"))["last"]
        assert (last["reason"], last["detail"]) == (
            "low_confidence",
            "mean probability of its tokens 4.0 %, shown from 5 %",
        )
        assert await session.offered(0.04, kind=INVOKED), "by hand nothing is silenced"
        assert await session.offered(0.06)
    async with Session({"min_confidence": 3}) as session:
        await session.start()
        assert await session.offered(0.04)
    async with Session() as session:
        await session.start()
        assert not await session.offered(0.04)
        await session.command("resetStatistics")
        assert await session.offered(0.04)
    kept = "".join(file.read_text() for file in tmp_path.rglob("*.json"))
    assert "untitled" not in kept
    assert "value" not in kept

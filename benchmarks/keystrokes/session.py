"""Authors at a real editor's side of the wire: our language server and our engine, each in a process of its own."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.tokenizer import Tokenizer
from tests.harness.editor import FakeEditor, Pending
from tests.harness.process import Child, Metrics, isolated_env, read_metrics, temporary_home, wait_for_health
from tests.harness.text import Range
from tests.harness.traces import Event, edits_between

PATIENCE = 20.0
"""Seconds that an author waits for a suggestion that they want to see."""

_COUNTED = ("forward_calls", "prompt_tokens_computed", "prompt_tokens_cached", "tokens_generated")


@dataclass(slots=True)
class Story:
    """What came of one author's keys. `served` has how requests were served, by kind of event; times are seconds.

    A `jump` is the request at a place that the author goes to; it is no key.
    """

    keys: int = 0
    calls: int = 0
    """Completions that the model was asked for, those ahead of time included."""
    primed: int = 0
    shown: int = 0
    engine: dict[str, float] = field(default_factory=dict)
    served: dict[str, Counter[str]] = field(default_factory=dict)
    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    used: str = ""
    """Text that was suggested and then typed or accepted."""
    after_accepting: list[float] = field(default_factory=list)
    """Prompt tokens computed from each acceptance to the next answer."""

    def thrown_away(self, tokenizer: Tokenizer) -> int:
        """Tokens that were decoded and never came into the text."""
        return max(0, round(self.engine["tokens_generated"]) - len(tokenizer.encode(self.used)))


class Author:
    """One editor window on one engine, and one who writes there."""

    def __init__(self, editor: FakeEditor, socket: Path, gap: float) -> None:
        self.story = Story()
        self._editor = editor
        self._socket = socket
        self._gap = gap
        self._begun = self._metrics()
        self._before: dict[str, int] = {}

    # -- authors -----------------------------------------------------------------------------------------------------

    async def types(self, events: Sequence[Event]) -> Story:
        """The trace as it is, whatever is suggested; a key each `gap` seconds."""
        self._before = await self._counts()
        for event in events:
            self._become(event)
            pending = self._ask(event)
            await asyncio.sleep(self._gap)
            self.story.keys += 1
            if pending.done:
                await self._look(pending)
            await self._note(event.kind)
        return await self._end()

    async def follows(self, events: Sequence[Event], keys: int) -> Story:
        """Waits for a suggestion, types it letter by letter, and asks at each of them; so on from place to place."""
        self._before = await self._counts()
        for event in events:
            self._become(event)
            text = await self._look(self._ask(event))
            await self._note("jump")
            left = event.prefix
            while text and self.story.keys < keys:
                left += text[0]
                self.story.used += text[0]
                typed = Event("char", left, event.suffix, "", event.document)
                self._become(typed)
                pending = self._ask(typed)
                await asyncio.sleep(self._gap)
                self.story.keys += 1
                text = await self._look(pending)
                await self._note("char")
            if self.story.keys >= keys:
                break
        return await self._end()

    async def accepts(self, events: Sequence[Event]) -> Story:
        """Takes every suggestion at once, and asks for the next."""
        self._before = await self._counts()
        for event in events:
            self._become(event)
            text = await self._look(self._ask(event))
            await self._note("jump")
            if not text:
                continue
            await asyncio.sleep(2 * self._gap)
            before = self._metrics()["prompt_tokens_computed"]
            self.story.used += text
            accepted = Event("accept", event.prefix + text, event.suffix, "", event.document)
            self._become(accepted)
            await self._look(self._ask(accepted))
            self.story.keys += 1
            self.story.after_accepting.append(self._metrics()["prompt_tokens_computed"] - before)
            await self._note("accept")
        return await self._end()

    # -- what they do ------------------------------------------------------------------------------------------------

    def _become(self, event: Event) -> None:
        uri = _uri(event)
        if uri not in self._editor.documents:
            self._editor.open(uri, "python", event.text)
            return
        before = self._editor.text(uri)
        changes: list[tuple[Range | None, str]] = []
        for edit in edits_between(before, event.text, len(event.prefix)):
            start, end = self._editor.cursor(uri, edit.start), self._editor.cursor(uri, edit.end)
            changes.append(({"start": start, "end": end}, edit.text))
        if changes:
            self._editor.change_many(uri, changes)

    def _ask(self, event: Event) -> Pending:
        cursor = self._editor.cursor(_uri(event), len(event.prefix))
        return self._editor.inline(_uri(event), cursor["line"], cursor["character"], kind=2, partial=True)

    async def _look(self, pending: Pending) -> str:
        """What is suggested; nothing if nothing is."""
        items = (await pending.result(PATIENCE))["items"]
        if not items:
            return ""
        story = self.story
        story.shown += 1
        story.first.append((pending.partial_times or [pending.sent_at + pending.latency])[0] - pending.sent_at)
        story.whole.append(pending.latency)
        return str(items[0]["insertText"])

    async def _note(self, kind: str) -> None:
        counts = await self._counts()
        new = {name: counts[name] - self._before.get(name, 0) for name in ("reused", "attached", "completed")}
        self._before = counts
        served = self.story.served.setdefault(kind, Counter())
        served["asked"] += 1
        served.update({name: count for name, count in new.items() if count > 0})

    async def _counts(self) -> dict[str, int]:
        command = {"command": "starfill.status", "arguments": []}
        found: dict[str, Any] = await self._editor.request("workspace/executeCommand", command).result()
        return dict(found["counts"])

    def _metrics(self) -> dict[str, float]:
        metrics: Metrics = read_metrics(self._socket)
        return {name: metrics.value(f"starfill_{name}_total") for name in _COUNTED}

    async def _end(self) -> Story:
        counts, now = await self._counts(), self._metrics()
        story = self.story
        story.calls = counts["completed"] + counts["speculated"]
        story.primed = counts["primed"]
        story.engine = {name: value - self._begun[name] for name, value in now.items()}
        return story


@asynccontextmanager
async def author(gap: float, client: str = "vscode") -> AsyncIterator[Author]:
    """A server, an engine with the starter model, and an author; all end with the block."""
    with temporary_home() as home:
        socket = home / "e.sock"
        with Child.module("engine.cli", "serve", "--socket", str(socket), "--device", "cpu", home=home) as engine:
            await asyncio.to_thread(wait_for_health, socket, timeout=180, child=engine)
            argv = [sys.executable, "-m", "lsp_server", "lsp", "--engine", f"unix:{socket}"]
            async with await FakeEditor.start(argv, env=isolated_env(home), timeout=60) as editor:
                editor.ignore("didChangeStatus", "window/showMessage", "$/progress")
                await editor.initialize(client)
                yield Author(editor, socket, gap)


def _uri(event: Event) -> str:
    return f"file:///project/{event.document}.py"

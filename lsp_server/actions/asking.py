"""Asks the engine a question and reads its answer as it comes. What questions begin with is kept on the device."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.errors import EngineAbsent
from lsp_server.actions.prompts import Prompt
from lsp_server.engines import Engine, Progress
from lsp_server.reasons import Reason
from lsp_server.rules.hygiene import CleanStream
from lsp_server.rules.repetition import TIMES, Repetition
from lsp_server.window import Window


@dataclass(frozen=True, slots=True)
class Said:
    """An answer. `cut`: why its rest is not shown, if it is not."""

    text: str = ""
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    cached: int | None = None
    computed: int | None = None
    cut: Reason | None = None


@dataclass(slots=True)
class _Kept:
    """The head that an engine keeps in a KV slot of its own, and how many tokens it has."""

    engine: Engine
    head: str
    tokens: int


class Asker:
    """One session's. Use from one event loop."""

    def __init__(self, progress: Progress | None = None) -> None:
        """`progress` hears how far an engine is that has to be started."""
        self._progress = progress
        self._nonce = secrets.token_hex(8)
        self._asked = 0
        self._kept: _Kept | None = None

    async def ask(
        self,
        engine: Engine,
        prompt: Prompt,
        around: Window,
        max_tokens: int,
        on_text: Callable[[str], None],
        *,
        loops: bool = False,
    ) -> Said:
        """Stream an answer; `on_text` hears all of it so far. Cancelling this call stops the model.

        What looks like a live key ends it, and signs that cannot be seen unless they stand `around` already. With `loops`
        a piece that comes again and again does, too. Raises what the engine raises.
        """
        self._asked += 1
        for last_try in (False, True):
            try:
                await engine.ready(invoked=True, progress=self._progress)
                await self._keep(engine, prompt.head)
                return await self._stream(engine, prompt, CleanStream(around), max_tokens, on_text, loops)
            except EngineAbsent:  # it left since it was last heard of; nothing was computed
                self._kept = None
                if last_try:
                    raise
        raise AssertionError("a second try returns or raises")

    async def _keep(self, engine: Engine, head: str) -> None:
        """Have the head computed before the first question, so that each question computes only itself."""
        kept = self._kept
        if not head or not engine.primes or (kept is not None and kept.engine is engine and kept.head == head):
            return
        async with engine.complete(self._body(head, 0, pin=True)) as chunks:
            async for chunk in chunks:
                if chunk.usage is not None:
                    self._kept = _Kept(engine, head, chunk.usage["prompt_tokens"])

    async def _stream(
        self,
        engine: Engine,
        prompt: Prompt,
        clean: CleanStream,
        max_tokens: int,
        on_text: Callable[[str], None],
        loops: bool,
    ) -> Said:
        text, finish, usage = "", None, None
        extension: dict[str, Any] = {}
        repetition, looped = Repetition(), 0
        async with engine.complete(self._body(prompt.text, max_tokens, stop=prompt.stop)) as chunks:
            async for chunk in chunks:
                usage, extension = chunk.usage or usage, chunk.extension or extension
                finish = chunk.finish_reason or finish
                if piece := clean.feed(chunk.text):
                    text += piece
                    looped = next((found for sign in piece if (found := repetition.feed(sign))), 0) if loops else 0
                    on_text(text)
                if clean.cut is not None or looped:
                    break
        if looped:
            text = text[: len(text) - (TIMES - 1) * looped]
        cached = extension.get("cached")
        if self._kept is not None and prompt.head and isinstance(cached, int) and cached < self._kept.tokens:
            self._kept = None  # another head took its slot, or the engine is another one: have it computed again
        cut = clean.cut or (Reason.REPETITION if looped else None)
        return Said(text, finish, usage, cached, extension.get("computed"), cut)

    def _body(self, text: str, max_tokens: int, *, stop: tuple[str, ...] = (), pin: bool = False) -> bytes:
        fields: dict[str, Any] = {"prompt": text, "max_tokens": max_tokens, "temperature": 0, "stream": True}
        if stop:
            fields["stop"] = list(stop)
        extension: dict[str, Any] = {"document": f"{self._nonce}-{self._asked}", **({"pin": True} if pin else {})}
        fields |= {"stream_options": {"include_usage": True}, "starfill": extension}
        return json.dumps(fields, separators=(",", ":")).encode()

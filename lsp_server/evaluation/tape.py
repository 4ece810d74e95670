"""An engine that remembers: what the model said for a request is asked for once, however often it is shaped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from engine.client import Chunk
from engine.errors import StarfillError
from lsp_server.engines import Engine, Progress

if TYPE_CHECKING:
    from engine.api import CompletionRequest


@dataclass(slots=True)
class Recording:
    """One generation: text and log-probabilities of each piece, and when it came."""

    pieces: list[tuple[str, list[float]]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    finish: str | None = None
    cached: int = 0
    computed: int = 0

    @property
    def text(self) -> str:
        """All that the model said."""
        return "".join(piece for piece, _ in self.pieces)


class Tape:
    """Implements `engines.Engine` over another engine; `layout` overrides the request's.

    With `whole`, a generation is always taken to its end, so that rules that stop later can be tried on it; so it is with a
    file, which holds nothing else. The engine is not needed before something is asked that is not on the tape.
    """

    def __init__(
        self,
        engine: Engine | None,
        *,
        layout: str | None = None,
        whole: bool = False,
        file: Path | None = None,
        model: str = "",
    ) -> None:
        """`model` tells the generations of one model from those of another in the same file."""
        self._engine = engine
        self._model = model
        self._layout = layout
        self._whole = whole or file is not None
        self._file = file
        self._recordings: dict[str, Recording] = {}
        self._windows: dict[str, int | None] = {}
        self.last: Recording | None = None
        """What the latest request got."""
        if file is not None and file.exists():
            for number, line in enumerate(_whole_lines(file), 1):
                try:
                    self._read(json.loads(line))
                except (ValueError, KeyError, TypeError) as error:
                    raise StarfillError(f"{file}:{number}: no recording of generations; name another file") from error

    @property
    def primes(self) -> bool:
        """Nothing is primed: each hole is another document."""
        return False

    @property
    def window(self) -> int | None:
        """The engine's, as it was when the tape began."""
        if self._model in self._windows:
            return self._windows[self._model]
        return None if self._engine is None else self._engine.window

    async def begin(self) -> None:
        """Have the engine ready, unless there is a tape of its model already."""
        if self._engine is not None and self._model not in self._windows:
            await self._engine.ready(invoked=True, progress=None)
            self._windows[self._model] = self._engine.window
            self._write({"model": self._model, "window": self._engine.window})

    async def ready(self, *, invoked: bool, progress: Progress | None) -> None:
        """At any time: what is not on the tape waits for the engine when it is asked."""

    @asynccontextmanager
    async def complete(self, request: CompletionRequest | bytes) -> AsyncIterator[AsyncIterator[Chunk]]:
        """Play what is remembered, else ask."""
        body: dict[str, Any] = json.loads(
            request if isinstance(request, bytes) else request.model_dump_json(exclude_unset=True)
        )
        extension = body.setdefault("starfill", {})
        if self._layout is not None:
            extension["layout"] = self._layout
        key = request_key(body, self._model)
        recording = self._recordings.get(key)
        if recording is None:
            if self._engine is None:
                raise StarfillError("the recording has no generation for this request; record it with an engine")
            async with self._record(key, body) as chunks:
                yield chunks
        else:
            self.last = recording
            yield _played(recording)

    async def whole_generation(self, request: bytes) -> Recording | None:
        """All that the model says to a request; None if that is not on the tape and there is no engine to ask."""
        if self._engine is None and request_key(json.loads(request), self._model) not in self._recordings:
            return None
        async with self.complete(request) as chunks:
            async for _ in chunks:
                pass
        return self.last

    def not_shown(self, answer: str, reason: str) -> None:
        """A recording has no use for it."""

    async def aclose(self) -> None:
        """Close the engine's connections."""
        if self._engine is not None:
            await self._engine.aclose()

    @asynccontextmanager
    async def _record(self, key: str, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[Chunk]]:
        assert self._engine is not None  # noqa: S101
        await self._engine.ready(invoked=True, progress=None)
        recording = self.last = Recording()
        started = perf_counter()
        async with self._engine.complete(json.dumps(body).encode()) as chunks:

            async def noted() -> AsyncIterator[Chunk]:
                async for chunk in chunks:
                    _note(recording, chunk, perf_counter() - started)
                    yield chunk

            if self._whole:
                async for _ in noted():
                    pass
                self._keep(key, recording)
                yield _played(recording)
            else:
                yield noted()

    def _keep(self, key: str, recording: Recording) -> None:
        self._recordings[key] = recording
        self._write(
            {
                "key": key,
                "pieces": recording.pieces,
                "seconds": recording.seconds,
                "finish": recording.finish,
                "cached": recording.cached,
                "computed": recording.computed,
            }
        )

    def _write(self, entry: dict[str, Any]) -> None:
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def _read(self, entry: dict[str, Any]) -> None:
        if "key" not in entry:
            self._windows[entry["model"]] = entry["window"]
            return
        key, pieces = entry.pop("key"), entry.pop("pieces")
        self._recordings[key] = Recording(pieces=[(text, logprobs) for text, logprobs in pieces], **entry)


def request_key(body: dict[str, Any], model: str = "") -> str:
    """What a generation depends on: model, text, layout, context and length; not the document's name."""
    extension = {k: v for k, v in body.get("starfill", {}).items() if k not in {"document", "language"}}
    if extension.get("layout") == "auto":
        del extension["layout"]
    parts = [body.get("prompt"), body.get("suffix"), body.get("max_tokens"), model or None, extension]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _whole_lines(file: Path) -> list[str]:
    """A recording's lines; a last one whose end was never written is taken away, for the next to stand in its place."""
    data = file.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(file, len(whole))
    return whole.decode("utf-8", "replace").splitlines()


def _note(recording: Recording, chunk: Chunk, moment: float) -> None:
    if chunk.index:
        return
    if chunk.text or chunk.logprobs:
        recording.pieces.append((chunk.text, list(chunk.logprobs)))
        recording.seconds.append(round(moment, 4))  # as it is written, so that a second run says the same
    recording.finish = chunk.finish_reason or recording.finish
    if chunk.extension:
        recording.cached = chunk.extension.get("cached", 0)
        recording.computed = chunk.extension.get("computed", 0)


async def _played(recording: Recording) -> AsyncIterator[Chunk]:
    extension = {"cached": recording.cached, "computed": recording.computed}
    yield Chunk(extension=extension)
    for text, logprobs in recording.pieces:
        yield Chunk(text=text, logprobs=tuple(logprobs))
    yield Chunk(finish_reason=recording.finish)

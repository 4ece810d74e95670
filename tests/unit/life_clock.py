"""The state machine on a clock of its own, before a model that always says the same text and takes its time."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from typing import Any

from engine.client import Chunk
from lsp_server.reuse import ReuseStore
from lsp_server.state.ask import Ask
from lsp_server.state.call import Call, Purpose
from lsp_server.state.debounce import Debounce
from lsp_server.state.effects import Answer, Close, Fail, Open, Prepare, Release, Show, Wake
from lsp_server.state.events import Arrived, Asked, Edited, Event, Over, Pasted, Ready, Replied, Typed
from lsp_server.state.life import Life
from lsp_server.state.outcome import Outcome
from lsp_server.state.policy import Policy
from lsp_server.window import Window


@dataclass
class Clocked:
    """`truth` is the whole document that the model has in mind; a token is four characters."""

    truth: str
    token: float = 0.02
    prefill: float = 0.03
    policy: Policy = field(default_factory=Policy)
    error: Exception | None = None

    now: float = 0.0
    calls: list[tuple[float, Call]] = field(default_factory=list)
    answers: dict[int, tuple[float, Outcome]] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    decoded: int = 0

    def __post_init__(self) -> None:
        self.life = Life(self.policy, ReuseStore(), Debounce())
        self._heap: list[tuple[float, int, Event]] = []
        self._order = itertools.count()
        self._running: set[int] = set()
        self._requests = itertools.count(1)

    def ask(self, prefix: str, suffix: str = "\n", *, document: str = "a", **more: Any) -> int:
        """A request -> its number."""
        number = next(self._requests)
        self._feed(Asked(number, Ask(document, Window(prefix, suffix), invoked=more.pop("invoked", False), **more)))
        return number

    def type(self, text: str, deleted: int = 0, document: str = "a") -> None:
        self._feed(Edited(document, (Typed(text, deleted),)))

    def edit_elsewhere(self, document: str = "a") -> None:
        self._feed(Edited(document, None))

    def paste(self, prefix: str, document: str = "a") -> None:
        self._feed(Pasted(document, Window(prefix, "\n")))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while self._heap and self._heap[0][0] <= until:
            self.now, _, event = heapq.heappop(self._heap)
            if isinstance(event, Arrived | Over) and event.stream not in self._running:
                continue
            if isinstance(event, Arrived):
                self.decoded += len(event.chunk.logprobs)
            self._feed(event)
        self.now = until

    def made(self, purpose: Purpose) -> list[tuple[float, Call]]:
        """The calls of one purpose, with their times."""
        return [(at, call) for at, call in self.calls if call.purpose is purpose]

    def outcome(self, number: int) -> Outcome | None:
        found = self.answers.get(number)
        return found[1] if found is not None else None

    def _later(self, delay: float, event: Event) -> None:
        heapq.heappush(self._heap, (self.now + delay, next(self._order), event))

    def _feed(self, event: Event) -> None:
        if isinstance(event, Over):
            self._running.discard(event.stream)
        for effect in self.life.handle(event, self.now):
            match effect:
                case Answer(request, outcome):
                    self.answers[request] = (self.now, outcome)
                    self._later(0.0, Replied(request))
                case Fail(_, error):
                    raise error
                case Show(_, text):
                    self.shown.append(text)
                case Prepare(request, _):
                    self._later(0.0, Ready(request, self.error))
                case Open(stream, call):
                    self._open(stream, call)
                case Close(stream):
                    self.closed.append(stream)
                    self._silence(stream)
                case Wake(at, alarm):
                    self._later(at - self.now, alarm)
                case Release(_):
                    pass

    def _open(self, stream: int, call: Call) -> None:
        self.calls.append((self.now, call))
        self._running.add(stream)
        at = self.prefill
        if call.purpose is not Purpose.PRIME:
            prefix = call.window.prefix
            text = self.truth[len(prefix) :] if self.truth.startswith(prefix) else "?\n"
            for start in range(0, min(len(text), 200), 4):
                at += self.token
                for index in range(call.candidates):
                    piece = text[start : start + 4] if index == 0 else f"{index}{text[start : start + 4]}"
                    self._later(at, Arrived(stream, Chunk(index=index, text=piece, logprobs=(-0.1 * (index + 1),))))
        self._later(at, Over(stream))

    def _silence(self, stream: int) -> None:
        """A closed stream says no more; its end comes once."""
        kept = [
            entry for entry in self._heap if not (isinstance(entry[2], Arrived | Over) and entry[2].stream == stream)
        ]
        heapq.heapify(kept)
        self._heap = kept
        self._later(0.0, Over(stream))

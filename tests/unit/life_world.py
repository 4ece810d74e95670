"""Everything around the state machine, in plain data: an editor, an engine and timers whose events may come in any order."""

from __future__ import annotations

import hashlib
import pickle
from collections import Counter
from dataclasses import dataclass, field

from engine.client import Chunk
from engine.errors import EngineAbsent, EngineLoading, EngineUnavailable
from lsp_server.reuse import ReuseStore
from lsp_server.state.ask import Ask
from lsp_server.state.call import Call, Purpose
from lsp_server.state.debounce import Debounce
from lsp_server.state.effects import Answer, Close, Effect, Fail, Open, Prepare, Release, Show, Wake
from lsp_server.state.events import Arrived, Asked, Cancelled, Edited, Event, Over, Ready, Replied, Typed
from lsp_server.state.life import Life
from lsp_server.state.outcome import Outcome
from lsp_server.state.policy import Policy
from lsp_server.window import Window

SAID = "1 + 2"
PIECES = ("1 ", "+ 2")
DOCUMENT = "a"


@dataclass
class Player:
    """A request as the client sees it."""

    version: int
    place: str
    cancelled: bool = False
    outcome: Outcome | None = None
    failed: bool = False
    replied: bool = False


@dataclass
class Wire:
    """A stream as the engine sees it."""

    call: Call
    sent: int = 0
    closing: bool = False


@dataclass
class World:
    """`script` are the outside events that are still to come, in any order, but for edits and requests among themselves."""

    script: tuple[str, ...]
    life: Life
    text: str = "x = "
    version: int = 0
    alive: bool = True
    players: dict[int, Player] = field(default_factory=dict)
    wires: dict[int, Wire] = field(default_factory=dict)
    preparing: list[int] = field(default_factory=list)
    alarms: list[Event] = field(default_factory=list)
    opened: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, *script: str, policy: Policy | None = None) -> World:
        return cls(script, Life(policy or Policy(), ReuseStore(), Debounce()))

    def copy(self) -> World:
        copied: World = pickle.loads(pickle.dumps(self))  # noqa: S301 (our own)
        return copied

    def key(self) -> bytes:
        return pickle.dumps(self)

    def moves(self) -> list[tuple[str, int]]:
        """All that can happen next."""
        found = []
        for name in dict.fromkeys(self.script):
            if name == "cancel" and not self._cancellable():
                continue
            if name.startswith("edit") and name != next(each for each in self.script if each.startswith("edit")):
                continue
            found.append((name, 0))
        found += [("ready", number) for number in self.preparing]
        found += [("reply", n) for n, p in self.players.items() if self._may_reply(p)]
        found += [("alarm", index) for index in range(len(self.alarms))]
        for number, wire in self.wires.items():
            if wire.closing or not self.alive or wire.sent > self._pieces(wire):
                found.append(("over", number))
            else:
                found.append(("chunk", number))
        return found

    def play(self, move: tuple[str, int]) -> None:
        kind, number = move
        if kind in self.script:
            self.script = _without(self.script, kind)
        match kind:
            case "ask" | "ask by hand" | "ask again":
                request = len(self.players) + 1
                self.players[request] = Player(self.version, self.text)
                ask = Ask(DOCUMENT, Window(self.text, "\n"), invoked=kind == "ask by hand", patience=None)
                self._feed(Asked(request, ask))
            case "edit that agrees" | "edit that does not":
                typed = SAID[self.version] if kind == "edit that agrees" else "z"
                self.text, self.version = self.text + typed, self.version + 1
                self._feed(Edited(DOCUMENT, (Typed(typed),)))
            case "cancel":
                request = min(n for n, p in self.players.items() if self._open(p))
                self.players[request].cancelled = True
                self._feed(Cancelled(request))
            case "death":
                self.alive = False
            case "ready":
                self.preparing.remove(number)
                self._feed(Ready(number, None if self.alive else EngineLoading("loading")))
            case "reply":
                self.players[number].replied = True
                self._check_reply(self.players[number])
                self._feed(Replied(number))
            case "alarm":
                self._feed(self.alarms.pop(number))
            case "chunk":
                wire = self.wires[number]
                wire.sent += 1
                last = wire.sent > self._pieces(wire)
                text = "" if last else self._says(wire.call)[wire.sent - 1]
                self._feed(Arrived(number, Chunk(text=text, finish_reason="stop" if last else None)))
            case "over":
                wire = self.wires.pop(number)
                if wire.closing or wire.sent > self._pieces(wire):
                    error: Exception | None = None
                else:
                    error = EngineUnavailable("gone") if wire.sent else EngineAbsent("gone")
                self._feed(Over(number, error))

    def _feed(self, event: Event) -> None:
        for effect in self.life.handle(event, 0.0):
            self._do(effect)

    def _do(self, effect: Effect) -> None:
        match effect:
            case Answer(request, outcome):
                player = self.players[request]
                assert not player.replied, "an answer after the reply"
                assert player.outcome is None or not outcome.items, "an answer took back that there is none"
                if outcome.items:
                    self._check_items(player, outcome)
                player.outcome = outcome
            case Fail(request, error):
                raise AssertionError(f"request {request} failed: {error}")
            case Show(request, text):
                player = self.players[request]
                assert player.outcome is None and not player.cancelled, "shown after the answer"
                assert player.version == self.version, "shown at another version"
                assert (player.place + text).startswith("x = 1"), text
            case Prepare(request, _):
                self._check_order(request)
                self.preparing.append(request)
            case Release(request):
                self.preparing.remove(request)
            case Open(stream, call):
                assert stream not in self.wires
                assert not any(wire.closing for wire in self.wires.values()), "opened beside one that is closing"
                self.wires[stream] = Wire(call)
                self.opened[call.purpose.value] += 1
                asking = [w for w in self.wires.values() if w.call.purpose is not Purpose.PRIME]
                assert len(asking) <= 1, "two completions of one document at a time"
            case Close(stream):
                assert not self.wires[stream].closing, "closed twice"
                self.wires[stream].closing = True
            case Wake(_, alarm):
                self.alarms.append(alarm)

    def _check_items(self, player: Player, outcome: Outcome) -> None:
        assert player.version == self.version, "an answer for another version"
        assert not player.cancelled, "an answer to a cancelled request"
        for item in outcome.items:
            assert player.place + item.text == "x = " + SAID or "z" in player.place, (player.place, item.text)

    def _check_reply(self, player: Player) -> None:
        if not player.cancelled and player.outcome is not None and player.outcome.items:
            assert player.version == self.version, "a stale reply"

    def _check_order(self, request: int) -> None:
        assert all(p.replied for n, p in self.players.items() if n < request), "started before an older reply was out"

    def check_end(self) -> None:
        """Nothing can happen any more."""
        assert all(player.replied for player in self.players.values()), self.players
        assert self.life.at_rest
        for player in self.players.values():
            assert player.cancelled or player.outcome is not None
            if player.outcome is not None and not player.outcome.items:
                assert player.outcome.reason is not None

    def _open(self, player: Player) -> bool:
        return not player.replied and not player.cancelled

    def _cancellable(self) -> bool:
        return any(self._open(player) for player in self.players.values())

    def _may_reply(self, player: Player) -> bool:
        return not player.replied and (player.cancelled or player.outcome is not None)

    def _pieces(self, wire: Wire) -> int:
        return len(self._says(wire.call))

    def _says(self, call: Call) -> tuple[str, ...]:
        if call.purpose is Purpose.PRIME:
            return ()
        typed = call.window.prefix.removeprefix("x = ")
        return _rest(typed) if SAID.startswith(typed) else ("0",)


def _rest(typed: str) -> tuple[str, ...]:
    left = SAID[len(typed) :]
    return tuple(piece for piece in (left[:2], left[2:]) if piece)


def _without(script: tuple[str, ...], name: str) -> tuple[str, ...]:
    at = script.index(name)
    return script[:at] + script[at + 1 :]


def explore(world: World, limit: int = 2_000_000) -> tuple[int, int]:
    """Play everything that can happen, in every order -> how many states there are, and how many ends."""
    seen: set[bytes] = set()
    stack: list[tuple[World, tuple[tuple[str, int], ...]]] = [(world, ())]
    ends = 0
    while stack:
        world, path = stack.pop()
        moves = world.moves()
        if not moves:
            try:
                world.check_end()
            except AssertionError as error:
                raise AssertionError(f"{error} after {path}") from error
            ends += 1
        for move in moves:
            after = world.copy()
            try:
                after.play(move)
            except AssertionError as error:
                raise AssertionError(f"{error} after {(*path, move)}") from error
            key = hash_of(after)
            if key not in seen:
                assert len(seen) < limit
                seen.add(key)
                stack.append((after, (*path, move)))
    return len(seen), ends


def hash_of(world: World) -> bytes:
    """Equal for worlds that are alike."""
    return hashlib.blake2b(world.key(), digest_size=16).digest()

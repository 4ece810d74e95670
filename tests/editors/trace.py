"""Somebody writes a function, a few keys at a time, and looks up in between: what the server's own share of the wait was."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.editors.world import World
from tests.harness.process import wait_until

PARTS = (
    "with open(name, ", "'rb') as source:\n", "header = source.", "readline()\n", "if header ", "!= wanted:\n",
    "raise ", "KeyError(header)\n", "for number ", "in range(4):\n", "total = ", "number * 2\n", "print(", "total)\n",
    "table = ", "{}\n", "for key ", "in sorted(table):\n", "value = table.", "get(key)\n", "if not ", "value:\n",
    "continue\n", "while ", "value > 1:\n", "size = len(", "table)\n", "return ",
)  # fmt: skip
"""What is written, a few keys at a time. Most of it is not what a model would have said."""

LOOKS_UP_S = 1.5
"""How long somebody waits for a suggestion before they go on."""

STANDS_S = 0.4
"""How long one must stand still to be read."""

_SUMMARY = re.compile(r"(\d+) requests, median ([\d.]+) ms by the clock, ([\d.]+) ms of the processor")


class Typist(Protocol):
    """What the trace needs of an editor."""

    def type(self, text: str) -> None:
        """Type as a user does, key by key."""
        ...

    def ghost(self) -> str:
        """What is suggested, as drawn; empty if nothing is."""
        ...


@dataclass(frozen=True, slots=True)
class Share:
    """What a server said of one session: how many requests the model gave text for, medians in milliseconds."""

    requests: int
    wall: float
    processor: float


def write_a_function(editor: Typist) -> None:
    """Type it, and look up after every few keys until a suggestion stands still."""
    for part in PARTS:
        editor.type(part)
        until = time.monotonic() + LOOKS_UP_S
        last, since = "", time.monotonic()
        while time.monotonic() < until:
            now = editor.ghost()
            if now != last:
                last, since = now, time.monotonic()
            elif now and time.monotonic() - since > STANDS_S:
                break
            time.sleep(0.02)


def share_of(world: World, editor: Typist, end: Callable[[], None], times: int = 1) -> Share:
    """Write a function so many `times`, `end` the server, and read what it says of the session."""
    before = set(_shares(world))
    for _ in range(times):
        write_a_function(editor)
    end()
    wait_until(lambda: bool(_shares(world).keys() - before), "the server's summary", timeout=60)
    after = _shares(world)
    (file,) = after.keys() - before
    return after[file]


def _shares(world: World) -> dict[Path, Share]:
    """What the servers that have ended said, by the log of each."""
    found = {}
    for file, messages in world.logs().items():
        for message in messages:
            if (summary := _SUMMARY.search(message)) is not None:
                found[file] = Share(int(summary[1]), float(summary[2]), float(summary[3]))
    return found

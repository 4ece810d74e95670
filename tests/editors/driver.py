"""What the scenarios need of an editor. Each driver reads what the editor itself draws, and what its buffer holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

SETTLE_S = 0.3  # how long nothing must change for a state to count as the last one


class Editor(Protocol):
    """One window of a real editor, started with starfill for its language server."""

    def open(self, file: Path, line: int, column: int) -> None:
        """Edit a file, with the cursor before the given character (both from 0), ready to type."""
        ...

    def type(self, text: str) -> None:
        """Type as a user does, key by key."""
        ...

    def ghost(self) -> str:
        """The ghost text as drawn; empty if there is none."""
        ...

    def accept(self) -> None:
        """Take all of the ghost text with the key for it."""
        ...

    def leave(self) -> None:
        """Stop typing."""
        ...

    def text(self) -> str:
        """The buffer, line ends as `\\n`."""
        ...

    def save(self) -> None:
        """Write the buffer to its file."""
        ...

    def close(self) -> None:
        """End the editor."""
        ...


def wait_for_ghost(editor: Editor, *, timeout: float = 30.0, wanted: Callable[[str], bool] = bool) -> str:
    """Wait until ghost text that is `wanted` stands still; -> it."""
    deadline = time.monotonic() + timeout
    last, since = "", time.monotonic()
    while True:
        now = editor.ghost()
        if now != last:
            last, since = now, time.monotonic()
        elif wanted(now) and time.monotonic() - since > SETTLE_S:
            return now
        if time.monotonic() > deadline:
            raise AssertionError(f"no such ghost text within {timeout:g} s; last {now!r}")
        time.sleep(0.02)

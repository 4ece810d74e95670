"""Words for the person who runs a command: one line each, flushed, on standard error."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """Write one line."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


class Progress:
    """A bar that redraws itself in place on a terminal and stays silent elsewhere."""

    def __init__(self, label: str, width: int = 30) -> None:
        self._label, self._width = label, width
        self._live = sys.stderr.isatty()

    def show(self, share: float, note: str = "") -> None:
        """`share` of the work is done, from 0 to 1."""
        if not self._live:
            return
        full = round(min(max(share, 0.0), 1.0) * self._width)
        bar = "█" * full + "░" * (self._width - full)
        sys.stderr.write(f"\r{self._label} {bar} {share:4.0%} {note}\x1b[K" + ("\n" if share >= 1 else ""))
        sys.stderr.flush()

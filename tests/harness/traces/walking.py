"""A cursor that walks."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.harness.traces.events import Event


def browse_trace(source: str, seed: int = 7, touches: int = 60) -> Iterator[Event]:
    """The cursor walks a few lines up or down, retypes the end of a line, and walks on."""
    rng = random.Random(seed)
    lines = source.split("\n")
    at = len(lines) // 2
    for _ in range(touches):
        at = max(1, min(len(lines) - 2, at + rng.choice([-6, -3, -2, -1, 1, 1, 1, 2, 3, 5])))
        line = lines[at]
        cut = max(0, len(line) - rng.randint(3, 12))
        for typed in range(cut, len(line) + 1):
            prefix = "\n".join([*lines[:at], line[:typed]])
            suffix = "\n" + "\n".join(lines[at + 1 :])
            yield Event("walk" if typed == cut else "char", prefix, suffix, line[typed:])

"""An author who works on two files in turn."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from tests.harness.traces.events import Event
from tests.harness.traces.typing import picked_bodies, type_body


def two_files_trace(first: str, second: str, seed: int = 7) -> Iterator[Event]:
    """In each file a function is typed again; every few dozen keys the author goes over to the other one and comes back."""
    rng = random.Random(seed)
    begun = []
    for document, source in (("a", first), ("b", second)):
        ((start, end),) = picked_bodies(source, rng, 1)
        begun.append(list(type_body(rng, source[:start], source[start:end], source[end:], document)))
    positions, turn = [0, 0], 0
    while any(at < len(events) for at, events in zip(positions, begun, strict=True)):
        at, length = positions[turn], rng.randint(20, 60)
        if at and at < len(begun[turn]):
            yield replace(begun[turn][at - 1], kind="switch")
        yield from begun[turn][at : at + length]
        positions[turn] = at + length
        turn = 1 - turn

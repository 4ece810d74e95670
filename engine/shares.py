"""How one forward pass is shared out: every running generation gets a token, the rest goes in equal parts.

Equal means max-min fair: clients first, then the documents of a client; who wants less than its part leaves the rest to the
others, so that a key's few tokens never wait behind somebody's thousand. Within a document the newest takes all it can.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Wish:
    """What one generation would like: `tokens` >= 1 of its own are known and not computed yet."""

    client: str
    document: str | None
    newness: int
    tokens: int


def share_out(wishes: Sequence[Wish], budget: int) -> list[int]:
    """Tokens of a pass for each wish, in order: at least 1, at most what it wants, and `budget` more than that in all."""
    clients: dict[str, dict[str | None, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, wish in enumerate(wishes):
        clients[wish.client][wish.document].append(number)
    more = [wish.tokens - 1 for wish in wishes]
    shares = [1] * len(wishes)
    for client, part in _fill(
        {c: sum(more[n] for ns in docs.values() for n in ns) for c, docs in clients.items()}, budget
    ):
        for document, left in _fill({d: sum(more[n] for n in ns) for d, ns in clients[client].items()}, part):
            for number in sorted(clients[client][document], key=lambda n: -wishes[n].newness):
                given = min(more[number], left)
                shares[number] += given
                left -= given
    return shares


def _fill(wants: dict[Key, int], budget: int) -> list[tuple[Key, int]]:
    """Max-min fair parts of `budget`: the modest get what they want, the others an equal part of what is left."""
    parts = []
    for served, key in enumerate(sorted(wants, key=wants.__getitem__)):
        part = min(wants[key], budget // (len(wants) - served))
        budget -= part
        parts.append((key, part))
    return parts

"""Generations without a KV slot, and whose turn it is. Bounded; plain data.

Clients take turns, then the documents of a client; within a document the newest goes first, because its cursor is where the
user is. Work that names no document is served in the order it came. Who has been served goes to the end of the line, and
newcomers stand at the end, so between two turns of one client every other waiting client has had one.

When a line is full the newest cursor still wins: a document gives up its oldest request, the whole room the last of the
client that has most waiting.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from engine.generation import Generation

Document = str | None


@dataclass(slots=True)
class _Lane:
    """One document's line, oldest first. `begun` are candidates whose prompt has been computed."""

    begun: list[Generation] = field(default_factory=list)
    fresh: list[Generation] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.begun) + len(self.fresh)


class WaitingRoom:
    """At most `most` generations in all, and `most_per_document` for one document of one client."""

    def __init__(self, most: int, most_per_document: int) -> None:
        self.most = most
        self.most_per_document = most_per_document
        self._clients: OrderedDict[str, OrderedDict[Document, _Lane]] = OrderedDict()
        self._inside = 0  # kept, because any thread may ask while the lines change

    def __len__(self) -> int:
        return self._inside

    def __iter__(self) -> Iterator[Generation]:
        for lane in self._lanes():
            yield from lane.begun
            yield from lane.fresh

    def add(self, generation: Generation) -> Generation | None:
        """Let a generation in -> the one that has to leave for it, if the room is full; that may be itself."""
        lane = self._lane(generation)
        lane.fresh.append(generation)
        self._inside += 1
        if generation.document is not None and len(lane.fresh) > self.most_per_document:
            return self._leave(lane.fresh[0])
        if sum(len(each.fresh) for each in self._lanes()) > self.most:
            return self._leave(self._last_of_the_greediest(generation.client))
        return None

    def add_begun(self, generation: Generation) -> None:
        """Let a candidate in whose prompt has been computed: it goes first in its line, and nothing displaces it."""
        self._lane(generation).begun.append(generation)
        self._inside += 1

    def take(self) -> Generation:
        """The generation whose turn it is; raises LookupError when nobody waits."""
        client, lanes = next(iter(self._clients.items()), (None, None))
        if client is None or lanes is None:
            raise LookupError("nobody waits")
        document, lane = next(iter(lanes.items()))
        newest_first = document is not None and not lane.begun
        generation = (lane.begun or lane.fresh).pop(-1 if newest_first else 0)
        self._inside -= 1
        self._clients.move_to_end(client)
        lanes.move_to_end(document)
        self._clear(client, document)
        return generation

    def remove(self, generation: Generation) -> None:
        """Take a generation out; raises ValueError when it is not here."""
        lane = self._lane(generation)
        try:
            (lane.begun if generation in lane.begun else lane.fresh).remove(generation)
            self._inside -= 1
        finally:
            self._clear(generation.client, generation.document)

    def _lanes(self) -> Iterator[_Lane]:
        for lanes in self._clients.values():
            yield from lanes.values()

    def _lane(self, generation: Generation) -> _Lane:
        lanes = self._clients.setdefault(generation.client, OrderedDict())
        return lanes.setdefault(generation.document, _Lane())

    def _clear(self, client: str, document: Document) -> None:
        lanes = self._clients[client]
        if not lanes[document]:
            del lanes[document]
        if not lanes:
            del self._clients[client]

    def _leave(self, generation: Generation) -> Generation:
        self.remove(generation)
        return generation

    def _last_of_the_greediest(self, newcomer: str) -> Generation:
        """Who leaves a full room: of the client that has most waiting, in its longest line, whoever would be served last."""
        fresh = {
            client: sum(len(lane.fresh) for lane in lanes.values()) for client, lanes in self._clients.items()
        }  # fmt: skip
        client = max(fresh, key=lambda each: (fresh[each], each == newcomer))
        document, lane = max(self._clients[client].items(), key=lambda item: len(item[1].fresh))
        return lane.fresh[-1 if document is None else 0]

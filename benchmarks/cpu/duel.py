"""Questions put to two servers in turn, so that whatever else the machine does falls on both alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.cpu.servers import Answer, Server
from benchmarks.cpu.subjects import prompt_ids


@dataclass(frozen=True, slots=True)
class Question:
    """`tokens` to decode after a cached prompt of `context`; or, with `fresh`, a prompt of `context` that nobody has seen."""

    name: str
    context: int
    tokens: int
    fresh: bool = False

    @property
    def counted(self) -> int:
        """Tokens that the answer's time is divided by, if all asked for came."""
        return self.context if self.fresh else self.tokens


@dataclass(frozen=True, slots=True)
class Side:
    """Tokens a second of one server, a number per round."""

    wall: list[float]
    cpu: list[float]


@dataclass(frozen=True, slots=True)
class Duel:
    """What came of one question. `same_ids` is the share of decoded ids that both servers agree on, from the first on."""

    question: Question
    first: Side
    second: Side
    same_ids: float

    def ratio(self, of: Callable[[Side], list[float]]) -> float:
        """Median over the rounds of first / second, each round's two slices being neighbours in time."""
        return statistics.median(a / b for a, b in zip(of(self.first), of(self.second), strict=True))


def fight(question: Question, first: Server, second: Server, rounds: int, seed: int) -> Duel:
    """Alternate; who begins changes from round to round."""
    sides = {first.name: Side([], []), second.name: Side([], [])}
    agreed = 1.0
    if not question.fresh:
        for server in (first, second):
            server.complete(prompt_ids(question.context, seed), 1)
    for turn in range(rounds):
        ids = prompt_ids(question.context, seed + 1 + turn if question.fresh else seed)
        order: Sequence[Server] = (first, second) if turn % 2 else (second, first)
        answers = {server.name: server.complete(ids, question.tokens) for server in order}
        for name, answer in answers.items():
            counted = question.context if question.fresh else len(answer.ids)
            sides[name].wall.append(counted / answer.wall)
            sides[name].cpu.append(counted / max(answer.cpu, 0.005))
        agreed = min(agreed, _agreement(*(answers[server.name] for server in (first, second))))
    return Duel(question, sides[first.name], sides[second.name], agreed)


def _agreement(first: Answer, second: Answer) -> float:
    length = min(len(first.ids), len(second.ids))
    same = next((n for n in range(length) if first.ids[n] != second.ids[n]), length)
    return same / max(1, length)

"""Which short passes are alike enough for one captured graph. Plain Python: no torch, no device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from engine.sampling import Sampling
from engine.step import Step

ROWS = (1, 2, 4, 8, 16)
"""Rows of tokens that graphs are made for: a pass takes the next larger number."""

FIRST_REACH = 1024
"""Positions that the shortest graphs see; each longer one sees twice as many. Attention is split by it."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Everything that a captured pass has fixed.

    rows: tokens, and spans, and draws, at most. reach: positions that spans may end at. masked: whether only some tokens are
    allowed. drawn: whether chance or a filter chooses; narrowed: whether a filter needs its own look at the logits.
    follows: each span is one token, and the pass leaves the place of the next one ready, so that it can be replayed at once.
    """

    rows: int
    reach: int
    masked: bool = False
    drawn: bool = False
    narrowed: bool = False
    follows: bool = False


@dataclass(frozen=True, slots=True)
class Drawn:
    """One answer of a pass: from which row, for which position, and how; None is the arg-max."""

    row: int
    position: int
    sampling: Sampling | None


def drawn_of(step: Step) -> list[Drawn]:
    """The answers that a step wants, in order; a row may be drawn from several times."""
    found: list[Drawn] = []
    end = 0
    parts = zip(step.spans, step.sampled, step.sampling, step.draws, step.guesses, strict=True)
    for span, sampled, sampling, draws, guesses in parts:
        end += span.length
        for behind in range(guesses if sampled else -1, -1, -1):
            at = span.start + span.length - behind
            found += (Drawn(end - 1 - behind, at, _candidate(sampling, more)) for more in range(draws))
    return found


def bucket_of(step: Step, window: int) -> Bucket | None:
    """The bucket that a step falls into; None for what is left to the ordinary way: long, or asking for more."""
    answers = drawn_of(step)
    rows = next((rows for rows in ROWS if rows >= max(len(step.ids), len(answers), len(step.spans))), None)
    if rows is None or not answers or step.top or any(s is not None and s.penalises for s in step.sampling):
        return None
    filters = [answer.sampling for answer in answers if answer.sampling is not None]
    masked = any(allowed is not None for allowed in step.allowed)
    return Bucket(
        rows=rows,
        reach=reach_of(max(span.start + span.length for span in step.spans), window),
        masked=masked,
        drawn=bool(filters),
        narrowed=any(each.top_k > 0 or each.top_p < 1 for each in filters),
        follows=not masked and is_plain(step),
    )


def is_plain(step: Step) -> bool:
    """Whether a step is one token for each sequence, and one answer after each: what decoding is mostly made of."""
    return (
        all(span.length == 1 for span in step.spans)
        and all(step.sampled)
        and all(draws == 1 for draws in step.draws)
        and not any(step.guesses)
    )


def reach_of(end: int, window: int) -> int:
    """The reach of a pass whose spans end at `end`; one position is left for the token that follows, if there is one."""
    reach = FIRST_REACH
    while reach < min(end + 1, window):
        reach *= 2
    return min(reach, window)


def expected(window: int) -> Iterator[Bucket]:
    """What a request will ask for, the likeliest first: these are captured before anybody waits for them."""
    reaches = sorted({reach_of(end, window) for end in range(1, window + 1, FIRST_REACH)} | {window})
    for reach in reaches:
        yield Bucket(1, reach, follows=True)
    for rows in ROWS:
        for reach in reaches:
            yield Bucket(rows, reach, follows=rows == 1)
            yield Bucket(rows, reach, masked=True)


def _candidate(sampling: Sampling | None, more: int) -> Sampling | None:
    return replace(sampling, candidate=sampling.candidate + more) if sampling is not None and more else sampling

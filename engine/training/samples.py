"""Holes as tokens: the three layouts, each segment tokenised alone, with a weight for every token.

    psm       [PRE] P  [SUF] S [MID] M EOT
    spm       [PRE]    [SUF] S [MID] P  M EOT          (BigCode's second variant)
    anchored  [PRE] P0 [SUF] S [MID] P1 M EOT

The engine heals: it takes back the last pre-token before the cursor and lets the model regrow it. Most holes are cut there,
so that what the model is asked at inference is what it has seen; the others are cut inside the token, as BigCode's were.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from engine.training import spans
from engine.training.bpe import Vocabulary
from engine.training.spans import Hole

MUTE, TEXT, MIDDLE = 0, 1, 2
"""Classes of token: not trained on, context, middle. The trainer gives each class its weight."""

_MAX_HELD = 16  # tokens; a longer pre-token is a run of one sign, where nothing is to be healed
_LEAST_STEP = 24  # tokens
_LONG_LINE = 4_096  # characters


class Layout(StrEnum):
    """The order of the segments."""

    PSM = "psm"
    SPM = "spm"
    ANCHORED = "anchored"


@dataclass(slots=True)
class Sample:
    """Token ids, and for each its class."""

    ids: list[int] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)

    def add(self, ids: list[int], kind: int) -> None:
        """Append a segment of one class."""
        self.ids += ids
        self.classes += [kind] * len(ids)

    def extend(self, other: Sample) -> None:
        """Append another sample."""
        self.ids += other.ids
        self.classes += other.classes

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Head:
    """What stands before the document: repository, path, pieces of other files. Empty strings are left out."""

    repository: str = ""
    path: str = ""
    snippets: tuple[tuple[str, str], ...] = ()


def add_head(sample: Sample, vocabulary: Vocabulary, head: Head) -> None:
    """Append the metadata in the models' format; names are not trained on, other files' text is."""
    control = vocabulary.control
    if head.repository and control.reponame >= 0:
        sample.add([control.reponame, *vocabulary.encode(head.repository)], MUTE)
    for path, text in head.snippets:
        sample.add([control.filename, *vocabulary.encode(f"{path}\n")], MUTE)
        sample.add(vocabulary.encode(text.rstrip("\n") + "\n"), TEXT)
    if head.path and control.filename >= 0:
        sample.add([control.filename, *vocabulary.encode(f"{head.path}\n")], MUTE)


def add_hole(
    sample: Sample, vocabulary: Vocabulary, text: str, hole: Hole, layout: Layout, anchor: int, *, raw: bool
) -> None:
    """Append one hole. `anchor` is where P1 starts; `raw` says that P ends inside a token, which is not to be learned."""
    control, encode = vocabulary.control, vocabulary.encode
    suffix = encode(text[hole.after : hole.bottom])
    middle = encode(text[hole.start : hole.end])

    def prefix(start: int, end: int) -> None:
        ids = encode(text[start:end])
        sample.add(ids, TEXT)
        if raw and end == hole.start and ids:
            sample.classes[-1] = MUTE

    sample.add([control.prefix], MUTE)
    if layout is Layout.PSM:
        prefix(hole.top, hole.start)
    elif layout is Layout.ANCHORED:
        prefix(hole.top, anchor)
    sample.add([control.suffix], MUTE)
    sample.add(suffix, TEXT)
    sample.add([control.middle], MUTE)
    if layout is Layout.SPM:
        prefix(hole.top, hole.start)
    elif layout is Layout.ANCHORED:
        prefix(anchor, hole.start)
    sample.add([*middle, control.end], MIDDLE)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is given, and the text before the cursor that it has to regrow first."""

    ids: list[int]
    held: bytes


def prompt(
    vocabulary: Vocabulary,
    text: str,
    cursor: int,
    end: int,
    layout: Layout,
    *,
    window: int,
    suffix: int,
    path: str = "",
) -> Prompt:
    """The prompt that the engine would send for a cursor in `text`, with everything up to `end` still to be written.

    `window` and `suffix` are budgets in tokens. The cut is the engine's: blocks of lines, healed at the pre-token boundary.
    """
    control, encode = vocabulary.control, vocabulary.encode
    head = Sample()
    add_head(head, vocabulary, Head(path=path))
    after = spans.suffix_start(text, end)
    below = encode(text[after : suffix_lines(vocabulary, text, after, suffix)])[:suffix]
    share = max(1, suffix // spans.SUFFIX_SHARES)
    aside = min(suffix, -(-len(below) // share) * share)
    top = prefix_lines(vocabulary, text, cursor, window - max(16, window // 24) - aside - len(head) - 3)
    anchor = spans.anchor_at(text, top, text.count("\n", 0, top), cursor) if layout is Layout.ANCHORED else top
    start = cursor - len(held_back(vocabulary, text[max(anchor, cursor - 512) : cursor]))
    if layout is Layout.PSM:
        ids = [control.prefix, *encode(text[top:start]), control.suffix, *below, control.middle]
    else:
        ids = [
            control.prefix,
            *encode(text[top:anchor]),
            control.suffix,
            *below,
            control.middle,
            *encode(text[anchor:start]),
        ]
    return Prompt([*head.ids, *ids], text[start:cursor].encode("utf-8", "replace"))


def held_back(vocabulary: Vocabulary, segment: str) -> str:
    """The last pre-token of what the model continues, where a longer text might have tokenised otherwise."""
    held = vocabulary.last_pre_token(segment)
    if not held or len(vocabulary.encode(held)) > _MAX_HELD:
        return ""
    data = held.encode("utf-8", "replace")
    return held if vocabulary.may_continue(data) and vocabulary.tokens_along(data) else ""


def suffix_lines(vocabulary: Vocabulary, text: str, after: int, budget: int) -> int:
    """Where S ends: whole lines within `budget` tokens, or a part of the first one."""
    at, tokens = after, 0
    while at < len(text):
        end = min(spans.line_end(text, at) + 1, len(text))
        tokens += len(vocabulary.encode(text[at : min(end, at + _LONG_LINE)]))
        if tokens > budget:
            break
        at = end
    return at if at > after else min(len(text), after + _LONG_LINE)


def prefix_lines(vocabulary: Vocabulary, text: str, cursor: int, budget: int) -> int:
    """Where P starts: the engine's blocks of lines counted from the top, and the cursor's line in steps of tokens, within
    `budget` tokens.
    """
    starts = [0, *(found.end() for found in re.finditer("\n", text[:cursor]))]
    step = max(_LEAST_STEP, budget // 40)

    def tokens_of(begin: int, end: int) -> int:
        return len(vocabulary.encode(text[begin:end])) if end - begin <= budget * 64 else budget + 1

    own = -(-max(1, tokens_of(starts[-1], cursor)) // step) * step
    best = cursor
    for block in spans.top_blocks(budget):
        best, below, tokens, more = cursor, starts[-1], 0, own
        for mark in range((len(starts) - 1) // block * block, -1, -block):
            more += tokens_of(starts[mark], below)
            if tokens + more > budget:
                break
            best = below = starts[mark]
            tokens, more = tokens + more, 0
        if best == 0 or tokens * 2 >= budget:
            return best
    return best if best < cursor else max(0, cursor - budget)

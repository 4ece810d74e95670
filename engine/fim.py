"""Fill-in-the-middle prompts: layouts and token windows, as pure functions of the text.

StarCoder and SantaCoder saw `[PRE] P [SUF] S [MID] M` (PSM) and `[PRE][SUF] S [MID] P M` (SPM, second variant) half and half,
cut at characters, each segment tokenised alone (Bavarian et al. 2022; BigCode's Megatron `permute`). EFIM (arXiv 2505.21889)
observed that text may also follow `[MID]`: `anchored` puts the last lines there, so that typing only ever appends.

Nothing here has state: the same text gives the same ids, and a key typed at the cursor leaves all but the last ids alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from engine.errors import RequestError
from engine.tokenizer import Tokenizer

ANCHOR_LINES = 8
"""P0 ends at the last line whose number is a multiple of this."""

TOP_BLOCKS = (96, 48, 24, 8, 1)
"""Lines that are dropped together at the top of the window. Fewer would keep it fuller and move it more often
(docs/performance.md). The server cuts at multiples of the first.
"""

BUDGET_A_LINE = 48
"""Tokens of budget for each line of a block at least, so that one is a like part of every window."""

MAX_SUFFIX = 224
"""Tokens of suffix at most. Twice as many completed no better and made a walk too dear (docs/performance.md)."""

SUFFIX_SHARES = 4
"""Parts of the suffix's budget: those that a short suffix leaves unused are the prefix's."""

CLOSERS = frozenset(")]}\"'`,:; \t>\r")
"""A rest of line made of these alone is what the editor closed by itself: S starts on the next line."""

_LEAST_STEP = 24  # tokens; few lines have more
_LONG_LINE = 4_096  # characters in which a line longer than the window is cut
_MAX_HELD = 16  # tokens; a longer pre-token is a run of one sign, where nothing is to be healed


class Layout(StrEnum):
    """How prefix (P), suffix (S) and the control tokens are ordered."""

    ANCHORED = "anchored"
    SPM = "spm"
    PSM = "psm"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Snippet:
    """A piece of another file, to stand before the document."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Document:
    """What surrounds the cursor."""

    prefix: str
    suffix: str
    path: str = ""
    repository: str = ""
    context: Sequence[Snippet] = ()


@dataclass(frozen=True, slots=True)
class Budget:
    """How the window's tokens are shared out: `window` in all, of which `reserve` stay free for the completion."""

    window: int
    reserve: int
    suffix: int

    @classmethod
    def of(cls, window: int, max_tokens: int) -> Budget:
        """The usual shares. The reserve grows in steps, so that requests of unlike length share one window."""
        reserve = max(16, window // 24)
        if max_tokens > reserve:
            reserve = min(-(-max_tokens // 64) * 64, window // 2)
        return cls(window, reserve, suffix=min(MAX_SUFFIX, window // 8))


@dataclass(frozen=True, slots=True)
class Prompt:
    """Ids for the model, and the text at the cursor (of `healed` tokens) that was held back for it to regrow.

    The first `shared` ids are the repository and the context: other documents' prompts may begin with them too.
    """

    ids: list[int]
    held: bytes
    healed: int
    layout: Layout
    shared: int = 0


class Encode(Protocol):
    """`Tokenizer.encode` or its raw form."""

    def __call__(self, text: str, most: int | None = None) -> list[int]:
        """Ids of a text, or more than `most` of them."""
        ...


def lay_out(
    tokenizer: Tokenizer, document: Document, layout: Layout, budget: Budget, *, heal: bool, raw: bool = False
) -> Prompt:
    """Cut the window and order it.

    With `heal`, the last pre-token of the segment that the model continues is held back: its tokens might have been
    others had the author already typed on. The engine lets the model regrow it. With `raw`, control tokens in the text
    act as such.
    """
    encode = tokenizer.encode_raw if raw else tokenizer.encode
    control = tokenizer.control
    if layout is not Layout.NONE and not control.has_fim:
        raise RequestError(
            "this model has no fill-in-the-middle tokens; use layout 'none'", param="layout", code="layout_unsupported"
        )
    head, shared = _head(tokenizer, encode, document, budget)
    if control.begin is not None:
        head, shared = [control.begin, *head], shared and shared + 1
    suffix = [] if layout is Layout.NONE else suffix_window(encode, document.suffix, budget.suffix)
    room = budget.window - budget.reserve - _set_aside(len(suffix), budget) - len(head) - 3
    top, prefix = prefix_window(tokenizer, encode, document.prefix, room)

    anchor = _anchor(prefix, top) if layout is Layout.ANCHORED else 0
    anchored, tail = prefix[:anchor], prefix[anchor:]
    held = _held_back(tokenizer, tail) if heal else ""
    healed = len(encode(held))
    ids = encode(tail[: len(tail) - len(held)])
    if layout is Layout.NONE:
        return Prompt(head + ids or [control.end_of_text], held.encode("utf-8", "replace"), healed, layout, shared)
    pre, mid, suf = control.fim_prefix, control.fim_middle, control.fim_suffix
    assert pre is not None and mid is not None and suf is not None  # noqa: S101  (has_fim, checked above)
    if layout is Layout.PSM:
        ids = [*head, pre, *ids, suf, *suffix, mid]
    else:
        ids = [*head, pre, *encode(anchored), suf, *suffix, mid, *ids]
    return Prompt(ids, held.encode("utf-8", "replace"), healed, layout, shared)


def prefix_window(tokenizer: Tokenizer, encode: Encode, text: str, budget: int) -> tuple[int, str]:
    """The last lines of `text` in at most `budget` tokens -> (lines dropped above it, window).

    Whole blocks of lines, counted from the top, are dropped: the window jumps rarely instead of sliding at every key. They
    are finer only where one block is most of the window.
    """
    best = (0, "")
    coarsest = max(ANCHOR_LINES, budget // BUDGET_A_LINE)
    for block in [block for block in TOP_BLOCKS if block <= coarsest]:
        top, start, tokens = _blocks_that_fit(encode, text, budget, block)
        best = (top, text[start:])
        if start == 0 or tokens * 2 >= budget:
            return best
    if best[1]:
        return best
    # Not even the current line fits: cut inside it.
    line_at = text.rfind("\n") + 1
    line = text[line_at:]
    start = max(0, (len(line) - 1) // _LONG_LINE * _LONG_LINE - 8 * _LONG_LINE)
    ids = encode(line[start:])
    quarter = max(1, budget // 4)
    drop = -(-max(0, len(ids) - budget) // quarter) * quarter
    kept = tokenizer.decode(ids[drop:]).lstrip("\ufffd")
    while len(encode(kept)) > budget:
        kept = kept[1:]
    return text.count("\n", 0, line_at), kept


def suffix_window(encode: Encode, text: str, budget: int) -> list[int]:
    """Ids of the first lines of `text`, at most `budget`: whole lines, or a part of the first if that alone is longer.

    It starts at the cursor, so that whatever moves its start is computed anew anyway: its end need not keep still.
    """
    rest, _, after = text.partition("\n")
    if CLOSERS.issuperset(rest):
        text = after
    at, tokens = 0, 0
    while at < len(text):
        end = text.find("\n", at) + 1 or len(text)
        cut = min(end, at + _LONG_LINE)
        tokens += len(encode(text[at:cut], budget - tokens))
        if tokens > budget:
            break
        at = cut
        if cut < end:  # what follows was not counted
            break
    return encode(text[: at or min(len(text), _LONG_LINE)])[:budget]


def _set_aside(suffix: int, budget: Budget) -> int:
    """Tokens of the window that the prefix may not have. In steps, or each line of a walk would move its top."""
    share = max(1, budget.suffix // SUFFIX_SHARES)
    return min(budget.suffix, -(-suffix // share) * share)


def _blocks_that_fit(encode: Encode, text: str, budget: int, block: int) -> tuple[int, int, int]:
    """Walk up from the cursor -> (first line kept, where it starts, tokens kept), whole blocks only.

    The cursor's line counts in steps: while it is typed it has more tokens and fewer again, which must not move the window.
    """
    line, at = text.count("\n"), text.rfind("\n") + 1
    kept_line, kept_at, kept, below = line, len(text), 0, at
    step = max(_LEAST_STEP, budget // 40)
    # No token has so many characters on average: do not tokenise a megabyte to learn that it does not fit.
    most = budget * 64
    own = budget + 1 if len(text) - at > most else -(-max(1, len(encode(text[at:], budget))) // step) * step
    while True:
        first = line // block * block
        for _ in range(line - first):
            at = _line_before(text, at)
        left = budget - kept - own
        tokens = own + (budget if below - at > most else len(encode(text[at:below], left)))
        if kept + tokens > budget:
            break
        kept_line, kept_at, kept, own, below = first, at, kept + tokens, 0, at
        if at == 0:
            break
        line, at = first - 1, _line_before(text, at)
    return kept_line, kept_at, kept


def _line_before(text: str, at: int) -> int:
    """Where the line before the one that starts at `at` starts."""
    return text.rfind("\n", 0, max(0, at - 1)) + 1


def _anchor(prefix: str, top: int) -> int:
    """Where P1 starts in a window whose first line is number `top` of the document."""
    line = top + prefix.count("\n")
    back = line - line // ANCHOR_LINES * ANCHOR_LINES
    at = prefix.rfind("\n") + 1
    for _ in range(back):
        at = _line_before(prefix, at)
    return at


def _held_back(tokenizer: Tokenizer, segment: str) -> str:
    held = tokenizer.last_pre_token(segment)
    if not held or len(tokenizer.encode(held)) > _MAX_HELD:
        return ""
    text = held.encode("utf-8", "replace")
    return held if tokenizer.may_continue(text) and tokenizer.tokens_along(text) else ""


def _head(tokenizer: Tokenizer, encode: Encode, document: Document, budget: Budget) -> tuple[list[int], int]:
    """Repository, other files and the document's own path, in the models' metadata format; a quarter of the window.

    -> (ids, how many of them are not the document's own)
    """
    control, room = tokenizer.control, budget.window // 4

    def entry(marker: int | None, text: str) -> list[int]:
        """What a text costs, taken off the room; nothing if there is none for it."""
        nonlocal room
        ids = [] if marker is None else [marker]
        ids += encode(text, room - len(ids))
        if len(ids) > room:
            return []
        room -= len(ids)
        return ids

    named = document.path and control.filename is not None
    own = entry(control.filename, f"{document.path}\n") if named else []
    known = document.repository and control.reponame is not None
    repository = entry(control.reponame, document.repository) if known else []
    # The last one stands next to the document because it is the most alike, so it is the last to be left out.
    pieces = [
        entry(control.filename, f"{snippet.path}\n{snippet.text}".rstrip("\n") + "\n")
        for snippet in reversed(document.context)
    ]
    shared = [*repository, *(token for piece in reversed(pieces) for token in piece)]
    return shared + own, len(shared)

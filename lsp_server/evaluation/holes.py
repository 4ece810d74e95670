"""Holes to complete: where they are cut, and what stood there. The same seed and files give the same holes."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from lsp_server.evaluation.sources import Source
from lsp_server.rules.languages import Language
from lsp_server.rules.syntax import parse

if TYPE_CHECKING:
    from tree_sitter import Tree

MAX_HOLE_LINES = 12
_TRIES = 60
_QUOTES = "\"'`"
_CLOSERS = ")]}" + _QUOTES
_STATEMENT = ("_statement", "_declaration", "_definition", "_item", "_element")


class Kind(StrEnum):
    """What was cut out."""

    REST_OF_LINE = "rest_of_line"
    """From a place in a line to its end: the cursor is at the end of the line."""
    INSIDE_LINE = "inside_line"
    """From a place in a line up to a closing sign, as after an editor closed a bracket: text stands right of the cursor."""
    LINE = "line"
    """A whole line, but its indentation."""
    STATEMENT = "statement"
    """A statement, over as many lines as it has."""
    BLOCK = "block"
    """The body of a block that was just opened."""
    SPAN = "span"
    """Any characters."""
    NOTHING = "nothing"
    """Nothing: the cursor at the end of a line that is complete. A good completion there is none."""


@dataclass(frozen=True, slots=True)
class Hole:
    """A file with `text[start:end]` missing and the cursor there.

    `group` is the package that the file is of; `context` are path and text of pieces of other files that come with it.
    """

    path: str
    language: Language
    kind: Kind
    text: str
    start: int
    end: int
    group: str
    context: tuple[tuple[str, str], ...] = ()

    @property
    def truth(self) -> str:
        """What stood there."""
        return self.text[self.start : self.end]

    @property
    def prefix(self) -> str:
        """Everything before the cursor."""
        return self.text[: self.start]

    @property
    def suffix(self) -> str:
        """Everything after the cursor."""
        return self.text[self.end :]

    @property
    def key(self) -> str:
        """A name that another run of the same hole has too."""
        digest = hashlib.sha256(f"{self.start}\0{self.end}\0{self.text}".encode("utf-8", "replace")).hexdigest()
        return f"{self.kind}-{digest[:16]}"


Span = tuple[int, int]


class _File:
    """One file while holes are cut into it."""

    def __init__(self, source: Source, rng: random.Random) -> None:
        self.source = source
        self.text = source.text
        self.rng = rng
        self.starts = [0, *(at + 1 for at, sign in enumerate(source.text) if sign == "\n")]
        self._tree: Tree | None = None
        self._parsed = False

    def line(self, number: int) -> str:
        """A line without its end."""
        end = self.starts[number + 1] - 1 if number + 1 < len(self.starts) else len(self.text)
        return self.text[self.starts[number] : end]

    def random_line(self) -> tuple[int, str]:
        number = self.rng.randrange(len(self.starts))
        return number, self.line(number)

    @property
    def tree(self) -> Tree | None:
        if not self._parsed:
            self._tree, self._parsed = parse(self.source.language, self.text), True
        return self._tree


def cut(sources: Sequence[Source], count: int, kinds: Iterable[Kind] = Kind, seed: int = 0) -> list[Hole]:
    """About `count` holes, spread evenly over kinds, languages and top folders; none twice, nor two that look alike."""
    kinds = list(kinds)
    groups: dict[tuple[str, str], list[Source]] = defaultdict(list)
    for source in sources:
        groups[source.language.id, source.path.split("/")[0]].append(source)
    # Every group and kind draws from a generator of its own, so that a larger count begins with the smaller one's holes.
    draws = [_draw(kind, name, files, seed) for kind in kinds for name, files in sorted(groups.items())]
    holes: list[Hole] = []
    seen: set[tuple[str, str]] = set()
    while draws and len(holes) < count:
        alive = []
        for draw in draws:
            hole = next(draw, None)
            if hole is None:
                continue
            alive.append(draw)
            line = hole.prefix.rpartition("\n")[2].strip()
            alike = (line, hole.truth.strip() or hole.suffix.strip()[:40])
            if alike not in seen and len(holes) < count:
                seen.add(alike)
                holes.append(hole)
        draws = alive
    return holes


def _draw(kind: Kind, name: tuple[str, str], files: Sequence[Source], seed: int) -> Iterator[Hole]:
    rng = random.Random(f"{seed} {kind} {name}")  # noqa: S311  (a sample, no secret)
    opened: dict[int, _File] = {}
    weights = [len(source.text) for source in files]
    failed = 0
    while failed < _TRIES:
        at = rng.choices(range(len(files)), weights)[0]
        file = opened.setdefault(at, _File(files[at], rng))
        span = _CUTTERS[kind](file)
        if span is None or (kind is not Kind.NOTHING and not file.text[slice(*span)].strip()):
            failed += 1
            continue
        failed = 0
        yield Hole(files[at].path, files[at].language, kind, file.text, *span, group=name[1])


def _rest_of_line(file: _File) -> Span | None:
    number, line = file.random_line()
    first, last = _content(line)
    if last - first < 4:
        return None
    at = file.rng.randrange(first + 1, last)
    return None if line[at].isspace() else (file.starts[number] + at, file.starts[number] + last)


def _inside_line(file: _File) -> Span | None:
    number, line = file.random_line()
    first, last = _content(line)
    closers = [at for at in range(first + 2, last) if line[at] in _CLOSERS]
    if not closers:
        return None
    end = file.rng.choice(closers)
    start = file.rng.randrange(max(first + 1, end - 40), end)
    inside = line[start:end]
    if line[end] in _QUOTES:
        if line.count(line[end], first, start) % 2 == 0 or line[end] in inside:
            return None  # that sign opens a string, or closes another
    elif not _balanced(inside):
        return None
    return file.starts[number] + start, file.starts[number] + end


def _line(file: _File) -> Span | None:
    number, line = file.random_line()
    first, last = _content(line)
    return None if last - first < 4 else (file.starts[number] + first, file.starts[number] + last)


def _nothing(file: _File) -> Span | None:
    number, line = file.random_line()
    first, last = _content(line)
    below = file.line(number + 1) if number + 1 < len(file.starts) else ""
    if last - first < 4 or not below.strip() or _indent(below) > _indent(line):
        return None
    at = file.starts[number] + last
    return None if line.rstrip()[-1] in "({[,:\\=+-*/|&<>.\"'" or last != len(line) else (at, at)


def _span(file: _File) -> Span | None:
    at = file.rng.randrange(len(file.text))
    length = max(2, min(200, int(file.rng.expovariate(1 / 30))))
    end = min(len(file.text), at + length)
    return None if file.text[at].isspace() else (at, at + len(file.text[at:end].rstrip()))


def _statement(file: _File) -> Span | None:
    if file.tree is None:
        return _indented_statement(file)
    number, line = file.random_line()
    first, last = _content(line)
    if last == first:
        return None
    byte = len(file.text[: file.starts[number] + first].encode("utf-8", "replace"))
    node = file.tree.root_node.descendant_for_byte_range(byte, byte + 1)
    best: Span | None = None
    while node is not None and node.start_byte == byte:
        lines = node.end_point[0] - node.start_point[0] + 1
        if node.type.endswith(_STATEMENT) and lines <= MAX_HOLE_LINES and not node.has_error:
            text = file.text.encode("utf-8", "replace")[byte : node.end_byte].decode("utf-8", "replace")
            end = file.starts[number] + first + len(text.rstrip())
            if not file.text[end:].partition("\n")[0].strip():  # else the cursor would be in the middle of a line
                best = (file.starts[number] + first, end)
        node = node.parent
    return best


def _indented_statement(file: _File) -> Span | None:
    number, line = file.random_line()
    first, last = _content(line)
    if last - first < 2 or line.strip()[0] in ")]}":
        return None
    end, depth = number, _depth(line)
    while end + 1 < len(file.starts) and (depth > 0 or _indent(file.line(end + 1)) > _indent(line)):
        if not file.line(end + 1).strip() or end - number >= MAX_HOLE_LINES:
            return None
        end += 1
        depth += _depth(file.line(end))
    if depth:
        return None
    return file.starts[number] + first, file.starts[end] + _content(file.line(end))[1]


def _block(file: _File) -> Span | None:
    number, line = file.random_line()
    opener = ":" if file.source.language.id == "python" else "{"
    if not line.rstrip().endswith(opener) or number + 1 >= len(file.starts):
        return None
    own, end = _indent(line), number
    while end + 1 < len(file.starts):
        below = file.line(end + 1)
        if below.strip() and _indent(below) <= own:
            break
        end += 1
    while end > number and not file.line(end).strip():
        end -= 1
    if not 1 <= end - number <= MAX_HOLE_LINES or not file.line(number + 1).strip():
        return None
    first, _ = _content(file.line(number + 1))
    start = file.starts[number + 1] + first if file.rng.random() < 0.7 else file.starts[number] + len(line.rstrip())
    return start, file.starts[end] + _content(file.line(end))[1]


_CUTTERS: dict[Kind, Callable[[_File], Span | None]] = {
    Kind.REST_OF_LINE: _rest_of_line,
    Kind.INSIDE_LINE: _inside_line,
    Kind.LINE: _line,
    Kind.STATEMENT: _statement,
    Kind.BLOCK: _block,
    Kind.SPAN: _span,
    Kind.NOTHING: _nothing,
}


def _content(line: str) -> Span:
    """Where a line's text begins and ends."""
    return len(line) - len(line.lstrip()), len(line.rstrip())


def _indent(line: str) -> int:
    expanded = line.expandtabs(4)
    return len(expanded) - len(expanded.lstrip())


def _balanced(text: str) -> bool:
    """Whether brackets close in `text` what they opened there, and quotes come in pairs."""
    depth = 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        if depth < 0:
            return False
    return depth == 0 and all(text.count(quote) % 2 == 0 for quote in _QUOTES)


def _depth(line: str) -> int:
    return sum(map(line.count, "([{")) - sum(map(line.count, ")]}"))

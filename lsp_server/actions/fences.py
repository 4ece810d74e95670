"""Fences around code: one that nothing in the code can close, and the code of an answer that stands between some.

In Markdown, and where the code itself has a fence at the beginning of a line, a fence in an answer is text like any other
unless it stands around all of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lsp_server.rules.languages import PLAIN, Language, by_id, by_path

_LINE: Final = re.compile(r"([ \t]*)(`{3,}|~{3,})([^`]*)")
_OF_FENCES: Final = frozenset({"markdown", "rmd"})
_SHORTEST: Final = 3


@dataclass(frozen=True, slots=True)
class _Fence:
    """A line that may open or close a block."""

    indent: str
    signs: str
    info: str

    @classmethod
    def on(cls, line: str) -> _Fence | None:
        found = _LINE.fullmatch(line)
        return None if found is None else cls(found[1], found[2], found[3].strip())

    def closes(self, opener: _Fence) -> bool:
        return not self.info and self.indent == opener.indent and self.signs.startswith(opener.signs)


def fence_for(code: str, language: Language) -> str:
    """The line to put around code: longer than each fence in it, and than those that its language may add."""
    found = [len(fence.signs) for line in code.split("\n") if (fence := _Fence.on(line)) and fence.signs[0] == "`"]
    if language.id in _OF_FENCES:
        found.append(_SHORTEST)
    return "`" * max(_SHORTEST, max(found, default=0) + 1)


def unfenced(said: str, asked: str, language: Language) -> str:
    """The code of an answer about the code `asked`: what stands between its fences, or all of it where it has none."""
    lines = said.split("\n")
    first = next((at for at, line in enumerate(lines) if line.strip()), 0)
    if language.id in _OF_FENCES or any(fence and not fence.indent for fence in map(_Fence.on, asked.split("\n"))):
        block = _around_all(lines, first, asked, language)
    else:
        block = _first_block(lines, first)
    return said if block is None else "\n".join(block)


def _first_block(lines: Sequence[str], first: int) -> Sequence[str] | None:
    """What the first pair of fences holds; up to the end where it is not closed. An indented one belongs to the code."""
    for at in range(first, len(lines)):
        opener = _Fence.on(lines[at])
        if opener is not None and (not opener.indent or at == first):
            after = range(at + 1, len(lines))
            end = next((n for n in after if (fence := _Fence.on(lines[n])) and fence.closes(opener)), len(lines))
            return lines[at + 1 : end]
    return None


def _around_all(lines: Sequence[str], first: int, asked: str, language: Language) -> Sequence[str] | None:
    """What stands in a block that ends with the answer and begins with it, or after words that no program begins with."""
    last = max((number for number, line in enumerate(lines) if line.strip()), default=-1)
    known = {line.strip() for line in asked.split("\n")}
    for at in range(first, last):
        opener, closer = _Fence.on(lines[at]), _Fence.on(lines[last])
        if opener is None or opener.indent or closer is None or not closer.closes(opener):
            continue
        named = _names(opener.info, language) and lines[at].strip() not in known
        if named and (at == first or language.id not in _OF_FENCES):
            return lines[at + 1 : last]
        # A block that was asked about has fences of its own: within others, if the answer has more.
        if at == first and _is_nested(lines[at : last + 1], opener):
            inner = lines[at + 1 : last]
            return inner if _begins(inner) or not _begins(asked.split("\n")) else None
    return None


def _is_nested(lines: Sequence[str], opener: _Fence) -> bool:
    """Whether a block ends with the last line and not before, if each fence with a word behind it opens another one."""
    depth = 0
    for number, line in enumerate(lines):
        fence = _Fence.on(line)
        if fence is not None and not fence.indent and fence.signs.startswith(opener.signs):
            depth += 1 if fence.info or not number else -1
            if not depth:
                return number == len(lines) - 1
    return False


def _begins(lines: Sequence[str]) -> bool:
    """Whether a text begins with a fence."""
    return _Fence.on(next((line for line in lines if line.strip()), "")) is not None


def _names(info: str, language: Language) -> bool:
    word = next(iter(info.lower().split()), "")
    return language is not PLAIN and language in (by_id(word), by_path(f"x.{word}"))

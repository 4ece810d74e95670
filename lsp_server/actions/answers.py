"""What a model said, as a person reads it and as code."""

from __future__ import annotations

import re
from typing import Final

_BLOCK: Final = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n`]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)


def as_text(said: str) -> str:
    """The answer without blank lines around it."""
    return said.strip("\n").rstrip()


def as_code(said: str, *, opened: bool) -> str:
    """The code of an answer: its first block between fences, or all of it where it has none."""
    if not opened and (block := _BLOCK.search(said)) is not None:
        said = block[2]
    said = said.rstrip()
    lines = said.split("\n")
    while lines and not lines[0].strip():
        lines.pop(0)
    indents = [len(line) - len(line.lstrip()) for line in lines if line.strip()]
    shared = min(indents, default=0)
    return "\n".join(line[shared:].rstrip() if line.strip() else "" for line in lines)

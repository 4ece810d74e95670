"""What a model said, as a person reads it and as code."""

from __future__ import annotations

from lsp_server.actions.fences import unfenced
from lsp_server.actions.selection import shared_indent
from lsp_server.rules.languages import PLAIN, Language


def as_text(said: str) -> str:
    """The answer without blank lines around it."""
    return said.strip("\n").rstrip()


def as_code(said: str, asked: str = "", language: Language = PLAIN, *, opened: bool) -> str:
    """The code of an answer about the code `asked`, as far left as that. `opened`: it is code from its first line on."""
    lines = (said if opened else unfenced(said, asked, language)).rstrip().split("\n")
    while lines and not lines[0].strip():
        lines.pop(0)
    # Where no line of what was asked begins at the edge, the indentation of the answer is its own.
    at_edge = not asked or any(line[:1].strip() for line in asked.split("\n"))
    shared = len(shared_indent(lines)) if at_edge else 0
    return "\n".join(line[shared:].rstrip() if line.strip() else "" for line in lines)

"""Tabs or blanks at line starts, as the document has them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from lsp_server.rules.languages import PLAIN, Language
from lsp_server.window import Window

_INDENTS = re.compile(r"^([ \t]+)\S", re.MULTILINE)
_AS_SAID = frozenset({"makefile"})  # where tabs mean something that blanks do not
_LOOKED_AT = 8_192  # characters above the cursor


class Indenter:
    """Rewrites the blanks at the starts of a stream's lines. A document without indentation leaves them alone."""

    def __init__(self, window: Window, language: Language = PLAIN, *, active: bool = True) -> None:
        self._unit = document_unit(window) if active and language.id not in _AS_SAID else None
        self._pending: list[str] | None = None
        self._at_start = active and window.line_before.isspace() and not opens_above(window)
        self._model_unit = 0
        if self._unit is not None and not self._at_start and not window.line_before.strip():
            self._pending = []  # the first line of a block is as much at its start as the others

    def feed(self, sign: str) -> Iterator[str]:
        """One sign -> the signs that take its place; blanks at a line's start come when the line's text does."""
        if self._at_start:
            self._at_start = sign in " \t"
            if not self._at_start:
                yield sign
        elif self._unit is None:
            yield sign
        elif sign == "\n":
            yield from self._pending or ()
            self._pending = []
            yield sign
        elif self._pending is not None and sign in " \t":
            self._pending.append(sign)
        elif self._pending is not None:
            blanks, self._pending = "".join(self._pending), None
            yield from self._rewritten(blanks)
            yield sign
        else:
            yield sign

    def _rewritten(self, blanks: str) -> str:
        if self._unit == "\t" and " " in blanks:
            self._model_unit = self._model_unit or (2 if len(blanks.expandtabs(4)) % 4 else 4)
            columns = len(blanks.expandtabs(self._model_unit))
            tabs, rest = divmod(columns, self._model_unit)
            return "\t" * tabs + " " * rest
        if self._unit != "\t" and "\t" in blanks:
            return blanks.replace("\t", self._unit or "")
        return blanks


def opens_above(window: Window) -> bool:
    """Whether the cursor's line, which has blanks alone, is not indented deeper than the line that opened its block."""
    *above, here = window.prefix.split("\n")
    line = next((line for line in reversed(above) if line.strip()), "")
    opener = line.rstrip().endswith((":", "{", "(", "["))
    return opener and len(here.expandtabs(4)) <= len(line.expandtabs(4)) - len(line.expandtabs(4).lstrip())


def document_unit(window: Window) -> str | None:
    """A tab, or the blanks of one level, as most lines around the cursor have it; None when no line is indented."""
    found: Counter[str] = Counter()
    for text in (window.prefix[-_LOOKED_AT:], window.suffix[:_LOOKED_AT]):
        for match in _INDENTS.finditer(text):
            found["\t" if match[1][0] == "\t" else " "] += 1
            if match[1][0] == " ":
                found[f" {min(len(match[1]), 8)}"] += 1
    if not found["\t"] and not found[" "]:
        return None
    if found["\t"] > found[" "]:
        return "\t"
    return " " * next((size for size in (2, 3, 4) if found[f" {size}"] * 20 >= found[" "]), 4)

"""What stands right of or below the cursor already, and how a completion is kept from saying it again."""

from __future__ import annotations

from lsp_server.window import Window

_LONG_ENOUGH = 3
"""Signs of a rest of line that no completion contains by chance."""


def without_overlap(text: str, rest_of_line: str) -> str:
    """Drop from the end of `text` what stands right of the cursor already, such as a bracket that the editor closed."""
    rest = rest_of_line.strip()
    line, newline, _ = text.partition("\n")
    if not rest or newline:
        return text
    bare = line.rstrip()
    for whole in (rest_of_line.rstrip(), rest):
        if bare.endswith(whole):
            return bare.removesuffix(whole)
    for length in range(min(len(line), len(rest) - 1), 0, -1):
        if line.endswith(rest[:length]) and not rest[:length].isalnum():
            return line[: len(line) - length]
    return text


def ends_where_rest_begins(text: str, rest_of_line: str) -> int | None:
    """Where a stream's first line began to say the whole rest of the line; None while it does not."""
    rest = rest_of_line.strip()
    if len(rest) < _LONG_ENOUGH or not text.endswith(rest):
        return None
    at = len(text) - len(rest)
    whole = rest_of_line.rstrip()
    return len(text) - len(whole) if text.endswith(whole) else at


def said_already(text: str, rest_of_line: str) -> int:
    """How many signs at the end of `text` are the beginning of the rest of the line; 1 if none are."""
    rest = rest_of_line.strip()
    return next((size for size in range(min(len(text), len(rest)), 0, -1) if text.endswith(rest[:size])), 1)


def without_next_line(text: str, following: str) -> str:
    """Drop a last line, below others, that says again the `following` line of the document that has text."""
    above, newline, last = text.rpartition("\n")
    return above if newline and len(following) > _LONG_ENOUGH and last.strip() == following else text


def repeats_what_follows(text: str, window: Window) -> bool:
    """Whether the completed line is the next line that has text, or the text is the very rest of this one."""
    rest = window.rest_of_line.strip()
    if rest and text.strip() == rest and any(sign not in ")]}" for sign in rest):
        return True
    first = (window.line_before + text.partition("\n")[0]).strip()
    following = next((line.strip() for line in window.suffix.split("\n")[1:] if line.strip()), "")
    return len(first) > 3 and first == following and text.count("\n") == 0

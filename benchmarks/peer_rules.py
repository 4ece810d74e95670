"""What two peers show of a model's output: their published rules written anew, to shape the same generations by them.

llama.vim: `autoload/llama.vim`, the rules that discard or trim a suggestion before it is rendered. Tabby:
`crates/tabby-inference` (stop words) and `clients/tabby-agent/src/codeCompletion/postprocess` (filters, in their order).
What a peer replaces right of the cursor is left out of its text, so that texts are compared by the buffer that accepting
them makes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from lsp_server.window import Window

_KEYWORDS = ("def", "from", "class", "import")
_INDENTS = ("", "  ", "    ", "        ", "\t", "\t\t")


def none(text: str, _window: Window) -> str:
    """As the model said it, blanks at the end aside."""
    return text.rstrip()


def llama_vim(text: str, window: Window) -> str:
    """llama.vim's rules."""
    content = text.rstrip().split("\n")
    before = window.line_before
    if not (before + window.rest_of_line).strip():  # blanks that the cursor's own line has already
        lead = min(len(content[0]) - len(content[0].lstrip()), len(before))
        content[0], before = content[0][lead:], content[0][:lead]
    below = window.suffix.split("\n")[1:]
    if len(content) > 1 and not content[0] and content[1:] == below[: len(content) - 1]:
        return ""
    if len(content) == 1 and content[0] == window.rest_of_line:
        return ""
    first = next((number for number, line in enumerate(below) if line.strip()), len(below))
    following = below[first:]
    if following and before + content[0] == following[0]:
        if len(content) == 1:
            return ""
        if len(content) == 2 and (following[1:] or [""])[0].startswith(content[-1]):
            return ""
        if len(content) > 2 and content[1:] == following[1 : len(content)]:
            return ""
    return "\n".join(content)


def tabby_stop(text: str) -> str:
    """The text up to Tabby's stop words for Python."""
    words = [f"\n\n{indent}" for indent in _INDENTS] + ["\n#"] + [f"\n{word}" for word in _KEYWORDS]
    ends = [at for word in words if (at := text.find(word)) >= 0]
    return text[: min(ends)] if ends else text


@dataclass(slots=True)
class _Item:
    text: str
    window: Window

    @property
    def lines(self) -> list[str]:
        return self.text.split("\n")


def tabby(text: str, window: Window) -> str:
    """Tabby's stop words and filters."""
    item = _Item(tabby_stop(text), window)
    for rule in (
        _single_line, _line_ends_with_repetition, _drop_duplicated, _trim_space, _drop_minimum,
        _repetitive_blocks, _repetitive_lines, _limit_scope, _duplicated_closing_line, _drop_duplicated, _trim_space,
        _duplicate_suffix_lines, _drop_minimum, _replace_range,
    ):  # fmt: skip
        if item.text:
            item.text = rule(item)
    return item.text


def _single_line(item: _Item) -> str:
    rest = item.window.rest_of_line
    if not re.fullmatch(r"\W*", rest) and len(item.lines) > 1:
        line, rest = item.lines[0].rstrip(), rest.rstrip()
        return line.removesuffix(rest) if line.endswith(rest) else ""
    return item.text


def _line_ends_with_repetition(item: _Item) -> str:
    lines = item.text.rstrip().split("\n")
    if re.search(r"(.{3,}?)\1{5,}$", lines[-1]) or re.search(r"(.{10,}?)\1{3,}$", lines[-1]):
        return "\n".join(lines[:-1]).rstrip()
    return item.text


def _drop_duplicated(item: _Item) -> str:
    ours = _from_first_text(item.lines)
    below = _from_first_text(item.window.suffix.split("\n"))
    count = min(3, len(ours), len(below))
    a, b = "\n".join(ours[:count]).strip(), "\n".join(below[:count]).strip()
    if count and Levenshtein.distance(a, b) <= max(1, 0.05 * len(a), 0.05 * len(b)):
        return ""
    return item.text


def _trim_space(item: _Item) -> str:
    before, rest, text = item.window.line_before, item.window.rest_of_line, item.text
    if before.strip() and before[-1:].isspace():
        text = text.lstrip()
    return text.rstrip() if not rest.strip() or rest[0].isspace() else text


def _drop_minimum(item: _Item) -> str:
    return item.text if len(item.text.strip()) >= 4 else ""


def _repetitive_blocks(item: _Item) -> str:
    blocks = re.split(r"\n\s*\n", item.text)
    at = _similar_run(blocks, len(blocks) - 2, 2)
    return item.text if at is None else "\n\n".join(blocks[: at + 1]).rstrip()


def _repetitive_lines(item: _Item) -> str:
    at = _similar_run(item.lines, len(item.lines) - 2, 5)
    return item.text if at is None else "\n".join(item.lines[: at + 1]).rstrip()


def _similar_run(pieces: Sequence[str], last: int, enough: int) -> int | None:
    """Where a run of at least `enough` alike pieces before the last one begins."""
    alike, at = 0, last
    while at >= 1:
        if not pieces[at].strip():
            at -= 1
            continue
        earlier = at - 1
        while earlier >= 0 and not pieces[earlier].strip():
            earlier -= 1
        if earlier < 0:
            break
        a, b = pieces[at].strip(), pieces[earlier].strip()
        if Levenshtein.distance(a, b) > max(0.1 * len(a), 0.1 * len(b)):
            break
        alike, at = alike + 1, earlier
    return at if alike >= enough else None


def _limit_scope(item: _Item) -> str:
    before, lines = item.window.line_before, item.lines
    reference = next((line for line in reversed(item.window.prefix.split("\n")) if line.strip()), "")
    first = next((line for line in lines if line.strip()), "")
    limit, closing = _indent(reference), True
    if before.strip() and lines[0].strip():
        limit += 1
        closing = _opens([before + lines[0], *lines[1:]], 0)
    elif (_indent(first) if not lines[0].strip() else _indent(before + first)) > limit:
        limit += 1
    below = _from_first_text(item.window.suffix.split("\n")[1:])
    closing = closing and (not below or _indent(below[0]) < limit)
    whole = [before + lines[0], *lines[1:]]
    at = 1
    while at < len(lines):
        if lines[at].strip() and _indent(lines[at]) < limit and not (_closes(whole, at) and _opens(whole, at)):
            at += closing and bool(lines[at - 1].strip())
            break
        at += 1
    return item.text if at >= len(lines) else "\n".join(lines[:at]).rstrip()


def _duplicated_closing_line(item: _Item) -> str:
    lines = item.lines
    whole = [item.window.line_before + lines[0], *lines[1:]]
    below = _from_first_text(item.window.suffix.split("\n")[1:])
    if len(lines) < 2 or not below or not _closes(whole, len(lines) - 1):
        return item.text
    last, first = lines[-1].rstrip(), below[0].rstrip()
    return "\n".join(lines[:-1]).rstrip() if last.startswith(first) or first.startswith(last) else item.text


def _duplicate_suffix_lines(item: _Item) -> str:
    below = [line.strip() for line in item.window.suffix.split("\n") if line.strip()]
    lines = item.lines
    for at in range(len(lines) - 1, -1, -1):
        if below and lines[at].strip() and lines[at:][: len(below)] == below[: len(lines) - at]:
            return "\n".join(lines[:at])
    return item.text


def _replace_range(item: _Item) -> str:
    """Closing signs of the text that stand right of the cursor too are replaced there."""
    rest, stack, unpaired = item.window.rest_of_line.rstrip(), [], ""
    pairs = {")": "(", "]": "[", "}": "{"}
    for sign in item.text:
        if sign in pairs.values():
            stack.append(sign)
        elif sign in pairs:
            if stack and stack[-1] == pairs[sign]:
                stack.pop()
            else:
                unpaired += sign
        elif sign in "\"'`":
            if stack and stack[-1] == sign:
                stack.pop()
            else:
                stack.append(sign)
    unpaired += "".join(sign for sign in stack if sign in "\"'`")
    if not rest or not unpaired:
        return item.text
    replaced = unpaired if rest.startswith(unpaired) else rest if unpaired.startswith(rest) else ""
    return item.text.removesuffix(replaced)


def _from_first_text(lines: Sequence[str]) -> Sequence[str]:
    return next((lines[at:] for at, line in enumerate(lines) if line.strip()), [])


def _opens(lines: Sequence[str], at: int) -> bool:
    return at + 1 < len(lines) and _indent(lines[at]) < _indent(lines[at + 1])


def _closes(lines: Sequence[str], at: int) -> bool:
    return 0 < at < len(lines) and _indent(lines[at]) < _indent(lines[at - 1])


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())

"""Functions that are typed again, and typing that is taken back."""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator
from dataclasses import replace

from tests.harness.traces.events import Event, Kind

_CLOSERS = {"(": ")", "[": "]", "{": "}"}
_WORD = re.compile(r"\w+\W*|\W+")


def typing_trace(source: str, seed: int = 7, functions: int = 3) -> Iterator[Event]:
    """Some functions of a Python source are emptied and typed again, character by character.

    Brackets close themselves and are typed over, new lines indent themselves; now and then a run of characters arrives
    at once (an accepted completion), or a character is deleted and typed again.
    """
    rng = random.Random(seed)
    for start, end in picked_bodies(source, rng, functions):
        yield from type_body(rng, source[:start], source[start:end], source[end:])


def undo_trace(source: str, seed: int = 7, storms: int = 4) -> Iterator[Event]:
    """A line or two are typed, taken back word by word, brought back, taken back again, and typed at last."""
    rng = random.Random(seed)
    for start, end in picked_bodies(source, rng, storms):
        left, right = source[:start], source[end:]
        text = source[start:end][: rng.randint(50, 110)].rstrip()
        yield Event("jump", left, right, text.split("\n")[0])
        words = _WORD.findall(text)
        for word in words:
            for char in word:
                left += char
                yield Event("newline" if char == "\n" else "char", left, right, "")
        typed = "".join(words)
        storm: tuple[Kind, ...] = ("undo", "redo", "undo", "redo")
        for kind in storm:
            for count in range(1, len(words) + 1):
                kept = words[: len(words) - count] if kind == "undo" else words[:count]
                yield Event(kind, source[:start] + "".join(kept), right, "")
        short = max(0, len(typed) - 12)
        for length in range(len(typed) - 1, short - 1, -1):
            yield Event("delete", source[:start] + typed[:length], right, typed[length:])
        for length in range(short + 1, len(typed) + 1):
            yield Event("char", source[:start] + typed[:length], right, typed[length:])


def picked_bodies(
    source: str, rng: random.Random, count: int, lines: tuple[int, int] = (4, 14)
) -> list[tuple[int, int]]:
    """Where bodies of some functions begin and end, in the file's order."""
    starts = [0, *(end.end() for end in re.finditer(r"\r\n|\n|\r", source)), len(source)]
    nodes = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and lines[0] <= (node.end_lineno or 0) - node.body[0].lineno + 1 <= lines[1]
    ]
    picked = sorted(rng.sample(nodes, min(count, len(nodes))), key=lambda node: node.lineno)
    found = []
    for node in picked:
        assert node.end_lineno is not None
        start, end = starts[node.body[0].lineno - 1], starts[node.end_lineno]
        found.append((start, start + len(source[start:end].rstrip("\r\n"))))
    return found


def type_body(rng: random.Random, left: str, body: str, right: str, document: str = "a") -> Iterator[Event]:
    """One body, from a jump to where it goes on."""

    def event(kind: Kind) -> Event:
        return Event(kind, left, closers + right, body[at:].split("\n")[0], document)

    closers, at = "", 0  # `closers`: brackets that the editor added right of the cursor
    yield event("jump")
    while at < len(body):
        if rng.random() < 0.012 and not closers and "\n" not in body[at : at + 25]:
            left, at = left + body[at : at + 25], min(at + 25, len(body))
            yield event("accept")
            continue
        char, kind = body[at], _kind(body[at], closers)
        at += 1
        left += char
        if kind == "overtype":
            closers = closers[1:]
        elif kind == "autoclose":
            closers = _CLOSERS[char] + closers
        elif kind == "newline":
            indent = len(body[at:]) - len(body[at:].lstrip(" "))
            left, at = left + " " * indent, at + indent
        yield event(kind)
        if kind == "char" and rng.random() < 0.02 and char.isalnum():
            yield replace(event("delete"), prefix=left[:-1], want=char + body[at:].split("\n")[0])
            yield event("char")


def _kind(char: str, closers: str) -> Kind:
    if closers and char == closers[0]:
        return "overtype"
    if char in _CLOSERS:
        return "autoclose"
    return "newline" if char == "\n" else "char"

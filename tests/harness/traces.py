"""Editing traces: what an editor sends while a person types, made from the source that the person would have typed."""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["jump", "char", "newline", "autoclose", "overtype", "delete", "accept", "walk"]

_CLOSERS = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class Event:
    """The text on both sides of the cursor after one change or jump; `want` is the rest of the line as written."""

    kind: Kind
    prefix: str
    suffix: str
    want: str


def typing_trace(source: str, seed: int = 7, functions: int = 3) -> Iterator[Event]:
    """Some functions of a Python source are emptied and typed again, character by character.

    Brackets close themselves and are typed over, new lines indent themselves; now and then a run of characters arrives
    at once (an accepted completion), or a character is deleted and typed again.
    """
    rng = random.Random(seed)
    starts = [0, *(end.end() for end in re.finditer(r"\r\n|\n|\r", source)), len(source)]
    bodies = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and 4 <= _body_len(node) <= 14
    ]
    picked = sorted(rng.sample(bodies, min(functions, len(bodies))), key=lambda node: node.lineno)
    for node in picked:
        assert node.end_lineno is not None
        start, end = starts[node.body[0].lineno - 1], starts[node.end_lineno]
        body = source[start:end].rstrip("\r\n")
        yield from _type_body(rng, source[:start], body, source[start + len(body) :])


def browse_trace(source: str, seed: int = 7, touches: int = 60) -> Iterator[Event]:
    """The cursor walks a few lines up or down, retypes the end of a line, and walks on."""
    rng = random.Random(seed)
    lines = source.split("\n")
    at = len(lines) // 2
    for _ in range(touches):
        at = max(1, min(len(lines) - 2, at + rng.choice([-6, -3, -2, -1, 1, 1, 1, 2, 3, 5])))
        line = lines[at]
        cut = max(0, len(line) - rng.randint(3, 12))
        for typed in range(cut, len(line) + 1):
            prefix = "\n".join([*lines[:at], line[:typed]])
            suffix = "\n" + "\n".join(lines[at + 1 :])
            yield Event("walk" if typed == cut else "char", prefix, suffix, line[typed:])


def _body_len(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or 0) - node.body[0].lineno + 1


def _type_body(rng: random.Random, left: str, body: str, right: str) -> Iterator[Event]:
    def event(kind: Kind) -> Event:
        return Event(kind, left, closers + right, body[at:].split("\n")[0])

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
            yield Event("delete", left[:-1], closers + right, char + body[at:].split("\n")[0])
            yield event("char")


def _kind(char: str, closers: str) -> Kind:
    if closers and char == closers[0]:
        return "overtype"
    if char in _CLOSERS:
        return "autoclose"
    return "newline" if char == "\n" else "char"

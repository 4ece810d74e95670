"""What a client asks for in the arguments of our commands; read without trust."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from lsprotocol import types

from lsp_server.actions.tasks import Task

_MOST_PROBLEMS, _LONGEST_PROBLEM = 20, 300
_LONGEST_INSTRUCTION = 10_000


@dataclass(frozen=True, slots=True)
class Problem:
    """A diagnostic in few words; `line` counts from 0."""

    line: int
    message: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """One action. `version`: of the document that it was offered for, if it was offered."""

    task: Task
    uri: str
    where: types.Range
    version: int | None = None
    instruction: str = ""
    problems: tuple[Problem, ...] = ()
    id: str | int | None = None
    """The client's own name for it, which comes back in what is told about it."""

    @classmethod
    def read(cls, argument: Any, task: Task | None = None) -> Wanted | None:
        """A command's argument, or None if it makes no sense. `task` is what the command means, if that is settled."""
        if not isinstance(argument, Mapping):
            return None
        named, uri, where = argument.get("task"), argument.get("uri"), _range(argument.get("range"))
        if task is None:
            task = Task(named) if named in tuple(Task) else None
        if task is None or not isinstance(uri, str) or where is None:
            return None
        instruction, version, identifier = argument.get("instruction"), argument.get("version"), argument.get("id")
        told = instruction.strip()[:_LONGEST_INSTRUCTION] if isinstance(instruction, str) else ""
        if task is Task.REWRITE and not told:
            return None
        return cls(
            task,
            uri,
            where,
            version if _whole(version) else None,
            told.encode("utf-8", "replace").decode(),
            _problems(argument.get("problems")),
            identifier if isinstance(identifier, str) or _whole(identifier) else None,
        )

    def argument(self) -> dict[str, Any]:
        """What `read` takes, to go to a client and come back."""
        start, end = self.where.start, self.where.end
        return {
            "task": self.task.value,
            "uri": self.uri,
            "range": {
                "start": {"line": start.line, "character": start.character},
                "end": {"line": end.line, "character": end.character},
            },
            "version": self.version,
            "problems": [{"line": problem.line, "message": problem.message} for problem in self.problems],
        }


def problems_of(diagnostics: list[types.Diagnostic]) -> tuple[Problem, ...]:
    """The messages of diagnostics, shortened."""
    return tuple(
        Problem(each.range.start.line, str(each.message)[:_LONGEST_PROBLEM]) for each in diagnostics[:_MOST_PROBLEMS]
    )


def _problems(value: Any) -> tuple[Problem, ...]:
    found = []
    for each in value if isinstance(value, list) else []:
        line, message = (each.get("line"), each.get("message")) if isinstance(each, Mapping) else (None, None)
        if _whole(line) and isinstance(message, str):
            text = " ".join(message[:_LONGEST_PROBLEM].split()).encode("utf-8", "replace").decode()
            found.append(Problem(line, text))
    return tuple(found[:_MOST_PROBLEMS])


def _range(value: Any) -> types.Range | None:
    start, end = (_position(value.get(key)) for key in ("start", "end")) if isinstance(value, Mapping) else (None, None)
    return None if start is None or end is None else types.Range(start, end)


def _position(value: Any) -> types.Position | None:
    line, character = (value.get("line"), value.get("character")) if isinstance(value, Mapping) else (None, None)
    if _whole(line) and _whole(character) and 0 <= line < 2**31 and 0 <= character < 2**31:
        return types.Position(line, character)
    return None


def _whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)

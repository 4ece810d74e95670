"""The code actions that an editor offers at a place: at once, by what is known already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lsprotocol import types

from lsp_server.actions.tasks import Task
from lsp_server.actions.wanted import Wanted, problems_of
from lsp_server.messages import ACTION_COMMAND
from lsp_server.reasons import Reason

OFFERED = (Task.FIX, Task.EXPLAIN, Task.DOCUMENT, Task.TESTS)
"""In this order. What is rewritten as told needs words that no menu can ask for: it has a command of its own."""


@dataclass(frozen=True, slots=True)
class MenuClient:
    """What a client can show, by its raw capabilities."""

    literals: bool = False
    """Actions with a kind; else bare commands."""
    disabled: bool = False
    """Actions that cannot be chosen, with the reason."""

    @classmethod
    def of(cls, client: Mapping[str, Any]) -> MenuClient:
        """By the raw params of `initialize`."""
        found: Any = client
        for name in ("capabilities", "textDocument", "codeAction"):
            found = found.get(name) if isinstance(found, Mapping) else None
        if not isinstance(found, Mapping):
            return cls()
        return cls(isinstance(found.get("codeActionLiteralSupport"), Mapping), found.get("disabledSupport") is True)


def entries(
    client: MenuClient, params: types.CodeActionParams, version: int, *, follows: bool
) -> list[types.CodeAction | types.Command]:
    """What is offered there. `follows`: whether the model follows instructions; if not, one entry that says so may stand."""
    context = params.context
    automatic = context.trigger_kind == types.CodeActionTriggerKind.Automatic
    problems = problems_of(list(context.diagnostics))
    if automatic and params.range.start == params.range.end and not problems:
        return []  # a lamp at every line tells nothing
    tasks = [task for task in OFFERED if _asked_for(task, context.only) and (task is not Task.FIX or problems)]
    if not follows:
        return _unavailable(client, tasks) if not automatic else []
    found: list[types.CodeAction | types.Command] = []
    for task in tasks:
        told = problems if task is Task.FIX else ()
        wanted = Wanted(task, params.text_document.uri, params.range, version, problems=told)
        title = f"{task.label} (starfill)"
        command = types.Command(title, ACTION_COMMAND, arguments=[wanted.argument()])
        if client.literals:
            fixes = list(context.diagnostics) if task is Task.FIX else None
            found.append(types.CodeAction(title, kind=task.kind, diagnostics=fixes, command=command))
        else:
            found.append(command)
    return found


def _unavailable(client: MenuClient, tasks: list[Task]) -> list[types.CodeAction | types.Command]:
    if not client.disabled or not client.literals:
        return []
    why = types.CodeActionDisabled(reason=Reason.NO_INSTRUCTIONS.text)
    return [types.CodeAction(f"{task.label} (starfill)", kind=task.kind, disabled=why) for task in tasks]


def _asked_for(task: Task, only: Any) -> bool:
    if not only:
        return True
    kinds = [str(getattr(kind, "value", kind)) for kind in only]
    return any(task.kind == kind or task.kind.startswith(f"{kind}.") for kind in kinds)

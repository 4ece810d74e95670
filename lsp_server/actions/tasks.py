"""What a model can be told to do with code, and how each is called in the protocol."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from lsprotocol import types


class Task(StrEnum):
    """One kind of work."""

    EXPLAIN = "explain"
    FIX = "fix"
    DOCUMENT = "document"
    TESTS = "tests"
    REWRITE = "rewrite"
    """As the user says."""

    @property
    def label(self) -> str:
        """What a menu calls it."""
        return _TRAITS[self].label

    @property
    def kind(self) -> str:
        """Its code action kind."""
        return _TRAITS[self].kind

    @property
    def edits(self) -> bool:
        """Whether its answer takes the code's place; else it is text to read."""
        return _TRAITS[self].edits


@dataclass(frozen=True, slots=True)
class _Traits:
    label: str
    kind: str
    edits: bool


_TRAITS: Final = {
    Task.EXPLAIN: _Traits("Explain", "refactor.starfill.explain", edits=False),
    Task.FIX: _Traits("Fix", f"{types.CodeActionKind.QuickFix.value}.starfill", edits=True),
    Task.DOCUMENT: _Traits("Document", f"{types.CodeActionKind.RefactorRewrite.value}.starfill.document", edits=True),
    Task.TESTS: _Traits("Write tests", "refactor.starfill.tests", edits=False),
    Task.REWRITE: _Traits("Rewrite as told", f"{types.CodeActionKind.RefactorRewrite.value}.starfill", edits=True),
}

KINDS: Final = tuple(traits.kind for task, traits in _TRAITS.items() if task is not Task.REWRITE)
"""The kinds that the server announces."""


def instruction_for(task: Task, language: str, problems: tuple[str, ...] = ()) -> str:
    """The instruction in words; of what is rewritten as told, the user has them."""
    code = f"{language} code" if language else "code"
    match task:
        case Task.EXPLAIN:
            return f"Explain what the following {code} does."
        case Task.FIX:
            told = "".join(f"\n- {each}" for each in problems)
            reported = f" These problems were reported:{told}" if told else ""
            return f"Fix the following {code}. Answer with the whole of the corrected code.{reported}"
        case Task.DOCUMENT:
            return (
                f"Add documentation comments to the following {code}. Answer with the whole code, otherwise unchanged."
            )
        case Task.TESTS:
            return f"Write tests for the following {code}."
        case Task.REWRITE:
            raise ValueError("the user says what is to be rewritten")

"""A question in the words that the model at hand was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from engine.instruct import Form, alpaca
from lsp_server.actions import dialogue
from lsp_server.actions.fences import fence_for
from lsp_server.rules.languages import PLAIN, Language
from lsp_server.window import Window

_ALPACA_STOPS: Final = ("\n### Instruction:", "\n### Input:", "\n### Response:")
_DIALOGUE_STOPS: Final = ("\nHuman:", "\n-----")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the engine is sent."""

    text: str
    stop: tuple[str, ...]
    head: str = ""
    """What every question of this form begins with; kept on the device between them."""
    opened: bool = False
    """Whether the prompt has the line that begins the code, so that the answer is code alone."""


def lay_out(form: Form, instruction: str, code: str, language: Language = PLAIN, *, edits: bool) -> Prompt:
    """The prompt for an instruction about `code`, which may be empty. With `edits`, the answer is to be code."""
    if form is Form.ALPACA:
        # What stands in the code may stand in the code that takes its place: it ends no edit.
        stops = [stop for stop in _ALPACA_STOPS if not (edits and stop in f"\n{code}")]
        return Prompt(alpaca(instruction, code), tuple(stops))
    fence = fence_for(code, language)
    shown = f"\n\n{fence}\n{code}\n{fence}" if code else ""
    asked = f"{dialogue.HEAD} {instruction.strip()}{shown}{dialogue.ANSWER}"
    if edits:
        # Nothing but its fence ends an edit: what was broken off elsewhere would count as whole.
        return Prompt(f"{asked}\n\n{fence}\n", (f"\n{fence}",), dialogue.HEAD, opened=True)
    return Prompt(asked, _DIALOGUE_STOPS, dialogue.HEAD)


def as_comment(instruction: str, window: Window, language: Language) -> Window:
    """The cursor's surroundings with the instruction as a comment before it, as code has it: base models go on from that."""
    before = window.line_before
    indent = before if before.isspace() else before[: len(before) - len(before.lstrip())]
    prefix = window.prefix[: len(window.prefix) - len(before)] if not before.strip() else f"{window.prefix}\n"
    opening, closing = (f"{language.line_comment} ", "") if language.line_comment else ("# ", "")
    if language.line_comment is None and language.block_comment is not None:
        opening, closing = f"{language.block_comment[0]} ", f" {language.block_comment[1]}"
    lines = [f"{indent}{opening}{line.strip()}{closing}\n" for line in instruction.strip().splitlines()]
    return Window(f"{prefix}{''.join(lines)}{indent}", window.suffix)

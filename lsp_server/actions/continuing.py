"""A base model asked for a rewrite as code asks: by a comment, after which it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable

from lsp_server.actions.asking import Said
from lsp_server.actions.prompts import as_comment
from lsp_server.actions.selection import Selection
from lsp_server.actions.wanted import Wanted
from lsp_server.completer import Completer
from lsp_server.engines import Engine
from lsp_server.rules.languages import Language
from lsp_server.state.ask import Surroundings


async def continued(
    engine: Engine,
    wanted: Wanted,
    selection: Selection,
    language: Language,
    max_tokens: int,
    heard: Callable[[str], None],
) -> Said:
    """The instruction as a comment, and the code that follows it, completed."""
    completer = Completer(engine, max_tokens, time.perf_counter)
    window = as_comment(wanted.instruction, selection.around, language)
    try:
        outcome = await completer.complete(
            wanted.uri, window, invoked=True, on_text=heard, surroundings=Surroundings(language=language.id)
        )
    finally:
        await completer.aclose()
    text = outcome.items[0].text if outcome.items else ""
    indent = window.line_before
    if text and selection.around.line_before.strip():  # a line of its own, as in what the model was shown
        text = f"\n{indent}{text}"
    # What ran into the limit ends with its last whole line already.
    return Said(text, None, outcome.usage, outcome.cached, outcome.computed, outcome.reason)

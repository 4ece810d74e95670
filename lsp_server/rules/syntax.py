"""Source text to syntax: tree-sitter behind one door, imported when first asked, with None where no grammar is installed.

Parsing takes about 0.1 ms a kilobyte, so callers hand in the surroundings of the cursor, not whole files.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from lsp_server.rules.languages import Language

if TYPE_CHECKING:
    from tree_sitter import Node, Parser, Tree

_AROUND = 6_000  # characters each side of the cursor
_HOPELESS = 8

log = logging.getLogger(__name__)


def parse(language: Language, text: str) -> Tree | None:
    """The tree of `text`, or None when no grammar for the language is installed."""
    parser = _parser(language.grammar) if language.grammar else None
    return None if parser is None else parser.parse(text.encode("utf-8", "replace"))


@lru_cache(maxsize=32)
def mistakes(language: Language, text: str) -> int | None:
    """How many places of `text` do not parse, missing signs counted; None without a grammar."""
    tree = parse(language, text)
    if tree is None:
        return None
    return sum(1 for node in _broken(tree.root_node))


def longest_that_parses(language: Language, prefix: str, text: str, suffix: str) -> str:
    """The longest part of `text`, in whole lines, with which the document has no more mistakes than without it.

    All of it where no grammar is installed, or where the surroundings have too many mistakes to learn anything from.
    """
    above, below = prefix[-_AROUND:], suffix[:_AROUND]
    if len(above) < len(prefix):
        above = above[above.find("\n") + 1 :]
    before = mistakes(language, above + below)
    if before is None or before > _HOPELESS:
        return text
    while text.strip() and (mistakes(language, above + text + below) or 0) > before:
        text = text.rpartition("\n")[0]
    return text


def _broken(root: Node) -> Iterator[Node]:
    left = [root]  # not by recursion: a text may nest deeper than Python's stack
    while left:
        node = left.pop()
        if node.is_missing or node.is_error:
            yield node
        if node.has_error:
            left += node.children


@cache
def _parser(grammar: tuple[str, str]) -> Parser | None:
    module, function = grammar
    try:
        import tree_sitter

        return tree_sitter.Parser(tree_sitter.Language(getattr(importlib.import_module(module), function)()))
    except (
        ImportError,
        AttributeError,
        ValueError,
        OSError,
    ) as error:  # a wheel for another tree-sitter counts as none
        log.warning("no grammar %s (%s); shaping goes by indentation and brackets", module, type(error).__name__)
        return None

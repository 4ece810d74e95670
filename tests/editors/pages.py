"""The editors' pages: the snippets in them, for tests to run and parse, so that what users copy is what is tested."""

from __future__ import annotations

import re
from pathlib import Path

from tests.harness.process import ROOT

PAGES = sorted(ROOT.glob("editors/*/README.md"))

_CHECKOUT = "/path/to/starfill"
"""What stands in a page for the folder of this project."""


def snippets(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page that are of one language, without the fences."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def snippet(page: str, language: str, holds: str) -> str:
    """The first block of one language in a page that holds the given text; the page by its path in the project."""
    found = [block for block in snippets(ROOT / page, language) if holds in block]
    assert found, f"{page}: no {language} block with {holds!r}"
    return found[0]


def with_checkout(text: str) -> str:
    """A snippet with the path of this checkout for the one that stands in it."""
    return text.replace(_CHECKOUT, str(ROOT))


def shell_commands(page: Path) -> list[str]:
    """The commands of a page's first shell block."""
    return with_checkout(snippets(page, "sh")[0]).splitlines()

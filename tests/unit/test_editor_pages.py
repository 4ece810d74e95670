"""What users copy from the editors' pages can be read by the editors, and starts our server."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from tests.editors.pages import PAGES, shell_commands, snippet, snippets
from tests.harness.process import ROOT

EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
OTHERS = ROOT / "editors" / "others" / "README.md"


def strings(value: object) -> list[str]:
    """All strings in a JSON or TOML value, in order."""
    if isinstance(value, dict):
        return [each for inner in value.values() for each in strings(inner)]
    if isinstance(value, list):
        return [each for inner in value for each in strings(inner)]
    return [value] if isinstance(value, str) else []


@EACH_PAGE
def test_json_and_toml_on_a_page_are_well_formed(page: Path) -> None:
    for block in snippets(page, "json"):
        json.loads(block)
    for block in snippets(page, "toml"):
        tomllib.loads(block)


def test_each_of_the_other_editors_is_told_to_start_the_server() -> None:
    blocks = snippets(OTHERS, "json")
    assert len(blocks) == OTHERS.read_text("utf-8").count("\n## ") - 1  # all but the last section, on any client
    for block in blocks:
        said = strings(json.loads(block))
        program = next(at for at, each in enumerate(said) if each.rpartition("/")[2] == "starfill")
        assert said[program + 1] == "lsp"


def test_helixs_page_has_the_row_of_helixs_file() -> None:
    file = tomllib.loads((ROOT / "editors" / "helix" / "languages.toml").read_text("utf-8"))
    page = tomllib.loads(snippet("editors/helix/README.md", "toml", "[[language]]"))
    assert page["language-server"] == file["language-server"]
    assert page["language"][0] in file["language"]


@pytest.mark.parametrize("editor", ["emacs", "helix", "neovim", "vscode"])
def test_three_commands_are_enough(editor: str) -> None:
    assert len(shell_commands(ROOT / "editors" / editor / "README.md")) <= 3


@EACH_PAGE
def test_links_on_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"

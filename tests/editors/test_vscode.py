"""What the VS Code extension does beyond the scenarios: status, switches, and a picture for its page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.editors.driver import wait_for_ghost
from tests.editors.vscode import CodeServer, VSCode
from tests.editors.world import COLUMN, LINE, World
from tests.harness.process import ROOT, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PICTURES = ROOT / "out" / "pictures"


@pytest.fixture
def editor(code_server: CodeServer, browser: Browser) -> Iterator[VSCode]:
    window = VSCode(browser, code_server)
    yield window
    window.close()


def test_several_lines_replace_the_first_one_when_they_are_there(editor: VSCode, world: World) -> None:
    editor.open(world.file("picture.py"), LINE, COLUMN)
    editor.type("while True:\n")
    wait_for_ghost(editor, wanted=lambda text: "\n" in text)
    PICTURES.mkdir(parents=True, exist_ok=True)
    editor.page.screenshot(path=PICTURES / "vscode.png", clip={"x": 353, "y": 90, "width": 530, "height": 380})


def test_switched_off_it_shows_nothing_and_says_so(editor: VSCode, world: World) -> None:
    editor.open(world.file("switch.py"), LINE, COLUMN)
    editor.run("starfill: Switch Completions On or Off")
    try:
        editor.type("with open(")
        with pytest.raises(AssertionError):
            wait_for_ghost(editor, timeout=4)
    finally:
        editor.run("starfill: Switch Completions On or Off")
    editor.type("p")
    wait_for_ghost(editor)


def test_the_status_is_a_document_that_says_what_came(editor: VSCode, world: World) -> None:
    editor.open(world.file("status.py"), LINE, COLUMN)
    editor.type("with open(")
    wait_for_ghost(editor)
    editor.run("starfill: Show Status")
    wait_until(lambda: '"engine"' in editor.text(), "the status", timeout=20)
    assert "with open(" not in editor.text()

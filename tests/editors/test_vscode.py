"""What the VS Code extension does beyond the scenarios: status, switches, and a picture for its page."""

from __future__ import annotations

import pytest

from tests.editors.driver import wait_for_ghost
from tests.editors.vscode import CodeServer, VSCode
from tests.editors.world import COLUMN, LINE, World
from tests.harness.process import ROOT, wait_until

WAIT_S = 60.0
PICTURES = ROOT / "out" / "pictures"


@pytest.fixture
def editor(vscode: VSCode) -> VSCode:
    return vscode


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
        wait_until(lambda: editor.status() == "starfill: switched off", "the status", timeout=WAIT_S)
        editor.type("with open(")
        with pytest.raises(AssertionError):
            wait_for_ghost(editor, timeout=4)
    finally:
        editor.run("starfill: Switch Completions On or Off")
    wait_until(lambda: "switched off" not in editor.status(), "the status", timeout=WAIT_S)
    editor.type("p")
    wait_for_ghost(editor)


def test_a_language_is_switched_off_by_itself(editor: VSCode, code_server: CodeServer, world: World) -> None:
    command = "starfill: Switch Completions for This Language On or Off"
    editor.open(world.file("language.py"), LINE, COLUMN)
    editor.run(command)
    wait_until(lambda: editor.status() == "starfill: switched off for python", "the status", timeout=WAIT_S)
    editor.run(command)
    wait_until(lambda: "switched off" not in editor.status(), "the status", timeout=WAIT_S)
    code_server.set({})


def test_why_nothing_came_stands_in_the_status(editor: VSCode, world: World) -> None:
    editor.open(world.file(".env", "TOKEN=\n"), 0, 6)
    editor.type("a")
    wait_until(lambda: "holds secrets" in editor.status(), "the reason", timeout=WAIT_S)


def test_a_program_that_is_none_is_named_with_the_setting(
    editor: VSCode, code_server: CodeServer, world: World
) -> None:
    code_server.set({"starfill.server.path": "/nowhere/starfill"})
    try:
        editor.message("correct starfill.server.path")
        wait_until(lambda: "not found" in editor.status(), "the status", timeout=WAIT_S)
    finally:
        code_server.set({})
    wait_until(lambda: "not found" not in editor.status(), "the status", timeout=WAIT_S)
    editor.open(world.file("again.py"), LINE, COLUMN)
    editor.type("with open(")
    wait_for_ghost(editor, timeout=WAIT_S)


def test_the_model_is_chosen_from_those_that_are_here(editor: VSCode) -> None:
    editor.run("starfill: Switch Model", stays=True)
    first = editor.page.locator('.quick-input-list [aria-label^="starfill-starter"]').first
    first.wait_for(timeout=60_000)
    editor.page.keyboard.press("Escape")


def test_the_status_is_a_document_that_says_what_came(editor: VSCode, world: World) -> None:
    editor.open(world.file("status.py"), LINE, COLUMN)
    editor.type("with open(")
    wait_for_ghost(editor)
    editor.run("starfill: Show Status")
    wait_until(lambda: '"engine"' in editor.text(), "the status", timeout=WAIT_S)
    assert "with open(" not in editor.text()

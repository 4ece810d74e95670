"""Whose settings are in force in VS Code: user and workspace add up, and a switch is thrown where it is decided."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.editors.driver import wait_for_ghost
from tests.editors.vscode import CodeServer, VSCode
from tests.editors.world import COLUMN, LINE, World
from tests.harness.process import wait_until

WAIT_S = 60.0
TOGGLE = "starfill: Switch Completions On or Off"
TOGGLE_LANGUAGE = "starfill: Switch Completions for This Language On or Off"
TITLE = "window.title"
"""What a file of settings sets beside ours, to be seen when it has been read."""


def user(vscode: VSCode, server: CodeServer, settings: dict[str, Any]) -> None:
    """The user sets these."""
    server.set({**settings, TITLE: "the user's"})
    wait_until(lambda: vscode.page.title() == "the user's", "the user's settings", timeout=WAIT_S)


@contextmanager
def workspace(vscode: VSCode, world: World, settings: dict[str, Any]) -> Iterator[None]:
    """The workspace sets these; the end takes them away."""
    file = world.folder / ".vscode" / "settings.json"
    file.parent.mkdir()
    file.write_text(json.dumps({**settings, TITLE: "the workspace's"}))
    wait_until(lambda: vscode.page.title() == "the workspace's", "the workspace's settings", timeout=WAIT_S)
    try:
        yield
    finally:
        shutil.rmtree(file.parent)
        wait_until(lambda: vscode.page.title() != "the workspace's", "settings that are gone", timeout=WAIT_S)


def written(world: World) -> dict[str, Any]:
    """What the workspace sets now."""
    found: dict[str, Any] = json.loads((world.folder / ".vscode" / "settings.json").read_text("utf-8"))
    del found[TITLE]
    return found


@pytest.fixture
def server(code_server: CodeServer, vscode: VSCode) -> Iterator[CodeServer]:
    """With none of the user's settings at the end."""
    yield code_server
    code_server.set({})
    wait_until(lambda: vscode.page.title() != "the user's", "settings that are gone", timeout=WAIT_S)


def test_a_workspace_takes_nothing_away_from_what_the_user_excludes(
    vscode: VSCode, server: CodeServer, world: World
) -> None:
    user(vscode, server, {"starfill.exclude": ["mine-*.py"]})
    with workspace(vscode, world, {"starfill.exclude": []}):
        vscode.open(world.file("mine-1.py"), LINE, COLUMN)
        vscode.type("with open(")
        wait_until(lambda: "excluded" in vscode.status(), "the reason", timeout=WAIT_S)
        assert vscode.ghost() == ""
        vscode.leave()
        vscode.open(world.file("others.py"), LINE, COLUMN)
        vscode.type("with open(")
        wait_for_ghost(vscode, timeout=WAIT_S)
        vscode.leave()


def test_a_switch_is_thrown_where_it_is_set(vscode: VSCode, server: CodeServer, world: World) -> None:
    with workspace(vscode, world, {"starfill.enabled": True}):
        vscode.open(world.file("decided.py"), LINE, COLUMN)
        vscode.run(TOGGLE)
        wait_until(lambda: "starfill: completions are off" in vscode.bar(), "what is in force", timeout=WAIT_S)
        wait_until(lambda: vscode.status() == "starfill: switched off", "the status", timeout=WAIT_S)
        assert written(world) == {"starfill.enabled": False}
        assert not any(name.startswith("starfill.") for name in server.users())
        vscode.run(TOGGLE)
        wait_until(lambda: "starfill: completions are on" in vscode.bar(), "what is in force", timeout=WAIT_S)
        assert written(world) == {"starfill.enabled": True}


def test_a_language_is_switched_among_those_of_whoever_names_it(
    vscode: VSCode, server: CodeServer, world: World
) -> None:
    user(vscode, server, {"starfill.languages": {"go": False}})
    with workspace(vscode, world, {"starfill.languages": {"rust": False}}):
        vscode.open(world.file("spoken.py"), LINE, COLUMN)
        vscode.run(TOGGLE_LANGUAGE)
        wait_until(lambda: vscode.status() == "starfill: switched off for python", "the status", timeout=WAIT_S)
        assert "starfill: completions for python are off" in vscode.bar()
        assert server.users()["starfill.languages"] == {"go": False, "python": False}
        assert written(world) == {"starfill.languages": {"rust": False}}
    with workspace(vscode, world, {"starfill.languages": {"python": False, "rust": False}}):
        vscode.run(TOGGLE_LANGUAGE)
        wait_until(lambda: "switched off" not in vscode.status(), "the status", timeout=WAIT_S)
        assert written(world) == {"starfill.languages": {"python": True, "rust": False}}
        assert server.users()["starfill.languages"] == {"go": False, "python": False}

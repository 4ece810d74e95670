"""What the VS Code extension does beyond the scenarios: status, switches, and a picture for its page."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.editors import programs
from tests.editors.driver import wait_for_ghost
from tests.editors.engines import scripted_engine
from tests.editors.vscode import KEYS, CodeServer, VSCode
from tests.editors.world import CODE, COLUMN, LINE, World
from tests.harness.hub import FakeHub, serving
from tests.harness.process import ROOT, wait_until
from tests.harness.pulls import ID, published

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from starlette.requests import Request
    from starlette.responses import Response

WAIT_S = 60.0
PICTURES = ROOT / "out" / "pictures"


SAID = "value = source.read()\n        if not value:\n            break\n        print(value)\n"


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


def test_keys_can_be_given_to_the_commands(editor: VSCode, world: World) -> None:
    editor.open(world.file("keys.py"), LINE, COLUMN)
    editor.type("with open(")
    first = wait_for_ghost(editor, timeout=WAIT_S)
    editor.page.keyboard.press(KEYS["starfill.next"])
    other = wait_for_ghost(editor, timeout=WAIT_S, wanted=lambda text: text not in ("", first))
    editor.page.keyboard.press(KEYS["starfill.previous"])
    assert wait_for_ghost(editor, wanted=lambda text: text != other) == first
    editor.leave()
    editor.open(world.file("asked.py", CODE.replace("{}", "with open(")), LINE, COLUMN + len("with open("))
    assert editor.ghost() == ""
    editor.page.keyboard.press(KEYS["starfill.trigger"])
    wait_for_ghost(editor, timeout=WAIT_S)


def test_the_log_and_the_menu_are_shown(editor: VSCode) -> None:
    editor.run("starfill: Menu", stays=True)
    for entry in ("Status", "Switch completions", "Switch model", "Doctor", "Log", "Restart"):
        editor.page.locator(f'.quick-input-list [aria-label*="{entry}"]').first.wait_for(timeout=10_000)
    editor.page.keyboard.press("Escape")
    editor.run("starfill: Show Log")
    editor.page.locator(".part.panel .output-view, .part.panel .output-view-content").first.wait_for(timeout=30_000)
    editor.run("View: Hide Panel")


def test_a_workspace_cannot_choose_program_or_engine(editor: VSCode, world: World) -> None:
    before = set(world.logs())
    settings = world.folder / ".vscode" / "settings.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps({"starfill.server.path": "/nowhere/starfill", "starfill.engine": "unix:/nowhere"}))
    try:
        time.sleep(2)  # for the editor to read it
        editor.run("starfill: Restart the Server")
        wait_until(lambda: bool(set(world.logs()) - before), "a server", timeout=WAIT_S)
        wait_until(lambda: editor.status() == "starfill: ready", "the server", timeout=WAIT_S)
        editor.open(world.file("workspace.py"), LINE, COLUMN)
        editor.type("with open(")
        wait_for_ghost(editor, timeout=WAIT_S)
    finally:
        shutil.rmtree(settings.parent)


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


def test_while_the_model_loads_it_says_so(editor: VSCode, world: World) -> None:
    editor.open(world.file("loading.py"), LINE, COLUMN)
    world.kill_engine()
    with world.held_engine():
        editor.run("starfill: Restart the Server")
        wait_until(lambda: "starfill: loading" in editor.bar(), "the item of the status bar", timeout=WAIT_S)
        wait_until(lambda: len(editor.bar()) == 2, "the editor's progress display", timeout=WAIT_S)
        assert editor.status() == "starfill: The engine is loading its model."
        time.sleep(0.5)
        assert "starfill: loading" in editor.bar()
    wait_until(lambda: editor.bar() == ["starfill"], "the end of both", timeout=WAIT_S)
    assert editor.status() == "starfill: ready"
    editor.type("with open(")
    wait_for_ghost(editor, timeout=WAIT_S)


OFFER = 'starfill is not installed on this machine. Install it by "{} tool install starfill", in a terminal?'
INSTALLER = """#!/bin/sh
echo "$@" >> "{home}/said"
sleep 1
ln -s "{program}" "{home}/.local/bin/starfill"
"""


def test_where_there_is_no_server_installing_it_is_offered(browser: Browser, world: World, tmp_path: Path) -> None:
    uv = tmp_path / ".local" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    uv.write_text(INSTALLER.format(home=tmp_path, program=world.program))
    uv.chmod(0o755)
    offer = OFFER.format(uv)
    extension = programs.required(programs.vscode_extension)
    environment = {**world.env, "PATH": "/usr/bin:/bin"}
    server = CodeServer(programs.vscode(), extension, world.folder, environment, tmp_path)
    try:
        editor = VSCode(browser, server)
        editor.message(offer)
        assert editor.choices(offer) == ["Install", "Not Now", "Don't Ask Again"]
        assert editor.status() == "starfill: the starfill program was not found"
        editor.choose(offer, "Don't Ask Again")
        time.sleep(1)  # the editor writes down in its own time what an extension wants to be kept
        editor.reload()
        wait_until(lambda: "not found" in editor.status(), "the status", timeout=WAIT_S)
        with pytest.raises(AssertionError):
            wait_until(lambda: bool(editor.choices(offer)), "an offer", timeout=2)
        assert not (tmp_path / "said").exists()

        editor.run("starfill: Restart the Server")  # whoever asks for it hears of it
        editor.message(offer)
        editor.choose(offer, "Install")
        wait_until(lambda: editor.status() == "starfill: ready", "the server that was installed", timeout=WAIT_S)
        assert (tmp_path / "said").read_text() == "tool install starfill\n"
        editor.open(world.file("installed.py"), LINE, COLUMN)
        editor.type("with open(")
        wait_for_ghost(editor, timeout=WAIT_S)
        editor.close()
    finally:
        server.close()


def test_the_first_line_comes_before_the_rest(editor: VSCode, code_server: CodeServer, world: World) -> None:
    with (
        scripted_engine(SAID, "--delay", "0.15") as engine,
        code_server.running_with(editor, world, {"starfill.engine": engine}),
    ):
        editor.open(world.file("streamed.py"), LINE, COLUMN)
        editor.type("while True:\n")
        seen: list[str] = []

        def whole() -> bool:
            if (now := editor.ghost()) and now not in seen:
                seen.append(now)
            return len(now.split("\n")) > 1

        wait_until(whole, "all of the suggestion", timeout=WAIT_S)
        assert seen[0] == SAID.split("\n")[0]
        assert wait_for_ghost(editor).startswith(seen[0] + "\n")


class HeldHub(FakeHub):
    """One that hands out what is large when it may."""

    go: threading.Event

    async def _blob(self, request: Request) -> Response:
        await asyncio.to_thread(self.go.wait)
        return await super()._blob(request)


def test_a_model_is_downloaded_when_its_terms_are_accepted_and_is_in_use_then(
    editor: VSCode, code_server: CodeServer, world: World, tmp_path: Path
) -> None:
    hub = HeldHub()
    hub.go = threading.Event()
    hub.add(ID, published(tmp_path / "model"), licence="bigcode-openrail-m")
    with serving(hub):
        program = tmp_path / "starfill"
        program.write_text(f'#!/bin/sh\nHF_ENDPOINT={hub.url} HF_HOME={tmp_path} exec {world.program} "$@"\n')
        program.chmod(0o755)
        with code_server.running_with(editor, world, {"starfill.server.path": str(program)}):
            known = set(world.logs())
            editor.run("starfill: Switch Model", stays=True)
            editor.pick("Download another one")
            editor.pick(ID)
            editor.agree(f"{ID} comes under these terms", "Accept and Download")
            editor.message(f"starfill downloads {ID}")
            hub.go.set()
            wait_until(lambda: bool(set(world.logs()) - known), "a server with that model", timeout=WAIT_S)
            editor.run("starfill: Switch Model", stays=True)
            wait_until(lambda: f"now: {ID}" in editor.asked(), "the model in use", timeout=WAIT_S)
            editor.page.keyboard.press("Escape")
    world.kill_engine()  # two by now, one with that model


def test_the_tests_of_its_pure_parts_pass() -> None:
    programs.required(programs.vscode_extension)  # with its libraries
    assert "# fail 0" in programs.vscode_extension_tests().replace("ℹ", "#")

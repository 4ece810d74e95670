"""Commands of the VS Code extension: asking by hand and for other candidates, Doctor, Restart."""

from __future__ import annotations

import pytest

from tests.editors.driver import wait_for_ghost
from tests.editors.engines import scripted_engine
from tests.editors.vscode import KEYS, CodeServer, VSCode
from tests.editors.world import CODE, COLUMN, LINE, World
from tests.harness.process import is_alive, wait_until

WAIT_S = 60.0
BEGUN = "with open("
SAID = "value = source.read()\n        if not value:\n            break\n        print(value)\n"
OURS = "Alt+\\"
BUILT_IN = {"trigger": KEYS["editor.action.inlineSuggest.trigger"], "next": "Alt+]", "previous": "Alt+["}


@pytest.fixture
def editor(vscode: VSCode) -> VSCode:
    return vscode


def unasked(editor: VSCode, world: World, name: str) -> None:
    """A file with the cursor where something could be completed, and nothing shown."""
    editor.open(world.file(name, CODE.replace("{}", BEGUN)), LINE, COLUMN + len(BEGUN))
    assert editor.ghost() == ""


def test_what_is_asked_for_by_hand_has_other_candidates(editor: VSCode, world: World) -> None:
    unasked(editor, world, "candidates.py")
    editor.run("starfill: Complete Now")
    first = wait_for_ghost(editor, timeout=WAIT_S)
    editor.page.keyboard.press(BUILT_IN["next"])
    other = wait_for_ghost(editor, timeout=WAIT_S, wanted=lambda text: text not in ("", first))
    editor.page.keyboard.press(BUILT_IN["previous"])
    assert wait_for_ghost(editor, wanted=lambda text: text != other) == first
    editor.leave()


def test_the_editors_own_command_leaves_other_candidates_to_our_command(editor: VSCode, world: World) -> None:
    unasked(editor, world, "own.py")
    editor.page.keyboard.press(BUILT_IN["trigger"])
    first = wait_for_ghost(editor, timeout=WAIT_S)
    editor.page.keyboard.press(KEYS["starfill.next"])
    wait_for_ghost(editor, timeout=WAIT_S, wanted=lambda text: text not in ("", first))
    editor.leave()


def test_asked_again_where_something_is_shown_it_finds_others(editor: VSCode, world: World) -> None:
    editor.open(world.file("shown.py"), LINE, COLUMN)
    editor.type(BEGUN)
    first = wait_for_ghost(editor, timeout=WAIT_S)
    editor.page.keyboard.press(KEYS["starfill.trigger"])
    editor.page.keyboard.press(BUILT_IN["next"])
    wait_for_ghost(editor, timeout=WAIT_S, wanted=lambda text: text not in ("", first))
    editor.leave()


def test_several_lines_that_were_asked_for_stay_where_nothing_comes_by_itself(
    editor: VSCode, code_server: CodeServer, world: World
) -> None:
    with (
        scripted_engine(SAID, "--delay", "0.15") as engine,
        code_server.running_with(editor, world, {"starfill.engine": engine}),
    ):
        code_server.set({"starfill.engine": engine, "starfill.trigger": "manual"})
        wait_until(lambda: editor.status() == "starfill: only when asked for", "the status", timeout=WAIT_S)
        for way in (OURS, BUILT_IN["trigger"]):
            editor.open(world.file("manual.py", CODE.replace("{}", "while True:\n        ")), LINE + 1, 8)
            editor.page.keyboard.press(way)
            whole = wait_for_ghost(editor, timeout=WAIT_S, wanted=lambda text: "\n" in text)
            assert whole == SAID.rstrip("\n")
            editor.leave()


def test_the_doctor_examines_what_is_in_use(editor: VSCode, code_server: CodeServer, world: World) -> None:
    with scripted_engine("os") as engine, code_server.running_with(editor, world, {"starfill.engine": engine}):
        editor.run("starfill: Doctor")
        wait_until(lambda: "engines:" in editor.text(), "the report", timeout=WAIT_S)
        report = editor.text().splitlines()
    assert f"ok   engine: {engine} completes, as scripted, an engine of starfill's" in report
    assert any(line.startswith("ok   torch: ") for line in report)


def test_after_a_restart_another_process_answers(editor: VSCode, world: World) -> None:
    def servers() -> set[int]:
        """Language servers that are alive; each log has its process in its name."""
        return {pid for pid in (int(log.stem.removeprefix("lsp-")) for log in world.logs()) if is_alive(pid)}

    wait_until(lambda: editor.status() == "starfill: ready", "the server", timeout=WAIT_S)
    before = servers()
    editor.run("starfill: Restart the Server")
    wait_until(lambda: bool(servers() - before), "another server", timeout=WAIT_S)
    wait_until(lambda: bool(before - servers()), "the end of the first", timeout=WAIT_S)
    assert len(servers()) == len(before)
    editor.open(world.file("restarted.py"), LINE, COLUMN)
    editor.type(BEGUN)
    wait_for_ghost(editor, timeout=WAIT_S)
    editor.leave()

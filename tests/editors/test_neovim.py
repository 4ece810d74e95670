"""What the Neovim plugin does beyond the scenarios: parts of a suggestion, candidates, switches, status, health."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.editors import programs
from tests.editors.driver import SETTLE_S, wait_for_ghost
from tests.editors.neovim import Neovim
from tests.editors.pages import snippet, with_checkout
from tests.editors.terminal import Terminal
from tests.editors.windows import neovim_plugin
from tests.editors.world import CODE, COLUMN, LINE, World
from tests.harness.process import ROOT, wait_until

BEFORE, AFTER = CODE.split("{}")
TAIL = AFTER.rstrip("\n")
PICTURES = ROOT / "out" / "pictures"


@pytest.fixture(params=[programs.neovim_0_12, programs.neovim_0_11, programs.neovim_0_10], ids=["0.12", "0.11", "0.10"])
def nvim(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Iterator[Neovim]:
    editor = neovim_plugin(programs.required(request.param), world, tmp_path)
    editor.open(world.file("plugin.py"), LINE, COLUMN)
    yield editor
    editor.close()


def test_words_are_taken_one_by_one_and_the_rest_stays(nvim: Neovim) -> None:
    nvim.type("with open(")
    whole = wait_for_ghost(nvim, wanted=lambda text: text.startswith("path") and len(text) > 6)
    nvim.api.input("<M-Right>")
    wait_until(lambda: nvim.ghost() == whole.removeprefix("path"), "the rest of the suggestion")
    assert nvim.text() == BEFORE + "with open(path" + TAIL
    nvim.accept()
    wait_until(lambda: nvim.text() == BEFORE + "with open(" + whole + TAIL, "the whole suggestion")


def test_a_line_is_taken_and_the_rest_stays(nvim: Neovim) -> None:
    nvim.type("def pop(self):\n")
    whole = wait_for_ghost(nvim)
    before = nvim.text()
    nvim.api.input("<M-C-Right>")
    first = whole.split("\n")[0]
    wait_until(lambda: nvim.text() != before, "an accepted line")
    assert first in nvim.text()


def test_accepting_is_undone_on_its_own(nvim: Neovim) -> None:
    nvim.type("with open(")
    wait_for_ghost(nvim)
    nvim.accept()
    wait_until(lambda: nvim.text() != BEFORE + "with open(" + TAIL, "the accepted text")
    nvim.leave()
    nvim.api.command("undo")
    assert nvim.text() == BEFORE + "with open(" + TAIL


def test_dismissed_it_goes_and_the_key_is_itself_again(nvim: Neovim) -> None:
    nvim.type("with open(")
    wait_for_ghost(nvim)
    nvim.api.input("<C-]>")
    wait_until(lambda: nvim.ghost() == "", "an end of the ghost text")
    nvim.api.input("<Tab>")
    wait_until(lambda: nvim.text() != BEFORE + "with open(" + TAIL, "a tab")
    assert nvim.text().splitlines()[LINE].rstrip() == "    with open("


def test_a_mapping_of_the_user_still_works_when_nothing_is_shown(world: World, tmp_path: Path) -> None:
    program = programs.required(programs.neovim_0_12)
    editor = neovim_plugin(program, world, tmp_path, before='vim.keymap.set("i", "<Tab>", "mine")')
    try:
        editor.api.command("Starfill disable")
        editor.api.input("i<Tab>")
        wait_until(lambda: editor.text() == "mine", "what the user mapped")
    finally:
        editor.close()


def test_switched_off_it_asks_nothing(nvim: Neovim) -> None:
    nvim.api.command("Starfill disable")
    nvim.type("with open(")
    with pytest.raises(AssertionError):
        wait_for_ghost(nvim, timeout=3)
    assert nvim.api.exec_lua("return require('starfill').statusline()") == "✧"
    nvim.api.exec_lua("require('starfill').toggle(true)")
    nvim.type("p")
    wait_for_ghost(nvim)


def test_another_candidate_can_be_asked_for_and_the_first_comes_back(nvim: Neovim) -> None:
    nvim.type("with open(")
    first = wait_for_ghost(nvim)
    nvim.api.input("<M-]>")
    items = "local s = require('starfill').current(); return s and s.asked_for_more and #s.items or 0"
    wait_until(lambda: nvim.api.exec_lua(items) > 0, "more candidates", timeout=20)
    count = nvim.api.exec_lua(items)
    for _ in range(count - 1):
        nvim.api.input("<M-]>")
    assert wait_for_ghost(nvim) == first


def test_health_says_that_all_is_well(nvim: Neovim) -> None:
    nvim.leave()
    nvim.api.command("checkhealth starfill")
    report = nvim.text()
    assert "server runs" in report
    assert "torch" in report
    assert "ERROR" not in report


def test_a_missing_program_is_named_once(world: World, tmp_path: Path) -> None:
    program = programs.required(programs.neovim_0_12)
    editor = neovim_plugin(program, world, tmp_path, setup='{ cmd = { "starfil", "lsp" } }')
    try:
        editor.api.command(f"edit {world.file('missing.py')}")
        assert "starfil is not on PATH" in editor.api.exec_lua("return require('starfill').statusline()") + str(
            editor.api.command_output("messages")
        )
    finally:
        editor.close()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("{ keymaps = {} }", "keymaps"),
        ('{ cmd = "starfill" }', "cmd"),
        ('{ keymap = { accpt = "x" } }', "keymap.accpt"),
    ],
)
def test_a_wrong_option_is_named(world: World, tmp_path: Path, options: str, named: str) -> None:
    editor = neovim_plugin(programs.required(programs.neovim_0_12), world, tmp_path, setup=None)
    try:
        said = editor.api.exec_lua(f"return select(2, pcall(require('starfill').setup, {options}))")
        assert said.startswith("starfill: ")
        assert named in said
    finally:
        editor.close()


def _is_still(terminal: Terminal) -> bool:
    before = terminal.screen()
    time.sleep(SETTLE_S)
    return terminal.screen() == before


def test_a_picture_for_its_page(world: World, tmp_path: Path) -> None:
    # The 0.12 that is unpacked beside the system cannot start itself anew, which its terminal interface does.
    program = programs.required(programs.neovim_0_11)
    config = tmp_path / ".config" / "nvim" / "init.lua"
    config.parent.mkdir(parents=True)
    config.write_text(with_checkout(snippet("editors/neovim/README.md", "lua", "\nrequire")))
    environment = {**world.env, "HOME": str(tmp_path)}
    file = world.file("write_config.py")
    nvim = f"cd {file.parent} && exec {program} -n '+call cursor({LINE + 1}, {COLUMN})' {file.name}"
    terminal = programs.required(lambda: Terminal(["sh", "-c", nvim], tmp_path / "terminal", environment))
    try:
        wait_until(lambda: "def write_config" in terminal.screen(), "Neovim", timeout=20)
        terminal.type("Awith open(")
        wait_until(lambda: terminal.screen().count("with open(path") == 2, "ghost text", timeout=30)
        wait_until(partial(_is_still, terminal), "all of the ghost text", timeout=30)
        terminal.picture(PICTURES / "neovim.txt")
    finally:
        terminal.close()
    assert file.read_text("utf-8") == BEFORE + AFTER

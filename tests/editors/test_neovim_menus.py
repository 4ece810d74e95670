"""Ghost text beside the completion menus of others: what is hidden under one is not taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.editors import programs
from tests.editors.driver import wait_for_ghost
from tests.editors.neovim import Neovim
from tests.editors.windows import neovim_plugin
from tests.editors.world import CODE, COLUMN, LINE, World
from tests.harness.process import wait_until

BEFORE, AFTER = CODE.split("{}")
TYPED = BEFORE + "with open(" + AFTER.rstrip("\n")

PLUGINS = """
vim.o.completeopt = "menuone,noinsert,noselect"
local open, heard = false, {}
if MENU == "own" then
  function Open() vim.fn.complete(vim.fn.col("."), { "path_one", "path_two" }) end
  function Close() vim.api.nvim_feedkeys(vim.keycode("<C-e>"), "n", false) end
else
  local function turn(event, pattern)
    open = not open
    if MENU == "cmp" then heard[event]() else vim.api.nvim_exec_autocmds("User", { pattern = pattern }) end
  end
  function Open() turn("menu_opened", "BlinkCmpMenuOpen") end
  function Close() turn("menu_closed", "BlinkCmpMenuClose") end
  local function is_open() return open end
  local event = { on = function(_, name, callback) heard[name] = callback end }
  package.loaded["cmp"] = MENU == "cmp" and { visible = is_open, event = event } or nil
  package.loaded["blink.cmp"] = MENU == "blink" and { is_menu_visible = is_open } or nil
  package.loaded["blink.cmp"] = MENU == "old blink" and { is_visible = is_open } or package.loaded["blink.cmp"]
end
"""
"""Neovim's own menu, and the parts of the plugins' that ours looks at."""


@pytest.fixture(params=["own", "cmp", "blink", "old blink"])
def nvim(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Iterator[Neovim]:
    program = programs.required(programs.neovim_0_11)
    editor = neovim_plugin(program, world, tmp_path, before=f'MENU = "{request.param}"\n{PLUGINS}')
    editor.open(world.file("menus.py"), LINE, COLUMN)
    yield editor
    editor.close()


def test_under_a_menu_nothing_is_shown_and_nothing_is_taken(nvim: Neovim) -> None:
    nvim.type("with open(")
    ghost = wait_for_ghost(nvim)
    nvim.api.exec_lua("Open()")
    wait_until(lambda: nvim.ghost() == "", "an end of the ghost text")
    assert nvim.api.exec_lua("return require('starfill').visible()") is False
    assert nvim.api.exec_lua("return require('starfill').accept()") is False
    nvim.api.input("<M-Right>")  # no key of a menu, and ours only if something can be seen
    assert nvim.text() == TYPED
    nvim.api.exec_lua("Close()")
    wait_until(lambda: nvim.ghost() == ghost, "the ghost text again")
    nvim.accept()
    taken = BEFORE + "with open(" + ghost + AFTER.rstrip("\n")
    wait_until(lambda: nvim.text() == taken, "the accepted text")


def test_whoever_wants_both_has_both(nvim: Neovim) -> None:
    nvim.api.exec_lua("require('starfill.config').options.hide_with_popup = false")
    nvim.type("with open(")
    ghost = wait_for_ghost(nvim)
    nvim.api.exec_lua("Open()")
    assert wait_for_ghost(nvim) == ghost
    assert nvim.api.exec_lua("return require('starfill').visible()") is True

"""The editors, each as a way to open windows of it; what cannot be installed is skipped loudly, or an error if required."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.editors import programs
from tests.editors.driver import Editor
from tests.editors.emacs import emacs_lsp_mode, emacs_package
from tests.editors.neovim import Neovim
from tests.editors.pages import snippet, with_checkout
from tests.editors.vscode import CodeServer, VSCode
from tests.editors.world import World
from tests.harness.process import temporary_home

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Open = Callable[[], Editor]
"""Opens one more window."""


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One home and one warm engine for all the tests."""
    with temporary_home() as home:
        world = World(home, tmp_path_factory.mktemp("project"))
        world.warm_up()
        yield world


def neovim_plugin(program: Path, world: World, folder: Path, *, before: str = "", setup: str | None = "") -> Neovim:
    """Neovim set up as the plugin's page says, with other options if given, or with none of it done."""
    page = with_checkout(snippet("editors/neovim/README.md", "lua", "runtimepath"))
    call = 'require("starfill").setup()'
    assert call in page
    init = page.replace(call, "" if setup is None else f'require("starfill").setup({setup})')
    return Neovim(program, f"{before}\n{init}", "starfill", folder, world.env)


def _neovim_builtin(world: World, folder: Path) -> Editor:
    init = snippet("editors/neovim/README.md", "lua", "vim.lsp.enable")
    return Neovim(programs.neovim_0_12(), init, "nvim.lsp.inline_completion", folder, world.env)


EDITORS: dict[str, Callable[[World, Path], Editor]] = {
    "neovim-0.12": lambda world, folder: neovim_plugin(programs.neovim_0_12(), world, folder),
    "neovim-0.11": lambda world, folder: neovim_plugin(programs.neovim_0_11(), world, folder),
    "neovim-builtin": _neovim_builtin,
    "emacs": lambda world, folder: emacs_package(programs.emacs(), world, folder),
    "emacs-lsp-mode": lambda world, folder: emacs_lsp_mode(programs.emacs(), programs.lsp_mode(), world, folder),
}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def code_server(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CodeServer]:
    """Visual Studio Code with our extension, for all windows."""
    extension = programs.required(programs.vscode_extension)
    home = tmp_path_factory.mktemp("vscode")
    server = CodeServer(programs.vscode(), extension, world.folder, home, world.env)
    yield server
    server.close()


@pytest.fixture(params=[*EDITORS, "vscode"])
def window(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Iterator[Open]:
    """Opens windows of one editor; all are closed at the end."""
    opened: list[Editor] = []

    def open_one() -> Editor:
        if request.param == "vscode":
            server: CodeServer = request.getfixturevalue("code_server")
            opened.append(VSCode(request.getfixturevalue("browser"), server))
        else:
            opened.append(programs.required(lambda: EDITORS[request.param](world, tmp_path / f"window-{len(opened)}")))
        return opened[-1]

    yield open_one
    for editor in opened:
        editor.close()

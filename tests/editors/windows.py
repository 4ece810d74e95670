"""Every way in which a window of an editor is opened with starfill in it, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.editors import programs
from tests.editors.driver import Editor
from tests.editors.emacs import emacs_lsp_mode, emacs_package
from tests.editors.neovim import Neovim
from tests.editors.pages import snippet, with_checkout
from tests.editors.world import World


def neovim_plugin(program: Path, world: World, folder: Path, *, before: str = "", setup: str | None = "") -> Neovim:
    """Neovim set up as the plugin's page says, with other options if given, or with none of it done."""
    page = with_checkout(snippet("editors/neovim/README.md", "lua", "\nrequire"))
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
"""Those that draw ghost text and are a process for each window."""

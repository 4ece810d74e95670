"""Two editors at once, of different kinds: one engine for both, with the one copy of the weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import psutil

from tests.editors import programs
from tests.editors.driver import Editor, wait_for_ghost
from tests.editors.windows import EDITORS
from tests.editors.world import COLUMN, LINE, World

WAIT_S = 60.0


def language_servers(world: World) -> list[psutil.Process]:
    """Those that write their logs into this world, and are alive."""
    servers = []
    for process in psutil.process_iter():
        try:
            if any(part.startswith(f"{world.home}/lsp-") for part in process.cmdline()):
                servers.append(process)
        except psutil.Error:
            continue
    return servers


def test_two_kinds_of_editors_share_one_engine(world: World, tmp_path: Path) -> None:
    known = {process.pid for process in language_servers(world)}
    editors: list[Editor] = []
    try:
        for number, name in enumerate(("neovim-0.12", "emacs")):
            editors.append(programs.required(partial(EDITORS[name], world, tmp_path / name)))
            editors[-1].open(world.file(f"together-{number}.py"), LINE, COLUMN)
            editors[-1].type("with open(")
        one, other = (wait_for_ghost(editor, timeout=WAIT_S) for editor in editors)
        assert one == other
        assert len(world.engines()) == 1
        servers = [process for process in language_servers(world) if process.pid not in known]
        assert len(servers) == 2
        for process in servers:  # the weights are nowhere else
            mapped = Path(f"/proc/{process.pid}/maps").read_text()
            assert "torch" not in mapped
            assert ".safetensors" not in mapped
    finally:
        for editor in editors:
            editor.close()

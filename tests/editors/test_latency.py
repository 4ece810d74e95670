"""The server's own share of the time to the first ghost text, while somebody writes a function in each editor."""

from __future__ import annotations

from pathlib import Path

from tests.editors import programs
from tests.editors.conftest import Open
from tests.editors.helix import Helix
from tests.editors.trace import Share, share_of
from tests.editors.vscode import VSCode
from tests.editors.world import COLUMN, LINE, World

MOST_MS = 5.0
LEAST_REQUESTS = 20


def hold(share: Share) -> None:
    """The bar, by the clock."""
    assert share.requests >= LEAST_REQUESTS, share
    assert share.wall <= MOST_MS, share


def test_the_servers_own_share(window: Open, world: World) -> None:
    editor = window()
    editor.open(world.file("share.py"), LINE, COLUMN)
    if isinstance(editor, VSCode):  # whose extensions outlive their window for a while
        hold(share_of(world, editor, lambda: editor.run("starfill: Restart the Server")))
    else:
        hold(share_of(world, editor, editor.close))


def test_the_servers_own_share_in_helixs_menu(world: World, tmp_path: Path) -> None:
    program = programs.required(programs.helix)
    helix = Helix(program, tmp_path, world.env, world.file("menu.py"), LINE, COLUMN)
    try:
        helix.ready()
        # It asks when nobody types, and what comes late is from memory.
        hold(share_of(world, helix, helix.close, times=2))
    finally:
        helix.close()

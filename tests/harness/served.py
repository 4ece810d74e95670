"""A scripted engine in a process and a home of its own, and editors at it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.harness.editor import FakeEditor
from tests.harness.process import Child, isolated_env, temporary_home, wait_for_health


@dataclass(frozen=True, slots=True)
class Served:
    """One that runs; its directory is a home with nothing else in it."""

    child: Child
    socket: Path
    home: Path

    def editor_argv(self, *flags: str) -> list[str]:
        """The language server's command line that asks it."""
        return [sys.executable, "-m", "lsp_server", "lsp", "--engine", f"unix:{self.socket}", *flags]

    async def editor(self, *flags: str, **env: str) -> FakeEditor:
        """An editor with a language server of its own."""
        return await FakeEditor.start(self.editor_argv(*flags), env=isolated_env(self.home, **env))


@contextmanager
def scripted_engine(script: str, *options: str) -> Iterator[Served]:
    """One that says `script` whatever it is asked; `options` are those of `tests.harness.scripted`."""
    with temporary_home() as home:
        socket = home / "e.sock"
        argv = ("--socket", str(socket), "--script", script, *options)
        with Child.module("tests.harness.scripted", *argv, home=home) as child:
            wait_for_health(socket, child=child)
            yield Served(child, socket, home)

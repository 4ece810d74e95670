"""Helix in a terminal: keys go in as typed, its menu is read off the screen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import psutil

from tests.editors.terminal import Terminal
from tests.harness.process import ROOT, wait_until

LANGUAGES = ROOT / "editors" / "helix" / "languages.toml"

_ENTRY = re.compile(r"^.*  (\S.*?) +text *$", re.MULTILINE)
"""A line of the menu with one of our entries, which are of the kind `text`."""

_STARTS_S = 60.0


class Helix:
    """One Helix with our `languages.toml`, and what is `added` to it, from an otherwise empty home."""

    def __init__(
        self,
        program: Path,
        folder: Path,
        env: Mapping[str, str],
        file: Path,
        line: int,
        column: int,
        *,
        added: str = "",
    ) -> None:
        """Open a file with the cursor before the given character, both from 0, ready to type."""
        config = folder / "config" / "helix"
        config.mkdir(parents=True)
        (config / "languages.toml").write_text(LANGUAGES.read_text("utf-8") + added, "utf-8")
        self._file = file
        own = {
            **env,
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(config.parent),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        self.terminal = Terminal([str(program), f"{file}:{line + 1}:{column + 1}"], folder, own)

    def ready(self) -> None:
        """Wait until it runs with our server, and go into insert mode."""
        wait_until(lambda: " NOR " in self.screen(), "Helix", timeout=_STARTS_S)
        wait_until(lambda: bool(self.servers("starfill")), "language server in Helix", timeout=_STARTS_S)
        self.terminal.keys("i")
        wait_until(lambda: " INS " in self.screen(), "insert mode", timeout=_STARTS_S)

    def servers(self, name: str) -> list[psutil.Process]:
        """Language servers of this Helix whose command line holds `name`."""
        children = psutil.Process(self.terminal.pid()).children(recursive=True)
        return [child for child in children if any(name in part for part in child.cmdline())]

    def entries(self) -> list[str]:
        """What the menu shows of starfill."""
        return _ENTRY.findall(self.screen())

    def ghost(self) -> str:
        """What the menu shows of starfill, which is as near as Helix comes."""
        return "\n".join(self.entries())

    def type(self, text: str) -> None:
        """Type as a user does, key by key."""
        self.terminal.type(text)

    def screen(self) -> str:
        """What is on the screen, the menu too."""
        return self.terminal.screen()

    def text(self) -> str:
        """Save; -> the file's text."""
        self.terminal.keys("Escape")
        wait_until(lambda: " NOR " in self.screen(), "normal mode")
        self.terminal.type(":w!\n")
        wait_until(lambda: "[+]" not in self.screen() and " NOR " in self.screen(), "saved file")
        return self._file.read_text("utf-8")

    def close(self) -> None:
        """End the editor."""
        self.terminal.close()

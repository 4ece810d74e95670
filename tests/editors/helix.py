"""Helix in a terminal: keys go in as typed, its menu is read off the screen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.editors.terminal import Terminal
from tests.harness.process import ROOT, wait_until

LANGUAGES = ROOT / "editors" / "helix" / "languages.toml"


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

"""Visual Studio Code (as code-server) in a headless Chromium: keys go in as typed, ghost text is read from the page."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.editors.world import World
from tests.harness.process import Child, free_tcp_port, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SETTINGS = {
    "editor.autoClosingBrackets": "never",
    "editor.autoClosingQuotes": "never",
    "editor.minimap.enabled": False,
    "editor.quickSuggestions": {"other": False, "comments": False, "strings": False},
    "editor.suggestOnTriggerCharacters": False,
    "editor.stickyScroll.enabled": False,
    "editor.wordBasedSuggestions": "off",
    "explorer.autoReveal": False,
    "explorer.sortOrder": "modified",  # the list holds only what is in view
    "security.workspace.trust.enabled": False,
    "telemetry.telemetryLevel": "off",
    "workbench.startupEditor": "none",
    "workbench.tips.enabled": False,
    "chat.disableAIFeatures": True,
}

_STARTS_MS = 120_000
"""How long the page may take for something, on a machine that has much else to do."""

_STATUS = '[id="starfill.starfill.starfill"]'

_LINES = """() => {
  const editor = document.querySelector('.editor-group-container.active .monaco-editor');
  if (!editor) return { buffer: [], ghost: [] };
  const lines = [...editor.querySelectorAll('.lines-content > .view-lines > .view-line')]
    .sort((a, b) => parseFloat(a.style.top) - parseFloat(b.style.top));
  const buffer = lines.map(line => {
    const copy = line.cloneNode(true);
    copy.querySelectorAll('[class*="ghost-text"]').forEach(element => element.remove());
    return copy.textContent;
  });
  const texts = (parent, selector) => [...parent.querySelectorAll(selector)].map(element => element.textContent);
  const inline = lines.map(line => texts(line, '[class*="ghost-text"]').join('')).filter(text => text);
  return { buffer, ghost: inline.concat(texts(editor, '.view-zones .suggest-preview-text .view-line')) };
}"""


class CodeServer:
    """The server of all windows, with our extension installed in an otherwise empty set-up."""

    def __init__(self, programs: Path, extension: Path, world: World, home: Path) -> None:
        self._workspace = world.folder
        self._port = free_tcp_port()
        folders = ["--extensions-dir", str(home / "extensions"), "--user-data-dir", str(home / "user")]
        self._settings = home / "user"
        self.set({})
        program = str(programs / "bin" / "code-server")
        # A login shell, which code-server asks for its PATH, knows nothing of ours; where pipx puts programs is looked at.
        usual = home / ".local" / "bin" / "starfill"
        usual.parent.mkdir(parents=True)
        usual.symlink_to(world.program)
        environment = {**world.env, "HOME": str(home)}
        install = [program, *folders, "--install-extension", str(extension)]
        subprocess.run(install, env=environment, check=True, capture_output=True, timeout=120)
        options = ["--auth", "none", "--disable-telemetry", "--disable-update-check", "--disable-workspace-trust"]
        address = ["--bind-addr", f"127.0.0.1:{self._port}"]
        self._child = Child([program, *folders, *options, *address, str(world.folder)], env=environment)
        self._child.__enter__()
        wait_until(self._answers, "answer of code-server", timeout=60, child=self._child)

    def set(self, machine: Mapping[str, Any]) -> None:
        """Give the user these settings for the machine, and elsewhere those that the tests need alone."""
        for scope, settings in (("User", SETTINGS), ("Machine", machine)):
            file = self._settings / scope / "settings.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(settings))

    @property
    def url(self) -> str:
        """The workspace's page."""
        return f"http://127.0.0.1:{self._port}/?folder={self._workspace}"

    def close(self) -> None:
        """End it."""
        self._child.__exit__(None, None, None)

    def _answers(self) -> bool:
        with suppress(OSError):
            connection = HTTPConnection("127.0.0.1", self._port, timeout=5)
            try:
                connection.request("GET", "/healthz")
                return connection.getresponse().status == 200
            finally:
                connection.close()
        return False


class VSCode:
    """One window."""

    def __init__(self, browser: Browser, server: CodeServer) -> None:
        from playwright.sync_api import TimeoutError as PageTimeout

        self._timeout = PageTimeout
        self._page: Page = browser.new_page(viewport={"width": 1200, "height": 900})
        self._page.goto(server.url, timeout=_STARTS_MS, wait_until="commit")
        self._page.wait_for_selector(".monaco-workbench", timeout=_STARTS_MS)
        self._page.wait_for_selector(_STATUS, timeout=_STARTS_MS)

    @property
    def page(self) -> Page:
        """The page, for screenshots and for what only this editor has."""
        return self._page

    def open(self, file: Path, line: int, column: int) -> None:
        entry = self._page.locator(f'.explorer-folders-view [aria-label^="{file.name}"]').first
        tab = self._page.locator(f'.tab.active[data-resource-name="{file.name}"]').first
        entry.wait_for(timeout=_STARTS_MS)

        def opened() -> bool:
            entry.dblclick(timeout=_STARTS_MS)  # new files move the others down: it may be another by then
            with suppress(self._timeout):
                tab.wait_for(timeout=_STARTS_MS / 12)
            return bool(tab.is_visible())

        wait_until(opened, f"{file.name} in a tab", timeout=_STARTS_MS / 1000)
        self._page.locator(".editor-group-container.active .monaco-editor .view-lines").click()
        self._page.keyboard.press("Control+g")
        self._page.wait_for_selector(".quick-input-widget input", timeout=_STARTS_MS)
        self._page.keyboard.type(f"{line + 1}:{column + 1}")
        self._page.keyboard.press("Enter")
        wait_until(lambda: len(self._read()["buffer"]) > line, "text of the file", timeout=_STARTS_MS / 1000)
        wait_until(
            lambda: f"Ln {line + 1}, Col {column + 1}" in self._cursor(),
            "cursor in the file",
            timeout=_STARTS_MS / 1000,
        )

    def type(self, text: str) -> None:
        for character in text:
            if character == "\n":
                self._page.keyboard.press("Enter")
            else:
                self._page.keyboard.type(character)

    def ghost(self) -> str:
        return "\n".join(_plain(line) for line in self._read()["ghost"])

    def accept(self) -> None:
        self._page.keyboard.press("Tab")

    def leave(self) -> None:
        self._page.keyboard.press("Escape")
        self._page.evaluate("document.activeElement.blur()")  # what is not shown yet is not stopped by the key

    def text(self) -> str:
        return "\n".join(_plain(line) for line in self._read()["buffer"]).rstrip("\n")

    def save(self) -> None:
        self._page.keyboard.press("Control+s")
        self._page.wait_for_selector(".tab.active:not(.dirty)", timeout=10_000)

    def close(self) -> None:
        self._page.close()

    def status(self) -> str:
        """What the item in the status bar says to those who cannot see it."""
        return str(self._page.locator(_STATUS).locator("a").first.get_attribute("aria-label", timeout=10_000) or "")

    def message(self, holds: str) -> None:
        """Wait for a message box with this text."""
        found = self._page.locator(".notification-list-item-message", has_text=holds).first
        found.wait_for(timeout=_STARTS_MS)

    def run(self, command: str, *, stays: bool = False) -> None:
        """Run a command by its title in the palette; it `stays` open if the command asks something."""
        self._page.keyboard.press("F1")
        self._page.wait_for_selector(".quick-input-widget input", timeout=_STARTS_MS)
        self._page.keyboard.type(command)
        self._page.locator(f'.quick-input-list [aria-label^="{command}"]').first.click(timeout=_STARTS_MS)
        if not stays:
            self._page.wait_for_selector(".quick-input-widget", state="hidden", timeout=_STARTS_MS)

    def _read(self) -> dict[str, list[str]]:
        found: dict[str, Any] = self._page.evaluate(_LINES)
        return found

    def _cursor(self) -> str:
        return str(self._page.locator('[id="status.editor.selection"]').inner_text(timeout=1000))


def _plain(line: str) -> str:
    """The page draws blanks as no-break spaces."""
    return line.replace("\u00a0", " ").replace("\u200b", "")

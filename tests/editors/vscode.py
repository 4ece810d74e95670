"""Visual Studio Code (as code-server) in a headless Chromium: keys go in as typed, ghost text is read from the page."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.editors.world import World
from tests.harness.process import Child, free_tcp_port, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

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

KEYS = {
    "starfill.trigger": "F6",
    "starfill.next": "F7",
    "starfill.previous": "F8",
    "editor.action.inlineSuggest.trigger": "F9",
}
"""What the user has put commands on."""

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

    def __init__(
        self, programs: Path, extension: Path, workspace: Path, environment: Mapping[str, str], home: Path
    ) -> None:
        self._workspace = workspace
        self._port = free_tcp_port()
        folders = ["--extensions-dir", str(home / "extensions"), "--user-data-dir", str(home / "user")]
        self._settings = home / "user"
        self.set({})
        bindings = [{"key": key.lower(), "command": command} for command, key in KEYS.items()]
        (home / "user" / "User" / "keybindings.json").write_text(json.dumps(bindings))
        program = str(programs / "bin" / "code-server")
        own = {**environment, "HOME": str(home)}
        install = [program, *folders, "--install-extension", str(extension)]
        subprocess.run(install, env=own, check=True, capture_output=True, timeout=120)
        options = ["--auth", "none", "--disable-telemetry", "--disable-update-check", "--disable-workspace-trust"]
        address = ["--bind-addr", f"127.0.0.1:{self._port}"]
        self._child = Child([program, *folders, *options, *address, str(workspace)], env=own)
        self._child.__enter__()
        wait_until(self._answers, "answer of code-server", timeout=60, child=self._child)

    @classmethod
    def with_starfill(cls, programs: Path, extension: Path, world: World, home: Path) -> Self:
        """One on a world's folder, from which the extension finds the program."""
        # A login shell, which code-server asks for its PATH, knows nothing of ours; where pipx puts programs is looked at.
        usual = home / ".local" / "bin" / "starfill"
        usual.parent.mkdir(parents=True)
        usual.symlink_to(world.program)
        return cls(programs, extension, world.folder, world.env, home)

    def set(self, machine: Mapping[str, Any]) -> None:
        """Give the user these settings for the machine, and elsewhere those that the tests need alone."""
        for scope, settings in (("User", SETTINGS), ("Machine", machine)):
            file = self._settings / scope / "settings.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(settings))

    def users(self) -> dict[str, Any]:
        """What the user sets now, wherever the editor has written it."""
        files = [self._settings / scope / "settings.json" for scope in ("User", "Machine")]
        return {name: value for file in files for name, value in json.loads(file.read_text("utf-8")).items()}

    @contextmanager
    def running_with(self, window: VSCode, world: World, machine: Mapping[str, Any]) -> Iterator[None]:
        """The window's server runs with these settings of the user's for the machine, which are flags, and then with none."""

        def run_with(settings: Mapping[str, Any]) -> None:
            before = set(world.logs())
            self.set(settings)
            wait_until(lambda: bool(set(world.logs()) - before), "another server", timeout=_STARTS_MS / 1000)
            wait_until(lambda: window.status() == "starfill: ready", "the other server", timeout=_STARTS_MS / 1000)

        run_with(machine)
        try:
            yield
        finally:
            run_with({})

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
        self._page.locator(".quick-input-widget input").first.fill(f":{line + 1}:{column + 1}", timeout=_STARTS_MS)
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

    def bar(self) -> list[str]:
        """What the status bar shows of starfill: its own item, and the editor's progress display."""
        items = self._page.locator(".statusbar-item", has_text="starfill").all_inner_texts()
        return [_plain(text).strip() for text in items]

    def message(self, holds: str) -> None:
        """Wait for a message box with this text."""
        self._message(holds).wait_for(timeout=_STARTS_MS)

    def choices(self, holds: str) -> list[str]:
        """The buttons of the message box with this text."""
        return [_plain(text).strip() for text in self._box(holds).locator(".monaco-button").all_inner_texts()]

    def choose(self, holds: str, choice: str) -> None:
        """Press a button of the message box with this text, which goes away."""
        self._box(holds).locator(".monaco-button", has_text=choice).first.click(timeout=_STARTS_MS)
        self._message(holds).wait_for(state="hidden", timeout=_STARTS_MS)

    def answer(self, title: str, text: str) -> None:
        """Type into the box with this title, which asks for words."""
        box = self._page.locator(".quick-input-widget", has_text=title)
        box.locator("input:focus").wait_for(timeout=_STARTS_MS)
        self._page.keyboard.type(text)
        self._page.keyboard.press("Enter")
        box.wait_for(state="hidden", timeout=_STARTS_MS)

    def confirm(self) -> None:
        """Have all of an edit applied that is shown to be confirmed."""
        preview = self._page.locator(".refactor-preview, .bulk-edit-panel")
        preview.locator(".monaco-checkbox, input[type=checkbox]").first.click(timeout=_STARTS_MS)
        self._page.locator(".monaco-button", has_text="Apply").first.click(timeout=_STARTS_MS)

    def pick(self, holds: str) -> None:
        """Choose an entry of the list that is open."""
        entry = self._page.locator(f'.quick-input-list [aria-label*="{holds}"]').first
        entry.click(timeout=_STARTS_MS)

    def asked(self) -> str:
        """What stands in the empty box of the list that is open."""
        box = self._page.locator(".quick-input-widget input").first
        return str(box.get_attribute("placeholder", timeout=_STARTS_MS) or "")

    def agree(self, holds: str, choice: str) -> None:
        """Press a button of the dialogue with this text."""
        dialogue = self._page.locator(".monaco-dialog-box", has_text=holds)
        dialogue.locator(".monaco-button", has_text=choice).first.click(timeout=_STARTS_MS)

    def dismiss_messages(self) -> None:
        """Put away what message boxes there are."""
        self.run("Notifications: Clear All Notifications")

    def reload(self) -> None:
        """The same window anew."""
        self._page.reload(timeout=_STARTS_MS, wait_until="commit")
        self._page.wait_for_selector(_STATUS, timeout=_STARTS_MS)

    def run(self, command: str, *, stays: bool = False) -> None:
        """Run a command by its title in the palette; it `stays` open if the command asks something."""
        self._page.keyboard.press("F1")
        # Not key by key: what is typed before the list has come up is lost.
        self._page.locator(".quick-input-widget input").first.fill(f">{command}", timeout=_STARTS_MS)
        self._page.locator(f'.quick-input-list [aria-label^="{command}"]').first.click(timeout=_STARTS_MS)
        if not stays:
            self._page.wait_for_selector(".quick-input-widget", state="hidden", timeout=_STARTS_MS)

    def _box(self, holds: str) -> Locator:
        return self._page.locator(".notification-list-item", has=self._message(holds)).first

    def _message(self, holds: str) -> Locator:
        return self._page.locator(".notification-list-item-message", has_text=holds).first

    def _read(self) -> dict[str, list[str]]:
        found: dict[str, Any] = self._page.evaluate(_LINES)
        return found

    def _cursor(self) -> str:
        return str(self._page.locator('[id="status.editor.selection"]').inner_text(timeout=1000))


def _plain(line: str) -> str:
    """The page draws blanks as no-break spaces."""
    return line.replace("\u00a0", " ").replace("\u200b", "")

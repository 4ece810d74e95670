"""The editors, each as a way to open windows of it; what cannot be installed is skipped loudly, or an error if required."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.editors import programs
from tests.editors.driver import Editor
from tests.editors.vscode import CodeServer, VSCode
from tests.editors.windows import EDITORS
from tests.editors.world import World
from tests.harness.process import temporary_home

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Open = Callable[[], Editor]
"""Opens one more window."""


_SAID = 20  # lines of a server's log that are shown beside a failure


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Visual Studio Code last: playwright leaves an event loop running in this thread, beside which pynvim starts none."""
    items.sort(key=lambda item: "vscode" in item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the language servers said last, and what stood in the editor."""
    report = yield
    if report.failed:
        for name, thing in getattr(item, "funcargs", {}).items():
            if isinstance(thing, World):
                for file, messages in sorted(thing.logs().items(), key=lambda log: log[0].stat().st_mtime)[-2:]:
                    report.sections.append((file.name, "\n".join(messages[-_SAID:])))
            elif isinstance(thing, VSCode):
                report.sections.append((name, f"{thing.text()}\n--\n{thing.status()}"))
    return report


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One home and one warm engine for all the tests."""
    with temporary_home() as home:
        world = World.prepare(home, tmp_path_factory.mktemp("project"))
        world.warm_up()
        yield world


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
    server = CodeServer.with_starfill(programs.vscode(), extension, world, home)
    yield server
    server.close()


@pytest.fixture(scope="session")
def vscode(code_server: CodeServer, browser: Browser) -> Iterator[VSCode]:
    """A window that is there already: another one takes its seconds."""
    window = VSCode(browser, code_server)
    yield window
    window.close()


@pytest.fixture(params=[*EDITORS, "vscode"])
def window(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Iterator[Open]:
    """Opens windows of one editor; all are closed at the end, but for the first of VS Code."""
    opened: list[Editor] = []

    def open_one() -> Editor:
        if request.param != "vscode":
            opened.append(programs.required(lambda: EDITORS[request.param](world, tmp_path / f"window-{len(opened)}")))
            return opened[-1]
        first: VSCode = request.getfixturevalue("vscode")
        if first not in kept:
            kept.append(first)
            return first
        opened.append(VSCode(request.getfixturevalue("browser"), request.getfixturevalue("code_server")))
        return opened[-1]

    kept: list[Editor] = []
    yield open_one
    for editor in opened:
        editor.close()
    for editor in kept:
        editor.leave()

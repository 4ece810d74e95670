"""What of the time to the first ghost text is the language server's own, while somebody writes a function in a real editor.

`python -m benchmarks.editors --out DIR` plays the trace of `tests/editors/trace.py` in each editor that can be installed,
with the starter model, and takes what each server says of itself at its end. The figure is a median over requests for which
the model was asked, in milliseconds: from the bytes of the request to the first text handed over, less what was waited for
the engine and for the next key. Beside it the processor time of the server's thread over the same way, which has the work of
asking the engine in it too.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.report import text_table
from benchmarks.rows import Row, RowWriter, Run
from tests.editors import programs
from tests.editors.helix import Helix
from tests.editors.trace import Share, Typist, share_of
from tests.editors.vscode import CodeServer, VSCode
from tests.editors.windows import EDITORS
from tests.editors.world import COLUMN, LINE, World
from tests.harness.process import temporary_home

Opened = tuple[Typist, Callable[[], None]]
"""An editor to type into, and what ends its server."""


@contextmanager
def _window(name: str, world: World, folder: Path) -> Iterator[Opened]:
    editor = EDITORS[name](world, folder)
    try:
        editor.open(world.file(f"{name}.py"), LINE, COLUMN)
        yield editor, editor.close
    finally:
        editor.close()


@contextmanager
def _helix(world: World, folder: Path) -> Iterator[Opened]:
    helix = Helix(programs.helix(), folder, world.env, world.file("helix.py"), LINE, COLUMN)
    try:
        helix.ready()
        yield helix, helix.close
    finally:
        helix.close()


@contextmanager
def _vscode(world: World, folder: Path) -> Iterator[Opened]:
    from playwright.sync_api import sync_playwright

    server = CodeServer.with_starfill(programs.vscode(), programs.vscode_extension(), world, folder)
    try:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            editor = VSCode(chromium, server)
            editor.open(world.file("vscode.py"), LINE, COLUMN)
            yield editor, lambda: editor.run("starfill: Restart the Server")
            chromium.close()
    finally:
        server.close()


def measure(name: str) -> Share:
    """One editor, in a home of its own."""
    with temporary_home() as home, tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "project")
        project.mkdir()
        world = World.prepare(home, project)
        world.warm_up()
        own = Path(folder, "editor")
        own.mkdir()
        kinds = {"helix": _helix, "vscode": _vscode}
        with kinds[name](world, own) if name in kinds else _window(name, world, own / "home") as (editor, end):
            return share_of(world, editor, end)


def row(run: Run, name: str, share: Share) -> Row:
    """One editor's."""
    return Row(
        question="own share of the time to the first text",
        model="starfill-starter",
        dtype="float32",
        measured=True,
        value=share.wall,
        unit="ms",
        backend=name,
        detail={"processor": share.processor},
        n=share.requests,
        median=share.wall,
        **run.shared(),
    )


def main(arguments: Sequence[str]) -> int:
    """Measure, write rows, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.editors", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for editors.jsonl; rows are appended")
    parser.add_argument("--editors", nargs="+", default=[*EDITORS, "helix", "vscode"], help="which of them")
    options = parser.parse_args(arguments)
    run = Run.of(arguments, "cpu", 0, module="benchmarks.editors")
    writer = RowWriter(options.out, "editors")
    for name in options.editors:
        try:
            writer.write(row(run, name, measure(name)))
        except programs.NotInstalled as reason:
            print(f"{name}: {reason}", file=sys.stderr)
    print(text_table(writer.rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

"""`make demo`: the language server as an editor starts it, a real file, keys one after the other, ghost text."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from editors.demo.scenes import FILE, ROOT, SCENES, Scene
from tests.harness.editor import FakeEditor, span

KEY_SECONDS = 0.07
CONTEXT_LINES = 4


@dataclass(frozen=True, slots=True)
class Shown:
    """What one scene brought: the text shown, whether typing on brought it, and what the model was last asked."""

    typed: str
    ghost: str
    found: bool
    reused: bool
    cost: dict[str, Any] | None


async def main(console: Console) -> int:
    """Play every scene -> exit code, non-zero if no text appeared."""
    uri, text = FILE.as_uri(), FILE.read_text("utf-8")
    server = Path(sys.executable).with_name("starfill")
    console.print(f"[bold]starfill[/bold] completes [cyan]{FILE.relative_to(ROOT)}[/cyan]")
    async with await FakeEditor.start([server, "lsp"], timeout=180) as editor:
        editor.ignore("$/progress")
        await editor.initialize("vscode")
        editor.open(uri, "python", text)
        with console.status("starting the engine"):
            started = time.monotonic()
            await editor.inline(uri, 0, 0).result()
        console.print(f"engine ready after {time.monotonic() - started:.1f} s\n")
        shown = [await play(editor, console, uri, scene) for scene in SCENES]
    console.print(summary(shown))
    console.print("Times and tokens are of the last time that the model was asked; typing on what it said asks nobody.")
    console.print("The engine stays warm for half an hour; [bold].venv/bin/starfill stop[/bold] ends it now.")
    return 0 if any(one.found for one in shown) else 1


async def play(editor: FakeEditor, console: Console, uri: str, scene: Scene) -> Shown:
    """Open a line, type, ask at each key as editors do, show what streams in at the last, and put the text back."""
    before = editor.text(uri)
    number = scene.line(before)
    editor.change(uri, span(number, 0), "\n")
    with Live(console=console, refresh_per_second=30, transient=False) as live:
        ghost, column = "", 0
        indent = len(scene.typed) - len(scene.typed.lstrip())
        for key in (scene.typed[:indent], *scene.typed[indent:]):
            if not key:
                continue
            editor.change(uri, span(number, column), key)
            column += len(key)
            live.update(screen(editor.text(uri), number, column, ""))
            automatic = editor.inline(uri, number, column, kind=2)
            await asyncio.sleep(KEY_SECONDS)
            del automatic  # its one reply is the editor's to check
        pending = editor.inline(uri, number, column, kind=1, partial=True)
        async for value in pending:
            ghost = value["items"][0]["insertText"]
            live.update(screen(editor.text(uri), number, column, ghost))
        items = (await pending.result())["items"]
        ghost = items[0]["insertText"] if items else ""
        live.update(screen(editor.text(uri), number, column, ghost))
    status = await editor.request("workspace/executeCommand", {"command": "starfill.status"}).result()
    editor.change(uri, span(number, 0, number + 1, 0), "")
    assert editor.text(uri) == before  # noqa: S101
    last = status["last"]
    return Shown(scene.typed.strip(), ghost or f"({last['reason']})", bool(items), last["reused"], status["asked"])


def screen(text: str, number: int, column: int, ghost: str) -> Text:
    """The lines around the cursor with the ghost text in them."""
    lines = text.split("\n")
    shown = Text()
    for n in range(max(0, number - CONTEXT_LINES), min(len(lines), number + CONTEXT_LINES)):
        shown.append(f"{n + 1:4} ", "dim")
        if n == number:
            shown.append(lines[n][:column], "bold").append(ghost, "italic bright_black on grey11").append("▏", "blink")
            shown.append(lines[n][column:])
        else:
            shown.append(lines[n])
        shown.append("\n")
    return shown


def summary(shown: list[Shown]) -> Table:
    """Times, speed and what the KV cache saved."""
    table = Table(
        "typed", "ghost text", "by", "first text", "tokens/s", "prompt tokens", "cached", title="What it cost"
    )
    for one in shown:
        by = "typing on" if one.reused else "the model"
        table.add_row(one.typed, one.ghost.strip(), by, *(costs(one.cost) if one.cost else "----"))
    return table


def costs(cost: dict[str, Any]) -> tuple[str, str, str, str]:
    """First text, tokens per second, prompt tokens, and how many of them were cached."""
    ms, prompt = cost["ms"], cost["cached"] + cost["computed"]
    if ms["first"] is None:
        return "-", "-", str(prompt), f"{cost['cached']}"
    rest = (ms["total"] - ms["first"]) / 1000
    speed = f"{(cost['generated'] - 1) / rest:.0f}" if rest > 0 and cost["generated"] > 1 else "-"
    return f"{ms['first']:.0f} ms", speed, str(prompt), f"{cost['cached']} ({cost['cached'] / max(1, prompt):.1%})"


if __name__ == "__main__":
    # Without a terminal the tables still need a width.
    output = Console(width=None if sys.stdout.isatty() else 120)
    sys.exit(asyncio.run(main(output)))

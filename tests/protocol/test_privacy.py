"""Invariant 8: a canary in code, path, option, environment and completion appears in no log, error or message."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.harness.aio import async_test
from tests.harness.editor import FakeEditor, ServerError, span
from tests.harness.process import Child, isolated_env, temporary_home, wait_for_health

CANARY = "xyzzy_plugh_canary"


@async_test(timeout=120)
async def test_no_user_text_in_any_log_error_or_message(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    uri = f"file:///home/{CANARY}/one.py"
    with temporary_home() as home:
        socket = home / "e.sock"
        argv = ("--socket", str(socket), "--script", f"{CANARY}(1)", "--fail-at", "3")
        with Child.module("tests.harness.scripted", *argv, home=home) as engine:
            wait_for_health(socket, child=engine)
            command = [
                sys.executable,
                "-m",
                "lsp_server",
                "lsp",
                "--engine",
                f"unix:{socket}",
                "--log-file",
                str(log),
            ]
            async with await FakeEditor.start(command, env=isolated_env(home, SECRET=CANARY)) as editor:
                await editor.initialize("vscode", options={"starfill": {"completion": CANARY, CANARY: 1}})
                editor.open(uri, "python", f"# {CANARY}\nx = ")
                await editor.inline(uri, 1, 4).result()  # its third pass fails
                (item,) = (await editor.inline(uri, 1, 4).result())["items"]
                assert CANARY in item["insertText"]
                errors = []
                for method, params in (
                    ("textDocument/inlineCompletion", {"textDocument": {"uri": uri}, "position": CANARY}),
                    ("textDocument/inlineCompletion", {"textDocument": CANARY, "context": CANARY}),
                    ("workspace/executeCommand", {"command": "starfill.status", "arguments": [CANARY]}),
                    ("textDocument/completion", {"textDocument": {"uri": uri}, "position": [CANARY]}),
                ):
                    with pytest.raises(ServerError) as caught:
                        await editor.request(method, params).result()
                    errors.append(f"{caught.value.message} {caught.value.data}")
                editor.notify("textDocument/didChange", {"textDocument": CANARY, "contentChanges": CANARY})
                editor.notify(
                    "textDocument/didChange", {"textDocument": {"uri": uri, "version": 2}, "contentChanges": 1}
                )
                editor.change(uri, span(0, 0), CANARY)
                assert (await editor.inline(uri, 1, 4).result())["items"]
                said = editor.session_log.stderr()
            assert CANARY not in " ".join(errors)
            assert CANARY not in said
            assert CANARY not in log.read_text()
            assert CANARY not in engine.output()

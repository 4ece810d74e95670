"""Invariant 8: a canary in code, path, option, environment and completion appears in no log, error or message."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import logs
from engine.client import Chunk
from engine.errors import EngineRefused, Overloaded, RequestError
from lsp_server.engines import RemoteEngine, without_quotation
from tests.harness.aio import async_test
from tests.harness.editor import ServerError, span
from tests.harness.served import scripted_engine
from tests.harness.session_inside import InsideSession, QuickEngine

CANARY = "xyzzy_plugh_canary"


@async_test(timeout=120)
async def test_no_user_text_in_any_log_error_or_message(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    uri = f"file:///home/{CANARY}/one.py"
    with scripted_engine(f"{CANARY}(1)", "--fail-at", "3") as engine:
        async with await engine.editor("--log-file", str(log), SECRET=CANARY) as editor:
            await editor.initialize("vscode", options={"starfill": {"completion": CANARY, CANARY: 1}})
            editor.on_request("workspace/configuration", lambda _: [{"trigger": CANARY, CANARY: CANARY}])
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
            editor.notify("textDocument/didChange", {"textDocument": {"uri": uri, "version": 2}, "contentChanges": 1})
            editor.change(uri, span(0, 0), CANARY)
            assert (await editor.inline(uri, 1, 4).result())["items"]
            editor.notify(
                "workspace/didChangeConfiguration",
                {"settings": {"starfill": {"model": CANARY, "max_tokens": CANARY, "exclude": CANARY, CANARY: CANARY}}},
            )
            assert (await editor.inline(uri, 1, 4).result())["items"]
            shown = editor.take_notifications("window/showMessage")
            assert {message["message"].split(" must be")[0] for message in shown} >= {"starfill: editor: max_tokens"}
            said = editor.session_log.stderr()
            status = str(await editor.request("workspace/executeCommand", {"command": "starfill.status"}).result())
        assert CANARY not in " ".join(errors)
        assert CANARY not in str(shown)
        assert CANARY not in status
        assert CANARY not in said
        assert CANARY not in log.read_text()
        assert CANARY not in engine.child.output()


class BrokenEngine(QuickEngine):
    """Fails in ways that nobody foresaw, with user text in the message."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__(f"{CANARY}(1)\n")
        self._error = error

    @contextlib.asynccontextmanager
    async def complete(self, request: Any) -> AsyncIterator[AsyncIterator[Chunk]]:
        async with super().complete(request) as chunks:
            if self._error is not None:
                raise self._error
            yield chunks


@pytest.fixture
def everything_logged(tmp_path: Path) -> Iterator[Path]:
    """What would be in the log file if each logger that is not silenced logged at the lowest level."""
    root, file = logging.getLogger(), tmp_path / "debug.log"
    handlers, level = root.handlers[:], root.level
    silenced = {name: logging.getLogger(name).level for name in ("pygls", "httpx2", "httpcore2", "uvicorn")}
    logs.configure(file)
    root.setLevel(logging.DEBUG)
    for handler in root.handlers:
        handler.setLevel(logging.DEBUG)
    yield file
    for handler in root.handlers[:]:
        handler.close()
        root.removeHandler(handler)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)
    for name, before in silenced.items():
        logging.getLogger(name).setLevel(before)


ERRORS: list[Exception | None] = [
    None,
    RuntimeError(CANARY),
    KeyError(CANARY),
    UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, CANARY),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_nothing_is_logged_at_the_lowest_level_either(everything_logged: Path, error: Exception | None) -> None:
    uri = f"file:///home/{CANARY}/one.py"
    at = {"textDocument": {"uri": uri}, "position": {"line": 1, "character": 4}}

    @async_test()
    async def run() -> None:
        asyncio.get_running_loop().set_debug(True)
        async with InsideSession(BrokenEngine(error)) as session:
            await session.ask(
                1,
                "initialize",
                {
                    "processId": None,
                    "rootUri": f"file:///home/{CANARY}",
                    "capabilities": {},
                    "initializationOptions": {CANARY: CANARY, "trigger": CANARY},
                    "workspaceFolders": [{"uri": f"file:///home/{CANARY}", "name": CANARY}],
                },
            )
            session.tell("initialized", {})
            document = {"uri": uri, "languageId": CANARY, "version": 1, "text": f"# {CANARY}\nx = "}
            session.tell("textDocument/didOpen", {"textDocument": document})
            completed = await session.ask(2, "textDocument/inlineCompletion", {**at, "context": {"triggerKind": 1}})
            assert (CANARY in str(completed)) == (error is None)
            menu = await session.ask(3, "textDocument/completion", at)
            for number, command in enumerate((CANARY, "starfill.accept", "starfill.status"), 4):
                await session.ask(number, "workspace/executeCommand", {"command": command, "arguments": [CANARY]})
            session.tell(CANARY, {CANARY: CANARY})
            await session.ask(7, CANARY, {CANARY: CANARY})
            session.channel.feed(CANARY.encode() + b"\r\n\r\n")
            await session.ask(8, "shutdown")
            for message in session.channel.sent:
                if error is not None or message not in (completed, menu):
                    assert CANARY not in str(message)

    run()
    for handler in logging.getLogger().handlers:
        handler.flush()
    assert CANARY not in everything_logged.read_text("utf-8")


@pytest.mark.parametrize(
    "error",
    [RequestError(CANARY, code=CANARY.upper(), status=400), EngineRefused(CANARY), Overloaded(CANARY, retry_after=3)],
)
def test_a_strangers_error_is_told_in_our_own_words(error: RequestError | EngineRefused) -> None:
    told = without_quotation(error)
    assert type(told) is type(error)
    assert CANARY not in str(told)
    assert CANARY not in str(vars(told))


@async_test()
async def test_a_remote_server_that_quotes_what_it_was_sent_is_not_quoted() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        sent = (await reader.readexactly(length)).decode()
        body = b'{"error": {"message": "no %s", "code": "bad_request"}}' % CANARY.encode()
        assert CANARY in sent
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        engine = RemoteEngine(f"http://127.0.0.1:{port}", None)
        with pytest.raises(RequestError) as caught:
            async with engine.complete(f'{{"prompt": "{CANARY}"}}'.encode()) as chunks:
                async for _ in chunks:
                    pass
        assert str(caught.value) == "HTTP 400 (bad_request)"
        await engine.aclose()

"""The gate around a live server: odd frames, odd messages, documents, clients that do not read, editors that die."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types
from pygls.feature_manager import is_thread_function

from lsp_server.gate import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR
from lsp_server.pipes import Pipes
from tests.harness.aio import async_test
from tests.harness.process import ROOT, isolated_env, temporary_home
from tests.harness.session_inside import InsideSession, frame

URI = "untitled:one.py"
AT = {"textDocument": {"uri": URI}, "position": {"line": 0, "character": 4}, "context": {"triggerKind": 1}}
ARGV = [sys.executable, "-m", "lsp_server", "lsp", "--engine", "unix:/nowhere"]


@contextlib.asynccontextmanager
async def session(text: str = "x = ", **capabilities: Any) -> Any:
    async with InsideSession() as inside:
        params = {"processId": None, "rootUri": None, "capabilities": capabilities}
        assert "result" in await inside.ask(0, "initialize", params)
        inside.tell("initialized", {})
        opened(inside, text)
        yield inside
        # Whatever happened, the session goes on.
        assert "items" in (await inside.ask("last", "textDocument/inlineCompletion", AT))["result"]


def opened(inside: InsideSession, text: str, version: Any = 1) -> None:
    document = {"uri": URI, "languageId": "python", "version": version, "text": text}
    inside.tell("textDocument/didOpen", {"textDocument": document})


def changed(inside: InsideSession, changes: list[Any], version: Any = 2, uri: str = URI) -> None:
    named = {"uri": uri, "version": version}
    inside.tell("textDocument/didChange", {"textDocument": named, "contentChanges": changes})


def edit(text: str, line: int, character: int, *end: int) -> dict[str, Any]:
    start = {"line": line, "character": character}
    return {"range": {"start": start, "end": {"line": end[0], "character": end[1]} if end else start}, "text": text}


async def text_of(inside: InsideSession) -> str | None:
    """What the server holds, once it has dealt with all that it was sent."""
    await inside.ask(object_id(), "no/such")
    return inside.text(URI)


def object_id() -> str:
    return hashlib.sha256(os.urandom(8)).hexdigest()


def code_of(reply: dict[str, Any]) -> int:
    return int(reply["error"]["code"])


@async_test()
async def test_a_message_over_the_limit_is_refused_and_the_session_goes_on() -> None:
    async with session() as inside:
        inside.channel.feed(b"Content-Length: 90000000\r\n\r\n" + b'{"jsonrpc":"2.0","id":7' + b" " * 100_000)
        assert code_of(await inside.reply(None)) == INVALID_REQUEST


@pytest.mark.parametrize(
    "junk",
    [
        b"\xef\xbb\xbf",
        b"hello\r\n\r\n",
        b"Content-Length: -1\r\n\r\n{}",
        b"Content-Length: 2\r\nContent-Length: 9\r\n\r\n{}",
        b"Content-Type: application/json\r\n\r\n{}",
        b"Content-Length: 9",
        b"Content-Length: 7\r\n\r\n[[[[[[[",
        b"Content-Length: 3\r\n\r\nNaN",
        b"Content-Length: 0\r\n\r\n",
        b"Content-Length: 6000\r\n\r\n" + b"[" * 6_000,
    ],
)
def test_junk_gets_one_error_without_an_id(junk: bytes) -> None:
    @async_test()
    async def run() -> None:
        async with session() as inside:
            inside.channel.feed(junk)
            inside.channel.feed(frame({"jsonrpc": "2.0", "id": 8, "method": "no/such"}))
            assert code_of(await inside.reply(8)) == METHOD_NOT_FOUND
            assert [code_of(reply) for reply in inside.replies(None)] == [PARSE_ERROR]

    run()


@async_test()
async def test_a_request_is_answered_even_where_its_method_is_a_notification_and_the_other_way_round() -> None:
    async with session() as inside:
        assert code_of(await inside.ask(1, "textDocument/didClose", {"textDocument": {"uri": URI}})) == METHOD_NOT_FOUND
        assert code_of(await inside.ask(2, "initialized", {})) == METHOD_NOT_FOUND
        assert code_of(await inside.ask(3, "$/cancelRequest", {"id": 1})) == METHOD_NOT_FOUND
        assert code_of(await inside.ask(4, "$/unknown", {})) == METHOD_NOT_FOUND
        assert code_of(await inside.ask(5, "exit")) == METHOD_NOT_FOUND
        for method in ("shutdown", "initialize", "textDocument/inlineCompletion", "$/unknown", "no/such"):
            inside.tell(method, AT)
        assert await text_of(inside) == "x = "


@async_test()
async def test_a_request_that_says_that_it_is_an_error_too_is_a_request() -> None:
    async with session() as inside:
        error = {"code": 1, "message": ""}
        inside.send({"jsonrpc": "2.0", "id": 3, "method": "no/such", "error": error, "result": 1})
        assert code_of(await inside.reply(3)) == METHOD_NOT_FOUND


@async_test()
async def test_an_answer_to_the_clients_own_request_changes_nothing() -> None:
    async with session() as inside:
        inside.send(
            {"jsonrpc": "2.0", "id": 3, "method": "textDocument/inlineCompletion", "params": AT},
            {"jsonrpc": "2.0", "id": 3, "result": None},
            {"jsonrpc": "2.0", "id": 3, "error": {"code": 1, "message": ""}},
        )
        assert (await inside.reply(3))["result"]["items"]
        await text_of(inside)
        assert len(inside.replies(3)) == 1


@async_test()
async def test_a_duplicate_id_is_refused_and_the_first_answered_once() -> None:
    async with session() as inside:
        ask = {"jsonrpc": "2.0", "id": 3, "method": "textDocument/inlineCompletion", "params": AT}
        inside.send(ask, ask, ask)
        await text_of(inside)
        await inside.settled()
        replies = inside.replies(3)
        assert sorted("result" in reply for reply in replies) == [False, False, True]
        assert {code_of(reply) for reply in replies if "error" in reply} == {INVALID_REQUEST}


@pytest.mark.parametrize("reply", [{"error": 7}, {"error": {"code": "x"}}, {"result": {"surprise": [1]}}])
def test_a_malformed_answer_to_a_request_of_ours_ends_the_waiting(reply: dict[str, Any]) -> None:
    @async_test()
    async def run() -> None:
        async with session(window={"workDoneProgress": True}) as inside:
            token = types.WorkDoneProgressCreateParams("t")
            waiting = asyncio.wrap_future(inside.server.protocol.send_request("window/workDoneProgress/create", token))
            sent = [m for m in inside.channel.sent if m.get("method") == "window/workDoneProgress/create"][-1]
            inside.send({"jsonrpc": "2.0", "id": sent["id"], **reply})
            async with asyncio.timeout(5):
                with contextlib.suppress(Exception):
                    await waiting
            assert waiting.done()

    run()


@async_test()
async def test_initialize_that_was_malformed_may_be_sent_again() -> None:
    async with InsideSession() as inside:
        assert code_of(await inside.ask(1, "initialize", {"processId": "x", "capabilities": 7})) == INVALID_PARAMS
        assert code_of(await inside.ask(2, "shutdown")) == -32002
        assert "result" in await inside.ask(3, "initialize", {"processId": None, "rootUri": None, "capabilities": {}})
        assert code_of(await inside.ask(4, "initialize", {})) == INVALID_REQUEST


@async_test()
async def test_exit_codes() -> None:
    for before, code in (((), 1), (("initialize",), 1), (("initialize", "shutdown"), 0)):
        async with InsideSession() as inside:
            for number, method in enumerate(before):
                await inside.ask(number, method, {"processId": None, "rootUri": None, "capabilities": {}})
            inside.tell("exit")
            while not inside.ended:  # noqa: ASYNC110 - bounded by the test
                await asyncio.sleep(0)
            assert inside.status == code


@async_test()
async def test_a_handler_that_fails_is_one_error_without_details() -> None:
    async with session() as inside:

        @inside.server.command("broken")  # type: ignore[untyped-decorator]
        def broken() -> None:
            raise ValueError("text of a user")

        reply = await inside.ask(3, "workspace/executeCommand", {"command": "broken"})
        assert code_of(reply) == INTERNAL_ERROR
        assert "text of a user" not in json.dumps(inside.channel.sent)


@async_test()
async def test_wrong_types_by_the_thousand_cost_no_time() -> None:
    async with session() as inside:
        started = time.process_time()
        inside.tell("workspace/didChangeWorkspaceFolders", {"event": {"added": [], "removed": "y" * 1_000_000}})
        inside.tell("textDocument/didChange", {"textDocument": {"uri": URI}, "contentChanges": [7] * 100_000})
        assert code_of(await inside.ask(3, "workspace/executeCommand", {"command": [1] * 100_000})) == INVALID_PARAMS
        assert time.process_time() - started < 2


# Documents


@async_test()
async def test_what_is_said_of_documents_in_a_strange_order_is_taken_as_it_stands() -> None:
    async with session() as inside:
        changed(inside, [edit("y", 0, 0)], uri="untitled:never-opened")
        inside.tell("textDocument/didClose", {"textDocument": {"uri": "untitled:never-opened"}})
        inside.tell("textDocument/didSave", {"textDocument": {"uri": "untitled:never-opened"}, "text": "z"})
        changed(inside, [edit("y", 0, 0)], version=9)
        changed(inside, [edit("z", 0, 0)], version=3)  # back in time: the order on the wire is what counts
        assert await text_of(inside) == "zyx = "
        inside.tell("textDocument/didSave", {"textDocument": {"uri": URI}, "text": "something else"})
        assert await text_of(inside) == "zyx = "
        opened(inside, "again = ", version=0)
        assert await text_of(inside) == "again = "
        changed(inside, [{"text": "whole\r\n"}, edit("A", 1, 0), {"text": "B\n"}, edit("C", 0, 99)])
        assert await text_of(inside) == "BC\n"
        for _ in range(2):
            inside.tell("textDocument/didClose", {"textDocument": {"uri": URI}})
        assert await text_of(inside) is None
        changed(inside, [edit("y", 0, 0)])
        assert await text_of(inside) is None


@pytest.mark.parametrize(
    "changes",
    [
        [{"range": {"start": {"line": "0", "character": None}, "end": {}}, "text": "z"}],
        [{"range": 7, "text": "z"}],
        [{"text": None}],
        [{"text": ["z"]}],
        [{}],
        [7],
        "z",
        None,
        [edit("z", 0, 0), {"range": {}}],
    ],
)
def test_an_edit_that_makes_no_sense_changes_nothing(changes: Any) -> None:
    @async_test()
    async def run() -> None:
        async with session() as inside:
            changed(inside, changes)
            assert await text_of(inside) == "x = "

    run()


@async_test()
async def test_a_range_of_null_is_none() -> None:
    async with session() as inside:
        changed(inside, [{"range": None, "text": "y = "}])
        assert await text_of(inside) == "y = "


@async_test()
async def test_positions_out_of_range_in_edits_are_clamped() -> None:
    async with session("ab\r\ncd") as inside:
        changed(inside, [edit("!", 0, 99), edit("?", 99, 99), edit("", 1, 2, 1, 99), edit("-", 0, 2**31 - 1)])
        assert await text_of(inside) == "ab!-\r\ncd"


# What pygls may not do


@async_test()
async def test_no_handler_runs_on_pygls_thread_pool() -> None:
    async with session() as inside:
        features = inside.server.protocol.fm
        handlers = [*features.features.values(), *features.builtin_features.values(), *features.commands.values()]
        assert len(handlers) > 10
        assert not [handler for handler in handlers if is_thread_function(handler)]  # type: ignore[no-untyped-call]
        for number in range(5):
            await inside.ask(f"a{number}", "textDocument/inlineCompletion", AT)
            await inside.ask(f"b{number}", "workspace/executeCommand", {"command": "starfill.status"})
        assert inside.server._thread_pool is None


def test_nothing_of_pygls_is_replaced_from_outside() -> None:
    code = inspect.cleandoc(
        """
        import sys, types
        import pygls.lsp.server, pygls.protocol, pygls.io_, pygls.workspace, pygls.progress, lsprotocol.types
        def everything():
            return {
                (module, name, attribute): id(value)
                for module in sorted(m for m in sys.modules if m.split(".")[0] in ("pygls", "lsprotocol"))
                for name, held in vars(sys.modules[module]).items()
                if getattr(held, "__module__", "").startswith(("pygls", "lsprotocol"))
                for attribute, value in [("", held), *(vars(held).items() if isinstance(held, type) else ())]
                if callable(value) and not attribute.startswith("__")
            }
        before = everything()
        import lsp_server.stdio, lsp_server.cli
        after = everything()
        print(sorted(key for key, value in before.items() if after.get(key) != value))
        print(len(before) > 500)
        """
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "True"]


def test_pygls_is_pinned_below_the_next_minor() -> None:
    import tomllib

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    (pin,) = [each for each in wanted if each.startswith("pygls")]
    lower, upper = pin.removeprefix("pygls>=").split(",<")
    major, minor = map(int, lower.split(".")[:2])
    assert upper == f"{major}.{minor + 1}"


# The process


@pytest.fixture
def home() -> Iterator[Path]:
    with temporary_home() as found:
        yield found


def start(home: Path, **options: Any) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        ARGV, stdin=pipe, stdout=pipe, stderr=pipe, env=isolated_env(home), cwd=ROOT, start_new_session=True, **options
    )


def greet(server: subprocess.Popen[bytes], process_id: Any) -> None:
    params = {"processId": process_id, "rootUri": None, "capabilities": {}}
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(frame({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}))
    server.stdin.flush()
    header = server.stdout.readline()
    length = int(header.split(b":")[1])
    while server.stdout.readline() != b"\r\n":
        pass
    assert b'"capabilities"' in server.stdout.read(length)


def stop(server: subprocess.Popen[bytes]) -> None:
    server.kill()
    server.communicate()


def test_the_server_ends_with_the_process_that_started_it_though_its_input_stays_open(home: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    server = start(home)
    try:
        greet(server, parent.pid)
        assert server.poll() is None
        parent.communicate()
        assert server.wait(10) == 1
    finally:
        stop(server)


def test_a_client_that_closes_its_end_of_the_output_ends_the_server(home: Path) -> None:
    server = start(home)
    try:
        greet(server, None)
        assert server.stdout is not None
        server.stdout.close()
        server.stdout = None
        assert server.wait(10) == 0
    finally:
        stop(server)


def test_nothing_of_pygls_is_logged(home: Path) -> None:
    server = start(home)
    try:
        greet(server, None)
        out, err = server.communicate(
            frame({"jsonrpc": "2.0", "id": 2, "method": "shutdown"}) + frame({"jsonrpc": "2.0", "method": "exit"}),
            timeout=20,
        )
        assert server.returncode == 0
        assert b"pygls" not in err
        assert b"capabilities" not in err
        assert out
    finally:
        stop(server)


# A client that does not read


def a_pipe_nobody_reads(max_unread: int, written: int) -> tuple[int, int]:
    """Write through `Pipes` in a process of its own -> (its exit code, bytes that it could queue)."""
    code = inspect.cleandoc(
        f"""
        import asyncio, resource, sys
        from lsp_server.pipes import Pipes
        async def main():
            pipes = Pipes(max_unread={max_unread})
            await pipes.open()
            loop, queued = asyncio.get_running_loop(), 0
            for _ in range({written} // 4096):
                began = loop.time()
                pipes.write(b"x" * 4096)
                assert loop.time() - began < 1, "a write waited"
                queued += 4096
                await asyncio.sleep(0)
            reading = asyncio.create_task(pipes.read())
            done, _ = await asyncio.wait([reading], timeout=1)
            sys.stderr.write(f"{{'ended' if done else 'alive'}} {{pipes.unread}}")
        asyncio.run(main())
        """
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert child.stderr is not None
        said = child.stderr.read().decode().split()
        assert child.wait(20) == 0, said
        return ("alive", "ended").index(said[-2]), int(said[-1])
    finally:
        stop(child)


def test_what_a_client_leaves_unread_waits_up_to_a_limit_and_then_the_session_ends() -> None:
    ended, unread = a_pipe_nobody_reads(max_unread=2**20, written=2**19)
    assert not ended
    assert unread >= 2**19 - 2**17  # all but what the pipe itself holds
    ended, unread = a_pipe_nobody_reads(max_unread=2**20, written=2**23)
    assert ended
    assert unread == 0


def test_the_limit_is_far_from_what_an_editor_that_pauses_leaves() -> None:
    default = inspect.signature(Pipes.__init__).parameters["max_unread"].default
    assert default >= 16 * 2**20

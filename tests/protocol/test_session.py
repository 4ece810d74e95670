"""One editor, the real language server, and a scripted engine behind it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.aio import async_test
from tests.harness.editor import ServerError, apply_item, capability_names, position, span
from tests.harness.process import isolated_env, read_metrics
from tests.harness.served import Served, scripted_engine

URI = "untitled:one.py"
SCRIPT = "range(10, 2345, 678):\n"
LONG = " ".join(f"w{a}{b}" for a in "abcdefghijklm" for b in "nopqrstuvwxyz")


@pytest.fixture(scope="module")
def quick() -> Iterator[Served]:
    with scripted_engine(SCRIPT, "--delay", "0.001") as served:
        yield served


@pytest.fixture(scope="module")
def slow() -> Iterator[Served]:
    with scripted_engine("value.first.second.third(fourth)", "--delay", "0.05") as served:
        yield served


@pytest.mark.parametrize("client", capability_names())
def test_every_editor_gets_ghost_text(quick: Served, client: str) -> None:
    @async_test()
    async def run() -> None:
        async with await quick.editor() as editor:
            result = await editor.initialize(client)
            capabilities = result["capabilities"]
            assert capabilities["inlineCompletionProvider"] is not None
            inline = "inlineCompletion" in (_client(client).get("textDocument") or {})
            assert ("completionProvider" in capabilities) is not inline
            text = "# 😀 é\nfor i in "
            editor.open(URI, "python", text)
            reply = await editor.inline(URI, 1, 9).result()
            (item,) = reply["items"]
            assert item["range"] == span(1, 9)
            assert apply_item(text, item, editor.encoding) == text + SCRIPT.rstrip()

    run()


def _client(name: str) -> dict[str, Any]:
    from tests.harness.editor import load_client

    found: dict[str, Any] = load_client(name)["capabilities"]
    return found


@async_test()
async def test_positions_are_in_the_clients_units(quick: Served) -> None:
    async with await quick.editor() as editor:
        await editor.initialize("vscode")
        text = "x = '😀😀' + "
        editor.open(URI, "python", text)
        (item,) = (await editor.inline(URI, 0, 13).result())["items"]  # two more utf-16 units than code points
        assert item["range"] == span(0, 13)
        assert apply_item(text, item, "utf-16") == text + SCRIPT.rstrip()
        beyond = (await editor.inline(URI, 99, 99).result())["items"]
        assert beyond[0]["range"] == span(0, 13)


@async_test()
async def test_text_streams_to_a_client_that_asks_for_it(quick: Served) -> None:
    async with await quick.editor() as editor:
        await editor.initialize("neovim-0.12")
        editor.open(URI, "python", "for i in ")
        pending = editor.inline(URI, 0, 9, partial=True)
        final = (await pending.result())["items"][0]["insertText"]
        texts = [value["items"][0]["insertText"] for value in pending.partials]
        assert len(texts) > 3
        assert all(final.startswith(text.rstrip()) for text in texts)
        assert [len(text) for text in texts] == sorted(len(text) for text in texts)


@async_test()
async def test_half_a_surrogate_pair_in_the_text_hinders_nothing(quick: Served) -> None:
    async with await quick.editor() as editor:
        await editor.initialize("vscode")
        editor.open(URI, "python", "x = '\ud83d'\nfor i in ")
        assert (await editor.inline(URI, 1, 9).result())["items"]


@async_test()
async def test_the_completion_menu_of_an_editor_without_ghost_text(quick: Served) -> None:
    async with await quick.editor() as editor:
        await editor.initialize("helix")
        text = "for i in xyz"
        editor.open(URI, "python", text)
        reply = await editor.completion(URI, 0, 12).result()
        assert reply["isIncomplete"] is True
        (item,) = reply["items"]
        assert item["filterText"].startswith("xyz")
        assert item["label"].startswith("xyz")
        assert item["textEdit"]["range"] == span(0, 9, 0, 12)
        assert apply_item(text, item, editor.encoding).startswith(text)


@async_test()
async def test_the_latest_request_wins_and_the_older_is_answered_first(slow: Served) -> None:
    async with await slow.editor() as editor:
        await editor.initialize("neovim-0.12")
        editor.open(URI, "python", "x = ")
        older = [editor.inline(URI, 0, 4, kind=2) for _ in range(5)]
        await asyncio.sleep(0.08)
        newest = editor.inline(URI, 0, 4, kind=2)
        assert [(await pending.result())["items"] for pending in older] == [[]] * 5
        assert not newest.done
        assert (await newest.result())["items"]


@async_test()
async def test_documents_do_not_supersede_each_other(slow: Served) -> None:
    async with await slow.editor() as editor:
        await editor.initialize("neovim-0.12")
        for name in "ab":
            editor.open(f"untitled:{name}", "python", "x = ")
        pending = [editor.inline(f"untitled:{name}", 0, 4) for name in "ab"]
        assert all([(await each.result())["items"] for each in pending])


@async_test()
async def test_a_change_of_the_text_outdates_the_request(slow: Served) -> None:
    async with await slow.editor() as editor:
        await editor.initialize("vscode")
        editor.open(URI, "python", "x = ")
        pending = editor.inline(URI, 0, 4)
        await asyncio.sleep(0.08)
        editor.type(URI, 0, 4, "1")
        started = time.monotonic()
        assert (await pending.result())["items"] == []
        assert time.monotonic() - started < 1


@async_test()
async def test_a_cancelled_request_is_answered_as_such_and_stops_the_model(slow: Served) -> None:
    async with await slow.editor() as editor:
        await editor.initialize("vscode")
        editor.open(URI, "python", "x = ")
        pending = editor.inline(URI, 0, 4)
        await asyncio.sleep(0.12)
        editor.cancel(pending)
        with pytest.raises(ServerError) as caught:
            await pending.result()
        assert caught.value.code == -32800
        await asyncio.sleep(0.1)
        calls = read_metrics(slow.socket).value("starfill_forward_calls_total")
        await asyncio.sleep(0.2)
        assert read_metrics(slow.socket).value("starfill_forward_calls_total") == calls
        assert read_metrics(slow.socket).value("starfill_slots_held") == 0


@async_test()
async def test_the_text_that_was_there_when_it_was_asked_is_completed(quick: Served) -> None:
    """Request and edit in one write: the request's position belongs to the text before the edit."""
    async with await quick.editor() as editor:
        await editor.initialize("vscode")
        editor.open(URI, "python", "a\nb\nfor i in ")
        pending = editor.inline(URI, 2, 9)
        editor.change(URI, span(0, 0, 2, 0), "")
        assert (await pending.result())["items"] == []
        assert (await editor.inline(URI, 0, 9).result())["items"][0]["insertText"] == SCRIPT.rstrip()


@async_test()
async def test_documents_that_were_never_opened_are_never_read(quick: Served, tmp_path: Path) -> None:
    async with await quick.editor() as editor:
        await editor.initialize("vscode")
        secret = tmp_path / "secret.py"
        secret.write_text("password = ")
        assert (await editor.inline(secret.as_uri(), 0, 11).result())["items"] == []
        editor.open(URI, "python", "x = ")
        editor.close_document(URI)
        assert (await editor.inline(URI, 0, 4).result())["items"] == []


@pytest.mark.parametrize(
    "params",
    [
        None,
        {},
        {"textDocument": {"uri": URI}},
        {"textDocument": {"uri": URI}, "position": {"line": "0", "character": 1}, "context": {"triggerKind": 1}},
        {"textDocument": {"uri": URI}, "position": {"line": -1, "character": 1}, "context": {"triggerKind": 1}},
        {"textDocument": {"uri": URI}, "position": {"line": 0.5, "character": 1}, "context": {"triggerKind": 1}},
        {"textDocument": {"uri": URI}, "position": {"line": True, "character": 1}, "context": {"triggerKind": 1}},
        {"textDocument": {"uri": 7}, "position": {"line": 0, "character": 1}, "context": {"triggerKind": 1}},
        {"textDocument": {"uri": URI}, "position": {"line": 0, "character": 2**31}, "context": {"triggerKind": 1}},
        {"textDocument": {"uri": URI}, "position": {"line": 0, "character": 1}},
        {"textDocument": {"uri": URI}, "position": {"line": 0, "character": 1}, "context": {"triggerKind": 9}},
    ],
)
def test_bad_params_are_invalid_params(quick: Served, params: dict[str, Any] | None) -> None:
    @async_test()
    async def run() -> None:
        async with await quick.editor() as editor:
            await editor.initialize("vscode")
            editor.open(URI, "python", "for i in ")
            with pytest.raises(ServerError) as caught:
                await editor.request("textDocument/inlineCompletion", params).result()
            assert caught.value.code == -32602
            assert (await editor.inline(URI, 0, 9).result())["items"]

    run()


@async_test()
async def test_the_status_command_says_what_the_last_request_cost(quick: Served) -> None:
    async with await quick.editor() as editor:
        await editor.initialize("vscode")
        editor.open(URI, "python", "for i in ")
        ask = {"command": "starfill.status"}
        status = await editor.request("workspace/executeCommand", ask).result()
        assert (status["last"], status["asked"], status["counts"]["asked"]) == (None, None, 0)
        await editor.inline(URI, 0, 9).result()
        last = (await editor.request("workspace/executeCommand", ask).result())["last"]
        assert last["items"] == 1
        assert last["reason"] is None
        assert last["cached"] + last["computed"] > 0
        await editor.inline(URI, 0, 2, kind=2).result()
        last = (await editor.request("workspace/executeCommand", ask).result())["last"]
        assert (last["items"], last["reason"]) == (0, "mid_word")
        asked = (await editor.request("workspace/executeCommand", ask).result())["asked"]
        assert asked["generated"] > 0


@async_test()
async def test_an_editor_that_dies_takes_its_server_along(quick: Served) -> None:
    editor = await quick.editor()
    await editor.initialize("vscode")
    started = time.monotonic()
    assert await editor.disconnect() == 0
    assert time.monotonic() - started < 3


def test_standard_input_may_be_a_file_or_nothing(quick: Served, tmp_path: Path) -> None:
    body = (
        b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"processId":null,"rootUri":null,"capabilities":{}}}'
    )
    session = tmp_path / "session"
    session.write_bytes(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    for source, answered in ((session, True), (Path("/dev/null"), False)):
        with source.open("rb") as stdin, (tmp_path / "out").open("wb") as stdout:
            done = subprocess.run(
                quick.editor_argv(), stdin=stdin, stdout=stdout, env=isolated_env(quick.home), timeout=20, check=False
            )
        assert done.returncode == 0
        assert (b'"inlineCompletionProvider"' in (tmp_path / "out").read_bytes()) is answered


@async_test()
async def test_life_cycle_errors_have_their_codes(quick: Served) -> None:
    async with await quick.editor() as editor:
        early = editor.request(
            "textDocument/inlineCompletion", {"textDocument": {"uri": URI}, "position": position(0, 0)}
        )
        with pytest.raises(ServerError) as caught:
            await early.result()
        assert caught.value.code == -32002
        await editor.initialize("vscode")
        with pytest.raises(ServerError) as caught:
            await editor.request("no/such/method", {}).result()
        assert caught.value.code == -32601
        (null,) = editor.send_raw(b"Content-Length: 4\r\n\r\n{{{{", replies=[None])
        with pytest.raises(ServerError) as caught:
            await null.result()
        assert caught.value.code == -32700
        await editor.shutdown()
        with pytest.raises(ServerError) as caught:
            await editor.inline(URI, 0, 0).result()
        assert caught.value.code == -32600


@async_test()
async def test_initialize_is_cheap_and_brings_no_torch(quick: Served) -> None:
    costs, floor = [], []
    for _ in range(5):
        async with await quick.editor() as editor:
            params = {"processId": None, "rootUri": None, "capabilities": _client("vscode")}
            await editor.request("initialize", params).result()  # what completing needs is imported after that
            costs.append(editor.cpu_seconds())
            assert "torch" not in Path(f"/proc/{editor.pid}/maps").read_text()
        floor.append(_seconds_to_import_pygls())
    assert min(costs) <= 1.5 * min(floor), (costs, floor)


def _seconds_to_import_pygls() -> float:
    """CPU seconds of a bare interpreter that imports what no pygls server can do without."""
    code = "import time, lsprotocol.types, pygls.lsp.server; print(time.process_time())"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)

"""The fake editor against a server that misbehaves on demand: each fault is caught, and named."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time

import pytest

from tests.harness.aio import async_test
from tests.harness.editor import (
    Encoding,
    FakeEditor,
    ServerError,
    SessionError,
    span,
)
from tests.harness.process import ROOT, is_alive, wait_until
from tests.harness.text import position_at

SERVER = ROOT / "tests" / "harness" / "misbehaving_server.py"
URI = "file:///a.py"


async def editor_for(encoding: str = "utf-16", timeout: float = 5.0) -> FakeEditor:
    editor = await FakeEditor.start([sys.executable, "-S", str(SERVER), encoding], timeout=timeout)
    await editor.initialize({"general": {"positionEncodings": [encoding]}})
    return editor


@async_test()
async def test_a_clean_session_passes_and_leaves_no_process() -> None:
    async with await editor_for() as editor:
        assert await editor.request("echo", {"a": "é\U0001f600\ud800"}).result() == {"a": "é\U0001f600\ud800"}
        pending = editor.request("stream", partial=True)
        assert [value async for value in pending] == [[1], [2], [3]]
        assert await pending.result() == []
        assert pending.partials == [[1], [2], [3]]
        assert 0 < pending.partial_times[0] - pending.sent_at < pending.latency
        with pytest.raises(ServerError) as caught:
            await editor.request("fail").result()
        assert (caught.value.code, caught.value.message, caught.value.data) == (-32800, "cancelled", {"why": "test"})
        assert editor.rss_mib() > 1
        assert editor.cpu_seconds() > 0
    assert editor.returncode == 0
    assert not is_alive(editor.pid)


@pytest.mark.parametrize(
    ("method", "params", "problem"),
    [
        ("twice", {}, "id 2 was answered again"),
        ("stranger", {}, 'id "2" was answered but never sent'),
        ("chatter", {}, "1 window/showMessage that nobody looked at"),
        ("both", {}, "must have either a result or an error"),
        ("loading", {"values": ["report"]}, "report after []"),
        ("loading", {"values": ["begin", "end", "report"]}, "report after ['begin', 'end']"),
        ("ask", {"method": "mystery/request"}, "mystery/request, which nobody handles"),
    ],
)
@async_test()
async def test_a_breach_fails_the_session_with_its_log(method: str, params: dict[str, object], problem: str) -> None:
    editor = await editor_for()
    try:
        await editor.request(method, params).result()
    except ServerError as error:
        assert method == "both", error
    with pytest.raises(SessionError) as caught:
        await editor.close()
    assert problem in caught.value.problem
    assert f'"method":"{method}"' in str(caught.value)


@async_test()
async def test_partial_results_after_the_reply_are_a_breach() -> None:
    editor = await editor_for()
    await editor.request("late", partial=True).result()
    with pytest.raises(SessionError, match="came after its reply"):
        await editor.close()


@async_test()
async def test_a_request_without_a_reply_is_a_breach() -> None:
    editor = await editor_for()
    pending = editor.request("never")
    with pytest.raises(SessionError, match=r"never \(id 2\): nothing came within 0.1 s"):
        await pending.result(0.1)
    with pytest.raises(SessionError, match=r"never \(id 2\) was never answered"):
        await editor.close()


@async_test()
async def test_a_server_that_dies_loses_its_requests_at_once() -> None:
    editor = await editor_for(timeout=30)
    waiting, started = editor.request("never"), time.monotonic()
    editor.request("die")
    with pytest.raises(SessionError, match="the server's output ended"):
        await waiting.result()
    with pytest.raises(SessionError, match="the server ended while"):
        await editor.expect_notification("anything")
    with pytest.raises(SessionError, match="had ended"):
        await editor.request("echo").result()
    assert time.monotonic() - started < 5
    with pytest.raises(SessionError) as caught:
        await editor.close()
    assert "ended by itself, with status 3" in caught.value.problem
    assert "err last words" in str(caught.value)


@async_test()
async def test_output_that_is_no_frame_is_a_breach() -> None:
    editor = await editor_for(timeout=1)
    editor.request("junk")
    with pytest.raises(SessionError, match="not a header line"):
        await editor.close()


@async_test()
async def test_a_child_that_holds_stdout_is_a_breach() -> None:
    editor = await editor_for()
    orphan = await editor.request("orphan").result()
    with pytest.raises(SessionError, match="stdout outlived"):
        await editor.close()
    await asyncio.to_thread(wait_until, lambda: not is_alive(orphan), "end of the orphan", timeout=5)


@async_test()
async def test_sigkill_forgives_what_it_prevents() -> None:
    async with await editor_for() as editor:
        editor.request("never")
        editor.kill(signal.SIGKILL)
        assert await editor.wait_exit() == -signal.SIGKILL


@async_test()
async def test_a_frame_cut_short_is_a_breach_unless_sigkill_cut_it() -> None:
    editor = await editor_for()
    with pytest.raises(SessionError, match="nothing came"):
        await editor.request("half", {"then": "die"}).result(0.2)
    with pytest.raises(SessionError, match="the stream ended after 7 of 100 bytes"):
        await editor.close()
    async with await editor_for() as editor:
        with pytest.raises(SessionError, match="nothing came"):
            await editor.request("half", {"then": "wait"}).result(0.2)
        editor.kill()


@async_test()
async def test_an_editor_that_goes_away() -> None:
    async with await editor_for() as editor:
        assert await editor.disconnect() == 0


@async_test()
async def test_notifications_are_read_taken_or_ignored() -> None:
    async with await editor_for() as editor:
        for _ in range(3):
            editor.request("chatter")
        shown = await editor.expect_notification("window/showMessage", where=lambda params: params["type"] == 1)
        assert shown["message"] == "psst"
        await editor.request("echo").result()
        assert len(editor.take_notifications("window/showMessage")) == 2
        with pytest.raises(SessionError, match="no notification window/showMessage within"):
            await editor.expect_notification("window/showMessage", timeout=0.05)
        editor.request("chatter")
        editor.ignore("window/showMessage")


@async_test()
async def test_requests_of_the_server_are_answered_by_handlers() -> None:
    async with await editor_for() as editor:
        editor.settings["a"] = {"x": 1}
        reply = await editor.request("ask", {"method": "workspace/configuration"}).result()
        assert reply["result"] == [{"x": 1}, None]

        async def refuse(params: object) -> None:
            await asyncio.sleep(0)
            raise ServerError(-1, "no", {"items": params})

        editor.on_request("custom/ask", refuse)
        reply = await editor.request("ask", {"method": "custom/ask"}).result()
        assert reply["error"]["code"] == -1
        await editor.request("loading", {"values": ["begin", "report", "end"]}).result()
        assert [value["kind"] for value in editor.progress["t"]] == ["begin", "report", "end"]
        assert [call.method for call in editor.server_requests][1] == "custom/ask"


@async_test()
async def test_raw_bytes_may_name_the_replies_they_expect() -> None:
    async with await editor_for() as editor:
        body = json.dumps({"jsonrpc": "2.0", "id": "raw", "method": "echo", "params": [7]}).encode()
        frame = b"content-length: %d\r\n\r\n%s" % (len(body), body)
        first, second = editor.send_raw(frame + frame, replies=["raw", "raw"])
        assert await first.result() == await second.result() == [7]


@async_test()
async def test_an_editor_that_does_not_read_or_reads_late() -> None:
    async with await editor_for() as editor:
        editor.pause_reading()
        one = editor.request("echo")  # the read under way still takes one message
        big = editor.request("large", {"size": 1_000_000})
        await one.result()
        await asyncio.sleep(0.1)
        assert not big.done
        editor.resume_reading()
        assert len(await big.result()) == 1_000_000
        editor.delay_messages = 0.1
        late = editor.request("echo")
        await late.result()
        assert late.latency >= 0.1


@async_test()
async def test_an_exception_in_the_test_carries_the_log_and_ends_the_server() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        async with await editor_for() as editor:
            raise ZeroDivisionError
    assert "session log" in caught.value.__notes__[0]
    assert editor.returncode is not None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
@async_test()
async def test_documents_keep_the_editors_own_text_and_version(encoding: Encoding) -> None:
    async with await editor_for(encoding) as editor:
        editor.open(URI, "python", "é\U0001f600x\r\ny\x0c\u2028z", version=0)
        smile = {"utf-8": 2, "utf-16": 1, "utf-32": 1}[encoding]
        after = smile + {"utf-8": 4, "utf-16": 2, "utf-32": 1}[encoding]
        editor.change(URI, span(0, smile, 0, after), "!")
        assert editor.text(URI) == "é!x\r\ny\x0c\u2028z"
        editor.change_many(URI, [(span(0, 0, 1, 1), ""), (span(0, 0), "a\U0001f600")])
        assert editor.text(URI) == "a\U0001f600\x0c\u2028z"
        cursor = editor.type(URI, 0, 1, "é\r\n\U0001f600q")
        assert editor.text(URI) == "aé\r\n\U0001f600q\U0001f600\x0c\u2028z"
        assert cursor == position_at("\U0001f600q", 2, encoding) | {"line": 1}
        assert editor.documents[URI].version == 6
        sent = [json.loads(entry.text) for entry in editor.session_log.entries if entry.direction == "-->"]
        changes = [message["params"] for message in sent if message["method"] == "textDocument/didChange"]
        assert [change["textDocument"]["version"] for change in changes] == [1, 2, 3, 4, 5, 6]
        assert [change["contentChanges"][0]["text"] for change in changes[2:]] == ["é", "\r\n", "\U0001f600", "q"]
        editor.change(URI, None, "new")
        editor.save(URI)
        editor.close_document(URI)
        assert '"text":"new"' in editor.session_log.entries[-2].text


@async_test()
async def test_accepting_an_item_edits_the_text_and_runs_its_command() -> None:
    async with await editor_for() as editor:
        editor.open(URI, "python", "f(\n")
        item = {"insertText": "f(x)", "range": span(0, 0, 0, 2), "command": {"command": "shown", "arguments": [1]}}
        pending = editor.accept(URI, item)
        assert editor.text(URI) == "f(x)\n"
        assert pending is not None
        assert await pending.result() == {"command": "shown", "arguments": [1]}

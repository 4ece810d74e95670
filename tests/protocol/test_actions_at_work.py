"""Code actions in a real server: offered, asked, streamed, cancelled, and applied to the very text they were made for."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lsp_server.actions import dialogue
from tests.harness.aio import async_test
from tests.harness.editor import FakeEditor, Pending, ServerError, span
from tests.harness.process import http_over_unix
from tests.harness.scripted import starter_tokenizer
from tests.harness.served import Served, scripted_engine

URI = "untitled:shop.py"
TEXT = "import os\r\n\r\n\r\ndef total(prices):\r\n    result = 0\r\n    return result\r\n"
SAID = "\ndef total(prices):\n    # all of them\n    return sum(prices)\n"
LONG = "one two three " + " ".join(f"w{a}{b}" for a in "abcdefghijklm" for b in "nopqrstuvwxyz")
TERMS = "somebody's terms apply"


@asynccontextmanager
async def opened(
    engine: Served, *flags: str, client: str = "vscode", text: str = TEXT, quiet: bool = False
) -> AsyncIterator[FakeEditor]:
    """An editor at work on a text; `quiet`: what is said to its user does not matter."""
    async with await engine.editor(*flags) as editor:
        if quiet:
            editor.ignore("window/showMessage")
        await editor.initialize(client)
        editor.open(URI, "python", text)
        yield editor


def requests_of(engine: Served) -> dict[str, int]:
    """Of how many requests the engine knows, and how many of them run."""
    reply = http_over_unix(engine.socket, "/starfill/requests")
    requests = json.loads(reply.body)["requests"]
    return {
        "all": len(requests),
        "running": sum(each["state"] in ("queued", "prefill", "decode") for each in requests),
    }


@pytest.fixture(scope="module")
def alpaca() -> Iterator[Served]:
    with scripted_engine(SAID, "--instruct", "alpaca", "--terms", TERMS) as engine:
        yield engine


@pytest.fixture(scope="module")
def slow() -> Iterator[Served]:
    with scripted_engine(LONG, "--instruct", "alpaca", "--delay", "0.05") as engine:
        yield engine


@pytest.fixture(scope="module")
def base() -> Iterator[Served]:
    with scripted_engine("total += price", "--instruct", "assistant") as engine:
        yield engine


@pytest.fixture(scope="module")
def plain() -> Iterator[Served]:
    with scripted_engine("It adds.") as engine:
        yield engine


def perform(editor: FakeEditor, task: str, where: Mapping[str, Any], **more: Any) -> Pending:
    arguments = [{"task": task, "uri": URI, "range": where, **more}]
    return editor.request("workspace/executeCommand", {"command": "starfill.action", "arguments": arguments})


def rewrite(editor: FakeEditor, instruction: str, where: Mapping[str, Any]) -> Pending:
    arguments = [{"uri": URI, "range": where, "instruction": instruction}]
    return editor.request("workspace/executeCommand", {"command": "starfill.rewrite", "arguments": arguments})


def code_actions(editor: FakeEditor, where: Mapping[str, Any], **context: Any) -> Pending:
    params = {"textDocument": {"uri": URI}, "range": where, "context": {"diagnostics": [], **context}}
    return editor.request("textDocument/codeAction", params)


def applies(editor: FakeEditor, *, accept: bool = True) -> list[dict[str, Any]]:
    """Have the editor apply what the server asks it to, as far as the versions agree; -> what was asked."""
    asked: list[dict[str, Any]] = []

    def apply(params: dict[str, Any]) -> dict[str, Any]:
        asked.append(params)
        edit = params["edit"]
        if "documentChanges" in edit:
            (change,) = edit["documentChanges"]
            document, (one,) = change["textDocument"], change["edits"]
            accepted = accept and document["version"] == editor.documents[document["uri"]].version
        else:
            ((_, (one,)),) = edit["changes"].items()
            accepted = accept
        if accepted:
            editor.change(URI, one["range"], one["newText"])
        return {"applied": accepted}

    editor.on_request("workspace/applyEdit", apply)
    return asked


async def first_line(editor: FakeEditor) -> None:
    await editor.until(lambda: any(len(each) > 1 for each in editor.progress.values()), "a first line")


async def stopped(engine: Served) -> None:
    for _ in range(500):
        if not (await asyncio.to_thread(requests_of, engine))["running"]:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the model goes on")


@async_test()
async def test_an_answer_in_words_is_shown_and_returned(alpaca: Served) -> None:
    async with opened(alpaca) as editor:
        found = await code_actions(editor, span(3, 0, 5, 17), triggerKind=1).result()
        titles = [entry["title"] for entry in found]
        assert titles == ["Explain (starfill)", "Document (starfill)", "Write tests (starfill)"]
        command = found[0]["command"]
        first = await editor.request("workspace/executeCommand", command).result()
        assert first["text"] == SAID.strip()
        assert (first["reason"], first["applied"], first["model"]) == (None, None, "scripted")
        assert first["usage"]["completion_tokens"] > 5
        again = await editor.request("workspace/executeCommand", command).result()
        assert again["text"] == first["text"]
        shown = [each["message"] for each in editor.take_notifications("window/showMessage")]
        assert shown == [f"starfill: {TERMS}", SAID.strip(), SAID.strip()]  # the terms once
        kinds = [[each["kind"] for each in values] for values in editor.progress.values() if values]
        assert all(each[0] == "begin" and each[-1] == "end" for each in kinds)


@pytest.mark.parametrize("client", ["vscode", "neovim-0.12", "helix"])
def test_code_comes_as_an_edit_with_the_documents_line_ends(alpaca: Served, client: str) -> None:
    @async_test()
    async def run() -> None:
        async with opened(alpaca, client=client, quiet=True) as editor:
            asked = applies(editor)
            reply = await perform(editor, "document", span(4, 6), version=1).result()
            assert reply["applied"] is True
            new = SAID.strip("\n").replace("\n", "\r\n")
            assert editor.text(URI) == f"import os\r\n\r\n\r\n{new}\r\n"
            (params,) = asked
            assert params["label"] == "starfill: Document"
            if client == "vscode":
                ((name, annotation),) = params["edit"]["changeAnnotations"].items()
                assert annotation["needsConfirmation"] is True
                assert params["edit"]["documentChanges"][0]["edits"][0]["annotationId"] == name

    run()


@async_test()
async def test_an_edit_that_the_user_rejects_is_not_applied(alpaca: Served) -> None:
    async with opened(alpaca, quiet=True) as editor:
        applies(editor, accept=False)
        reply = await rewrite(editor, "Shorter.", span(3, 0, 6, 0)).result()
        assert (reply["applied"], reply["reason"]) == (False, "not_applied")
        assert reply["text"] == SAID.strip()
        assert editor.text(URI) == TEXT


@async_test()
async def test_an_edit_for_an_older_text_is_never_applied(slow: Served) -> None:
    async with opened(slow) as editor:
        asked = applies(editor)
        pending = rewrite(editor, "Shorter.", span(3, 0, 6, 0))
        await first_line(editor)
        editor.type(URI, 0, 9, "x")
        reply = await pending.result()
        assert (reply["reason"], reply["applied"]) == ("outdated", None)
        assert not asked
        await stopped(slow)
        late = await perform(editor, "fix", span(3, 0, 6, 0), version=1).result()
        assert late["reason"] == "outdated"
        assert len(editor.take_notifications("window/showMessage")) == 2


@async_test()
async def test_a_cancelled_request_stops_the_model(slow: Served) -> None:
    async with opened(slow, client="neovim-0.12") as editor:
        pending = perform(editor, "explain", span(3, 0, 6, 0))
        await first_line(editor)
        assert (await asyncio.to_thread(requests_of, slow))["running"] == 1
        editor.cancel(pending)
        with pytest.raises(ServerError) as caught:
            await pending.result()
        assert caught.value.code == -32800
        await stopped(slow)
        await editor.until(lambda: all(each[-1]["kind"] == "end" for each in editor.progress.values()), "the end")


@async_test()
async def test_the_progress_display_cancels_too(slow: Served) -> None:
    async with opened(slow) as editor:
        pending = perform(editor, "explain", span(3, 0, 6, 0))
        await first_line(editor)
        ((token, values),) = [each for each in editor.progress.items() if each[1]]
        assert values[0]["title"] == "starfill: Explain"
        assert values[0]["cancellable"] is True
        editor.notify("window/workDoneProgress/cancel", {"token": token})
        assert (await pending.result())["reason"] == "cancelled"
        await stopped(slow)
        assert values[-1]["kind"] == "end"


@async_test()
async def test_a_newer_action_takes_the_place_of_an_older(slow: Served) -> None:
    async with opened(slow, "--action-tokens", "16", quiet=True) as editor:
        older = [perform(editor, "explain", span(3, 0, 6, 0)) for _ in range(3)]
        newest = perform(editor, "tests", span(3, 0, 6, 0))
        assert [(await each.result())["reason"] for each in older] == ["superseded"] * 3
        reply = await newest.result()
        assert reply["text"].startswith("one two three")
        assert reply["usage"]["completion_tokens"] == 16


@async_test()
async def test_actions_under_way_are_answered_at_the_end(slow: Served) -> None:
    async with opened(slow, quiet=True) as editor:
        pending = perform(editor, "explain", span(3, 0, 6, 0))
        await first_line(editor)
        await editor.shutdown()
        with pytest.raises(ServerError) as caught:
            await pending.result()
        assert caught.value.code == -32800
    await stopped(slow)


@async_test()
async def test_an_engine_that_dies_in_mid_answer_is_named() -> None:
    with scripted_engine(LONG, "--instruct", "alpaca", "--delay", "0.05") as engine:
        async with opened(engine) as editor:
            asked = applies(editor)
            pending = rewrite(editor, "Shorter.", span(3, 0, 6, 0))
            await first_line(editor)
            os.kill(engine.child.pid, signal.SIGKILL)
            reply = await pending.result()
            assert (reply["reason"], reply["applied"], reply["text"]) == ("engine_down", None, "")
            assert not asked
            (message,) = editor.take_notifications("window/showMessage")
            assert "starfill doctor" in message["message"]


@async_test()
async def test_our_own_clients_see_the_answer_grow(alpaca: Served) -> None:
    async with await alpaca.editor() as editor:
        await editor.initialize("vscode", options={"starfill": {"answers": True}})
        editor.open(URI, "python", TEXT)
        reply = await perform(editor, "explain", span(3, 0, 6, 0), id="mine").result()
        grown = editor.take_notifications("starfill/answer")
        assert len(grown) > 4
        assert all((each["id"], each["task"], each["uri"]) == ("mine", "explain", URI) for each in grown)
        assert [each["done"] for each in grown] == [False] * (len(grown) - 1) + [True]
        assert grown[-1]["text"] == reply["text"]
        assert all(SAID.startswith(each["text"]) for each in grown[:-1])
        (terms,) = editor.take_notifications("window/showMessage")
        assert TERMS in terms["message"]


@async_test()
async def test_nothing_of_a_secret_file_is_sent(alpaca: Served, tmp_path: Path) -> None:
    secret = (tmp_path / "id_rsa").as_uri()
    async with await alpaca.editor() as editor:
        await editor.initialize("vscode")
        editor.open(secret, "python", TEXT)
        asked = await asyncio.to_thread(requests_of, alpaca)
        arguments = [{"task": "explain", "uri": secret, "range": span(3, 0, 6, 0)}]
        pending = editor.request("workspace/executeCommand", {"command": "starfill.action", "arguments": arguments})
        reply = await pending.result()
        assert (reply["reason"], reply["text"]) == ("secret", "")
        params = {"textDocument": {"uri": secret}, "range": span(3, 0, 6, 0), "context": {"diagnostics": []}}
        assert await editor.request("textDocument/codeAction", params).result() == []
        assert await asyncio.to_thread(requests_of, alpaca) == asked
        (message,) = editor.take_notifications("window/showMessage")
        assert "secrets" in message["message"]


@async_test()
async def test_a_model_that_follows_nothing_gets_a_clear_word(plain: Served) -> None:
    async with opened(plain) as editor:
        asked = await asyncio.to_thread(requests_of, plain)
        reply = await perform(editor, "explain", span(3, 0, 6, 0)).result()
        assert reply["reason"] == "no_instructions"
        assert await asyncio.to_thread(requests_of, plain) == asked
        (message,) = editor.take_notifications("window/showMessage")
        assert "docs/actions.md" in message["message"]
        offered = await code_actions(editor, span(3, 0, 6, 0), triggerKind=1).result()
        assert offered
        assert all("not known to follow instructions" in entry["disabled"]["reason"] for entry in offered)
        assert await code_actions(editor, span(3, 0, 6, 0), triggerKind=2).result() == []


@async_test()
async def test_a_second_question_computes_only_itself(base: Served) -> None:
    tokenizer = starter_tokenizer()
    head = len(tokenizer.encode(dialogue.HEAD))
    async with opened(base, quiet=True) as editor:
        for task, code in (("explain", span(3, 0, 6, 0)), ("tests", span(0, 0, 1, 0))):
            reply = await perform(editor, task, code).result()
            assert reply["reason"] is None
            assert reply["cached"] == head
            assert reply["computed"] == reply["usage"]["prompt_tokens"] - head < head / 3
        editor.open("untitled:other.py", "python", "x = 1\n" * 50)
        for line in range(0, 48, 4):  # other work does not displace it
            await editor.inline("untitled:other.py", line, 5).result()
        assert (await perform(editor, "explain", span(3, 0, 6, 0)).result())["cached"] >= head


@async_test()
async def test_any_model_can_be_made_to_answer(plain: Served) -> None:
    async with opened(plain, "--actions", "on", quiet=True) as editor:
        assert (await perform(editor, "explain", span(3, 0, 6, 0)).result())["text"] == "It adds."


@async_test()
async def test_a_base_model_writes_what_a_comment_asks_for(base: Served) -> None:
    async with opened(base, text="def f(prices):\n    total = 0\n    \n    return total\n") as editor:
        applies(editor)
        reply = await rewrite(editor, "add the price", span(2, 4)).result()
        assert reply["applied"] is True
        assert editor.text(URI) == "def f(prices):\n    total = 0\n    total += price\n    return total\n"


@async_test()
async def test_a_selected_blank_line_keeps_its_indentation_and_is_nothing_to_explain(base: Served) -> None:
    async with opened(base, text="def f(prices):\n    total = 0\n    \n    return total\n", quiet=True) as editor:
        applies(editor)
        explained = await perform(editor, "explain", span(2, 0, 2, 4)).result()
        assert explained["reason"] == "nothing_to_add"
        reply = await rewrite(editor, "add the price", span(2, 0, 2, 4)).result()
        assert reply["applied"] is True
        assert editor.text(URI) == "def f(prices):\n    total = 0\n    total += price\n    return total\n"


@async_test()
async def test_an_answer_that_was_cut_is_no_edit(alpaca: Served) -> None:
    async with opened(alpaca, "--action-tokens", "16", text=TEXT * 2, quiet=True) as editor:
        asked = applies(editor)
        reply = await rewrite(editor, "Shorter.", span(3, 0, 6, 0)).result()
        assert (reply["reason"], reply["applied"]) == ("cut_off", None)
        assert not asked


@async_test()
async def test_a_selection_beyond_the_window_is_refused_in_words(alpaca: Served) -> None:
    async with opened(alpaca, text="value = compute(other, more)\n" * 400) as editor:
        reply = await perform(editor, "explain", span(0, 0, 399, 0)).result()
        assert reply["reason"] == "too_long"
        assert reply["detail"] is None
        editor.ignore("window/showMessage")


@async_test()
async def test_what_looks_like_a_live_key_is_never_applied() -> None:
    with scripted_engine("key = 'AKIA" + "Q7XK2PZ54MWT6RBN'\nother = 1\n", "--instruct", "alpaca") as engine:
        async with opened(engine, quiet=True) as editor:
            asked = applies(editor)
            reply = await rewrite(editor, "Shorter.", span(3, 0, 6, 0)).result()
            assert reply["reason"] == "secret"
            assert "MWT6RBN" not in reply["text"]
            assert not asked


@async_test()
async def test_code_actions_can_be_switched_off(alpaca: Served) -> None:
    async with await alpaca.editor("--actions", "off") as editor:
        result = await editor.initialize("vscode")
        assert result["capabilities"].get("codeActionProvider") is None
        editor.open(URI, "python", TEXT)
        assert (await rewrite(editor, "Shorter.", span(3, 0, 6, 0)).result())["reason"] == "actions_off"
        editor.ignore("window/showMessage")


@async_test()
async def test_arguments_that_make_no_sense_are_refused(alpaca: Served) -> None:
    async with await alpaca.editor() as editor:
        await editor.initialize("vscode")
        nowhere = {"task": "explain", "uri": URI, "range": {"start": {}, "end": {}}}
        senseless: list[list[Any]] = [[], [{}], ["explain"], [nowhere]]
        for command in ("starfill.action", "starfill.rewrite"):
            for arguments in senseless:
                pending = editor.request("workspace/executeCommand", {"command": command, "arguments": arguments})
                with pytest.raises(ServerError) as caught:
                    await pending.result()
                assert caught.value.code == -32602
        with pytest.raises(ServerError) as caught:
            await code_actions(editor, {"start": {"line": "1"}}).result()
        assert caught.value.code == -32602
        assert (await perform(editor, "explain", span(0, 0)).result())["reason"] == "not_open"
        editor.ignore("window/showMessage")


@async_test()
async def test_no_word_of_an_action_is_logged(tmp_path: Path) -> None:
    log, canary = tmp_path / "server.log", "xyzzy_plugh"
    with scripted_engine(f"{canary} = 2", "--instruct", "alpaca", "--fail-at", "3") as engine:
        async with opened(engine, "--log-file", str(log), text=f"{canary} = 1\n" * 3, quiet=True) as editor:
            applies(editor)
            failed = await rewrite(editor, f"{canary}!", span(0, 0, 2, 0)).result()
            assert failed["reason"] == "engine_down"
            assert canary not in str(failed)
            done = await rewrite(editor, f"{canary}!", span(0, 0, 2, 0)).result()
            assert (done["applied"], done["text"]) == (True, f"{canary} = 2")
            with pytest.raises(ServerError) as caught:
                await perform(editor, canary, {"start": canary, "end": canary}).result()
            said = f"{caught.value.message} {caught.value.data} {editor.session_log.stderr()}"
        assert canary not in said + log.read_text() + engine.child.output()


@async_test()
async def test_completions_go_on_beside_an_action(slow: Served) -> None:
    async with opened(slow, quiet=True) as editor:
        pending = perform(editor, "explain", span(3, 0, 6, 0))
        await first_line(editor)
        editor.open("untitled:other.py", "python", "for number in ")
        (item,) = (await editor.inline("untitled:other.py", 0, 14).result())["items"]
        assert item["insertText"].startswith("one")
        assert not pending.done
        editor.cancel(pending)
        with pytest.raises(ServerError):
            await pending.result()

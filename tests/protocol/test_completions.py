"""What becomes of completions between editor and server: ids, acceptance, status, menus, reuse, and every kind of ending."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.aio import async_test
from tests.harness.editor import FakeEditor, ServerError, apply_item, load_client, span
from tests.harness.served import Served, scripted_engine

URI = "untitled:one.py"
BLOCK = "total = 1\n    for each in things:\n        total += each\n    return total\n"
LINE = "value.first(second, third)"


@pytest.fixture(scope="module")
def block() -> Iterator[Served]:
    with scripted_engine(BLOCK, "--delay", "0.001") as served:
        yield served


@pytest.fixture(scope="module")
def slow() -> Iterator[Served]:
    with scripted_engine(LINE, "--delay", "0.03") as served:
        yield served


async def _command(editor: FakeEditor, name: str, *arguments: Any) -> Any:
    params = {"command": name, "arguments": list(arguments)}
    return await editor.request("workspace/executeCommand", params).result()


async def _counts(editor: FakeEditor) -> dict[str, int]:
    counts: dict[str, int] = (await _command(editor, "starfill.status"))["counts"]
    return counts


@async_test()
async def test_new_lines_end_as_the_documents_do(block: Served) -> None:
    async with await block.editor() as editor:
        await editor.initialize("vscode")
        editor.open(URI, "python", "def f(things):\r\n    ")
        (item,) = (await editor.inline(URI, 1, 4).result())["items"]
        assert item["insertText"].count("\r\n") >= 2
        assert "\n" not in item["insertText"].replace("\r\n", "")


@async_test()
@pytest.mark.parametrize("end", ["\r\n", "\r"])
async def test_menus_have_the_documents_line_ends_too(block: Served, end: str) -> None:
    async with await block.editor() as editor:
        await editor.initialize("helix")
        editor.open(URI, "python", f"def f(things):{end}    ")
        found = await editor.completion(URI, 1, 4).result()
        text = (found["items"] if isinstance(found, dict) else found)[0]["textEdit"]["newText"]
        assert text.count(end) >= 2
        assert not {"\r", "\n"} & set(text.replace(end, ""))


@async_test()
async def test_acceptance_is_counted_once_by_language_and_without_text(block: Served) -> None:
    async with await block.editor() as editor:
        await editor.initialize("vscode")
        editor.open(URI, "python", "def f(things):\n    ")
        (item,) = (await editor.inline(URI, 1, 4).result())["items"]
        assert item["command"]["command"] == "starfill.accept"
        text = item["insertText"]
        for _ in range(2):  # said twice, counted once
            editor.notify("textDocument/didShowCompletion", {"item": item})
        for length in (5, 9, 5, 9):
            editor.notify("textDocument/didPartiallyAcceptCompletion", {"item": item, "acceptedLength": length})
        counted = (await _command(editor, "starfill.statistics"))["languages"]["python"]
        assert (counted["shown"], counted["partially accepted"], counted["characters"]) == (1, 1, 9)
        pending = editor.accept(URI, item)
        assert pending is not None
        await pending.result()
        await _command(editor, "starfill.accept", *item["command"]["arguments"])
        counted = (await _command(editor, "starfill.statistics"))["languages"]["python"]
        assert (counted["accepted"], counted["characters"]) == (1, len(text))
    kept = (block.home / "acceptance.json").read_text()
    assert "total" not in kept
    assert "untitled" not in kept


@async_test()
async def test_what_makes_no_sense_is_left_alone(block: Served) -> None:
    async with await block.editor() as editor:
        await editor.initialize("vscode")
        strange: list[Any] = [
            None,
            {},
            {"item": None},
            {"item": {"command": 3}},
            {"item": {"command": {"arguments": []}}},
        ]
        for nonsense in (*strange, []):
            for method in ("didShowCompletion", "didPartiallyAcceptCompletion"):
                editor.notify(f"textDocument/{method}", nonsense)
        for arguments in ([], [None], [{"a": 1}], ["no such id"], ["x", "y"]):
            assert await _command(editor, "starfill.accept", *arguments) is None
        assert (await _command(editor, "starfill.status"))["engine"] in ("unknown", "ready")


@async_test()
async def test_counting_can_be_switched_off(block: Served) -> None:
    for name in ("acceptance.json", "confidence.json"):
        (block.home / name).unlink(missing_ok=True)
    async with await block.editor() as editor:
        await editor.initialize("vscode", options={"statistics": False})
        editor.open(URI, "python", "def f(things):\n    ")
        (item,) = (await editor.inline(URI, 1, 4).result())["items"]
        await _command(editor, "starfill.accept", *item["command"]["arguments"])
        assert await _command(editor, "starfill.statistics") == {"languages": {}, "confidence": {"least": 2}}
    assert not (block.home / "acceptance.json").exists()
    assert not (block.home / "confidence.json").exists()


@pytest.mark.parametrize(
    "options", [{"starfill": {"status": True}}, {"editorPluginInfo": {"name": "x", "version": "1"}}]
)
def test_status_goes_to_clients_that_ask_for_it(slow: Served, options: dict[str, Any]) -> None:
    @async_test()
    async def run() -> None:
        async with await slow.editor() as editor:
            editor.ignore("didChangeStatus")
            await editor.initialize("vscode", options=options)
            editor.open(URI, "python", "x = ")
            pending = editor.inline(URI, 0, 4)
            busy = await editor.expect_notification("didChangeStatus", where=lambda status: status["busy"])
            assert busy["kind"] == "Normal"
            await pending.result()
            await editor.expect_notification("didChangeStatus", where=lambda status: not status["busy"])
            await editor.inline(URI, 0, 0, kind=2).result()  # inside a word
            told = await editor.expect_notification("didChangeStatus", where=lambda status: "reason" in status)
            assert (told["reason"], told["kind"]) == ("mid_word", "Normal")
            assert told["message"]

    run()


@async_test()
async def test_status_is_not_sent_to_others(slow: Served) -> None:
    async with await slow.editor() as editor:
        await editor.initialize("vscode")
        editor.open(URI, "python", "x = ")
        await editor.inline(URI, 0, 4).result()
        assert not editor.take_notifications("didChangeStatus")


@async_test()
async def test_typing_what_is_suggested_asks_the_model_once(slow: Served) -> None:
    async with await slow.editor() as editor:
        await editor.initialize("neovim-0.12")
        editor.open(URI, "python", "x = ")
        (item,) = (await editor.inline(URI, 0, 4).result())["items"]
        text = item["insertText"]
        assert text == LINE
        at = 4
        for key in text[:-1]:
            editor.type(URI, 0, at, key)
            at += 1
            (item,) = (await editor.inline(URI, 0, at, kind=2).result())["items"]
            assert apply_item(editor.text(URI), item, editor.encoding) == "x = " + LINE
        counts = await _counts(editor)
        assert counts["completed"] == 1
        assert counts["reused"] == len(text) - 1
        assert counts["sent"] <= 3  # that one, and what was done ahead


@async_test()
async def test_a_key_that_agrees_leaves_the_stream_running(slow: Served) -> None:
    async with await slow.editor() as editor:
        await editor.initialize("neovim-0.12")
        editor.open(URI, "python", "x = ")
        first = editor.inline(URI, 0, 4, partial=True)
        await editor.until(lambda: bool(first.partials), "the first piece")
        editor.type(URI, 0, 4, "v")
        second = editor.inline(URI, 0, 5)
        assert (await first.result())["items"] == []
        assert (await second.result())["items"][0]["insertText"] == LINE[1:]
        counts = await _counts(editor)
        assert (counts["completed"], counts["attached"]) == (1, 1)


@async_test()
async def test_what_follows_the_entry_selected_in_a_menu_is_offered_with_it(slow: Served) -> None:
    async with await slow.editor() as editor:
        await editor.initialize("vscode")
        editor.open(URI, "python", "y = 1\nx = va")
        selected = {"range": span(1, 4, 1, 6), "text": "value + "}
        pending = editor.inline(URI, 1, 6, selected=selected, partial=True)
        (item,) = (await pending.result())["items"]
        assert item["range"] == span(1, 4, 1, 6)
        assert item["insertText"] == "value + " + LINE
        assert all(value["items"][0]["insertText"].startswith("value + ") for value in pending.partials)
        for elsewhere in (span(0, 0, 0, 1), span(1, 0, 1, 5)):  # some clients send one that has nothing to do with it
            ignored = {"range": elsewhere, "text": "value"}
            (item,) = (await editor.inline(URI, 1, 6, selected=ignored).result())["items"]
            assert item["range"] == span(1, 6)


@async_test()
async def test_a_menu_asked_for_text_that_is_gone_is_answered_empty(slow: Served) -> None:
    async with await slow.editor() as editor:
        await editor.initialize("helix")
        editor.open(URI, "python", "a = 1\nb = 2\nc = ")
        pending = editor.completion(URI, 2, 4)
        editor.change(URI, span(0, 0, 2, 4), "")
        assert (await pending.result())["items"] == []


@async_test()
async def test_invoking_again_asks_for_alternatives(slow: Served) -> None:
    async with await slow.editor() as editor:
        await editor.initialize("vscode")
        editor.open(URI, "python", "x = ")
        first = (await editor.inline(URI, 0, 4).result())["items"]
        again = (await editor.inline(URI, 0, 4).result())["items"]
        assert again[0]["insertText"] == first[0]["insertText"]
        texts = [item["insertText"] for item in again]
        assert len(set(texts)) == len(texts)
        identifiers = [item["command"]["arguments"][0] for item in first + again]
        assert len(set(identifiers)) == len(identifiers)
        assert (await _counts(editor))["sampled"] == 1


@async_test()
async def test_a_paste_where_the_author_writes_is_computed_ahead_and_a_rename_is_not(slow: Served) -> None:
    async with await slow.editor() as editor:
        await editor.initialize("vscode")
        for number in range(50):
            editor.open(f"untitled:{number}.py", "python", "value = value\n" * 20)
        editor.open(URI, "python", "x = ")
        await editor.inline(URI, 0, 4).result()
        before = (await _counts(editor))["primed"]
        for number in range(50):
            edits = [(span(line, 0, line, 5), "renamed_to_something_much_longer" * 3) for line in range(20)]
            editor.change_many(f"untitled:{number}.py", edits)
        editor.change_many(URI, [(span(0, 0, 0, 1), "long_name_" * 9)])
        assert (await _counts(editor))["primed"] == before
        editor.change(URI, None, "x = ")
        await editor.inline(URI, 0, 4).result()
        editor.change(URI, span(0, 4), "one(two, three) + four(five, six)\n" * 4)
        assert (await _counts(editor))["primed"] == before + 1


@pytest.mark.parametrize("client", ["helix", "eglot", "coc", "kate", "sublime"])
def test_every_menu_gets_an_entry_that_it_shows(block: Served, client: str) -> None:
    @async_test()
    async def run() -> None:
        async with await block.editor() as editor:
            known = client in _known()
            await editor.initialize(client if known else {}, options={"completion": "on"})
            editor.open(URI, "python", "def f(things):\r\n    tot")
            item = await _menu_item(editor, 1, 7)
            edit = item["textEdit"]
            assert edit["range"] == span(1, 4, 1, 7)
            assert edit["newText"].startswith("tot")
            assert "\n" not in edit["newText"].replace("\r\n", "")
            for shown in (item["label"], item["filterText"]):
                assert shown.startswith("tot")
                assert "\n" not in shown
                assert "\r" not in shown
            assert item["label"].startswith(item["filterText"][:79])
            assert item.get("insertTextFormat", 1) == 1
            assert item["sortText"] > "z"
            assert item["command"]["command"] == "starfill.accept"
            raw = load_client(client)["capabilities"] if known else {}
            entry = ((raw.get("textDocument") or {}).get("completion") or {}).get("completionItem") or {}
            markdown = "markdown" in entry.get("documentationFormat", [])
            assert isinstance(item.get("documentation", {} if markdown else ""), dict if markdown else str)

    run()


def _known() -> list[str]:
    from tests.harness.editor import capability_names

    return capability_names()


async def _menu_item(editor: FakeEditor, line: int, character: int) -> dict[str, Any]:
    """Ask until it is there, as menus do with a list that is incomplete."""
    for _ in range(50):
        reply = await editor.completion(URI, line, character).result()
        assert reply["isIncomplete"] is True
        if reply["items"]:
            (item,) = reply["items"]
            found: dict[str, Any] = item
            return found
    raise AssertionError("nothing came")


KINDS = ("edit", "other edit", "cancel", "request", "menu")


@pytest.mark.parametrize("seed", range(6))
def test_endings_in_random_order_leave_one_reply_each_and_none_stale(slow: Served, seed: int) -> None:
    """The exhaustive proof is over the state machine; this is the same over the real server, process and wire."""

    @async_test(timeout=120)
    async def run() -> None:
        rng = random.Random(seed)
        async with await slow.editor() as editor:
            await editor.initialize("neovim-0.12")
            editor.open(URI, "python", "x = ")
            for order in rng.sample(list(itertools.permutations(KINDS)), 6):
                await _play(editor, rng, order)
            editor.change(URI, None, "x = ")
            assert (await editor.inline(URI, 0, 4).result())["items"]

    run()


async def _play(editor: FakeEditor, rng: random.Random, order: tuple[str, ...]) -> None:
    place = f"x{rng.randrange(10**6)} = "
    editor.change(URI, None, place)
    asked = [(editor.inline(URI, 0, len(place), kind=2), editor.text(URI))]
    cancelled = None
    for kind in order:
        await asyncio.sleep(rng.choice((0, 0, 0.01, 0.05, 0.15)))
        text = editor.text(URI)
        if kind == "edit":
            editor.type(URI, 0, len(text), LINE[len(text) - len(place)] if len(text) - len(place) < len(LINE) else "v")
        elif kind == "other edit":
            editor.type(URI, 0, 0, "y")
        elif kind == "cancel":
            cancelled = asked[-1][0]
            editor.cancel(cancelled)
        elif kind == "request":
            asked.append((editor.inline(URI, 0, len(text), kind=rng.choice((1, 2))), text))
        else:
            asked.append((editor.inline(URI, 0, len(text), kind=2, partial=True), text))
    for pending, text in asked:
        try:
            items = (await pending.result())["items"]
        except ServerError as error:
            assert error.code == -32800
            assert pending is cancelled
            continue
        if items and pending is asked[-1][0] and editor.text(URI) == text:
            assert (text + items[0]["insertText"]).endswith(LINE)

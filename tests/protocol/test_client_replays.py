"""The first messages of six editors, replayed: each gets the capabilities, encoding and shapes that it can use, no more."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from tests.harness.aio import async_test
from tests.harness.editor import apply_item, capability_names, load_client
from tests.harness.replays import CLIENTS, LINE, TEXT, URI, Client, on_the_wire
from tests.harness.session_inside import InsideSession, QuickEngine

SAID = "value + 1\n"
EACH_CLIENT = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)


async def replay(inside: InsideSession, client: Client, **changes: Any) -> dict[str, Any]:
    """Send the opening, all in one write as a quick editor does -> the server's capabilities."""
    inside.channel.feed(b"".join(map(on_the_wire, client.opening(**changes))))
    reply = await inside.reply(client.first_id)
    capabilities: dict[str, Any] = reply["result"]["capabilities"]
    return capabilities


async def idle(inside: InsideSession) -> None:
    """Until the server has said all that it says by itself."""
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert inside.idle


def from_server(inside: InsideSession, *methods: str) -> list[dict[str, Any]]:
    return [message for message in inside.channel.sent if message.get("method") in methods]


def test_every_client_whose_capabilities_are_known_is_replayed() -> None:
    assert sorted(client.name for client in CLIENTS) == capability_names()


@EACH_CLIENT
def test_capabilities_and_encoding(client: Client) -> None:
    @async_test()
    async def run() -> None:
        async with InsideSession() as inside:
            found = await replay(inside, client)
            assert found["positionEncoding"] == client.encoding
            assert found["textDocumentSync"]["openClose"] is True
            assert found["textDocumentSync"]["change"] == 2
            assert found["inlineCompletionProvider"] is not None
            assert found["inlineCompletionProvider"] is not False
            # One of the two asks by itself: who shows ghost text must not see the same text in a menu.
            assert ("completionProvider" in found) is not client.ghost_text
            await idle(inside)
            assert from_server(inside, "window/showMessage", "window/showMessageRequest") == []

    run()


@EACH_CLIENT
def test_what_is_asked_after_a_key_is_answered_in_the_clients_own_terms(client: Client) -> None:
    @async_test()
    async def run() -> None:
        async with InsideSession(QuickEngine(SAID)) as inside:
            await replay(inside, client)
            inside.channel.feed(b"".join(map(on_the_wire, client.key())))
            result = (await inside.reply(client.first_id + 1))["result"]
            text, column = TEXT.replace(LINE, LINE + "="), client.column(len(LINE)) + 1
            at = {"line": 0, "character": column}
            assert isinstance(result, dict)  # lsp-mode cannot take a bare list
            (item,) = result["items"]
            assert apply_item(text, item, client.encoding) == text.replace(LINE + "=", LINE + "=" + SAID.rstrip())
            if client.ghost_text:
                assert item["range"] == {"start": at, "end": at}
                assert isinstance(item["insertText"], str)
            else:
                assert result["isIncomplete"] is True
                assert item["label"]
                assert item["filterText"]
                assert item["textEdit"]["range"]["end"] == at

    run()


@EACH_CLIENT
def test_nothing_is_a_list_without_items_and_no_error(client: Client) -> None:
    @async_test()
    async def run() -> None:
        async with InsideSession(QuickEngine("")) as inside:
            await replay(inside, client)
            inside.channel.feed(b"".join(map(on_the_wire, client.key())))
            assert (await inside.reply(client.first_id + 1))["result"]["items"] == []

    run()


@EACH_CLIENT
def test_progress_is_shown_only_where_it_is_supported(client: Client) -> None:
    capabilities = copy.deepcopy(load_client(client.name)["capabilities"])
    assert capabilities["window"]["workDoneProgress"] is True
    del capabilities["window"]["workDoneProgress"]

    @async_test()
    async def run() -> None:
        async with InsideSession() as inside:
            await replay(inside, client, capabilities=capabilities)
            await idle(inside)
            assert from_server(inside, "window/workDoneProgress/create", "$/progress") == []

    run()


@EACH_CLIENT
@pytest.mark.parametrize("asked", [False, True])
def test_status_is_sent_only_where_it_was_asked_for(client: Client, asked: bool) -> None:
    @async_test()
    async def run() -> None:
        async with InsideSession() as inside:
            changes = {"initializationOptions": {"starfill": {"status": True}}} if asked else {}
            await replay(inside, client, **changes)
            inside.channel.feed(b"".join(map(on_the_wire, client.key())))
            await inside.reply(client.first_id + 1)
            await idle(inside)
            sent = from_server(inside, "didChangeStatus")
            assert bool(sent) is asked
            for each in sent:
                assert each["params"]["kind"] in ("Normal", "Warning", "Error", "Inactive")
                assert isinstance(each["params"]["message"], str)
                assert isinstance(each["params"]["busy"], bool)

    run()


@EACH_CLIENT
def test_a_client_is_never_asked_what_it_does_not_know(client: Client) -> None:
    """Requests of the server are of kinds that the client says it serves."""
    capabilities = load_client(client.name)["capabilities"]
    allowed = {"window/workDoneProgress/create"}
    if (capabilities.get("workspace") or {}).get("configuration"):
        allowed.add("workspace/configuration")
    if any(
        (of or {}).get("dynamicRegistration")
        for group in ("workspace", "textDocument")
        for of in (capabilities.get(group) or {}).values()
        if isinstance(of, dict)
    ):
        allowed.add("client/registerCapability")

    @async_test()
    async def run() -> None:
        async with InsideSession() as inside:
            await replay(inside, client)
            await idle(inside)
            asked = {message["method"] for message in inside.channel.sent if "method" in message and "id" in message}
            assert asked <= allowed
            assert URI not in str([message for message in inside.channel.sent if "method" in message])

    run()

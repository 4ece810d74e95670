"""A session of copilot.el, replayed: the messages that it has beyond LSP are answered, or taken without a word.

Read in its source (0.5 and newer): document versions start at 0, no position encoding is named, the textDocument of a
request carries a version, and the item that is echoed is cut down to its command.
"""

from __future__ import annotations

from typing import Any

from tests.harness.aio import async_test
from tests.harness.session_inside import InsideSession, QuickEngine

URI = "file:///project/module.py"
TEXT = "# 😀\nx = "
SAID = "value + 1\n"


def opening() -> list[dict[str, Any]]:
    """What it sends before it asks."""
    return [
        {
            "id": 1,
            "method": "initialize",
            "params": {
                "processId": 4711,
                "rootUri": "file:///project/",
                "workspaceFolders": [{"uri": "file:///project/", "name": "project"}],
                "capabilities": {
                    "workspace": {"workspaceFolders": True},
                    "window": {"showDocument": {"support": True}},
                },
                "initializationOptions": {
                    "editorInfo": {"name": "Emacs", "version": "30.2"},
                    "editorPluginInfo": {"name": "copilot.el", "version": "0.9.0"},
                },
            },
        },
        {"method": "initialized", "params": {}},
        {
            "method": "workspace/didChangeConfiguration",
            "params": {"settings": {"telemetry": {"telemetryLevel": "off"}}},
        },
        {
            "method": "textDocument/didOpen",
            "params": {"textDocument": {"uri": URI, "languageId": "python", "version": 0, "text": TEXT}},
        },
        {"method": "textDocument/didFocus", "params": {"textDocument": {"uri": URI}}},
    ]


def asking(number: int, version: int, character: int, kind: int = 2) -> dict[str, Any]:
    """How it asks for a completion."""
    return {
        "id": number,
        "method": "textDocument/inlineCompletion",
        "params": {
            "textDocument": {"uri": URI, "version": version},
            "position": {"line": 1, "character": character},
            "context": {"triggerKind": kind},
            "formattingOptions": {"tabSize": 4, "insertSpaces": True},
        },
    }


def send(inside: InsideSession, *messages: dict[str, Any]) -> None:
    inside.send(*({"jsonrpc": "2.0", **message} for message in messages))


async def statistics(inside: InsideSession, number: int) -> dict[str, int]:
    """What was counted for Python."""
    reply = await inside.ask(number, "workspace/executeCommand", {"command": "starfill.statistics", "arguments": []})
    counts: dict[str, int] = reply["result"]["languages"].get("python", {})
    return counts


@async_test()
async def test_what_copilot_el_says_is_answered() -> None:
    async with InsideSession(QuickEngine(SAID), {"speculate": False}) as inside:
        send(inside, *opening())
        initialized = await inside.reply(1)
        assert "error" not in initialized
        assert initialized["result"]["capabilities"]["positionEncoding"] == "utf-16"

        send(inside, asking(2, 0, 4))
        (item,) = (await inside.reply(2))["result"]["items"]
        assert item["insertText"] == SAID.rstrip("\n")
        command = item["command"]
        assert len(command["arguments"]) == 1 and command["arguments"][0]

        before = await statistics(inside, 3)
        told = {"command": {"arguments": command["arguments"]}}
        send(inside, {"method": "textDocument/didShowCompletion", "params": {"item": told}})
        send(
            inside,
            {"method": "textDocument/didPartiallyAcceptCompletion", "params": {"item": told, "acceptedLength": 5}},
        )
        shown = await statistics(inside, 4)
        assert shown["shown"] == before.get("shown", 0) + 1
        assert shown["partially accepted"] == before.get("partially accepted", 0) + 1

        # The item's own command, once all of it is inserted.
        accept = {"command": command["command"], "arguments": command["arguments"]}
        reply = await inside.ask(5, "workspace/executeCommand", accept)
        assert "error" not in reply
        assert (await statistics(inside, 6))["accepted"] == before.get("accepted", 0) + 1

        heard = [message["method"] for message in inside.channel.sent if "method" in message]
        assert "didChangeStatus" in heard, "it shows the status in its mode line"
        assert "window/showMessage" not in heard, "settings of Copilot's are no mistakes of the user's"


@async_test()
async def test_a_newer_request_and_a_cancel_are_taken_as_copilots_server_takes_them() -> None:
    async with InsideSession(QuickEngine(SAID), {"speculate": False}) as inside:
        send(inside, *opening())
        await inside.reply(1)
        change = {
            "textDocument": {"uri": URI, "version": 1},
            "contentChanges": [
                {
                    "range": {"start": {"line": 1, "character": 4}, "end": {"line": 1, "character": 4}},
                    "rangeLength": 0,
                    "text": "v",
                }
            ],
        }
        send(
            inside,
            asking(2, 0, 4),
            {"method": "textDocument/didChange", "params": change},
            {"method": "$/cancelRequest", "params": {"id": 2}},
            asking(3, 1, 5),
        )
        first, second = await inside.reply(2), await inside.reply(3)
        assert first.get("error", {}).get("code", -32800) == -32800
        assert first.get("result", {"items": []})["items"] == []
        assert "error" not in second
        assert inside.text(URI) == TEXT + "v"
        ended = await inside.ask(9, "shutdown")
        assert ended["result"] is None

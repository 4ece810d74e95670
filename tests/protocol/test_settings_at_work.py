"""Settings and exclusions in a session: what is switched off or excluded reaches no engine, and changes count at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.aio import async_test
from tests.harness.session_inside import InsideSession, QuickEngine

CLIENT: dict[str, Any] = {
    "textDocument": {"inlineCompletion": {}},
    "workspace": {"configuration": True},
}


class Session(InsideSession):
    """One that counts its ids, and has one document at a time."""

    def __init__(self, settings: dict[str, Any] | None = None, text: str = "value + 1\n") -> None:
        super().__init__(QuickEngine(text), {"speculate": False, **(settings or {})})
        self._ids: Iterator[int] = iter(range(1, 10_000))
        self.section: Any = {}

    async def start(
        self, options: Any = None, capabilities: dict[str, Any] | None = None, roots: tuple[Path, ...] = ()
    ) -> None:
        folders = [{"uri": root.as_uri(), "name": root.name} for root in roots]
        await self.ask(
            next(self._ids),
            "initialize",
            {
                "processId": None,
                "rootUri": None,
                "capabilities": CLIENT if capabilities is None else capabilities,
                "initializationOptions": options,
                "workspaceFolders": folders or None,
            },
        )
        self.tell("initialized", {})

    async def reason(
        self, uri: str = "untitled:a.py", language: str = "python", *, kind: int = 1, text: str = "x = "
    ) -> Any:
        """Why nothing came; None if something did."""
        self.tell(
            "textDocument/didOpen", {"textDocument": {"uri": uri, "languageId": language, "version": 1, "text": text}}
        )
        asked = self.engine.calls
        at = {"line": 0, "character": len(text)}
        reply = await self.ask(
            next(self._ids),
            "textDocument/inlineCompletion",
            {"textDocument": {"uri": uri}, "position": at, "context": {"triggerKind": kind}},
        )
        items = reply["result"]["items"]
        status = await self.ask(
            next(self._ids), "workspace/executeCommand", {"command": "starfill.status", "arguments": []}
        )
        self.tell("textDocument/didClose", {"textDocument": {"uri": uri}})
        reason = status["result"]["last"]["reason"]
        assert (reason is None) == bool(items)
        if not items:
            assert self.engine.calls == asked, "the engine was asked all the same"
        return reason

    async def pulled(self) -> None:
        """Answer the next request for our section of the configuration."""
        while not (asked := [m for m in self.channel.sent if m.get("method") == "workspace/configuration"]):
            self.channel.news.clear()
            await self.channel.news.wait()
        self.channel.sent.remove(asked[0])
        assert asked[0]["params"]["items"] == [{"section": "starfill"}]
        self.send({"jsonrpc": "2.0", "id": asked[0]["id"], "result": [self.section]})

    def messages(self) -> list[str]:
        return [m["params"]["message"] for m in self.channel.sent if m.get("method") == "window/showMessage"]


@async_test()
async def test_what_is_switched_off_reaches_no_engine() -> None:
    async with Session() as session:
        await session.start({"languages": {"markdown": False}, "trigger": "manual", "max_line_length": 80})
        assert await session.reason() is None
        assert await session.reason(language="markdown") == "language_off"
        assert await session.reason(kind=2) == "manual_only"
        assert await session.reason(text="x" * 81) == "too_large"
        session.tell("workspace/didChangeConfiguration", {"settings": {"starfill": {"enabled": False}}})
        assert await session.reason() == "disabled"
        session.tell(
            "workspace/didChangeConfiguration", {"settings": {"starfill": {"languages": {"*": False, "c": True}}}}
        )
        assert await session.reason() == "language_off"
        assert await session.reason(language="c") is None
        assert session.messages() == []


@async_test()
async def test_a_configuration_is_asked_for_and_asked_for_again() -> None:
    async with Session() as session:
        session.section = {"enabled": False}
        await session.start()
        await session.pulled()
        assert await session.reason() == "disabled"
        session.section = None
        session.tell("workspace/didChangeConfiguration", {"settings": None})
        await session.pulled()
        assert await session.reason() is None


@async_test()
async def test_a_client_that_cannot_be_asked_is_not() -> None:
    async with Session() as session:
        await session.start({"enabled": False}, capabilities={"textDocument": {"inlineCompletion": {}}})
        session.tell("workspace/didChangeConfiguration", {"settings": []})
        assert await session.reason() == "disabled"
        assert not [m for m in session.channel.sent if m.get("method") == "workspace/configuration"]


@async_test()
async def test_a_flag_holds_whatever_the_editor_sends_later() -> None:
    async with Session({"trigger": "manual"}) as session:
        await session.start({"trigger": "auto"})
        session.tell("workspace/didChangeConfiguration", {"settings": {"starfill": {"trigger": "auto"}}})
        assert await session.reason(kind=2) == "manual_only"


@async_test()
async def test_a_mistake_is_told_once_to_the_user() -> None:
    async with Session() as session:
        await session.start({"max_token": 5, "trigger": "sometimes", "model": "/elsewhere"})
        for _ in range(3):
            session.tell("workspace/didChangeConfiguration", {"settings": {"starfill": {"trigger": "sometimes"}}})
            assert await session.reason() is None
        told = session.messages()
        assert len(told) == 3
        assert "starfill: editor: unknown setting max_token; did you mean max_tokens?" in told
        assert "starfill: editor: trigger must be one of auto, manual" in told
        assert sum("model is not taken from an editor" in text for text in told) == 1
        assert "elsewhere" not in "".join(told)


@async_test()
async def test_nothing_of_a_secret_or_an_ignored_file_is_sent(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_text("build/\n")
    async with Session() as session:
        await session.start({"exclude": ["**/private/**"]}, roots=(tmp_path,))
        for name, reason in (
            (".env", "secret"), ("certs/server.key", "secret"), ("build/a.py", "excluded"),
            ("private/a.py", "excluded"), ("src/a.py", None),
        ):  # fmt: skip
            assert await session.reason((tmp_path / name).as_uri()) == reason, name
    async with Session({"ignored_files": "complete"}) as session:
        await session.start(roots=(tmp_path,))
        assert await session.reason((tmp_path / "build/a.py").as_uri()) is None


@async_test()
async def test_a_folder_that_joins_the_workspace_brings_its_ignore_files(tmp_path: Path) -> None:
    (tmp_path / ".starfillignore").write_text("b.py\n")
    (tmp_path / "sub").mkdir()
    folder = {"uri": tmp_path.as_uri(), "name": "joined"}
    async with Session() as session:
        await session.start()
        assert await session.reason((tmp_path / "sub" / "b.py").as_uri()) is None
        session.tell("workspace/didChangeWorkspaceFolders", {"event": {"added": [folder], "removed": []}})
        assert await session.reason((tmp_path / "sub" / "b.py").as_uri()) == "excluded"
        session.tell("workspace/didChangeWorkspaceFolders", {"event": {"added": [], "removed": [folder]}})
        assert await session.reason((tmp_path / "sub" / "b.py").as_uri()) is None


@pytest.mark.parametrize("text", ["\u202egnihton", "\u200b", "\x1b[31m", "\U000e0041"])
def test_what_cannot_be_seen_is_not_shown(text: str) -> None:
    @async_test()
    async def run() -> None:
        async with Session(text=f"{text}abc\n") as session:
            await session.start()
            assert await reason_after_asking(session) == "unsafe"
        async with Session(text=f"f(1){text}abc\n") as session:
            await session.start()
            assert await session.reason() is None
            assert text[0] not in str(session.channel.sent)

    run()


async def reason_after_asking(session: Session) -> Any:
    session.tell(
        "textDocument/didOpen",
        {"textDocument": {"uri": "untitled:b", "languageId": "python", "version": 1, "text": "x = "}},
    )
    where = {
        "textDocument": {"uri": "untitled:b"},
        "position": {"line": 0, "character": 4},
        "context": {"triggerKind": 1},
    }
    assert (await session.ask("c", "textDocument/inlineCompletion", where))["result"]["items"] == []
    status = await session.ask("s", "workspace/executeCommand", {"command": "starfill.status", "arguments": []})
    return status["result"]["last"]["reason"]


@async_test()
async def test_no_reply_runs_anything_but_our_own_commands(tmp_path: Path) -> None:
    for capabilities in (CLIENT, {}):
        async with Session(text='f(1)  # command: "shell"\n') as session:
            await session.start(capabilities=capabilities, roots=(tmp_path,))
            session.tell(
                "textDocument/didOpen",
                {"textDocument": {"uri": "untitled:b", "languageId": "python", "version": 1, "text": "x = "}},
            )
            where = {"textDocument": {"uri": "untitled:b"}, "position": {"line": 0, "character": 4}}
            session.send(
                {"jsonrpc": "2.0", "id": "c", "method": "textDocument/completion", "params": where},
            )
            await session.reply("c")
            partial = {**where, "context": {"triggerKind": 1}, "partialResultToken": "p"}
            await session.ask("i", "textDocument/inlineCompletion", partial)
            await session.ask("s", "workspace/executeCommand", {"command": "starfill.statistics", "arguments": []})
            for message in session.channel.sent:
                for key, value in walk(message):
                    if key == "command":
                        assert (value if isinstance(value, str) else value["command"]) == "starfill.accept"
                    elif key == "commands":
                        assert all(name.startswith("starfill.") for name in value)
                    else:
                        assert key not in {"additionalTextEdits", "uri", "url", "href"}, key


def walk(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner)

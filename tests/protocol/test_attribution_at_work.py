"""What an editor gets of a completion that stands verbatim in indexed code: marked, told, withheld, or as it is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import paths
from lsp_server.attribution.tokens import TOKEN
from tests.harness.aio import async_test
from tests.harness.corpora import build_index, program, write
from tests.harness.session_inside import InsideSession, QuickEngine


def statement(number: int, arguments: int = 6) -> str:
    return f"v{number} = total_of({', '.join(f'x{number * k}' for k in range(1, arguments + 1))})"


STATEMENTS = [statement(number) for number in range(40)] + [statement(99, 30)]
INDEXED = "def f():\n" + "".join(f"    {each}\n" for each in STATEMENTS)
BEFORE = INDEXED[: INDEXED.index("v20")]
SAID = STATEMENTS[20]
OWN = "w = something_else(a + b) * (a - b)"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    home = tmp_path / "home"
    monkeypatch.setenv("STARFILL_HOME", str(home))
    yield home


@pytest.fixture
def corpus(home: Path, tmp_path: Path) -> Path:
    folder = write(tmp_path / "corpus", {"lib/many.py": INDEXED, "package.json": '{"name": "many", "license": "MIT"}'})
    build_index(paths.attribution_index(), folder)
    return folder


class Session(InsideSession):
    """One that asks at the end of a text."""

    def __init__(self, said: str, **settings: Any) -> None:
        super().__init__(QuickEngine(said), {"speculate": False, **settings})
        self.number = 0

    async def start(self, **capabilities: Any) -> None:
        await self._ask("initialize", {
            "processId": None, "rootUri": None, "capabilities": {"textDocument": {"inlineCompletion": {}} | capabilities},
            "initializationOptions": {"starfill": {"status": True}},
        })  # fmt: skip
        self.tell("initialized", {})

    async def _ask(self, method: str, params: Any) -> Any:
        self.number += 1
        return (await self.ask(self.number, method, params))["result"]

    async def inline(self, before: str, uri: str = "untitled:a.py", token: str | None = None) -> list[dict[str, Any]]:
        self._open(before, uri)
        context = {"triggerKind": 1}
        more = {} if token is None else {"partialResultToken": token}
        found = await self._ask("textDocument/inlineCompletion", {**self._at(before, uri), "context": context, **more})
        return list(found["items"])

    async def menu(self, before: str, uri: str = "untitled:a.py") -> list[dict[str, Any]]:
        self._open(before, uri)
        found: list[dict[str, Any]] = []
        while not found:  # what the menu was not patient enough for comes at the next key
            found = (await self._ask("textDocument/completion", self._at(before, uri)))["items"]
        return found

    async def account(self) -> Any:
        return (await self._ask("workspace/executeCommand", {"command": "starfill.status", "arguments": []}))["last"]

    def told(self, method: str) -> list[dict[str, Any]]:
        return [message["params"] for message in self.channel.sent if message.get("method") == method]

    def _open(self, text: str, uri: str) -> None:
        self.tell("textDocument/didClose", {"textDocument": {"uri": uri}})
        document = {"uri": uri, "languageId": "python", "version": 1, "text": text}
        self.tell("textDocument/didOpen", {"textDocument": document})

    def _at(self, text: str, uri: str) -> dict[str, Any]:
        lines = text.split("\n")
        return {"textDocument": {"uri": uri}, "position": {"line": len(lines) - 1, "character": len(lines[-1])}}


@async_test()
async def test_by_default_an_item_names_source_and_licence(corpus: Path) -> None:
    async with Session(SAID) as session:
        await session.start()
        (item,) = await session.inline(BEFORE)
        assert item["insertText"] == SAID
        (origin,) = item["attribution"]
        line = BEFORE.count("\n") + 1
        assert {key: origin[key] for key in ("package", "path", "licence")} == {
            "package": "many", "path": "lib/many.py", "licence": "MIT",
        }  # fmt: skip
        assert origin["tokens"] == 50 + len(TOKEN(SAID))
        assert line - 5 <= origin["line"] < line
        assert session.told("window/showMessage") == []
        assert session.told("didChangeStatus")[-1]["message"] == (
            f"{origin['tokens']} tokens verbatim as in many, lib/many.py line {origin['line']} (MIT)"
        )


@async_test()
async def test_what_stands_nowhere_is_as_ever(corpus: Path) -> None:
    async with Session(OWN) as session:
        await session.start()
        (item,) = await session.inline(BEFORE)
        assert set(item) == {"insertText", "range", "command"}
        assert session.told("didChangeStatus")[-1]["message"] == ""
    async with Session(SAID) as session:
        await session.start()
        (item,) = await session.inline("")  # as long as the completion alone, which is too short
        assert "attribution" not in item


@async_test()
async def test_text_before_the_cursor_counts_only_if_the_completion_goes_on_with_it(corpus: Path) -> None:
    for said, marked in ((OWN, False), ("v20 = total_of()", False), ("v20 = total_of(x20)", True)):
        async with Session(said) as session:
            await session.start()
            (item,) = await session.inline(BEFORE)
            assert ("attribution" in item) == marked, said


@async_test()
async def test_a_completion_counts_by_itself_if_it_is_long(corpus: Path) -> None:
    async with Session(STATEMENTS[-1]) as session:
        await session.start()
        (item,) = await session.inline("value = 1\n\n\n")
        assert item["attribution"][0]["tokens"] == len(TOKEN(STATEMENTS[-1])) > 50
        assert item["attribution"][0]["line"] == len(STATEMENTS) + 1


@async_test()
async def test_a_menu_entry_says_it_in_detail_and_documentation(corpus: Path) -> None:
    async with Session(SAID, completion="on") as session:
        await session.start(completion={"completionItem": {"documentationFormat": ["markdown"]}})
        (item,) = await session.menu(BEFORE)
        assert item["detail"] == "starfill, as in many (MIT)"
        assert r"verbatim as in many, lib/many.py line" in item["documentation"]["value"]
    async with Session(OWN, completion="on") as session:
        await session.start()
        (item,) = await session.menu(BEFORE)
        assert item["detail"] == "starfill"


@async_test()
async def test_a_notice(corpus: Path) -> None:
    async with Session(SAID, attribution="notice") as session:
        await session.start()
        for _ in range(2):
            (item,) = await session.inline(BEFORE)
        assert item["attribution"]
        (box,) = session.told("window/showMessage")  # once for each place
        assert box["message"].startswith("starfill: a completion stands verbatim in many, lib/many.py line ")
        assert box["message"].endswith(" (MIT)")


@async_test()
async def test_withheld(corpus: Path) -> None:
    async with Session(SAID, attribution="withhold") as session:
        await session.start()
        assert await session.inline(BEFORE, token="p") == []
        last = await session.account()
        assert last["reason"] == "verbatim"
        assert last["detail"].endswith("(MIT)")
        shown = [params["value"]["items"] for params in session.told("$/progress")]
        assert all("x60" not in item["insertText"] for items in shown for item in items)
        assert session.told("didChangeStatus")[-1]["message"] == last["detail"]
    async with Session(OWN, attribution="withhold") as session:
        await session.start()
        assert len(await session.inline(BEFORE, token="p")) == 1


@async_test()
async def test_off_and_without_an_index_nothing_is_looked_up(home: Path, corpus: Path) -> None:
    async with Session(SAID, attribution="off") as session:
        await session.start()
        (item,) = await session.inline(BEFORE)
        assert "attribution" not in item
    paths.attribution_index().unlink()
    for manner in ("detail", "notice", "withhold"):
        async with Session(SAID, attribution=manner) as session:
            await session.start()
            (item,) = await session.inline(BEFORE)
            assert "attribution" not in item
            assert session.told("window/showMessage") == []


@async_test()
async def test_length_is_the_users(corpus: Path) -> None:
    before = "def f():\n" + "".join(f"    {each}\n" for each in STATEMENTS[17:20]) + "    "
    for length, marked in ((50, True), (64, True), (65, False)):
        async with Session(SAID, attribution_length=length) as session:
            await session.start()
            (item,) = await session.inline(before)
            assert ("attribution" in item) == marked, length
    # Shorter than what the index was made for: found where one of the grams that were kept is in it.
    async with Session(STATEMENTS[-1], attribution_length=20) as session:
        await session.start()
        (item,) = await session.inline("")
        assert item["attribution"][0]["tokens"] == len(TOKEN(STATEMENTS[-1]))


@async_test()
async def test_a_file_is_no_news_to_itself(corpus: Path, tmp_path: Path) -> None:
    async with Session(SAID) as session:
        await session.start()
        (item,) = await session.inline(BEFORE, (corpus / "lib/many.py").as_uri())
        assert "attribution" not in item
        (item,) = await session.inline(BEFORE, (corpus / "lib/other.py").as_uri())
        assert "attribution" in item


@async_test()
async def test_an_index_that_is_replaced_or_damaged_while_the_server_runs(
    home: Path, corpus: Path, tmp_path: Path
) -> None:
    async with Session(SAID) as session:
        await session.start()
        (item,) = await session.inline(BEFORE)
        assert item["attribution"]
        other = write(tmp_path / "other", {"a.py": program(1, 50)})
        build_index(paths.attribution_index(), other)
        (item,) = await session.inline(BEFORE)
        assert "attribution" not in item
        assert session.told("window/showMessage") == []
        damaged = tmp_path / "damaged"
        damaged.write_bytes(b"no index")
        for _ in range(2):
            damaged.write_bytes(b"no index")
            damaged.replace(paths.attribution_index())
            (item,) = await session.inline(BEFORE)
            assert "attribution" not in item
        (box,) = session.told("window/showMessage")
        assert str(paths.attribution_index()) in box["message"]
        assert "not attributed until then" in box["message"]
        paths.attribution_index().unlink()
        build_index(paths.attribution_index(), corpus)
        (item,) = await session.inline(BEFORE)
        assert item["attribution"]


@async_test()
async def test_nothing_of_it_is_logged(corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "lsp_server"):
        async with Session(SAID, attribution="notice") as session:
            await session.start()
            (item,) = await session.inline(BEFORE)
            assert item["attribution"]
    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("lsp_server", "engine"))]
    assert not [text for text in ours if "total_of" in text or "many" in text]

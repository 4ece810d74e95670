"""What a session sends of other open documents: to engines of ours with room for it, nothing that is excluded, and the same
at every key of a burst of typing.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.client import Chunk
from engine.fim import Budget, Document, Layout, Snippet, lay_out
from tests.harness.aio import async_test
from tests.harness.scripted import starter_tokenizer
from tests.harness.session_inside import InsideSession, QuickEngine

CODE = "import store\n\nmanifest = store.load_manifest("
HELPER = "def load_manifest(path, strict=False):\n    return parse_manifest(path.read_text(), strict)\n"
SECRET = "canary_7391"
KEYS = "path, strict=True)\nfor entry in manifest.entries:\n    print(entry.name)\n"


class Noting(QuickEngine):
    """Keeps what it was asked."""

    primes = True

    def __init__(self, window: int | None) -> None:
        super().__init__("zz\n")
        self.window = window
        self.bodies: list[dict[str, Any]] = []

    @asynccontextmanager
    async def complete(self, request: Any) -> AsyncIterator[AsyncIterator[Chunk]]:
        self.bodies.append(json.loads(request))
        async with super().complete(request) as chunks:
            yield chunks


class Desk(InsideSession):
    """A session with some documents open, whose author types in one of them."""

    def __init__(self, window: int | None, root: Path, settings: Mapping[str, Any] | None = None) -> None:
        self.noting = Noting(window)
        super().__init__(self.noting, {"speculate": False, **(settings or {})})
        self.root = root
        self._asked = 0
        self._version = 1

    async def start(self) -> None:
        await self.ask("init", "initialize", {
            "processId": None, "rootUri": None, "capabilities": {"textDocument": {"inlineCompletion": {}}},
            "workspaceFolders": [{"uri": self.root.as_uri(), "name": "it"}],
        })  # fmt: skip
        self.tell("initialized", {})

    def uri(self, name: str) -> str:
        return (self.root / name).as_uri()

    def open(self, name: str, text: str) -> None:
        document = {"uri": self.uri(name), "languageId": "python", "version": 1, "text": text}
        self.tell("textDocument/didOpen", {"textDocument": document})

    def close(self, name: str) -> None:
        self.tell("textDocument/didClose", {"textDocument": {"uri": self.uri(name)}})

    async def type(self, name: str, before: str, key: str, *, invoked: bool = True) -> str:
        """A key at the end of a document that is `before` -> what the document is then. A completion is asked for."""
        at = _end(before)
        self._version += 1
        self.tell("textDocument/didChange", {
            "textDocument": {"uri": self.uri(name), "version": self._version},
            "contentChanges": [{"range": {"start": at, "end": at}, "text": key}],
        })  # fmt: skip
        self._asked += 1
        where = {"textDocument": {"uri": self.uri(name)}, "position": _end(before + key)}
        await self.ask(
            self._asked, "textDocument/inlineCompletion", {**where, "context": {"triggerKind": 1 if invoked else 2}}
        )
        return before + key

    def sent(self) -> list[dict[str, Any]]:
        """What went along with each request so far, the name of the document left out."""
        return [{k: v for k, v in body["starfill"].items() if k != "document"} for body in self.noting.bodies]


def _end(text: str) -> dict[str, int]:
    return {"line": text.count("\n"), "character": len(text.rpartition("\n")[2])}


def _ignoring(root: Path) -> None:
    (root / ".git").mkdir()
    (root / ".gitignore").write_text("build/\n")


@async_test()
async def test_at_every_key_of_a_burst_the_head_of_the_prompt_is_the_same(tmp_path: Path) -> None:
    async with Desk(8_192, tmp_path) as desk:
        await desk.start()
        desk.open("store.py", HELPER)
        desk.open("pkg/main.py", CODE)
        text = CODE
        for key in KEYS:
            text = await desk.type("pkg/main.py", text, key)
        sent = desk.sent()
        assert len(sent) > len(KEYS) // 2
        assert sent[0] == {
            "path": "pkg/main.py", "repository": tmp_path.name, "language": "python",
            "context": [{"path": "store.py", "text": HELPER.strip()}],
        }  # fmt: skip
        assert all(each == sent[0] for each in sent)
    tokenizer = starter_tokenizer()
    prompts = [_prompt(tokenizer, body) for body in desk.noting.bodies]
    assert tokenizer.control.fim_prefix is not None
    mark = prompts[0].index(tokenizer.control.fim_prefix)
    assert mark > 30
    assert all(prompt[: mark + 1] == prompts[0][: mark + 1] for prompt in prompts)


def _prompt(tokenizer: Any, body: Mapping[str, Any]) -> list[int]:
    with_it = body["starfill"]
    document = Document(
        body["prompt"], body["suffix"], with_it["path"], with_it["repository"],
        [Snippet(**each) for each in with_it["context"]],
    )  # fmt: skip
    return lay_out(tokenizer, document, Layout.ANCHORED, Budget.of(8_192, 64), heal=True).ids


@async_test()
async def test_nothing_secret_ignored_excluded_or_closed_goes_along(tmp_path: Path) -> None:
    _ignoring(tmp_path)
    async with Desk(8_192, tmp_path, {"exclude": ["**/private/**"]}) as desk:
        await desk.start()
        for name in (".env", "certs/server.key", "build/store.py", "private/store.py"):
            desk.open(name, HELPER.replace("strict", SECRET))
        desk.open("closed.py", HELPER.replace("strict", SECRET))
        desk.close("closed.py")
        desk.open("store.py", HELPER)
        desk.open("main.py", CODE)
        await desk.type("main.py", CODE, "p")
        (sent,) = desk.sent()
        assert [each["path"] for each in sent["context"]] == ["store.py"]
        assert SECRET not in json.dumps(desk.noting.bodies)


@async_test()
async def test_what_becomes_excluded_or_is_closed_goes_along_no_more(tmp_path: Path) -> None:
    async with Desk(8_192, tmp_path) as desk:
        await desk.start()
        desk.open("store.py", HELPER)
        desk.open("main.py", CODE)
        text = await desk.type("main.py", CODE, "p")
        assert desk.sent()[-1]["context"]
        desk.tell("workspace/didChangeConfiguration", {"settings": {"starfill": {"exclude": ["store.py"]}}})
        text = await desk.type("main.py", text, "q")
        assert "context" not in desk.sent()[-1]
    async with Desk(8_192, tmp_path) as desk:
        await desk.start()
        desk.open("store.py", HELPER)
        desk.open("main.py", CODE)
        text = await desk.type("main.py", CODE, "p")
        desk.close("store.py")
        await desk.type("main.py", text, "q")
        assert "context" not in desk.sent()[-1]


@pytest.mark.parametrize(
    ("window", "setting", "goes"),
    [
        (8_192, "auto", True), (4_096, "auto", True), (2_048, "auto", False), (2_048, "on", True), (8_192, "off", False),
        (None, "auto", False), (None, "on", False),
    ],
)  # fmt: skip
def test_it_goes_to_engines_of_ours_with_room_for_it(
    tmp_path: Path, window: int | None, setting: str, goes: bool
) -> None:
    @async_test()
    async def run() -> None:
        async with Desk(window, tmp_path, {"context": setting}) as desk:
            await desk.start()
            desk.open("store.py", HELPER)
            desk.open("main.py", CODE)
            await desk.type("main.py", CODE, "p")
            assert desk.sent() == [desk.sent()[0]]
            assert set(desk.sent()[0]) == ({"context", "path", "repository", "language"} if goes else {"language"})

    run()


@async_test()
async def test_outside_of_the_workspace_a_document_has_a_name_and_no_path(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    async with Desk(8_192, root) as desk:
        await desk.start()
        desk.root = elsewhere
        desk.open("store.py", HELPER)
        desk.open("main.py", CODE)
        await desk.type("main.py", CODE, "p")
        (sent,) = desk.sent()
        assert (sent["path"], sent["context"][0]["path"]) == ("main.py", "store.py")
        assert "repository" not in sent
        assert str(tmp_path) not in json.dumps(desk.noting.bodies)


@async_test(240)
async def test_a_key_costs_hardly_more_with_many_documents_open(tmp_path: Path) -> None:
    """Processor time of this thread, side by side: the same keys with and without sixteen files of five hundred lines."""
    costs: dict[str, list[float]] = {"on": [], "off": []}
    body = "".join(f"def helper_{n}(self, value):\n    return self.value + load_manifest(value)\n" for n in range(250))
    desks = {name: Desk(8_192, tmp_path, {"context": name}) for name in costs}
    async with desks["on"], desks["off"]:
        texts = dict.fromkeys(desks, CODE)
        for desk in desks.values():
            await desk.start()
            for number in range(16):
                desk.open(f"file_{number}.py", body.replace("helper", f"helper_{number}"))
            desk.open("main.py", CODE)
        for name, desk in desks.items():  # the first key chooses
            texts[name] = await desk.type("main.py", texts[name], "x")
        for key in KEYS * 2:
            for name, desk in desks.items():
                started = time.thread_time()
                texts[name] = await desk.type("main.py", texts[name], key)
                costs[name].append(time.thread_time() - started)
    medians = {name: sorted(each)[len(each) // 2] for name, each in costs.items()}
    assert desks["on"].sent()[-1]["context"]
    assert medians["on"] < 1.5 * medians["off"], medians

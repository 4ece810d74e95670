"""What a code action answers is looked up as completions are: marked, or withheld."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine import paths
from tests.harness.aio import async_test
from tests.harness.corpora import build_index, write
from tests.harness.session_inside import InsideSession, QuickEngine

KNOWN = "".join(f"v{n} = total_of({', '.join(f'x{n * k}' for k in range(1, 7))})\n" for n in range(40))
URI = "untitled:a.py"


@pytest.fixture(autouse=True)
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARFILL_HOME", str(tmp_path / "home"))
    folder = write(tmp_path / "corpus", {"lib/many.py": KNOWN, "package.json": '{"name": "many", "license": "MIT"}'})
    build_index(paths.attribution_index(), folder)


async def explained(
    said: str, task: str = "explain", text: str = "x = 1\n", **settings: Any
) -> tuple[dict[str, Any], list[Any]]:
    """The reply about a whole text, and what of the answer was sent beside it."""
    async with InsideSession(QuickEngine(said), {"actions": "on", **settings}) as inside:
        options = {"starfill": {"answers": True}}
        params = {"processId": None, "rootUri": None, "capabilities": {}, "initializationOptions": options}
        await inside.ask(1, "initialize", params)
        inside.tell("initialized", {})
        inside.tell(
            "textDocument/didOpen",
            {"textDocument": {"uri": URI, "languageId": "python", "version": 1, "text": text}},
        )
        where = {"start": {"line": 0, "character": 0}, "end": {"line": text.count("\n"), "character": 0}}
        argument = {"task": task, "uri": URI, "range": where}
        command = {"command": "starfill.action", "arguments": [argument]}
        reply = (await inside.ask(2, "workspace/executeCommand", command))["result"]
        beside = [each["params"] for each in inside.channel.sent if each.get("method") == "starfill/answer"]
        return reply, beside


@async_test()
async def test_an_answer_names_what_it_stands_in() -> None:
    reply, _ = await explained("".join(KNOWN.splitlines(keepends=True)[10:16]))
    assert reply["text"].startswith("v10 = total_of(")
    (origin,) = reply["attribution"]
    assert (origin["path"], origin["licence"]) == ("lib/many.py", "MIT")
    reply, _ = await explained("It sets x to one.")
    assert (reply["text"], reply["attribution"]) == ("It sets x to one.", [])


@async_test()
async def test_an_answer_is_withheld_with_all_that_was_said_on_the_way() -> None:
    said = "".join(KNOWN.splitlines(keepends=True)[10:16])
    reply, beside = await explained(said, attribution="withhold")
    assert (reply["text"], reply["reason"]) == ("", "verbatim")
    assert [each["text"] for each in beside] == [""]


@async_test()
async def test_what_the_user_has_written_is_no_news_in_what_takes_its_place() -> None:
    lines = KNOWN.splitlines(keepends=True)
    mine, fixed = "".join(lines[10:16]), "".join([*lines[10:15], "v15 = 0\n"])
    reply, _ = await explained(fixed, "fix", mine, attribution="withhold")
    assert (reply["text"], reply["reason"], reply["attribution"]) == (fixed.strip(), "not_applied", [])
    more, _ = await explained("".join(lines[10:20]), "fix", mine, attribution="withhold")
    assert (more["text"], more["reason"]) == ("", "verbatim")  # four of the lines are the model's

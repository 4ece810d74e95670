"""What is remembered of requests, what is written to logs, and what is said about flags: no user text in any of it."""

from __future__ import annotations

import gc
import json
import logging
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine import logs
from engine.accounts import MAX_ACCOUNTS, MAX_REASON, Ledger
from engine.errors import RequestError, StarfillError
from engine.flags import as_words, not_in_effect, parse_flags

CANARY = "xyzzy_canary"


@dataclass(eq=False)
class Running:
    prompt: list[int] = field(default_factory=lambda: list(range(100)))
    slot: int | None = None
    reused: int = 0
    computed: int = 0
    discarded: int = 0
    admitted_at: float | None = None
    generated: list[int] = field(default_factory=list)


class Clock:
    now = 10.0

    def __call__(self) -> float:
        return self.now


def test_an_account_follows_its_request_and_then_lets_it_go() -> None:
    clock, running = Clock(), Running()
    ledger = Ledger(clock)
    entry = ledger.open(7, CANARY, (running,))
    assert ledger.page()[0]["state"] == "queued"
    clock.now, running.slot, running.reused, running.computed, running.discarded = 11.0, 2, 60, 80, 5
    running.admitted_at = 10.5
    (page,) = ledger.page()
    assert (page["state"], page["prompt"], page["reused"], page["computed"]) == ("prefill", 100, 60, 20)
    assert (page["queued"], page["discarded"]) == (0.5, 5)
    running.computed, running.generated = 103, [1, 2, 3]
    clock.now = 12.0
    entry.progress()
    clock.now = 13.0
    entry.progress()
    assert ledger.page()[0]["state"] == "decode"
    entry.close("served", "stop")
    clock.now = 99.0
    (page,) = ledger.page()
    assert (page["first"], page["total"], page["generated"], page["computed"]) == (2.0, 3.0, 3, 40)
    assert (page["state"], page["ended"]) == ("served", "stop")
    gone = weakref.ref(running)
    del running
    gc.collect()
    assert gone() is None, "nothing of a request outlives it but its account"
    assert CANARY not in json.dumps(ledger.page())


def test_documents_are_told_apart_but_not_named() -> None:
    one, other = Ledger(), Ledger()
    for name in ("a", "a", "b", None):
        one.open(1, name, ())
    other.open(1, "a", ())
    marks = [entry["document"] for entry in reversed(one.page())]
    assert marks[0] == marks[1] != marks[2]
    assert marks[3] == "-"
    assert other.page()[0]["document"] != marks[0], "the mark of a name is another in each engine"


def test_the_ring_is_bounded() -> None:
    ledger = Ledger()
    for number in range(MAX_ACCOUNTS + 10):
        ledger.open(number, None, ()).close("served", "stop")
    page = ledger.page()
    assert len(page) == MAX_ACCOUNTS
    assert page[0]["id"] == MAX_ACCOUNTS + 9


def test_why_nothing_was_shown_is_a_word() -> None:
    ledger = Ledger()
    ledger.open(1, None, ())
    assert ledger.shown(1, "low_confidence")
    assert ledger.page()[0]["shown"] == "low_confidence"
    assert ledger.shown(1, "<script> \x1b[31m" + "x" * 100)
    word = ledger.page()[0]["shown"]
    assert word.isascii()
    assert word.replace("_", "").isalnum()
    assert len(word) <= MAX_REASON
    assert not ledger.shown(2, "overlap")


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield root
    for handler in root.handlers:
        if handler not in before[0]:
            handler.close()
    root.handlers[:], root.level = before


def _fail() -> None:
    try:
        dict[str, int]()[CANARY]
    except KeyError as error:
        raise ValueError(f"bad text {CANARY}") from error


def test_a_log_line_is_json_without_what_an_exception_says(tmp_path: Path, root: logging.Logger) -> None:
    file = tmp_path / "e.log"
    logs.configure(file)
    log = logging.getLogger("engine.test")
    log.info("ready: %s", "cpu")
    try:
        _fail()
    except ValueError:
        log.exception("a request failed")
    logging.getLogger("uvicorn.error").warning("GET /%s", CANARY)
    first, second = (json.loads(line) for line in file.read_text().splitlines())
    assert (first["level"], first["name"], first["message"]) == ("info", "engine.test", "ready: cpu")
    assert first["time"].endswith("Z")
    assert [line for line in second["error"] if not line.startswith(" ")] == ["ValueError", "KeyError"]
    assert any("_fail" in line for line in second["error"])
    assert CANARY not in file.read_text()


def test_the_plain_log_says_no_more(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    try:
        _fail()
    except ValueError:
        logging.getLogger("engine.test").exception("a request failed")
    said = capsys.readouterr().err
    assert "a request failed" in said
    assert "ValueError" in said
    assert CANARY not in said


def test_what_nobody_caught_is_logged_in_kind_too() -> None:
    code = (
        "import asyncio, threading\nfrom engine import logs\nlogs.configure(); logs.catch_all()\n"
        f"def fail(): raise ValueError('{CANARY}')\n"
        "threading.Thread(target=fail).start()\n"
        "async def main():\n"
        "    asyncio.get_running_loop().set_exception_handler(logs.log_loop_error)\n"
        "    asyncio.get_running_loop().call_soon(fail); await asyncio.sleep(0)\n"
        "asyncio.run(main()); fail()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("ValueError") == 3
    assert CANARY not in done.stderr


def test_a_log_file_is_rotated(tmp_path: Path, root: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LOG_BYTES", 10_000)
    file = tmp_path / "e.log"
    logs.configure(file)
    for number in range(1_000):
        logging.getLogger("engine.test").info("line %d", number)
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) <= 10_000


def test_a_log_file_that_cannot_be_written_is_named(tmp_path: Path, root: logging.Logger) -> None:
    with pytest.raises(StarfillError, match=r"--log-file .*nowhere"):
        logs.configure(tmp_path / "nowhere" / "e.log")


def test_flags_that_were_wanted_and_are_not_in_effect() -> None:
    flags = {"device": "auto", "dtype": "auto", "window": None}
    facts = {"device": "cpu", "dtype": "float32"}
    assert not_in_effect({"dtype": "float32", "device": "cpu"}, flags, facts) == {}
    assert not_in_effect({"dtype": "int8", "device": "cpu"}, flags, facts) == {"dtype": "int8"}
    assert not_in_effect({"window": 512}, {**flags, "window": 512}, facts) == {}
    assert as_words({"kv_memory": "1GiB", "dtype": "int8"}) == "--dtype int8 --kv-memory 1GiB"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"7", b'{"model": "x"}', b'{"dtype": ["x"]}', b'{"dtype": true}', b"[" * 3_000,
             b'{"dtype": "' + b"x" * 65 + b'"}', b'{"dtype": "a\\nb"}'],
)  # fmt: skip
def test_wishes_that_make_no_sense_are_refused(body: bytes) -> None:
    with pytest.raises(RequestError):
        parse_flags(body)


def test_auto_is_no_wish() -> None:
    assert parse_flags(b'{"dtype": "auto", "device": "cuda:1", "window": 64}') == {"device": "cuda:1", "window": 64}

"""Spoilt sessions: whatever an editor sends, nothing crashes or hangs, each request gets one reply with the right code."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import heap
from tests.harness.aio import async_test
from tests.harness.mutations import CODES, EARLY, INVALID, RESULT, Spoilt, spoil, to_bytes
from tests.harness.process import ROOT, isolated_env, temporary_home
from tests.harness.session_inside import InsideSession, MemoryChannel, QuickEngine

PROBE_URI = "untitled:probe.py"
PROBE_SECONDS = 1.0
PADDING = b" " * 65_536 + b"\r\n\r\n"
PIECE = 4_096


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """As the server's own command has it: pygls would format every bad message for a log that nobody keeps."""
    logger = logging.getLogger("pygls")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)


def probe(number: int) -> list[dict[str, Any]]:
    """A document of its own and a request for it."""
    document = {"uri": PROBE_URI, "languageId": "python", "version": 1, "text": "x = "}
    at = {"textDocument": {"uri": PROBE_URI}, "position": {"line": 0, "character": 4}, "context": {"triggerKind": 1}}
    return [
        {"jsonrpc": "2.0", "method": "textDocument/didOpen", "params": {"textDocument": document}},
        {"jsonrpc": "2.0", "id": f"probe-{number}", "method": "textDocument/inlineCompletion", "params": at},
    ]


def code_of(reply: dict[str, Any]) -> int:
    assert ("result" in reply) != ("error" in reply), reply
    return RESULT if "result" in reply else int(reply["error"]["code"])


def judge_replies(sent: list[dict[str, Any]], session: Spoilt) -> None:
    """One reply for each request, its code one of those that the protocol allows here."""
    got: dict[str, list[int]] = {}
    for message in sent:
        if "method" not in message and not str(message["id"]).startswith("probe-"):
            got.setdefault(json.dumps(message["id"]), []).append(code_of(message))
    assert {code for codes in got.values() for code in codes} <= CODES | {RESULT}
    if session.expected is None:
        return
    assert set(got) <= set(session.expected) | {"null"}
    for request_id, allowed in session.expected.items():
        codes = got.get(request_id, [])
        assert len(codes) <= len(allowed)
        assert len(codes) == len(allowed) or session.leaves, (request_id, codes, allowed)
        assert set(codes) <= set().union(*allowed), (request_id, codes, allowed)


async def probed(inside: InsideSession) -> dict[str, Any] | None:
    """The answer to a probe, None if the server has left. A frame that was cut short first swallows what it is owed."""
    for number in range(1_100):
        if number:
            inside.channel.feed(PADDING)
        inside.send(*probe(number))
        # This thread's seconds of the CPU, so that no other work counts; the other bound is against hanging.
        sent, worked, name, turns = time.monotonic(), time.thread_time(), f"probe-{number}", 0
        while not inside.ended:
            if found := inside.replies(name):
                return found[0]
            if inside.idle and not inside.is_open(name):
                break  # swallowed
            assert time.thread_time() - worked < PROBE_SECONDS, "the probe took too long"
            assert time.monotonic() - sent < 20 * PROBE_SECONDS, "the probe was not answered"
            turns += 1
            await asyncio.sleep(0 if turns < 50 else 0.001)
        else:
            return None
    raise AssertionError("no probe was answered")


async def play(seed: int) -> None:
    session = spoil(seed)
    async with InsideSession(QuickEngine()) as inside:
        for at in range(0, len(session.data), PIECE):
            inside.channel.feed(session.data[at : at + PIECE])
            await asyncio.sleep(0)
        reply = await probed(inside)
        if reply is None:
            assert session.leaves or session.expected is None
            assert inside.status in (0, 1)
        else:
            code = code_of(reply)
            assert code in {"early": {EARLY}, "open": {RESULT}, "over": {INVALID}}.get(
                "".join(session.states), {EARLY, RESULT, INVALID}
            )
            assert code != RESULT or isinstance(reply["result"]["items"], list)
            await inside.settled()
        judge_replies(inside.channel.sent, session)
    async with asyncio.timeout(20 * PROBE_SECONDS):
        while inside.engine.open:  # noqa: ASYNC110 - streams close in turns of their own
            await asyncio.sleep(0.001)


async def play_all(seeds: range) -> None:
    failed: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    with heap.of_its_own():
        for seed in seeds:
            if seed % 50 == 1:
                heap.settle()  # caches of the libraries keep the latest sessions
            try:
                await asyncio.wait_for(play(seed), 60)
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"seed {seed}: {error!r}") from error
            assert not failed, f"seed {seed}: {failed}"
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not others


@async_test()
async def test_a_session_is_not_charged_for_what_other_tests_left(monkeypatch: pytest.MonkeyPatch) -> None:
    left = [[number] for number in range(200_000)]
    walked: list[int] = []

    async def look(_: int) -> None:
        walked.append(len(gc.get_objects()))

    monkeypatch.setattr(sys.modules[__name__], "play", look)
    await play_all(range(2))
    assert max(walked) < len(left) / 10
    assert len(gc.get_objects()) > len(left)


@async_test(timeout=120)
async def test_three_hundred_spoilt_sessions() -> None:
    await play_all(range(300))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(10))
def test_twenty_thousand_spoilt_sessions(part: int) -> None:
    async_test(timeout=580)(play_all)(range(part * 2_000, (part + 1) * 2_000))


# The same against the real process, its pipes and its command line


def play_for_real(seed: int, home: Path) -> None:
    session = spoil(seed)
    status = {"command": "starfill.status", "arguments": []}
    last = {"jsonrpc": "2.0", "id": "probe-real", "method": "workspace/executeCommand", "params": status}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "lsp_server", "lsp", "--engine", f"unix:{home / 'nobody'}"],
        input=session.data + PADDING + to_bytes(last),
        capture_output=True,
        env=isolated_env(home),
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode in (0, 1), (seed, done.stderr)
    assert b"Traceback" not in done.stderr, (seed, done.stderr)
    assert time.monotonic() - started < 30, seed
    channel = MemoryChannel()
    channel.write(done.stdout)  # each frame whole
    replies = [m for m in channel.sent if "method" not in m]
    ids = [json.dumps(reply["id"]) for reply in replies]
    assert {code_of(reply) for reply in replies} <= CODES | {RESULT}, seed
    if session.expected is None:
        return  # a frame that was cut short may have taken the probe with it
    assert session.leaves or "probe-real" in [reply["id"] for reply in replies], seed
    for request_id, allowed in session.expected.items():
        assert ids.count(request_id) <= len(allowed), seed  # the end of the input ends what is under way


def test_a_dozen_spoilt_sessions_against_the_process() -> None:
    with temporary_home() as home:
        for seed in range(12):
            play_for_real(seed, home)


@pytest.mark.slow
def test_fifty_more_spoilt_sessions_against_the_process() -> None:
    with temporary_home() as home:
        for seed in range(100, 150):
            play_for_real(seed, home)

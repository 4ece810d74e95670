"""Starting, sharing, replacing and leaving: one engine however many ask, and nothing behind when it is gone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import registry
from engine.api import CompletionRequest
from engine.errors import EngineLoading, EngineUnavailable
from engine.launcher import FAILED, READY, EngineOptions, SharedEngine, stop
from engine.liveness import Patience
from engine.standing import describe
from engine.starting import log_files
from tests.harness.aio import async_test
from tests.harness.faulty import PROMPT, SCRIPT, SOURCE, Faults, faulty_command
from tests.harness.process import (
    Child,
    engine_pids,
    http_over_unix,
    is_alive,
    isolated_env,
    temporary_home,
    wait_for_health,
    wait_until,
)

PATIENCE = Patience(ask=0.5, give_up=2.0, loading=5.0, start=20, load=20, leave=8)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with temporary_home() as home:
        monkeypatch.setenv("STARFILL_HOME", str(home))
        yield home


def shared(home: Path, *more: str, dtype: str = "auto") -> SharedEngine:
    options = EngineOptions(SOURCE, dtype=dtype)
    return SharedEngine(options, command=faulty_command(home, *more), patience=PATIENCE)


def files(home: Path) -> list[str]:
    return sorted(path.name.partition(".")[2] for path in (home / "run").iterdir())


async def answer(engine: SharedEngine, prompt: str = "x") -> str:
    request = CompletionRequest(prompt=prompt, max_tokens=32, temperature=0)
    async with engine.complete(request) as chunks:
        return "".join([chunk.text async for chunk in chunks])


def test_ten_servers_that_start_at_once_start_one_engine(home: Path) -> None:
    code = (
        "import asyncio, sys, time\n"
        "from pathlib import Path\n"
        "from engine.launcher import EngineOptions, SharedEngine\n"
        "from tests.harness.faulty import SOURCE, faulty_command\n"
        "async def main():\n"
        "    home = Path(sys.argv[1])\n"
        "    command = faulty_command(home, '--passes', str(home / 'passes'))\n"
        "    def counted(*arguments):\n"
        "        with (home / 'starts').open('a') as file: file.write('start\\n')\n"
        "        return command(*arguments)\n"
        "    engine = SharedEngine(EngineOptions(SOURCE), command=counted)\n"
        "    print('here', flush=True); sys.stdin.readline()\n"
        "    await engine.ready(invoked=True)\n"
        "    print((await engine.client.health())['pid'])\n"
        "    await engine.aclose()\n"
        "asyncio.run(main())\n"
    )
    servers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(home)], env=isolated_env(home), cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(10)
    ]  # fmt: skip
    for server in servers:
        assert server.stdout is not None
        assert server.stdout.readline() == "here\n"
    for server in servers:
        assert server.stdin is not None
        server.stdin.write("go\n")
        server.stdin.flush()
    pids = {int(server.communicate(timeout=60)[0]) for server in servers}
    assert {server.returncode for server in servers} == {0}
    assert pids == set(engine_pids(home))
    assert len(pids) == 1, "all of them talk to one engine"
    assert (home / "starts").read_text() == "start\n", "only one was ever started"
    assert files(home) == ["json", "sock"]


@async_test(timeout=60)
async def test_the_first_flags_win_and_the_others_are_told_in_words(home: Path) -> None:
    first, same, other = shared(home, dtype="float32"), shared(home), shared(home, dtype="int8")
    for engine in (first, same, other):
        await engine.ready(invoked=True)
    assert (first.notice, same.notice) == (None, None)
    assert other.notice is not None
    assert "--dtype int8 is not in effect" in other.notice
    assert "--dtype float32" in other.notice
    assert "starfill stop" in other.notice
    assert await answer(other) == SCRIPT
    (record,) = registry.running_engines()
    status = await describe(record)
    assert status["asked"] == {"--dtype int8": 1}
    assert status["why"] == "scripted"
    table = await asyncio.to_thread(_starfill, home, "status")
    assert "--dtype int8" in table
    for engine in (first, same, other):
        await engine.aclose()


@async_test(timeout=60)
async def test_a_newer_starfill_drains_an_older_engine_and_takes_its_place(home: Path) -> None:
    old = shared(home, "--version", "0.0.9", "--delay", "0.1")
    await old.ready(invoked=True)  # waits for an engine of ours, and finds it older than us: an old server would not
    (before,) = engine_pids(home)
    under_way = asyncio.create_task(answer(old))
    await asyncio.sleep(0.5)
    new = shared(home)
    await new.ready(invoked=True)
    assert await under_way == SCRIPT, "what was under way was finished"
    (after,) = engine_pids(home)
    assert after != before
    assert not is_alive(before)
    assert (await new.client.health())["version"] != "0.0.9"
    # The older server, still in use, takes to the newer engine and leaves it alone.
    for _ in range(3):
        assert await _again(old) == SCRIPT
        assert await _again(new) == SCRIPT
    assert engine_pids(home) == [after]
    await old.aclose()
    await new.aclose()


@async_test(timeout=60)
async def test_an_older_starfill_works_with_a_newer_engine_and_never_replaces_it(home: Path) -> None:
    newer, older = shared(home, "--version", "99.0.1"), shared(home)
    await newer.ready(invoked=True)
    before = engine_pids(home)
    for _ in range(3):
        await older.ready(invoked=True)
        assert await answer(older) == SCRIPT
        await newer.ready(invoked=True)
    assert engine_pids(home) == before
    await newer.aclose()
    await older.aclose()


@async_test(timeout=60)
async def test_sigterm_lets_requests_end_and_those_that_take_too_long_get_an_error(home: Path) -> None:
    engine = shared(home, "--delay", "0.1", "--drain", "1.0")
    await engine.ready(invoked=True)
    (record,) = registry.running_engines()
    short = asyncio.create_task(_tokens(engine, 5))
    long = asyncio.create_task(_tokens(engine, 30))
    await asyncio.sleep(0.4)
    asked = time.monotonic()
    os.kill(record.pid, signal.SIGTERM)
    assert SCRIPT.startswith(await short)
    with pytest.raises(EngineUnavailable, match="leaving"):
        await long
    assert time.monotonic() - asked < 3
    await asyncio.to_thread(wait_until, lambda: not record.alive, "end of the engine", timeout=5)
    assert files(home) == []
    await engine.aclose()


@async_test(timeout=60)
async def test_a_new_engine_starts_when_the_one_that_drains_is_gone(home: Path) -> None:
    """Both at once would need the device's memory twice."""
    engine, other = shared(home, "--delay", "0.1"), shared(home)
    await engine.ready(invoked=True)
    (record,) = registry.running_engines()
    under_way = asyncio.create_task(answer(engine))
    await asyncio.sleep(0.3)
    os.kill(record.pid, signal.SIGTERM)
    await asyncio.sleep(0.3)
    starting = asyncio.create_task(other.ready(invoked=True))
    while not starting.done():
        assert not record.alive or not set(engine_pids(home)) - {record.pid}
        await asyncio.sleep(0.02)
    assert await under_way == SCRIPT
    assert await answer(other) == SCRIPT
    assert not record.alive
    await engine.aclose()
    await other.aclose()


async def _tokens(engine: SharedEngine, number: int) -> str:
    request = CompletionRequest(prompt=f"y{number}", max_tokens=number, temperature=0)
    async with engine.complete(request) as chunks:
        return "".join([chunk.text async for chunk in chunks])


def test_an_idle_engine_frees_everything(home: Path) -> None:
    @async_test(timeout=30)
    async def run() -> None:
        engine = shared(home, "--idle-exit", "0.5")
        await engine.ready(invoked=True)
        (record,) = registry.running_engines()
        assert await answer(engine) == SCRIPT
        await asyncio.to_thread(wait_until, lambda: not record.alive, "idle exit", timeout=10)
        assert files(home) == []
        assert await _again(engine) == SCRIPT  # and it is started again when it is wanted
        await engine.aclose()

    run()


async def _again(engine: SharedEngine) -> str:
    try:
        return await answer(engine)
    except EngineUnavailable:
        await engine.ready(invoked=True)
        return await answer(engine)


@async_test(timeout=60)
async def test_what_dead_engines_left_behind_is_no_obstacle(home: Path) -> None:
    run = home / "run"
    run.mkdir(mode=0o700)
    path = registry.socket_path(registry.engine_key(SOURCE))
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    # A record whose pid belongs to a stranger by now (this very process), locks and drafts of processes that are gone.
    stranger = {
        "pid": os.getpid(),
        "started": 1.0,
        "executable": "/bin/other",
        "socket": str(path),
        "model": "scripted",
    }
    stranger |= {"dtype": "float32", "device": "cpu", "version": "0.1.0"}
    registry.record_path(path).write_text(json.dumps(stranger))
    for name in (f"{path.stem}.start", f"{path.stem}.claim", f"{path.stem}.4000000.tmp", "dead.claim"):
        (run / name).touch()
    engine = shared(home)
    await engine.ready(invoked=True)
    assert await answer(engine) == SCRIPT
    registry.sweep()
    assert files(home) == ["json", "sock"]
    await engine.aclose()


@async_test(timeout=60)
async def test_a_crash_is_followed_by_back_off_that_an_invoked_request_ignores(home: Path) -> None:
    faults = Faults(home)
    engine = shared(home)
    for number in range(3):
        faults.arm("load", "kill")
        with pytest.raises(EngineUnavailable, match="it was ended by SIGKILL"):
            await engine.ready(invoked=True)
        wait = engine._retry_at - time.monotonic()
        assert 2**number - 1 < wait <= 2**number
        with pytest.raises(EngineUnavailable, match="tried again"):
            await engine.ready(invoked=False)
    assert engine_pids(home) == []
    await engine.ready(invoked=True)
    assert await answer(engine) == SCRIPT
    await engine.aclose()


@async_test(timeout=60)
async def test_an_automatic_request_does_not_wait_for_a_start_but_finds_what_runs(home: Path) -> None:
    stages: list[str] = []
    starting, later = shared(home, "--load-delay", "1.0"), shared(home)
    with pytest.raises(EngineLoading):
        await starting.ready(invoked=False)
    await starting.ready(invoked=True, progress=stages.append)
    assert stages[-2:] == ["loading", READY]
    await later.ready(invoked=False)
    assert await answer(later) == SCRIPT
    await starting.aclose()
    await later.aclose()


@async_test(timeout=60)
async def test_an_automatic_request_waits_while_somebody_else_finds_what_runs(home: Path) -> None:
    first, second = shared(home), shared(home)
    try:
        await first.ready(invoked=True)
        looking = asyncio.create_task(second.ready(invoked=True))
        await asyncio.sleep(0)
        await second.ready(invoked=False)
        await looking
        assert await answer(second) == SCRIPT
    finally:
        await first.aclose()
        await second.aclose()


@async_test(timeout=60)
async def test_a_start_that_fails_says_why(home: Path) -> None:
    stages: list[str] = []
    engine = shared(home, "--no-such-flag")
    with pytest.raises(EngineUnavailable, match="unrecognized arguments: --no-such-flag"):
        await engine.ready(invoked=True, progress=stages.append)
    assert stages == ["starting", FAILED]
    assert files(home) == []
    await engine.aclose()


def test_a_hanging_pass_ends_the_process_after_telling_everybody(home: Path) -> None:
    """Without a client of ours beside it: the watchdog inside, over plain HTTP."""
    faults = Faults(home)
    path = home / "e.sock"
    log = home / "engine.log"
    argv = ("--socket", str(path), "--faults", str(home), "--pass-limit", "1.0", "--log-file", str(log))
    with Child.module("tests.harness.faulty", *argv, home=home) as child:
        wait_for_health(path, child=child)
        faults.arm("middle", "hang")
        reply = http_over_unix(path, "/v1/completions", body={"prompt": PROMPT, "max_tokens": 32}, timeout=20)
        assert reply.status == 500
        assert "a forward pass took longer than 1 s" in reply.json()["error"]["message"]
        struck = faults.struck()
        assert struck is not None
        assert time.monotonic() - struck < 1.0 + 1.5
        wait_until(lambda: child.process.poll() is not None, "end of the hung engine", timeout=5)
        assert child.process.returncode == 70
        assert "faulty.py" in child.output(), "where it hung is on record"
        assert not path.exists()
        assert not registry.record_path(path).exists()
        assert "hung" in log.read_text()


def test_logs_are_bounded(home: Path) -> None:
    """A library that writes to standard error for days fills no disk."""
    log, errors = (home / "log" / name for name in ("engine-k.log", "engine-k.err"))
    errors.parent.mkdir()
    with errors.open("ab") as sink:
        sink.write(b"x" * (2**20 + 1))
        sink.flush()
        path = home / "e.sock"
        argv = [sys.executable, "-m", "tests.harness.faulty", "--socket", str(path), "--faults", str(home)]
        process = subprocess.Popen(
            [*argv, "--log-file", str(log)], env=isolated_env(home), cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
        )  # fmt: skip
        try:
            wait_for_health(path)
            wait_until(lambda: errors.stat().st_size < 2**20, "shorter standard error", timeout=10)
            assert all("message" in json.loads(line) for line in log.read_text().splitlines())
        finally:
            process.terminate()
            assert process.wait(10) == 0
    assert log_files("k") == (log, errors)


def test_stop_never_touches_a_process_that_merely_has_the_pid_now(home: Path) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        path = registry.socket_path("0" * 16)
        record = registry.EngineRecord(bystander.pid, 1.0, "/bin/other", str(path), "m", "d", "c", "0.1.0")
        registry.write_record(record)
        path.touch()
        assert stop(record)
        assert bystander.poll() is None
        assert files(home) == []
    finally:
        bystander.kill()
        bystander.wait()


def _starfill(home: Path, *arguments: str) -> str:
    command = Path(sys.executable).with_name("starfill")
    done = subprocess.run(
        [command, *arguments], env=isolated_env(home, COLUMNS="200"), capture_output=True, text=True, check=True
    )
    return done.stdout

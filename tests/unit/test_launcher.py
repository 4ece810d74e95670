"""The shared engine's starts that fail and answers that take long, without a model."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine import __version__
from engine import client as client_module
from engine import starting as starting_module
from engine.errors import EngineUnavailable
from engine.launcher import EngineOptions, SharedEngine
from engine.liveness import Patience
from engine.models import ModelSource
from tests.harness.aio import async_test
from tests.harness.process import temporary_home

OPTIONS = EngineOptions(ModelSource("none", Path("/none")))
PATIENCE = Patience(ask=0.05, give_up=5.0, loading=5.0, start=20.0, load=20.0, leave=5.0)

DIES_LOADING = """
import os, signal, socket, sys
body = sys.argv[2].encode()
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
for _ in range(2):
    peer, _ = listener.accept()
    peer.recv(65536)
    peer.sendall(b"HTTP/1.1 503 No\\r\\nconnection: close\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(body) + body)
    peer.close()
os.kill(os.getpid(), signal.SIGKILL)
"""
LOADING = json.dumps({"status": "loading", "version": __version__})
READY = json.dumps({"status": "ready", "version": __version__})


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with temporary_home() as home:
        monkeypatch.setenv("STARFILL_HOME", str(home))
        yield home


def started_by(*command: str) -> SharedEngine:
    return SharedEngine(
        OPTIONS, command=lambda options, socket, log: [*command, str(socket), LOADING], patience=PATIENCE
    )


@async_test()
async def test_a_program_that_is_gone_is_an_engine_that_could_not_be_started() -> None:
    engine = started_by("/nonexistent/python")
    with pytest.raises(EngineUnavailable, match="could not be started: No such file or directory: /nonexistent/python"):
        await engine.ready(invoked=True)
    assert engine._failures == 1
    with pytest.raises(EngineUnavailable, match="tried again"):
        await engine.ready(invoked=False)
    await engine.aclose()
    assert engine.client._http is None


@async_test()
async def test_a_folder_for_logs_that_is_none_is_an_engine_that_could_not_be_started(home: Path) -> None:
    (home / "log").write_text("a file")
    engine = started_by(sys.executable, "-c", "")
    with pytest.raises(EngineUnavailable, match=r"could not be started: .*log is not a directory"):
        await engine.ready(invoked=True)
    assert engine._failures == 1
    await engine.aclose()


def test_no_memory_for_a_process_is_an_engine_that_could_not_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    @async_test()
    async def play() -> None:
        engine = started_by(sys.executable, "-c", "")
        with pytest.raises(EngineUnavailable, match="could not be started: Resource temporarily unavailable"):
            await engine.ready(invoked=True)
        assert engine._failures == 1
        await engine.aclose()

    monkeypatch.setattr(subprocess, "Popen", refuse)
    play()


@async_test()
async def test_closing_after_a_start_that_broke_closes_everything() -> None:
    def broken(*_: object) -> list[str]:
        raise ZeroDivisionError

    engine = SharedEngine(OPTIONS, command=broken, patience=PATIENCE)
    with pytest.raises(ZeroDivisionError):
        await engine.ready(invoked=True)
    assert engine._failures == 1, "what nobody thought of is not tried at every key either"
    await engine.aclose()
    assert engine.client._http is None


@async_test()
async def test_an_engine_that_is_killed_while_it_loads_is_known_to_have_been(home: Path) -> None:
    engine = started_by(sys.executable, "-c", DIES_LOADING)
    with pytest.raises(EngineUnavailable, match="the engine stopped: it was ended by SIGKILL"):
        await engine.ready(invoked=True)
    await engine.aclose()


@async_test()
async def test_an_end_that_somebody_else_saw_is_told_by_what_was_written(home: Path) -> None:
    """The process was started by another server: there is only its file."""
    engine = started_by(sys.executable, "-c", "")
    (home / "log").mkdir(mode=0o700)
    starting_module.log_files(engine._socket.stem)[1].write_text("out of luck\n")
    other = await asyncio.to_thread(
        subprocess.Popen, [sys.executable, "-c", DIES_LOADING, str(engine._socket), LOADING]
    )
    while not engine._socket.exists():  # noqa: ASYNC110  (another process makes it)
        await asyncio.sleep(0.01)
    with pytest.raises(EngineUnavailable, match="the engine stopped: out of luck"):
        await engine.ready(invoked=True)
    await asyncio.to_thread(other.wait)
    await engine.aclose()


@asynccontextmanager
async def slow_engine(path: Path, seconds: float) -> AsyncIterator[None]:
    """Says at once that it is well, and after a while what it was asked."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/v1/completions" in head:
            await asyncio.sleep(seconds)
            body = b'data: {"choices": [{"text": "late"}]}\n\ndata: [DONE]\n\n'
        else:
            body = READY.encode()
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(handle, path)
    try:
        yield
    finally:
        server.close()


def test_a_healthy_engine_may_say_nothing_for_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_SILENCE_SECONDS", 0.2)

    @async_test()
    async def play() -> None:
        engine = started_by(sys.executable, "-c", "")
        async with slow_engine(engine._socket, 0.8):
            await engine.ready(invoked=True)
            began = time.monotonic()
            async with engine.complete(b"{}") as chunks:
                assert [chunk.text async for chunk in chunks] == ["late"]
            assert time.monotonic() - began > 0.7
            assert engine._failures == 0
            await engine.aclose()

    play()

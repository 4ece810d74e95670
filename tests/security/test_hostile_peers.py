"""Junk, slow and half-open peers, hundreds of them: a normal request is served meanwhile, and nothing of them stays."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from engine.api import MAX_BODY
from engine.guard import MAX_CONNECTIONS_OF_ONE, MAX_HEAD, BodyBudget, Phase
from tests.harness.aio import async_test
from tests.harness.faulty import SCRIPT
from tests.harness.leakcheck import LeakCheck
from tests.harness.process import Child, http_over_unix, read_metrics, temporary_home, wait_for_health, wait_until

HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n"
JUNK = [
    b"\x00" * 200,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /health HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET  /health\r\n\r\n",
    HEAD + b"content-length: -1\r\n\r\n",
    HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    HEAD + b"content-length: " + b"9" * 18 + b"\r\n\r\n",
    HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    HEAD + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\nhello",
    HEAD + b"x: " + b"y" * (2 * MAX_HEAD) + b"\r\n\r\n",
    HEAD + b"x: y\r\n" * 5_000 + b"\r\n",
    b"GET /" + b"a" * (2 * MAX_HEAD) + b" HTTP/1.1\r\n\r\n",
    HEAD + b"content-length: 3\r\n\r\n{{{",
    HEAD + b"content-length: 4\r\n\r\nnull",
    HEAD + b"content-length: 30000\r\n\r\n" + b"[" * 30_000,
    HEAD + b"upgrade: websocket\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\n{}",
    b"POST /starfill/join HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n" + b"x" * 5_000,
    b"POST /starfill/requests/99999999999999999999 HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx",
    b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n" * 40,
]


@pytest.fixture(scope="module")
def engine() -> Iterator[tuple[Path, int]]:
    with temporary_home() as home:
        path = home / "e.sock"
        argv = ("--socket", str(path), "--faults", str(home), "--delay", "0")
        with Child.module("tests.harness.faulty", *argv, home=home) as child:
            wait_for_health(path, child=child)
            _served(path)
            yield path, child.pid


def _served(path: Path) -> None:
    reply = http_over_unix(path, "/v1/completions", body={"prompt": "x", "max_tokens": 32, "temperature": 0}, timeout=5)
    assert reply.json()["choices"][0]["text"] == SCRIPT


def _connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(str(path))
    return client


def _ask(path: Path, data: bytes, silence: float = 0.3) -> bytes:
    """Send and read until the engine hangs up, or says nothing for `silence` seconds."""
    said = b""
    with _connect(path) as client:
        client.settimeout(silence)
        with suppress(OSError):  # refused already, which can still be read
            client.sendall(data)
        with suppress(OSError):
            while part := client.recv(65_536):
                said += part
    return said


@pytest.mark.parametrize("number", range(len(JUNK)))
def test_junk_is_refused_in_form_and_costs_nothing(engine: tuple[Path, int], number: int) -> None:
    path, pid = engine
    leaks = LeakCheck([pid], own=False)
    for _ in range(2):
        said = _ask(path, JUNK[number])
        if said:
            status = int(said.split(b" ")[1])
            assert status in (200, 400, 404, 413), said[:200]
            if b"application/json" in said:
                head, _, rest = said.partition(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split()[0])
                answer = json.loads(rest[:length])
                assert status == 200 or answer["error"]["message"]
    _served(path)
    leaks.assert_settled(timeout=5, rss_mib=8)


def test_hundreds_of_half_open_and_slow_peers_do_not_keep_a_request_waiting(engine: tuple[Path, int]) -> None:
    path, pid = engine
    leaks = LeakCheck([pid], own=False)
    beginnings = [b"", b"GET /hea", HEAD, HEAD + b"content-length: 100000\r\n\r\n{", b"\r\n\r\n\r\n", HEAD + b"x: "]
    with ExitStack() as peers:
        slow = []
        for number in range(400):
            client = peers.enter_context(_connect(path))
            with suppress(OSError):
                client.sendall(beginnings[number % len(beginnings)])
            slow.append(client)
            if number % 40 == 0:
                _served(path)
        for _ in range(3):  # drop by drop
            for client in slow:
                with suppress(OSError):
                    client.send(b"y")
            _served(path)
        open_there = len([1 for link in Path(f"/proc/{pid}/fd").iterdir() if _target(link).startswith("socket:")])
        assert open_there <= MAX_CONNECTIONS_OF_ONE + 5
    _served(path)
    leaks.assert_settled(timeout=5, rss_mib=16)


def _target(link: Path) -> str:
    with suppress(OSError):
        return str(link.readlink())
    return ""


def test_a_peer_with_its_fill_of_requests_is_told_so(engine: tuple[Path, int]) -> None:
    """Connections with a request under way are never closed for new ones: the new one is refused."""
    path, pid = engine
    leaks = LeakCheck([pid], own=False)
    head = HEAD + b"content-length: 1000\r\nexpect: 100-continue\r\n\r\n"
    with ExitStack() as peers:
        for _ in range(MAX_CONNECTIONS_OF_ONE):
            client = peers.enter_context(_connect(path))
            client.settimeout(10)
            client.sendall(head)
            assert client.recv(100).startswith(b"HTTP/1.1 100 ")  # it has begun
        said = _ask(path, b"", silence=10)
        assert said.startswith(b"HTTP/1.1 429 ")
        assert b"too many connections" in said
    wait_until(lambda: _is_served(path), "service again", timeout=5)
    leaks.assert_settled(timeout=5, rss_mib=16)


def _is_served(path: Path) -> bool:
    with suppress(Exception):
        _served(path)
        return True
    return False


def _response(client: socket.socket) -> bytes:
    """One whole response: its head and its body may come apart."""
    said = b""
    while (head := said.partition(b"\r\n\r\n"))[1] == b"" or len(head[2]) < _length(head[0]):
        said += client.recv(65_536)
    return said


def _length(head: bytes) -> int:
    return next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))


def test_peers_that_take_too_long_are_hung_up_on(engine: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = engine
    slow = {name: _connect(path) for name in ("silent", "head", "late head", "body")}
    slow["head"].sendall(HEAD)
    slow["late head"].sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
    assert _response(slow["late head"]).startswith(b"HTTP/1.1 200")
    slow["late head"].sendall(b"GET /hea")
    started = time.monotonic()
    for name in ("silent", "head", "late head"):
        slow[name].settimeout(Phase.HEAD.value + 5)
        assert slow[name].recv(100) == b"", name
    assert Phase.HEAD.value - 1 < time.monotonic() - started < Phase.HEAD.value + 4
    for client in slow.values():
        client.close()


@pytest.mark.slow
def test_a_body_that_never_ends_is_hung_up_on(engine: tuple[Path, int]) -> None:
    path, _ = engine
    with _connect(path) as client:
        client.settimeout(0.5)
        client.sendall(HEAD + b"content-length: 100000\r\n\r\n")
        started = time.monotonic()
        with pytest.raises(OSError, match=r"(?i)broken pipe|reset"):
            while time.monotonic() - started < Phase.BODY.value + 10:
                client.send(b" ")
                time.sleep(0.2)
        assert time.monotonic() - started < Phase.BODY.value + 5


def test_a_reader_who_does_not_read_holds_no_slot_for_long(engine: tuple[Path, int]) -> None:
    path, _ = engine
    body = json.dumps({"prompt": "x", "max_tokens": 32, "temperature": 0, "stream": True}).encode()
    with ExitStack() as peers:
        for _ in range(60):
            client = peers.enter_context(_connect(path))
            client.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
        _served(path)
        wait_until(lambda: read_metrics(path).value("starfill_slots_held") == 0, "free slots", timeout=10)


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(engine: tuple[Path, int]) -> None:
    path, _ = engine
    said = _ask(path, HEAD + b"content-length: %d\r\n\r\n" % (MAX_BODY + 1))
    assert said.startswith(b"HTTP/1.1 413 ")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "body_too_large"


@async_test()
async def test_bodies_are_bounded_together() -> None:
    sent: list[dict[str, object]] = []

    async def read_all(scope: object, receive: object, send: object) -> None:
        while (await receive()).get("more_body"):  # type: ignore[operator]
            pass

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"x" * 600, "more_body": len(sent) < 5}

    budget = BodyBudget(read_all, total=1_000)
    scope = {"type": "http", "headers": []}
    with pytest.raises(Exception, match="too large together"):
        await budget(scope, receive, None)  # type: ignore[arg-type]
    assert budget._held == 0, "what was held is given back"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_nobody_else_can_fill_the_engine_up(engine: tuple[Path, int]) -> None:
    """Peers of another uid are hung up on before they count."""
    import subprocess

    path, pid = engine
    code = (
        "import os, socket, sys, time\nos.setuid(65534)\nkept = []\n"
        "for _ in range(300):\n    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); kept.append(s)\n"
        "print('there', flush=True); sys.stdin.read()\n"
    )
    path.parent.chmod(0o755)
    path.chmod(0o666)
    child = subprocess.Popen(
        ["python3", "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "there\n"
        wait_until(lambda: len(list(Path(f"/proc/{pid}/fd").iterdir())) < 60, "few descriptors", timeout=5)
        _served(path)
    finally:
        child.communicate("")
        path.chmod(0o600)
        path.parent.chmod(0o700)

"""Who may talk to an engine: the Unix socket's mode, owner and peer; token, Host and Origin on TCP."""

from __future__ import annotations

import http.client
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import StarfillError
from engine.serve import Endpoint
from tests.harness.process import (
    Child,
    free_tcp_port,
    http_over_unix,
    isolated_env,
    temporary_home,
    wait_for_health,
    wait_until,
)

TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with temporary_home() as home:
        yield home


@pytest.fixture(scope="module")
def engine(home: Path) -> Iterator[Child]:
    with Child.module("engine.cli", "serve", "--device", "cpu", home=home) as child:
        wait_until(lambda: any((home / "run").glob("*.sock")), "socket", child=child)
        wait_for_health(_socket(home), child=child)
        yield child


def _socket(home: Path) -> Path:
    return next((home / "run").glob("*.sock"))


def test_socket_and_folder_are_the_users_alone(home: Path, engine: Child) -> None:
    path = _socket(home)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_hung_up_on(home: Path, engine: Child) -> None:
    """Even one who gets past the file modes."""
    path = _socket(home)
    home.chmod(0o755)
    path.parent.chmod(0o755)
    path.chmod(0o666)
    try:
        code = (
            "import os, socket, sys\n"
            "os.setuid(65534)\n"
            "s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(sys.argv[1])\n"
            "try:\n    s.sendall(b'GET /health HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); got = s.recv(100)\n"
            "except OSError:\n    got = b''\n"
            "print(len(got))\n"
        )
        child = subprocess.run(["python3", "-c", code, str(path)], capture_output=True, text=True, check=True)
        assert child.stdout.strip() == "0"
    finally:
        path.parent.chmod(0o700)
        path.chmod(0o600)
    assert http_over_unix(path, "/health").status == 200


def test_no_tcp_port_is_opened_unless_asked_for(engine: Child) -> None:
    inodes = {
        str(link.readlink()).removeprefix("socket:[").rstrip("]")
        for link in Path(f"/proc/{engine.pid}/fd").iterdir()
        if str(link.readlink()).startswith("socket:")
    }
    for table in ("tcp", "tcp6", "udp", "udp6"):
        path = Path(f"/proc/{engine.pid}/net/{table}")
        rows = [line.split() for line in path.read_text().splitlines()[1:]] if path.exists() else []
        assert not inodes & {row[9] for row in rows}


def test_a_second_serve_is_an_engine_of_its_own(home: Path, engine: Child) -> None:
    with Child.module("engine.cli", "serve", "--device", "cpu", home=home) as child:
        wait_until(lambda: len(list((home / "run").glob("*.sock"))) == 2, "second socket", child=child)
        assert child.stop() == 0
    assert len(list((home / "run").glob("*.sock"))) == 1


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "e.sock"
    precious.write_text("precious")
    with pytest.raises(StarfillError, match="not a socket"):
        Endpoint(precious).bind()
    assert precious.read_text() == "precious"
    link = tmp_path / "link.sock"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StarfillError, match="not a socket"):
        Endpoint(link).bind()


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "e.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    listener = Endpoint(path).bind()
    with pytest.raises(StarfillError, match="another engine listens"):
        Endpoint(path).bind()
    listener.close()


@pytest.fixture(scope="module")
def tcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(TOKEN + "\n")
    port = free_tcp_port()
    argv = [
        sys.executable,
        "-m",
        "engine.cli",
        "serve",
        "--device",
        "cpu",
        "--port",
        str(port),
        "--token-file",
        str(token),
    ]
    with temporary_home() as home, Child(argv, env=isolated_env(home)) as child:

        def answers() -> bool:
            try:
                return _get(port, f"127.0.0.1:{port}", TOKEN) == 200
            except OSError:
                return False

        wait_until(answers, "health", timeout=60, child=child)
        yield port


def _get(port: int, host: str, token: str | None, origin: str | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest("GET", "/health", skip_host=True)
    connection.putheader("Host", host)
    if token is not None:
        connection.putheader("Authorization", f"Bearer {token}")
    if origin is not None:
        connection.putheader("Origin", origin)
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize(
    ("host", "token", "origin", "status"),
    [
        ("127.0.0.1:{port}", TOKEN, None, 200),
        ("localhost:{port}", TOKEN, None, 200),
        ("localhost:{port}", TOKEN, "http://localhost:{port}", 200),
        ("localhost:{port}", None, None, 401),
        ("localhost:{port}", "wrong-" + TOKEN, None, 401),
        ("localhost:{port}", "", None, 401),
        ("evil.example:{port}", TOKEN, None, 403),
        ("127.0.0.1.evil.example:{port}", TOKEN, None, 403),
        ("localhost", TOKEN, None, 403),
        ("localhost:{port}", TOKEN, "http://evil.example", 403),
        ("localhost:{port}", TOKEN, "null", 403),
        ("localhost:{port}", TOKEN, "http://localhost:{port}.evil.example", 403),
    ],
)
def test_tcp_needs_token_host_and_origin(
    tcp: int, host: str, token: str | None, origin: str | None, status: int
) -> None:
    origin = origin.format(port=tcp) if origin else None
    assert _get(tcp, host.format(port=tcp), token, origin) == status

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

from engine import registry
from engine.endpoint import Endpoint, read_token
from engine.errors import EndpointTaken, StarfillError
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


@pytest.mark.parametrize("name", ["a.json", "a.claim", "a.start", "a.1.tmp", "a.JSON", "..", "/", ".", ""])
def test_a_socket_cannot_have_the_name_of_a_file_beside_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StarfillError, match="name a file"):
        Endpoint(Path(name)).bind()
    assert list(tmp_path.iterdir()) == []


def test_two_sockets_do_not_share_a_record(tmp_path: Path) -> None:
    first = Endpoint(tmp_path / "e.sock").bind()
    first.publish("tiny", "float32", "cpu", "1.0")
    record = registry.read_record(tmp_path / "e.json")
    assert record is not None
    with pytest.raises(StarfillError, match=r"e\.json beside it is another engine's"):
        Endpoint(tmp_path / "e.other").bind()
    assert registry.read_record(tmp_path / "e.json") == record
    first.close()
    assert list(tmp_path.iterdir()) == []
    again = Endpoint(tmp_path / "e.other").bind()
    again.close()


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "e.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    listener = Endpoint(path).bind()
    with pytest.raises(EndpointTaken, match="another engine listens"):
        Endpoint(path).bind()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listener.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_beside_the_socket_that_is_no_record_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "package.json"
    precious.write_text("{}")
    with pytest.raises(StarfillError, match=r"package\.json"):
        Endpoint(tmp_path / "package.sock").bind()
    assert precious.read_text() == "{}"


def test_a_link_to_a_dead_socket_is_not_a_socket(tmp_path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "dead.sock"))
    dead.close()
    link = tmp_path / "link.sock"
    link.symlink_to(tmp_path / "dead.sock")
    with pytest.raises(StarfillError, match="not a socket"):
        Endpoint(link).bind()
    assert (tmp_path / "dead.sock").exists()


def test_only_ones_own_socket_is_removed(tmp_path: Path) -> None:
    """Another engine has taken the place while this one was leaving."""
    path = tmp_path / "e.sock"
    first = Endpoint(path).bind()
    first.publish("m", "d", "c", "0.1.0")
    path.unlink()
    second = socket.socket(socket.AF_UNIX)
    second.bind(str(path))
    first.close()
    assert path.exists()
    second.close()


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o644, 0o604])
def test_a_token_file_ends_up_readable_by_its_owner_alone(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "token"
    file.write_text(f"  {TOKEN}\n")
    file.chmod(mode)
    assert read_token(file) == TOKEN
    assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_token_file_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(mode)
    with pytest.raises(StarfillError, match="chmod 600"):
        read_token(file)


@pytest.mark.parametrize(
    "token", ["short", "", "with a blank in the middle", "é" * 20, "x" * 20 + "\ny: z", "\x00" * 20]
)
def test_a_token_that_is_none_is_refused(tmp_path: Path, token: str) -> None:
    file = tmp_path / "token"
    file.write_text(token)
    file.chmod(0o600)
    with pytest.raises(StarfillError, match="16 characters"):
        read_token(file)


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
        ("LOCALHOST:{port}", TOKEN, "http://LocalHost:{port}", 200),
        ("[::1]:{port}", TOKEN, None, 200),
        ("localhost:{port}", TOKEN, "https://localhost:{port}", 403),
        ("localhost:{port}", TOKEN, "http://user@localhost:{port}", 403),
        ("localhost:{port}", TOKEN, "http://localhost:{port}/", 403),
        ("localhost:{port}", TOKEN, "http://[", 403),
        ("localhost:{port}@evil.example", TOKEN, None, 403),
        ("", TOKEN, None, 403),
        ("localhost:{port}", TOKEN, "http://localhost:{port}.evil.example", 403),
    ],
)
def test_tcp_needs_token_host_and_origin(
    tcp: int, host: str, token: str | None, origin: str | None, status: int
) -> None:
    origin = origin.format(port=tcp) if origin else None
    assert _get(tcp, host.format(port=tcp), token, origin) == status


def test_no_answer_invites_web_pages(tcp: int) -> None:
    """No CORS header ever, and a preflight is refused like any other request without a token."""
    connection = http.client.HTTPConnection("127.0.0.1", tcp, timeout=10)
    connection.request("OPTIONS", "/v1/completions", headers={"Origin": "http://evil.example"})
    reply = connection.getresponse()
    assert reply.status == 403
    assert not [name for name, _ in reply.getheaders() if name.lower().startswith("access-control")]
    connection.close()

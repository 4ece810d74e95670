"""Two servers in processes of their own, asked over HTTP in the same way: what a client would see of each."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import psutil

from benchmarks.cpu import peer
from tests.harness.process import isolated_env

_START_SECONDS = 180.0
_ANSWER_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's end: the ids, seconds on the wall, and seconds of processor time that the server took."""

    ids: list[int]
    wall: float
    cpu: float


class Server(Protocol):
    """One of the two."""

    name: str

    def complete(self, ids: Sequence[int], tokens: int) -> Answer:
        """Greedy tokens after a prompt; what is cached of it is used."""
        ...


class Process:
    """A server in a process of its own, and the connection to it."""

    def __init__(
        self, name: str, process: subprocess.Popen[bytes], connection: http.client.HTTPConnection, log: Path
    ) -> None:
        self.name = name
        self.log = log
        self.process = psutil.Process(process.pid)
        self._connection = connection

    def ask(self, path: str, body: dict[str, Any]) -> tuple[dict[str, Any], float, float]:
        """-> (answer, wall, processor time)."""
        data = json.dumps(body)
        before, start = self.busy(), time.perf_counter()
        try:
            self._connection.request("POST", path, data, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise RuntimeError(f"{self.name} is gone: {_last_line(self.log)}") from error
        wall = time.perf_counter() - start
        self._connection.close()  # neither side keeps one open for ever, so both get a new one each time
        if response.status != http.HTTPStatus.OK:
            raise RuntimeError(f"{self.name} answered {response.status}: {text[:200]!r}")
        return json.loads(text), wall, self.busy() - before

    def ready(self) -> bool:
        """Whether `/health` says so."""
        try:
            self._connection.request("GET", "/health")
            response = self._connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            self._connection.close()  # a server may hang up on one that is idle while the other server starts
        return response.status == http.HTTPStatus.OK

    def busy(self) -> float:
        """Seconds of processor time so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


Served = TypeVar("Served", bound=Process)


class Ours(Process):
    """`starfill serve`."""

    def complete(self, ids: Sequence[int], tokens: int) -> Answer:
        """See `Server`."""
        body = {"prompt": list(ids), "max_tokens": tokens, "temperature": 0, "return_token_ids": True}
        answer, wall, cpu = self.ask("/v1/completions", body)
        return Answer(answer["choices"][0]["token_ids"], wall, cpu)


class Theirs(Process):
    """llama.cpp's server."""

    def complete(self, ids: Sequence[int], tokens: int) -> Answer:
        """See `Server`."""
        body = {
            "prompt": list(ids), "n_predict": tokens, "temperature": 0, "samplers": ["temperature"], "cache_prompt": True,
            "ignore_eos": True, "return_tokens": True,
        }  # fmt: skip
        answer, wall, cpu = self.ask("/completion", body)
        return Answer(answer["tokens"], wall, cpu)


@contextmanager
def ours(directory: Path, precision: str, threads: int, home: Path) -> Iterator[Ours]:
    """Our engine with its own home; it ends with the block."""
    path = home / f"{precision}.sock"
    argv = [
        sys.executable, "-P", "-m", "lsp_server", "serve", "--model", str(directory), "--socket", str(path),
        "--device", "cpu", "--dtype", precision,
    ]  # fmt: skip
    environment = isolated_env(home, OMP_NUM_THREADS=str(threads))
    with child(argv, environment, home / "ours.log") as process:
        yield wait(Ours("starfill", process, _UnixConnection(path), home / "ours.log"), process)


@contextmanager
def theirs(folder: Path, model: Path, threads: int, window: int, home: Path) -> Iterator[Theirs]:
    """llama.cpp's server on a port of its own; it ends with the block."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    argv = [
        *peer.command(folder), "-m", str(model), "-c", str(window), "-b", "1024", "-ub", "512", "-np", "1",
        "-t", str(threads), "-tb", str(threads), "--host", "127.0.0.1", "--port", str(port), "--no-webui",
    ]  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)
    with child(argv, peer.environment(folder), home / "theirs.log") as process:
        yield wait(Theirs("llama.cpp", process, connection, home / "theirs.log"), process)


@contextmanager
def child(argv: Sequence[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block; what it says goes to `log`."""
    with log.open("wb") as said:
        process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait(server: Served, process: subprocess.Popen[bytes], seconds: float = _START_SECONDS) -> Served:
    """Until it can complete; raises RuntimeError with its last word if it ends before."""
    end = time.monotonic() + seconds
    while not server.ready():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{server.name} did not start: {_last_line(server.log)}")
        time.sleep(0.1)
    return server


def _last_line(log: Path) -> str:
    return next(reversed(log.read_text("utf-8", "replace").strip().splitlines()), "it said nothing")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))

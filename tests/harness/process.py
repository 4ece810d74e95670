"""Child processes with a home of their own, and the sockets that they serve."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]

_POLL_S = 0.02


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A fresh STARFILL_HOME, its path short enough for Unix sockets; at the end its engines die and it is removed."""
    home = Path(tempfile.mkdtemp(prefix="sf-"))
    try:
        yield home
    finally:
        for pid in engine_pids(home):
            kill_tree(pid)
        shutil.rmtree(home, ignore_errors=True)


def isolated_env(home: Path, **more: str) -> dict[str, str]:
    """The environment for a child: ours without STARFILL_ variables and PYTHONPATH, with everything kept in `home`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STARFILL_")}
    kept.pop("PYTHONPATH", None)
    return {**kept, "STARFILL_HOME": str(home), "PYTHONUNBUFFERED": "1", **more}


def module_argv(module: str, *args: str) -> list[str]:
    """`python -m module …` with the Python that runs the tests."""
    return [sys.executable, "-m", module, *args]


def run_module(
    module: str,
    *args: str,
    home: Path,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run a module to its end, with its output captured; `env` adds to the isolated environment."""
    return subprocess.run(
        module_argv(module, *args),
        env=isolated_env(home, **(env or {})),
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )


class Child:
    """A long-running child process in a process group of its own; its output goes to a file, so it never blocks."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path = ROOT) -> None:
        self.argv = list(argv)
        self._output = tempfile.NamedTemporaryFile(prefix="sf-out-")  # noqa: SIM115
        self.process = subprocess.Popen(
            self.argv,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @classmethod
    def module(cls, module: str, *args: str, home: Path, env: Mapping[str, str] | None = None) -> Self:
        """`python -m module …` with everything that it keeps in `home`."""
        return cls(module_argv(module, *args), env=isolated_env(home, **(env or {})))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            error.add_note(f"--- output of {self.argv}\n{self.output()}")
        kill_tree(self.pid)
        self.process.wait(10)
        self._output.close()

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def output(self) -> str:
        """What it wrote so far, stdout and stderr together."""
        return Path(self._output.name).read_text("utf-8", "replace")

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 10.0) -> int:
        """Send a signal and wait for the end; -> exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout)


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An HTTP reply, read to its end."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def http_over_unix(path: Path, target: str, *, body: Any = None, timeout: float = 10.0) -> HttpReply:
    """GET, or POST of a JSON body, over a Unix socket."""
    connection = _UnixConnection(path, timeout)
    try:
        if body is None:
            connection.request("GET", target)
        else:
            connection.request("POST", target, json.dumps(body).encode(), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        headers = {name.lower(): value for name, value in reply.getheaders()}
        return HttpReply(reply.status, headers, reply.read())
    finally:
        connection.close()


def wait_until(ready: Callable[[], bool], what: str, *, timeout: float = 30.0, child: Child | None = None) -> None:
    """Poll until `ready()`; AssertionError after `timeout` seconds, or at once when `child` has ended."""
    deadline = time.monotonic() + timeout
    while not ready():
        if child is not None and child.process.poll() is not None:
            raise AssertionError(f"no {what}: the child ended with {child.process.returncode}\n{child.output()}")
        if time.monotonic() > deadline:
            output = "" if child is None else f"\n{child.output()}"
            raise AssertionError(f"no {what} within {timeout:g} s{output}")
        time.sleep(_POLL_S)


def wait_for_socket(path: Path, *, timeout: float = 30.0, child: Child | None = None) -> None:
    """Wait until something accepts connections on a Unix socket."""

    def answers() -> bool:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            return True
        return False

    wait_until(answers, f"answer on {path.name}", timeout=timeout, child=child)


def wait_for_health(path: Path, *, timeout: float = 60.0, child: Child | None = None) -> None:
    """Wait until `GET /health` over a Unix socket is 200: the engine can complete."""

    def healthy() -> bool:
        with suppress(OSError, http.client.HTTPException):
            return http_over_unix(path, "/health").status == 200
        return False

    wait_until(healthy, f"health on {path.name}", timeout=timeout, child=child)


class Metrics:
    """One page of Prometheus text."""

    def __init__(self, page: str) -> None:
        self.samples = [
            (sample.name, dict(sample.labels), float(sample.value))
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        ]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name that carry those labels; AssertionError if there is none."""
        found = [value for at, has, value in self.samples if at == name and labels.items() <= has.items()]
        assert found, f"no sample {name} {labels or ''} among {sorted({at for at, _, _ in self.samples})}"
        return sum(found)


def read_metrics(path: Path, target: str = "/metrics") -> Metrics:
    """The metrics page served over a Unix socket."""
    reply = http_over_unix(path, target)
    assert reply.status == 200, f"{target} answered {reply.status}"
    return Metrics(reply.body.decode())


def free_tcp_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def engine_records(home: Path) -> list[dict[str, Any]]:
    """What `<home>/run/*.json` say of the engines there: pid, model, dtype, device, version."""
    records = []
    for path in sorted((home / "run").glob("*.json")):
        with suppress(FileNotFoundError):  # an engine that leaves takes its record with it
            records.append(json.loads(path.read_text("utf-8")))
    return records


def engine_pids(home: Path) -> list[int]:
    """The engines of a home that are alive: processes whose arguments or environment name the home."""
    return [record["pid"] for record in engine_records(home) if _lives_in(record["pid"], str(home))]


def is_alive(pid: int) -> bool:
    """A process with that id runs, and is not a zombie."""
    with suppress(psutil.NoSuchProcess):
        return str(psutil.Process(pid).status()) != str(psutil.STATUS_ZOMBIE)
    return False


def _lives_in(pid: int, home: str) -> bool:
    """Guards against a stale record whose pid now belongs to a stranger."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return any(home in said for said in (*process.cmdline(), *process.environ().values()))
    return False


def kill_tree(pid: int, timeout: float = 5.0) -> None:
    """SIGKILL a process and all its descendants and wait until none runs; one that is gone already is in order.

    Reaps nothing: the exit status of a child stays with its Popen.
    """
    family: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        family = [*root.children(recursive=True), root]
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until(lambda: not any(is_alive(each.pid) for each in family), f"end of process {pid}", timeout=timeout)

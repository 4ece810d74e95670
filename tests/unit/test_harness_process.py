"""Children with homes of their own, Unix sockets, metrics pages; and the editing traces."""

from __future__ import annotations

import heapq
import inspect
import itertools
import json
import os
import sys
from pathlib import Path

import pytest

from tests.harness.process import (
    Child,
    Metrics,
    engine_pids,
    free_tcp_port,
    http_over_unix,
    is_alive,
    isolated_env,
    kill_tree,
    read_metrics,
    run_module,
    temporary_home,
    wait_for_health,
    wait_for_socket,
    wait_until,
)
from tests.harness.traces import browse_trace, typing_trace

# Serves /health, /metrics and an echo of POSTs on the Unix socket of its first argument.
SERVICE = """
import http.server, socketserver, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def address_string(self):
        return "unix"
    def answer(self, body):
        self.send_response(200 if self.path != "/missing" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(b'# TYPE calls counter\\ncalls_total{kind="a"} 2\\ncalls_total{kind="b"} 3\\n')
    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

print("serving", flush=True)
socketserver.UnixStreamServer(sys.argv[1], Handler).serve_forever()
"""


def test_a_service_on_a_unix_socket() -> None:
    with temporary_home() as home:
        path = home / "run" / "engine.sock"
        path.parent.mkdir()
        assert len(str(path)) < 104
        with Child([sys.executable, "-c", SERVICE, str(path)], env=isolated_env(home)) as child:
            wait_for_socket(path, timeout=10, child=child)
            wait_for_health(path, timeout=10, child=child)
            reply = http_over_unix(path, "/x", body={"a": [1]})
            assert reply.status == 200
            assert reply.json() == {"a": [1]}
            assert http_over_unix(path, "/missing").status == 404
            metrics = read_metrics(path)
            assert metrics.value("calls_total") == 5
            assert metrics.value("calls_total", kind="b") == 3
            (home / "run" / "a.json").write_text(json.dumps({"pid": child.pid}))
            (home / "run" / "stale.json").write_text(json.dumps({"pid": os.getpid()}))  # a stranger's pid by now
            assert engine_pids(home) == [child.pid]
            assert "serving" in child.output()
        assert not is_alive(child.pid)
        assert engine_pids(home) == []
    assert not home.exists()


def test_a_child_that_ends_too_early_is_named_with_its_output(tmp_path: Path) -> None:
    with (
        Child([sys.executable, "-c", "print('no model'); raise SystemExit(4)"], env=os.environ) as child,
        pytest.raises(AssertionError, match=r"(?s)the child ended with 4.*no model"),
    ):
        wait_for_socket(tmp_path / "never.sock", child=child)


def test_a_module_runs_in_its_own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STARFILL_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    code = "import os, sys; print(os.environ['STARFILL_HOME'], os.environ.get('STARFILL_TOKEN'), sys.stdin.read())"
    (tmp_path / "probe.py").write_text(code)
    done = run_module("timeit", "-n1", "-r1", "-s", code, home=tmp_path, stdin="hello")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"{tmp_path} None hello"


def test_a_tree_is_killed_whole() -> None:
    script = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    with Child([sys.executable, "-c", script], env=os.environ) as child:
        wait_until(lambda: child.output().endswith("\n"), "pid of the grandchild", timeout=10, child=child)
        grandchild = int(child.output())
        kill_tree(child.pid)
        assert not is_alive(grandchild)
        kill_tree(child.pid)


def test_metrics_that_are_not_there_are_an_assertion() -> None:
    with pytest.raises(AssertionError, match="no sample missing"):
        Metrics("a 1\n").value("missing")
    assert 1024 <= free_tcp_port() <= 65535


def test_traces_are_texts_that_an_editor_could_have_sent() -> None:
    source = inspect.getsource(heapq)
    typed = list(typing_trace(source, seed=7))
    assert typed == list(typing_trace(source, seed=7))
    assert typed != list(typing_trace(source, seed=8))
    assert {"jump", "char", "newline", "autoclose", "overtype"} <= {event.kind for event in typed}
    ends = [before for before, event in itertools.pairwise(typed) if event.kind == "jump"] + typed[-1:]
    assert [event.prefix + event.suffix for event in ends] == [source] * 3
    walked = list(browse_trace(source, touches=20))
    assert sum(event.kind == "walk" for event in walked) == 20
    for event in walked:
        assert event.prefix + event.want + event.suffix == source

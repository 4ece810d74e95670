"""Editors end their servers politely, by a signal, or both at once. What was counted is written down each time."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.harness.process import ROOT, isolated_env, module_argv, temporary_home, wait_until
from tests.harness.session_inside import frame

SUMMARY = "own share of the time to the first text: 0 requests"

INITIALIZE = {"id": 1, "method": "initialize", "params": {"processId": None, "rootUri": None, "capabilities": {}}}


def messages(log: Path) -> list[str]:
    return [json.loads(line)["message"] for line in log.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("way", ["SIGTERM", "SIGHUP", "end of input", "shutdown and SIGKILL"])
def test_the_log_ends_with_the_sum(way: str, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with temporary_home() as home:
        # An engine that nobody answers for: none is started.
        argv = module_argv("lsp_server", "lsp", "--engine", f"unix:{home}/none.sock", "--log-file", str(log))
        server = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=isolated_env(home), cwd=ROOT, bufsize=0
        )
        try:
            assert server.stdin is not None
            assert server.stdout is not None
            server.stdin.write(frame({"jsonrpc": "2.0", **INITIALIZE}))
            assert server.stdout.read(16).startswith(b"Content-Length:")
            server.stdin.write(frame({"jsonrpc": "2.0", "method": "initialized", "params": {}}))
            status = {"jsonrpc": "2.0", "id": 2, "method": "workspace/executeCommand"}
            server.stdin.write(frame({**status, "params": {"command": "starfill.status"}}))
            received = b""
            while b"latency" not in received:  # the session is open by now
                received += server.stdout.read(4096)
            if way.startswith("SIG"):
                server.send_signal(getattr(signal, way))
            elif way == "end of input":
                server.stdin.close()
            else:
                server.stdin.write(frame({"jsonrpc": "2.0", "id": 3, "method": "shutdown"}))
                wait_until(lambda: any(said.startswith(SUMMARY) for said in messages(log)), "the sum", timeout=30)
                server.kill()
            assert server.wait(30) == (-signal.SIGKILL if "SIGKILL" in way else 0)
        finally:
            server.kill()
            server.wait(30)
            for pipe in (server.stdin, server.stdout):
                if pipe is not None:
                    pipe.close()
    assert [said.startswith(SUMMARY) for said in messages(log)].count(True) == 1

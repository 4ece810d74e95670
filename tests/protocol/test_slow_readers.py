"""Readers who stop reading, over a real socket: the model stops for them, others are served, and nothing is left behind."""

from __future__ import annotations

import json
import socket as sockets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.harness.process import (
    Child,
    http_over_unix,
    read_metrics,
    wait_until,
)
from tests.harness.served import scripted_engine

SCRIPT = "value = compute(first, second, third)\n" * 250


@dataclass(frozen=True, slots=True)
class Engine:
    child: Child
    socket: Path

    def count(self, name: str) -> float:
        return read_metrics(self.socket).value(f"starfill_{name}")

    def still(self, name: str) -> float:
        """Wait until a count stands still, and return it."""
        while True:
            before = self.count(name)
            time.sleep(0.3)
            if self.count(name) == before:
                return before

    def request(self, **fields: Any) -> sockets.socket:
        """Send a streaming request and read nothing."""
        body = json.dumps({"prompt": "x", "stream": True} | fields).encode()
        peer = sockets.socket(sockets.AF_UNIX)
        peer.settimeout(30)
        peer.connect(str(self.socket))
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        peer.sendall(head.encode() + body)
        return peer


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with scripted_engine(SCRIPT) as served:
        yield Engine(served.child, served.socket)


TOO_MUCH = {"max_tokens": 1_500, "n": 3, "temperature": 1.0, "seed": 1, "logprobs": 0, "return_token_ids": True}
"""More events than a socket's buffers hold."""


def test_one_who_does_not_read_costs_no_passes_and_holds_up_nobody(engine: Engine) -> None:
    peer = engine.request(**TOO_MUCH)
    try:
        wait_until(lambda: engine.count("running") >= 1, "a running request", timeout=20)
        passes = engine.still("forward_calls_total")
        assert engine.count("running") >= 1, "it did not fit into the buffers"
        assert passes < 1_500
        for _ in range(3):
            body = {"prompt": "y", "max_tokens": 4, "temperature": 0}
            reply = http_over_unix(engine.socket, "/v1/completions", body=body, timeout=20)
            assert reply.status == 200
        assert engine.count("forward_calls_total") <= passes + 3 * 4 + 4
    finally:
        peer.close()
    wait_until(lambda: engine.count("slots_held") == 0, "its slots back", timeout=10)


def test_one_who_reads_late_gets_everything(engine: Engine) -> None:
    peer = engine.request(**TOO_MUCH)
    engine.still("forward_calls_total")
    data = b""
    while b"[DONE]" not in data[-100:]:
        piece = peer.recv(1 << 16)
        assert piece
        data += piece
    peer.close()
    chunks = [json.loads(line[6:]) for line in data.decode().splitlines() if line.startswith("data: {")]
    for index in range(3):
        own = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert sum(len(each["token_ids"]) for each in own) == 1_500
        assert own[-1]["finish_reason"] == "length"
    assert engine.count("slots_held") == 0

"""A language server that does wrong on demand, to prove that `FakeEditor` notices. Run as a script, with an encoding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any


def read() -> dict[str, Any]:
    """The next message; the end of stdin is the end of the process."""
    length = 0
    while (line := sys.stdin.buffer.readline()) not in (b"\r\n", b""):
        length = int(line.split(b":")[1])
    if not length:
        os._exit(0)
    message: dict[str, Any] = json.loads(sys.stdin.buffer.read(length))
    return message


def write(data: bytes) -> None:
    """Write bytes at once."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def send(**message: Any) -> None:
    """Send one message."""
    body = json.dumps({"jsonrpc": "2.0", **message}).encode()
    write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))


def progress(token: str, value: Any) -> None:
    """Send one `$/progress`."""
    send(method="$/progress", params={"token": token, "value": value})


def serve(message_id: Any, method: str, params: Any) -> None:
    """Do what the method's name says."""
    match method:
        case "initialize":
            sync = {"save": {"includeText": True}}
            send(id=message_id, result={"capabilities": {"positionEncoding": sys.argv[1], "textDocumentSync": sync}})
        case "shutdown":
            send(id=message_id, result=None)
        case "exit":
            os._exit(0)
        case "echo" | "workspace/executeCommand":
            send(id=message_id, result=params)
        case "twice":
            send(id=message_id, result=1)
            send(id=message_id, result=1)
        case "stranger":
            send(id=message_id, result=1)
            send(id=str(message_id), result=1)
        case "chatter":
            send(method="window/showMessage", params={"type": 1, "message": "psst"})
            send(id=message_id, result=1)
        case "fail":
            send(id=message_id, error={"code": -32800, "message": "cancelled", "data": {"why": "test"}})
        case "both":
            send(id=message_id, result=1, error={"code": 1, "message": "m"})
        case "die":
            print("last words", file=sys.stderr, flush=True)
            os.close(1)  # a process ends some time after its output
            time.sleep(0.3)
            os._exit(3)
        case "junk":
            write(b"print() debugging\n")
        case "half":
            write(b"Content-Length: 100\r\n\r\n" + b"{} half")
            time.sleep(60 if params["then"] == "wait" else 0.3)
            os._exit(0)
        case "stream":
            for value in ([1], [2], [3]):
                progress(params["partialResultToken"], value)
                time.sleep(0.01)
            send(id=message_id, result=[])
        case "late":
            send(id=message_id, result=[])
            progress(params["partialResultToken"], [1])
        case "loading":
            send(id="load", method="window/workDoneProgress/create", params={"token": "t"})
            read()
            for kind in params["values"]:
                progress("t", {"kind": kind})
            send(id=message_id, result=1)
        case "ask":
            send(id="ask", method=params["method"], params={"items": [{"section": "a"}, {"section": "b"}]})
            send(id=message_id, result=read())
        case "orphan":
            child = subprocess.Popen(["sleep", "20"], stderr=subprocess.DEVNULL)
            send(id=message_id, result=child.pid)
        case "large":
            send(id=message_id, result="x" * params["size"])


if __name__ == "__main__":
    while True:
        received = read()
        serve(received.get("id"), received.get("method", ""), received.get("params") or {})

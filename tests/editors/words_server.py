"""A language server that knows two words. What Helix shows of it tells whether another server holds it up."""

from __future__ import annotations

import json
import sys
from typing import Any

WORDS = ("path_known", "path_other")


def read() -> dict[str, Any]:
    """The next message; the end of stdin is the end of the process."""
    length = 0
    while (line := sys.stdin.buffer.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    if not length:
        raise SystemExit(0)
    message: dict[str, Any] = json.loads(sys.stdin.buffer.read(length))
    return message


def answer(message: dict[str, Any]) -> Any:
    """The result of a request."""
    if message["method"] == "initialize":
        return {"capabilities": {"textDocumentSync": 1, "completionProvider": {}}}
    if message["method"] == "textDocument/completion":
        return [{"label": word} for word in WORDS]
    return None


def main() -> None:
    """Answer until the client goes."""
    while True:
        message = read()
        if "id" in message and "method" in message:
            body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": answer(message)}).encode()
            sys.stdout.buffer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            sys.stdout.buffer.flush()
        elif message.get("method") == "exit":
            return


if __name__ == "__main__":
    main()

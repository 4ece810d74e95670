"""What stands before pygls: framing and its limits, the ledger of request ids, one reply each, raw params.

Holds no document state and decides nothing about completions.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from lsp_server.params import fault_of

log = logging.getLogger(__name__)

MAX_MESSAGE = 64 * 2**20
"""Bytes of one message; a larger one is refused and skipped."""

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
INTERNAL_ERROR, NOT_INITIALIZED = -32603, -32002

_LENGTH = re.compile(rb"(?<!-)content-length:[ \t]*(\d{1,20})[ \t]*\r?\n", re.IGNORECASE)
_HEADER_LINES = re.compile(rb"(?:[\w-]+:[^\n]*\n)*")
_HEADERS_END = re.compile(rb"\r?\n\r?\n")
_MAX_HEADERS = 4_096
_JUNK = "no message: headers with a Content-Length are expected"

RequestId = int | str


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error that the gate answers by itself. `id` is None when the message had none that could be read."""

    id: RequestId | None
    code: int
    message: str

    def encoded(self) -> bytes:
        """The reply, framed."""
        return encode({"jsonrpc": "2.0", "id": self.id, "error": {"code": self.code, "message": self.message}})


class Framer:
    """Bytes to message bodies. After junk, refused once, it finds the next header by itself.

    No JSON text holds a bare line end inside a string, so that a header can be told from the text of a skipped message.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._length: int | None = None
        self._refused = False  # what is skipped now was refused already

    def feed(self, data: bytes) -> Iterator[bytes | Refusal]:
        """Bodies that are complete now, and a Refusal for each stretch of what cannot be one."""
        self._data += data
        while True:
            if self._length is None and not (yield from self._header()):
                return
            if self._length is None:
                continue
            if len(self._data) < self._length:
                return
            body = bytes(self._data[: self._length])
            del self._data[: self._length]
            self._length = None
            yield body

    def _header(self) -> Generator[Refusal, None, bool]:
        """Take one header block, or junk, off the data -> (through `yield from`) whether there was one."""
        match = _LENGTH.search(self._data)
        end = _HEADERS_END.search(self._data, match.end() - 2 if match else 0)
        if match is None or end is None:
            if match is None and end is not None:
                yield from self._skip(end.end(), _JUNK)
                return True
            start = match.start() if match is not None else 0
            if len(self._data) - start <= _MAX_HEADERS:
                return False
            # Junk, but for what may be the start of a header.
            yield from self._skip(match.end() if match is not None else len(self._data) - 64, _JUNK)
            return match is not None
        if not _HEADER_LINES.fullmatch(self._data, 0, match.start()):
            yield from self._skip(0, _JUNK)
        lengths = {int(digits) for digits in _LENGTH.findall(self._data, match.start(), end.end())}
        if len(lengths) > 1:
            yield from self._skip(end.end(), "two values of Content-Length in one header")
        elif max(lengths) > MAX_MESSAGE:
            yield from self._skip(end.end(), f"a message may have {MAX_MESSAGE} bytes", INVALID_REQUEST)
        else:
            del self._data[: end.end()]
            self._length, self._refused = max(lengths), False
        return True

    def _skip(self, count: int, reason: str, code: int = PARSE_ERROR) -> Iterator[Refusal]:
        del self._data[:count]
        if not self._refused:
            self._refused = True
            yield Refusal(None, code, reason)


@dataclass(slots=True)
class Ledger:
    """Which requests are open, the client's and ours. Every id that passes gets exactly one reply."""

    initialized: bool = False
    shut_down: bool = False
    _greeted: bool = False
    _open: dict[RequestId, tuple[str, Any]] = field(default_factory=dict)  # method and params
    _asked: set[RequestId] = field(default_factory=set)

    def admit(self, body: bytes) -> dict[str, Any] | Refusal | None:
        """A message that may go on to pygls, an error to answer, or None for what is to be ignored.

        What goes on has the fields of its kind and no others, `params` always.
        """
        try:
            # Half a surrogate pair in raw bytes is passed on: some editors hold such text, and buffers can.
            message = _DECODER.decode(body.decode("utf-8", "surrogatepass").removeprefix("\ufeff"))
        except (ValueError, RecursionError):
            return Refusal(None, PARSE_ERROR, "not JSON in UTF-8")
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            return Refusal(_id_of(message), INVALID_REQUEST, "not a JSON-RPC 2.0 message")
        if "method" not in message:
            return self._admit_reply(message)
        method, params, request_id = message["method"], message.get("params"), _id_of(message)
        if not isinstance(method, str) or ("id" in message and request_id is None):
            return Refusal(request_id, INVALID_REQUEST, "method must be a string and id a string or a whole number")
        if not isinstance(params, dict | list | None):
            return Refusal(request_id, INVALID_REQUEST, "params must be an object") if request_id is not None else None
        if request_id is None:
            return {"jsonrpc": "2.0", "method": method, "params": params} if self._hears(method, params) else None
        return self._admit_request(method, params, request_id)

    def _hears(self, method: str, params: Any) -> bool:
        """Whether a notification may pass."""
        if method == "$/cancelRequest" and not (isinstance(params, dict) and _id_of(params) in self._open):
            return False  # answered already, or never asked
        if not self.initialized or self.shut_down:
            return method == "exit"
        if method == "initialized":
            self._greeted, greeted = True, self._greeted
            return not greeted
        return fault_of(method, params) is None

    def _admit_request(self, method: str, params: Any, request_id: RequestId) -> dict[str, Any] | Refusal:
        if request_id in self._open:
            return Refusal(request_id, INVALID_REQUEST, "this id belongs to a request that is still open")
        if self.shut_down:
            return Refusal(request_id, INVALID_REQUEST, "the server was shut down")
        if method == "initialize":
            if self.initialized:
                return Refusal(request_id, INVALID_REQUEST, "initialize may be sent once")
            self.initialized = True
        elif not self.initialized:
            return Refusal(request_id, NOT_INITIALIZED, "initialize first")
        if (fault := fault_of(method, params)) is not None:
            return Refusal(request_id, INVALID_PARAMS, fault)
        self.shut_down = method == "shutdown"
        self._open[request_id] = (method, params)
        return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}

    def _admit_reply(self, message: dict[str, Any]) -> dict[str, Any] | Refusal | None:
        """A client's answer to a request of ours; an answer to anything else is ignored."""
        request_id = _id_of(message)
        if "result" not in message and "error" not in message:
            return Refusal(request_id, INVALID_REQUEST, "neither a request nor a reply")
        if request_id is None or request_id not in self._asked:
            return None
        self._asked.discard(request_id)
        error = message.get("error")
        if error is None:
            return {"jsonrpc": "2.0", "id": request_id, "result": message.get("result")}
        return failed_reply(request_id, error)

    @property
    def busy(self) -> bool:
        """Whether any request of the client's has no reply yet."""
        return bool(self._open)

    def is_open(self, request_id: RequestId) -> bool:
        """Whether this request of the client's has no reply yet."""
        return request_id in self._open

    def ask(self, request_id: RequestId) -> None:
        """A request of ours goes out: one reply with this id may come in."""
        self._asked.add(request_id)

    def params(self, request_id: RequestId | None) -> dict[str, Any]:
        """An open request's params as the client sent them, with the fields that typed ones drop."""
        _, params = self._open.get(request_id, ("", None)) if request_id is not None else ("", None)
        return params if isinstance(params, dict) else {}

    def settle(self, request_id: RequestId, *, failed: bool = False) -> bool:
        """A reply is about to be written -> whether it is the first one for an open request."""
        if request_id not in self._open:
            log.error("a second reply to one request was held back")
            return False
        method, _ = self._open.pop(request_id)
        if failed and method == "initialize":
            self.initialized = False  # it may be sent again
        return True


def failed_reply(request_id: RequestId, error: Any = None) -> dict[str, Any]:
    """A client's error in the form that pygls takes, whatever the client made of it: somebody waits for it."""
    code, text = (error.get("code"), error.get("message")) if isinstance(error, dict) else (None, None)
    sound = type(code) is int and isinstance(text, str)
    fields = {"code": code, "message": text} if sound else {"code": INTERNAL_ERROR, "message": "not a proper reply"}
    return {"jsonrpc": "2.0", "id": request_id, "error": fields}


def _id_of(message: Any) -> RequestId | None:
    value = message.get("id") if isinstance(message, dict) else None
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def encode(message: dict[str, Any]) -> bytes:
    """A message with its header."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)

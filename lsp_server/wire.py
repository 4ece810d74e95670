"""What the engine is sent for a call: bytes, made without the wire's own types, whose library is slow to import.

The text around the cursor's line is serialised once for all calls that send the same.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

from lsp_server.state.call import Call, Purpose
from lsp_server.window import Window

SAMPLING = {"temperature": 0.8, "top_p": 0.95, "seed": 1}
"""How alternatives differ from the completion itself, which is greedy."""

_MAX_NAMES = 1_024


class Wire:
    """Serialises calls. Documents get opaque names, unlike those of any other server's."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.requests = 0
        self.bytes = 0
        self._nonce = secrets.token_hex(8)
        self._names: dict[str, str] = {}
        self._above, self._suffix = _Serialised(), _Serialised()

    def encode(self, call: Call) -> bytes:
        """The body of a completion request."""
        fields: dict[str, Any] = {"max_tokens": self.max_tokens, "temperature": 0, "logprobs": 0}
        if call.purpose is Purpose.PRIME:
            fields = {"max_tokens": 0, "temperature": 0}
        elif call.purpose is Purpose.SAMPLE:
            fields |= {"n": call.candidates, **SAMPLING}
        fields |= {"stream": True, "stream_options": {"include_usage": True}, "starfill": self._extension(call)}
        body = b"{%s,%s" % (self._text(call.window), _json(fields)[1:])
        self.requests += 1
        self.bytes += len(body)
        return body

    def forget(self, document: str) -> None:
        """A document was closed; opened again it is another one."""
        self._names.pop(document, None)

    def _text(self, window: Window) -> bytes:
        line = window.prefix.rfind("\n") + 1
        above, begun = self._above.of(window.prefix[:line]), _Serialised().of(window.prefix[line:])
        return b'"prompt":%s%s,"suffix":%s' % (above[:-1], begun[1:], self._suffix.of(window.suffix))

    def _extension(self, call: Call) -> dict[str, Any]:
        around = call.surroundings
        named = {"path": around.path, "repository": around.repository, "language": around.language}
        extension: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
        extension["document"] = self._name(call.document)
        if around.context:
            extension["context"] = [{"path": path, "text": text} for path, text in around.context]
        return extension

    def _name(self, document: str) -> str:
        if document not in self._names:
            if len(self._names) >= _MAX_NAMES:
                del self._names[next(iter(self._names))]
            self._names[document] = f"{self._nonce}-{secrets.token_hex(4)}"
        return self._names[document]


class _Serialised:
    """A text as JSON, made again only if it is another than the last one: typing changes little of what is sent."""

    def __init__(self) -> None:
        self._text, self._json = "", b'""'

    def of(self, text: str) -> bytes:
        """The text with its quotes. Windows hold no half surrogate pairs."""
        if text != self._text:
            from pydantic_core import to_json  # a tenth of what `json` takes

            self._text, self._json = text, to_json(text)
        return self._json


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()

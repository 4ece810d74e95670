"""Deltas of a generation to OpenAI's completion objects, whole or chunk by chunk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from engine.api import CompletionRequest, usage
from engine.generation import Delta, Finish, Token
from engine.intake import Admitted


class Answer:
    """Builds the wire objects of one request. Greedy candidates are all alike, so one generation serves them all."""

    def __init__(self, request: CompletionRequest, admitted: Admitted, model: str, created: int) -> None:
        self._request = request
        self._admitted = admitted
        self._head = {
            "id": f"cmpl-{admitted.generation.id}",
            "object": "text_completion",
            "created": created,
            "model": model,
        }
        self._text = ""
        self._tokens: list[Token] = []
        self._finish: Finish | None = None
        self._reported = False

    def add(self, delta: Delta) -> None:
        """Collect a delta for `whole`."""
        self._text += delta.text
        self._tokens.extend(delta.tokens)
        self._finish = delta.finish

    def whole(self) -> dict[str, Any]:
        """The response of a request that does not stream."""
        choices = [self._choice(n, self._text, self._tokens, self._finish, 0) for n in range(self._request.n or 1)]
        return self._head | {"choices": choices, "usage": self._usage(), "starfill": self._extension()}

    def chunks(self, delta: Delta) -> Iterator[bytes]:
        """Server-sent events for one delta, the usage and `[DONE]` after the last."""
        offset = len(self._text)
        self.add(delta)
        with_usage = self._request.stream_options is not None and self._request.stream_options.include_usage
        for n in range(self._request.n or 1):
            chunk = self._head | {"choices": [self._choice(n, delta.text, delta.tokens, delta.finish, offset)]}
            if with_usage:
                chunk["usage"] = None
            if not self._reported:
                self._reported = True
                chunk["starfill"] = self._extension()
            yield event(chunk)
        if delta.finish is not None:
            if with_usage:
                yield event(self._head | {"choices": [], "usage": self._usage()})
            yield DONE

    def _choice(
        self, index: int, text: str, tokens: list[Token] | tuple[Token, ...], finish: Finish | None, offset: int
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "text": text, "logprobs": None, "finish_reason": finish}
        if self._request.logprobs is not None:
            choice["logprobs"] = _logprobs(tokens, offset, self._request.logprobs)
        if self._request.return_token_ids:
            choice["token_ids"] = [token.id for token in tokens]
        return choice

    def _usage(self) -> dict[str, Any]:
        generation = self._admitted.generation
        return usage(len(generation.prompt), len(self._tokens) * (self._request.n or 1), generation.reused)

    def _extension(self) -> dict[str, Any]:
        generation = self._admitted.generation
        return {
            "layout": self._admitted.layout,
            "cached": generation.reused,
            "computed": len(generation.prompt) - generation.reused,
            "healed": self._admitted.healed,
        }


DONE = b"data: [DONE]\n\n"


def event(data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def _logprobs(tokens: list[Token] | tuple[Token, ...], offset: int, top: int) -> dict[str, Any]:
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [token.label for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [dict(token.top) for token in tokens] if top else None,
        "text_offset": offsets,
    }

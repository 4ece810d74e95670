"""Deltas of a generation to OpenAI's completion objects, whole or chunk by chunk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from engine.api import CompletionRequest, usage
from engine.generation import Delta, Finish, Token
from engine.intake import Admitted


@dataclass(slots=True)
class _Said:
    """What one candidate has said so far."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    offset: int = 0
    """Characters that the tokens make: the text lags behind them while a stop string is incomplete."""
    finish: Finish | None = None


class Answer:
    """Builds the wire objects of one request. Candidates that cannot differ come from one generation."""

    def __init__(self, request: CompletionRequest, admitted: Admitted, model: str, created: int) -> None:
        self._request = request
        self._admitted = admitted
        self._head = {
            "id": f"cmpl-{admitted.generation.id}",
            "object": "text_completion",
            "created": created,
            "model": model,
        }
        self._said = [_Said() for _ in admitted.candidates]
        self._choices = request.n or 1
        self._reported = False

    @property
    def complete(self) -> bool:
        """Whether every candidate has ended."""
        return all(said.finish is not None for said in self._said)

    @property
    def finish(self) -> Finish | None:
        """Why the first candidate ended."""
        return self._said[0].finish

    def add(self, candidate: int, delta: Delta) -> None:
        """Collect a candidate's delta for `whole`."""
        said = self._said[candidate]
        said.text += delta.text
        said.tokens.extend(delta.tokens)
        said.offset += sum(len(token.text) for token in delta.tokens)
        said.finish = delta.finish

    def whole(self) -> dict[str, Any]:
        """The response of a request that does not stream."""
        choices = []
        for index in range(self._choices):
            said = self._said[index % len(self._said)]
            choices.append(self._choice(index, said.text, said.tokens, said.finish, 0))
        return self._head | {"choices": choices, "usage": self._usage(), "starfill": self._extension()}

    def chunks(self, candidate: int, delta: Delta) -> Iterator[bytes]:
        """Server-sent events for one delta of a candidate, the usage and `[DONE]` after the last of all."""
        offset = self._said[candidate].offset
        self.add(candidate, delta)
        with_usage = self._request.stream_options is not None and self._request.stream_options.include_usage
        for index in range(candidate, self._choices, len(self._said)):
            chunk = self._head | {"choices": [self._choice(index, delta.text, delta.tokens, delta.finish, offset)]}
            if with_usage:
                chunk["usage"] = None
            if not self._reported:
                self._reported = True
                chunk["starfill"] = self._extension()
            yield event(chunk)
        if self.complete:
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
        generated = sum(len(said.tokens) for said in self._said) * self._choices // len(self._said)
        return usage(len(generation.prompt), generated, generation.reused)

    def _extension(self) -> dict[str, Any]:
        generation = self._admitted.generation
        return {
            "layout": self._admitted.layout,
            "cached": generation.reused,
            "computed": len(generation.prompt) - generation.reused - generation.skipped,
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

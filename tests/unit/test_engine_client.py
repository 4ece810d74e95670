"""What other servers stream, in their own manner: read, or refused with an error of the family."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from engine.client import Chunk, EngineClient
from engine.errors import EngineRefused, EngineUnavailable, RequestError
from tests.harness.aio import async_test


def event(said: Any) -> bytes:
    return b"data: " + json.dumps(said, ensure_ascii=False).encode() + b"\n\n"


END = event({"choices": [{"index": 0, "text": "b", "finish_reason": "stop"}]}) + b"data: [DONE]\n\n"


async def streamed(payload: bytes, status: str = "200 OK", kind: str = "text/event-stream") -> list[Chunk]:
    """What the client makes of a server's answer; it comes in pieces of a few bytes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n".encode())
        for at in range(0, len(payload), 7):
            writer.write(payload[at : at + 7])
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    client = EngineClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        async with client.complete(b'{"prompt": "x"}') as chunks:
            return [chunk async for chunk in chunks]
    finally:
        await client.aclose()
        server.close()


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c"], ids=ascii)
def test_a_line_of_the_stream_ends_at_a_line_feed_alone(sign: str) -> None:
    @async_test()
    async def play() -> None:
        text = event({"choices": [{"index": 0, "text": f"a{sign}b"}]})
        assert [chunk.text for chunk in await streamed(text + END)] == [f"a{sign}b", "b"]

    play()


@pytest.mark.parametrize(
    ("error", "message"),
    [("model crashed", "model crashed"), ({"message": "no memory"}, "no memory"), ({"code": 5}, "the engine failed")],
)
def test_an_error_in_mid_stream_is_the_engines_whatever_its_form(error: Any, message: str) -> None:
    @async_test()
    async def play() -> None:
        with pytest.raises(EngineRefused, match=message):
            await streamed(event({"choices": [{"text": "a"}]}) + event({"error": error}))

    play()


@pytest.mark.parametrize(
    "said",
    [
        {"error": None, "choices": [{"text": "a"}]},
        {"choices": [{"index": None, "text": "a", "logprobs": None, "finish_reason": None}], "usage": []},
        {"choices": [{"text": "a", "logprobs": {"content": [{"token": "a", "logprob": -1}]}}], "id": None},
        {"choices": [{"text": "a", "logprobs": {"token_logprobs": [None]}}], "starfill": "x"},
        {"choices": [{"text": "a", "logprobs": [-1.0]}]},
    ],
)
def test_what_others_leave_out_or_write_otherwise_does_no_harm(said: dict[str, Any]) -> None:
    @async_test()
    async def play() -> None:
        first, last = await streamed(event(said) + END)
        assert (first.index, first.text, first.finish_reason, first.logprobs) == (0, "a", None, ())
        assert (first.usage, first.extension) == (None, None)
        assert (last.text, last.finish_reason) == ("b", "stop")

    play()


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        "text",
        {"choices": "a"},
        {"choices": {"text": "a"}},
        {"choices": [None]},
        {"choices": [{"text": 5}]},
        {"choices": [{"text": "a", "index": "0"}]},
        {"choices": [{"text": "a", "finish_reason": 1}]},
    ],
)
def test_an_event_that_is_none_of_a_completions_is_said_so(said: Any) -> None:
    @async_test()
    async def play() -> None:
        with pytest.raises(EngineUnavailable, match="none of a completion's"):
            await streamed(event(said) + END)

    play()


@pytest.mark.parametrize("data", [b"data: {", b"data: " + b"[" * 100_000])
def test_what_is_no_json_is_said_so(data: bytes) -> None:
    @async_test()
    async def play() -> None:
        with pytest.raises(EngineUnavailable, match="no JSON"):
            await streamed(data + b"\n\n")

    play()


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ({"error": {"message": "no such model", "code": "model_not_found"}}, "no such model", "model_not_found"),
        ({"error": "no such model"}, "no such model", None),
        ({"object": "error", "message": "no such model", "code": 404}, "no such model", None),
        ({"detail": "no such model"}, "no such model", None),
        ({"error": {"message": None, "code": 404}}, "the engine answered HTTP 404", None),
        ([], "the engine answered HTTP 404", None),
    ],
)
def test_a_refusal_says_what_the_server_said(body: Any, message: str, code: str | None) -> None:
    @async_test()
    async def play() -> None:
        with pytest.raises(RequestError) as caught:
            await streamed(json.dumps(body).encode(), "404 Not Found", "application/json")
        assert (str(caught.value), caught.value.code, caught.value.status) == (message, code, 404)

    play()

"""A POST over a Unix socket: what the far end may send, in whatever pieces, and what becomes of one that does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.errors import EngineAbsent, EngineSilent, EngineUnavailable
from engine.local import Answer, posted
from tests.harness.aio import async_test

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Headers and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    return head, await reader.readexactly(length)


@asynccontextmanager
async def answering(path: Path, handler: Handler, *, silence: float = 5.0) -> AsyncIterator[Answer]:
    """Ask a server that does as told."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_unix_server(handle, path)
    try:
        async with posted(str(path), "/v1/x", b'{"a": 1}', "secret", connect=5.0, silence=silence) as answer:
            yield answer
    finally:
        server.close()


def saying(*pieces: bytes) -> Handler:
    """A server that reads the request and writes these pieces, one by one."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    return handle


@async_test()
async def test_what_is_sent_is_one_whole_request(tmp_path: Path) -> None:
    seen: list[tuple[bytes, bytes]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with answering(tmp_path / "s", handle) as answer:
        assert answer.status == 204
        assert [data async for data in answer.body()] == []
    ((head, body),) = seen
    assert head.startswith(b"POST /v1/x HTTP/1.1\r\n")
    assert b"authorization: bearer secret\r\n" in head.lower()
    assert b"connection: close\r\n" in head.lower()
    assert body == b'{"a": 1}'


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_lines_are_whole_in_whatever_pieces_they_come(size: int, tmp_path: Path) -> None:
    text = "data: é\n\ndata: 😀 two\r\ndata: [DONE]".encode()
    whole = HEAD + b"".join(chunk(text[at : at + 5]) for at in range(0, len(text), 5)) + chunk(b"")

    @async_test()
    async def play() -> None:
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        async with answering(tmp_path / "s", saying(*pieces)) as answer:
            lines = [line async for line in answer.lines()]
        assert lines == ["data: é", "", "data: 😀 two\r", "data: [DONE]"]

    play()


@async_test()
async def test_a_line_comes_before_the_next_is_there(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + chunk(b"one\n"))
        await go_on.wait()
        writer.write(chunk(b"two\n") + chunk(b""))

    async with answering(tmp_path / "s", handle) as answer:
        lines = answer.lines()
        assert await anext(lines) == "one"
        go_on.set()
        assert [line async for line in lines] == ["two"]


@async_test()
async def test_leaving_closes_the_connection(tmp_path: Path) -> None:
    closed = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(HEAD + chunk(b"one\n"))
        if await reader.read() == b"":
            closed.set()

    async with answering(tmp_path / "s", handle) as answer:
        assert await anext(answer.lines()) == "one"
        assert not closed.is_set()
    await asyncio.wait_for(closed.wait(), 5)


@pytest.mark.parametrize(
    "said",
    [b"", b"HTTP/1.1 200", b"no HTTP at all\r\n\r\n", HEAD, HEAD + b"5\r\nab", HEAD + b"x\r\n"],
    ids=["nothing", "half a status", "junk", "no body", "half a chunk", "no length"],
)
def test_what_breaks_off_or_is_no_answer_is_said_so(said: bytes, tmp_path: Path) -> None:
    @async_test()
    async def play() -> None:
        with pytest.raises(EngineUnavailable, match="the connection to the engine broke"):
            async with answering(tmp_path / "s", saying(said)) as answer:
                async for _ in answer.body():
                    pass

    play()


@async_test()
async def test_nobody_there_and_somebody_who_says_nothing(tmp_path: Path) -> None:
    with pytest.raises(EngineAbsent):
        async with posted(str(tmp_path / "none"), "/", b"", None, connect=1.0, silence=1.0):
            pass
    hangs = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await hangs.wait()

    with pytest.raises(EngineSilent, match=r"0\.05 s"):
        async with answering(tmp_path / "s", handle, silence=0.05):
            pass
    hangs.set()


@async_test()
async def test_an_error_of_the_one_who_reads_is_his_own(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="mine"):
        async with answering(tmp_path / "s", saying(HEAD, chunk(b""))):
            raise OSError("mine")

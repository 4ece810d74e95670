"""One POST over a Unix socket, whose answer streams: h11 for the protocol, asyncio for the bytes.

The engine on this machine is asked at every pause of every author, and what asking costs is a good part of what the language
server itself takes from a key to the text. This costs half of what a client for all of HTTP does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import h11

from engine.errors import EngineAbsent, EngineSilent, EngineUnavailable

_READ = 2**16


class Answer:
    """An answer whose status has arrived. `silence`: seconds without a byte after which EngineSilent is raised, if any."""

    def __init__(self, reader: asyncio.StreamReader, connection: h11.Connection, silence: float | None) -> None:
        self.status = 0
        self._reader = reader
        self._connection = connection
        self._silence = silence

    async def begin(self) -> None:
        """Wait for the status."""
        event = await self._next()
        if not isinstance(event, h11.Response):
            raise _broken("no answer")
        self.status = event.status_code

    async def body(self) -> AsyncIterator[bytes]:
        """The body, as it comes in; raises EngineUnavailable when it breaks off."""
        while not isinstance(event := await self._next(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise _broken("no end")
            yield bytes(event.data)

    def lines(self) -> AsyncIterator[str]:
        """Its lines, each as soon as it is whole."""
        return lines_of(self.body())

    async def _next(self) -> h11.Event:
        try:
            while (event := self._connection.next_event()) is h11.NEED_DATA:
                async with asyncio.timeout(self._silence):
                    self._connection.receive_data(await self._reader.read(_READ))
        except TimeoutError as error:
            raise _silent(self._silence or 0) from error
        except (OSError, h11.RemoteProtocolError) as error:
            raise _broken(type(error).__name__) from error
        if isinstance(event, h11.InformationalResponse):
            return await self._next()
        if not isinstance(event, h11.Event):
            raise _broken("paused")
        return event


async def lines_of(body: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """The lines of a body, each as soon as it is whole. They end at line feeds alone: JSON may hold Unicode's other ends."""
    rest = b""
    async for data in body:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace")
    if rest:
        yield rest.decode("utf-8", "replace")


@asynccontextmanager
async def posted(
    path: str, target: str, body: bytes, token: str | None, *, connect: float, silence: float | None
) -> AsyncIterator[Answer]:
    """POST JSON. Leaving the block closes the connection, whatever has still to come.

    `connect` and `silence` are in seconds; without `silence` somebody else judges what is too long. Raises EngineAbsent when
    nobody listens, EngineSilent, EngineUnavailable.
    """
    reader, writer = await _connected(path, connect)
    try:
        connection = h11.Connection(h11.CLIENT)
        headers = [("host", "localhost"), ("content-type", "application/json"), ("content-length", str(len(body)))]
        if token:
            headers.append(("authorization", f"Bearer {token}"))
        request = h11.Request(method="POST", target=target, headers=[*headers, ("connection", "close")])
        sent = [connection.send(event) for event in (request, h11.Data(data=body), h11.EndOfMessage())]
        await _send(writer, b"".join(data for data in sent if data), silence)
        answer = Answer(reader, connection, silence)
        await answer.begin()
        yield answer
    finally:
        writer.transport.abort()


async def _connected(path: str, patience: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(patience):
            return await asyncio.open_unix_connection(path)
    except TimeoutError as error:
        raise _silent(patience) from error
    except OSError as error:
        raise EngineAbsent("no engine listens there") from error


async def _send(writer: asyncio.StreamWriter, data: bytes, silence: float | None) -> None:
    writer.write(data)
    try:
        async with asyncio.timeout(silence):
            await writer.drain()
    except TimeoutError as error:
        raise _silent(silence or 0) from error
    except OSError:
        pass  # it may have answered before it closed


def _silent(seconds: float) -> EngineSilent:
    return EngineSilent(f"the engine said nothing for {seconds:g} s")


def _broken(why: str) -> EngineUnavailable:
    return EngineUnavailable(f"the connection to the engine broke ({why})")

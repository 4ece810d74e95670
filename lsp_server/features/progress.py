"""Work done progress that the server begins by itself."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer

_numbers = itertools.count(1)


class WorkDone:
    """One display: it appears when the client has agreed to it, with the latest message, unless it is over by then."""

    def __init__(self, server: LanguageServer) -> None:
        self._server = server
        self._token = f"starfill-{next(_numbers)}"
        self._message = ""
        self._shown = False
        self._over = False
        self._task: asyncio.Task[None] | None = None

    def begin(self, message: str) -> None:
        """See `status.Progress`."""
        self._message = message
        self._task = asyncio.create_task(self._create())

    def report(self, message: str) -> None:
        """See `status.Progress`."""
        self._message = message
        if self._shown:
            self._server.work_done_progress.report(self._token, types.WorkDoneProgressReport(message=message))

    def end(self, message: str) -> None:
        """See `status.Progress`."""
        self._over = True
        if self._shown:
            self._server.work_done_progress.end(self._token, types.WorkDoneProgressEnd(message=message))

    async def _create(self) -> None:
        with suppress(JsonRpcException):
            await self._server.work_done_progress.create_async(self._token)
            if not self._over:
                self._shown = True
                begin = types.WorkDoneProgressBegin(title="starfill", message=self._message)
                self._server.work_done_progress.begin(self._token, begin)

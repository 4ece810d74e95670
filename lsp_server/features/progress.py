"""Work done progress: under a token of ours, or under the client's where it named one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextlib import suppress

from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.server import LanguageServer

_numbers = itertools.count(1)


class WorkDone:
    """One display: it appears when the client has agreed to it, with the latest message, unless it is over by then."""

    def __init__(
        self,
        server: LanguageServer,
        title: str = "starfill",
        *,
        token: str | int | None = None,
        cancel: Callable[[], None] | None = None,
    ) -> None:
        """`token`: the client's own. `cancel` is called when the user wants no more of it."""
        self._server = server
        self._title = title
        self._asked = token is None
        self._token = f"starfill-{next(_numbers)}" if token is None else token
        self._cancel = cancel
        self._message = ""
        self._shown = False
        self._over = False
        self._task: asyncio.Task[None] | None = None

    def begin(self, message: str) -> None:
        """See `status.Progress`."""
        self._message = message
        if self._asked:
            self._task = asyncio.create_task(self._create())
        else:
            self._show()

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
            self._server.work_done_progress.tokens.pop(self._token, None)

    async def _create(self) -> None:
        with suppress(JsonRpcException):
            await self._server.work_done_progress.create_async(self._token)
            if not self._over:
                self._show()

    def _show(self) -> None:
        self._shown = True
        begin = types.WorkDoneProgressBegin(
            title=self._title, message=self._message, cancellable=True if self._cancel is not None else None
        )
        self._server.work_done_progress.begin(self._token, begin)
        if (cancel := self._cancel) is not None:
            ended = self._server.work_done_progress.tokens[self._token]
            ended.add_done_callback(lambda future: cancel() if future.cancelled() else None)

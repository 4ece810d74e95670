"""What a key costs the language server: CPU time from the bytes of an edit and a request to the call of the engine.

`python -m benchmarks.server --out DIR` types in the middle of short and long files, with a scripted engine that answers at
once, and does the same to a minimal server on pygls' own workspace, in turns and in the same process. One thread's CPU time
is counted, so that waiting and other processes are not. Milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from lsprotocol import types
from pygls.io_ import run_async
from pygls.lsp.server import LanguageServer

from benchmarks.report import text_table
from benchmarks.rows import Detail, Row, RowWriter, Run
from benchmarks.timing import Timing
from tests.harness.editor import load_client
from tests.harness.session_inside import InsideSession, QuickEngine, frame

LINES = (5_000, 50_000)
KEYS, ROUND = 600, 50
WARM_UP = 20
CLIENT = "vscode"
URI = "file:///project/module.py"
LINE = "    result = combine(first_value, second_value)\n"
TYPED = "q7_k(x, y)[0] + z; \n    "
SAID = (
    "combine(first_value, second_value)\n    other = result * 2 + len(values)\n    return other, [v for v in values]\n"
)
SIDE = 64 * 2**10


class Subject(Protocol):
    """A server that can be typed into."""

    async def start(self) -> None:
        """Open the file."""
        ...

    async def key(self, key: str) -> float:
        """Type one key and ask -> CPU seconds until the engine was called."""
        ...

    async def aclose(self) -> None:
        """End it."""
        ...


class Typist:
    """The editor's side: what a key sends, and where the cursor is then."""

    def __init__(self, lines: int) -> None:
        self.text = LINE * lines
        self._line, self._character, self._version, self._id = lines // 2, 4, 1, 1

    def greet(self) -> list[dict[str, Any]]:
        """Everything before the first key. The reply to wait for has id 1."""
        document = {"uri": URI, "languageId": "python", "version": 1, "text": self.text}
        client = load_client(CLIENT)
        return [
            {"id": 1, "method": "initialize", "params": {"processId": None, "rootUri": None, **client}},
            {"method": "initialized", "params": {}},
            {"method": "textDocument/didOpen", "params": {"textDocument": document}},
        ]

    def key(self, key: str) -> tuple[int, bytes]:
        """One key -> the request's id, and edit and request as bytes."""
        at = {"line": self._line, "character": self._character}
        self._version += 1
        self._id += 1
        if key == "\n":
            self._line, self._character = self._line + 1, 0
        else:
            self._character += 1
        edit = {
            "textDocument": {"uri": URI, "version": self._version},
            "contentChanges": [{"range": {"start": at, "end": at}, "rangeLength": 0, "text": key}],
        }
        asked = {
            "textDocument": {"uri": URI},
            "position": {"line": self._line, "character": self._character},
            "context": {"triggerKind": 1},
        }
        return self._id, frame(
            {"jsonrpc": "2.0", "method": "textDocument/didChange", "params": edit},
        ) + frame({"jsonrpc": "2.0", "id": self._id, "method": "textDocument/inlineCompletion", "params": asked})


class Starfill:
    """Our gate, loop, buffer and completer."""

    def __init__(self, lines: int) -> None:
        self._called = 0.0
        self._typist = Typist(lines)
        self._session = InsideSession(QuickEngine(SAID, self._on_call))

    def _on_call(self) -> None:
        self._called = self._called or time.thread_time()

    async def start(self) -> None:
        """Open the file."""
        for message in self._typist.greet():
            self._session.send({"jsonrpc": "2.0", **message})
        await self._session.reply(1)

    async def key(self, key: str) -> float:
        request, data = self._typist.key(key)
        self._called = 0.0
        started = time.thread_time()
        self._session.channel.feed(data)
        await self._session.reply(request)
        assert self._called, "the engine was not asked"
        self._session.channel.sent.clear()
        return self._called - started

    async def aclose(self) -> None:
        await self._session.__aexit__()


class BarePygls:
    """pygls' own loop and workspace, and one handler that cuts a window out of its document."""

    def __init__(self, lines: int) -> None:
        self._called = 0.0
        self._typist = Typist(lines)
        self._reader, self._stop, self._replied = asyncio.StreamReader(limit=2**26), Event(), asyncio.Event()
        self._server = LanguageServer("bare", "1")
        self._server.protocol.set_writer(self)
        self._loop: asyncio.Task[None] | None = None

        @self._server.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())
        async def inline(params: types.InlineCompletionParams) -> types.InlineCompletionList:
            document = self._server.workspace.get_text_document(params.text_document.uri)
            at, source = document.offset_at_position(params.position), document.source
            self._ask(source[max(0, at - SIDE) : at], source[at : at + SIDE])
            where = types.Range(params.position, params.position)
            return types.InlineCompletionList([types.InlineCompletionItem(SAID, range=where)])

    def _ask(self, prefix: str, suffix: str) -> None:
        assert prefix
        assert suffix
        self._called = time.thread_time()

    def write(self, data: bytes) -> None:
        """What pygls writes; every message here is a reply."""
        self._replied.set()

    def close(self) -> None:
        """Part of pygls' writer."""

    async def start(self) -> None:
        """Open the file."""
        self._loop = asyncio.create_task(
            run_async(stop_event=self._stop, reader=self._reader, protocol=self._server.protocol)
        )
        self._reader.feed_data(b"".join(frame({"jsonrpc": "2.0", **each}) for each in self._typist.greet()))
        await self._replied.wait()

    async def key(self, key: str) -> float:
        _, data = self._typist.key(key)
        self._replied.clear()
        started = time.thread_time()
        self._reader.feed_data(data)
        await self._replied.wait()
        return self._called - started

    async def aclose(self) -> None:
        self._stop.set()
        self._reader.feed_eof()
        if self._loop is not None:
            await self._loop


SUBJECTS: dict[str, Callable[[int], Subject]] = {"starfill": Starfill, "pygls alone": BarePygls}


async def measure(
    lines: Sequence[int], keys: int, subjects: Mapping[str, Callable[[int], Subject]] = SUBJECTS
) -> dict[tuple[str, int], list[float]]:
    """CPU seconds of each key, by subject and length of file; all take turns."""
    typed = {(name, length): kind(length) for name, kind in subjects.items() for length in lines}
    taken: dict[tuple[str, int], list[float]] = {which: [] for which in typed}
    for subject in typed.values():
        await subject.start()
        for key in TYPED[:WARM_UP]:
            await subject.key(key)
    for begin in range(0, keys, ROUND):
        for which, subject in typed.items():
            taken[which] += [await subject.key(TYPED[n % len(TYPED)]) for n in range(begin, min(keys, begin + ROUND))]
    for subject in typed.values():
        await subject.aclose()
    return taken


def row(run: Run, name: str, lines: int, seconds: Sequence[float]) -> Row:
    """One subject at one length."""
    ms = Timing.of([1_000 * s for s in seconds])
    detail: Detail = {"lines": lines, "bytes": len(LINE) * lines}
    return Row(
        question="CPU per key, bytes read to engine call",
        model="scripted",
        dtype="none",
        measured=True,
        value=round(ms.median, 4),
        unit="ms",
        backend=name,
        detail=detail,
        n=ms.n,
        median=round(ms.median, 4),
        p10=round(ms.p10, 4),
        p90=round(ms.p90, 4),
        **run.shared(),
    )


def main(arguments: Sequence[str]) -> int:
    """Measure, write rows, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for server.jsonl; rows are appended")
    parser.add_argument("--lines", type=int, nargs="+", default=LINES, help="lengths of file")
    parser.add_argument("--keys", type=int, default=KEYS, help="keys per server and length")
    options = parser.parse_args(arguments)
    run = Run.of(arguments, "cpu", 0, module="benchmarks.server")
    writer = RowWriter(options.out, "server")
    for (name, lines), seconds in asyncio.run(measure(options.lines, options.keys)).items():
        writer.write(row(run, name, lines, seconds))
    print(text_table(writer.rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

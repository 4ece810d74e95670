"""Windows made ahead by other processes, so that the device never waits; inline where there is no core to spare."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import pairwise

import numpy as np

from engine.training.batches import Classes, Ids, Windows

_AHEAD = 6  # batches
_made: Windows | None = None


def _adopt(windows: Windows) -> None:
    global _made  # one per worker process, set once
    _made = windows
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _batch(first: int, count: int) -> tuple[Ids, Classes]:
    assert _made is not None  # noqa: S101
    return _made.batch(first, count)


class Feed:
    """Batches in order, each [count, length + 1] of ids and classes. Close it when done."""

    def __init__(self, windows: Windows, count: int, first: int, workers: int) -> None:
        self._windows, self._count, self._next = windows, count, first
        self._pool: ProcessPoolExecutor | None = None
        if workers > 0:
            # Forked, so that the documents are shared and not copied; at once, before the device is first touched.
            context = multiprocessing.get_context("fork")
            self._pool = ProcessPoolExecutor(workers, context, initializer=_adopt, initargs=(windows,))
            self._pool.submit(os.getpid).result()
            self._parts = min(count, max(1, workers))
        self._waiting: deque[list[Future[tuple[Ids, Classes]]]] = deque()

    def __iter__(self) -> Iterator[tuple[Ids, Classes]]:
        return self

    def __next__(self) -> tuple[Ids, Classes]:
        """The next batch; never ends."""
        if self._pool is None:
            first = self._next
            self._next += self._count
            return self._windows.batch(first, self._count)
        while len(self._waiting) < _AHEAD:
            self._waiting.append(self._ask(self._pool))
        rows = [part.result(timeout=600) for part in self._waiting.popleft()]
        self._waiting.append(self._ask(self._pool))
        return np.concatenate([ids for ids, _ in rows]), np.concatenate([classes for _, classes in rows])

    def _ask(self, pool: ProcessPoolExecutor) -> list[Future[tuple[Ids, Classes]]]:
        edges = np.linspace(self._next, self._next + self._count, self._parts + 1).astype(int).tolist()
        self._next += self._count
        return [pool.submit(_batch, a, b - a) for a, b in pairwise(edges) if b > a]

    def close(self) -> None:
        """Let the workers end what they are at, and go. Killing one that holds the queue's lock would hang the others."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

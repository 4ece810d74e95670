"""What other tests of this process left in memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


def settle() -> None:
    """What is there now is not walked again, until the block below ends."""
    gc.collect()
    gc.freeze()


@contextmanager
def of_its_own() -> Iterator[None]:
    """Inside the block the garbage collector walks only what the block itself makes.

    One full collection takes about a microsecond for each object, of which libraries and earlier tests leave millions: it
    would be charged to whatever is measured just then.
    """
    settle()
    try:
        yield
    finally:
        gc.unfreeze()

"""Engines whose model says what a test has written down, for what the starter does not do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.process import Child, temporary_home, wait_for_health


@contextmanager
def scripted_engine(script: str, *options: str) -> Iterator[str]:
    """One that says `script` whatever it is asked, until the end; -> what the setting `engine` has to be for it."""
    with temporary_home() as home:
        socket = home / "e.sock"
        argv = ("tests.harness.scripted", "--socket", str(socket), "--script", script, *options)
        with Child.module(*argv, home=Path(home)) as child:
            wait_for_health(socket, child=child)
            yield f"unix:{socket}"

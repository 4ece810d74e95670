"""Notices that the engine hangs: a forward pass, a load or the event loop that does not come back.

A process that is stopped as a whole notices nothing; its clients do (`liveness.py`).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that each stage may take before it counts as hung."""

    load: float = 900.0
    first_pass: float = 120.0
    one_pass: float = 20.0
    compilation: float = 300.0
    loop: float = 20.0


@dataclass(frozen=True, slots=True)
class Vitals:
    """What is seen of the engine at one moment."""

    loading: bool
    busy_since: float | None
    """When the running forward pass began, by any clock; None when none runs."""
    passes: int
    """Forward passes that have ended."""
    compiling: bool
    beats: int
    """Turns of the event loop's heart; a healthy loop adds at least one between two looks or so."""


class HangDetector:
    """Judges vitals. No clock of its own: it is told how much time passed between two looks.

    Only time in which it was able to look counts, so that a process which was frozen and thawed is not taken for hung.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._last: Vitals | None = None
        self._loading = self._pass = self._compiling = self._loop = 0.0

    def look(self, now: Vitals, elapsed: float) -> str | None:
        """-> what hangs, in words, or None. `elapsed`: seconds since the last look."""
        last, self._last = self._last, now
        if last is None:
            return None
        limits = self._limits
        self._loop = self._loop + elapsed if now.beats == last.beats else 0.0
        self._loading = self._loading + elapsed if now.loading else 0.0
        if now.busy_since is None or (now.busy_since, now.passes) != (last.busy_since, last.passes):
            self._pass = self._compiling = 0.0
        elif now.compiling:
            self._compiling += elapsed
        else:
            self._pass += elapsed
        one_pass = limits.one_pass if now.passes else limits.first_pass
        # While a model loads, imports may hold the interpreter for long: its own limit covers that.
        loop = limits.load if now.loading else limits.compilation if now.compiling else limits.loop
        for what, took, limit in (
            ("loading the model", self._loading, limits.load),
            ("a forward pass", self._pass, one_pass),
            ("compiling a kernel", self._compiling, limits.compilation),
            ("the event loop", self._loop, loop),
        ):
            if took > limit:
                return f"{what} took longer than {limit:g} s"
        return None


class Watchdog:
    """A thread that looks every `period` seconds and calls `on_hang` once, on itself, with the reason."""

    def __init__(
        self, limits: Limits, vitals: Callable[[], Vitals], on_hang: Callable[[str], None], period: float = 0.25
    ) -> None:
        self._detector = HangDetector(limits)
        self._vitals = vitals
        self._on_hang = on_hang
        self._period = period
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="starfill-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def _watch(self) -> None:
        at = time.monotonic()
        while not self._stopped.wait(self._period):
            now = time.monotonic()
            hung = self._detector.look(self._vitals(), min(now - at, 2 * self._period))
            at = now
            if hung is not None:
                self._on_hang(hung)
                return


class Compilation:
    """Whether Triton is compiling a kernel now, heard from its own hooks."""

    def __init__(self) -> None:
        self._running = 0
        self._lock = threading.Lock()

    @property
    def running(self) -> bool:
        """True between the start and the end of a compilation."""
        return self._running > 0

    def listen(self) -> None:
        """Hook in, if this process has loaded Triton. Hooks that are there already are kept."""
        if "triton" not in sys.modules:
            return
        from triton import knobs

        before, after = knobs.runtime.jit_cache_hook, knobs.runtime.jit_post_compile_hook

        def begins(*args: object, **kwargs: object) -> bool | None:
            with self._lock:
                self._running += 1
            return before(*args, **kwargs) if before is not None else None

        def ends(*args: object, **kwargs: object) -> bool | None:
            with self._lock:
                self._running = max(0, self._running - 1)
            return after(*args, **kwargs) if after is not None else None

        knobs.runtime.jit_cache_hook, knobs.runtime.jit_post_compile_hook = begins, ends

"""What counts as a hang, on a clock of the test's own."""

from __future__ import annotations

import sys
import threading
import types
from dataclasses import replace
from typing import Any

import pytest

from engine.watchdog import Compilation, HangDetector, Limits, Vitals, Watchdog

LIMITS = Limits(load=100, first_pass=50, one_pass=10, compilation=60, loop=20)
IDLE = Vitals(loading=False, busy_since=None, passes=5, compiling=False, beats=0)


def after(detector: HangDetector, vitals: Vitals, seconds: int, *, beating: bool = True) -> tuple[int, str] | None:
    """Look once a second at unchanging vitals -> when it was called a hang, and what."""
    for second in range(seconds):
        said = detector.look(replace(vitals, beats=second if beating else 0), 1.0)
        if said is not None:
            return second, said
    return None


def test_an_idle_engine_never_hangs() -> None:
    assert after(HangDetector(LIMITS), IDLE, 1_000) is None


@pytest.mark.parametrize(
    ("vitals", "limit", "what"),
    [
        (replace(IDLE, busy_since=1.0), 10, "a forward pass"),
        (replace(IDLE, busy_since=1.0, passes=0), 50, "a forward pass"),
        (replace(IDLE, busy_since=1.0, compiling=True), 60, "compiling a kernel"),
        (replace(IDLE, loading=True), 100, "loading the model"),
    ],
)
def test_each_stage_has_its_limit(vitals: Vitals, limit: int, what: str) -> None:
    found = after(HangDetector(LIMITS), vitals, 1_000)
    assert found is not None
    assert found[0] == limit + 1
    assert found[1] == f"{what} took longer than {limit} s"


def test_the_event_loop_is_watched_too_but_not_while_a_model_loads() -> None:
    found = after(HangDetector(LIMITS), IDLE, 1_000, beating=False)
    assert found == (21, "the event loop took longer than 20 s")
    assert after(HangDetector(LIMITS), replace(IDLE, loading=True), 90, beating=False) is None


def test_passes_that_come_back_are_no_hang_however_many() -> None:
    detector = HangDetector(LIMITS)
    for number in range(1_000):
        vitals = Vitals(loading=False, busy_since=float(number // 9), passes=number // 9, compiling=False, beats=number)
        assert detector.look(vitals, 1.0) is None


def test_time_spent_compiling_does_not_count_as_the_pass() -> None:
    detector = HangDetector(LIMITS)
    busy = replace(IDLE, busy_since=1.0)
    assert after(detector, busy, 9) is None
    assert after(detector, replace(busy, compiling=True), 55) is None
    assert after(detector, busy, 10) is not None


def test_the_watchdog_calls_once_and_can_be_stopped() -> None:
    said: list[str] = []
    called = threading.Event()

    def hang(what: str) -> None:
        said.append(what)
        called.set()

    limits = replace(LIMITS, one_pass=0.05)
    dog = Watchdog(limits, lambda: replace(IDLE, busy_since=1.0), hang, period=0.01)
    dog.start()
    assert called.wait(10)
    assert said == ["a forward pass took longer than 0.05 s"]
    calm = Watchdog(limits, lambda: replace(IDLE, busy_since=1.0), hang, period=0.01)
    calm.stop()
    calm.start()
    calm._thread.join(10)
    assert len(said) == 1


def test_compilation_is_heard_from_tritons_hooks_and_theirs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def before(**_: Any) -> bool:
        calls.append("before")
        return False

    runtime = types.SimpleNamespace(jit_cache_hook=before, jit_post_compile_hook=None)
    triton = types.ModuleType("triton")
    triton.knobs = types.SimpleNamespace(runtime=runtime)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "triton", triton)
    compilation = Compilation()
    compilation.listen()
    said = [compilation.running]
    assert runtime.jit_cache_hook(fn="f") is False
    said.append(compilation.running)
    assert runtime.jit_post_compile_hook(fn="f") is None
    said.append(compilation.running)
    assert said == [False, True, False]
    assert calls == ["before"]

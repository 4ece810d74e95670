"""What a key costs: prompt tokens computed, and forward passes, with the model that ships."""

from __future__ import annotations

import inspect
import statistics
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.keystrokes import replay
from benchmarks.keystrokes.__main__ import main
from benchmarks.rows import read_rows
from engine.models import STARTER
from tests.harness.inprocess import InProcessEngine
from tests.harness.process import Child, http_over_unix, read_metrics, temporary_home, wait_for_health
from tests.harness.traces import typing_trace


@pytest.fixture(scope="module")
def engine() -> InProcessEngine:
    return InProcessEngine.of(STARTER)


def _text_of(engine: InProcessEngine, tokens: int) -> str:
    """Real source that has about so many tokens."""
    source = inspect.getsource(tarfile)[20_000:]
    encode = engine.intake._tokenizer.encode
    lines = source.splitlines(keepends=True)
    text = ""
    for line in lines:
        if len(encode(text + line)) > tokens:
            break
        text += line
    return text


@pytest.mark.parametrize("layout", ["anchored", "spm"])
def test_a_typed_character_computes_at_most_four_prompt_tokens(engine: InProcessEngine, layout: str) -> None:
    prefix, suffix = _text_of(engine, 1_500), "\n" + _text_of(engine, 400)
    prefix += "    def close"
    fields = {"suffix": suffix, "max_tokens": 4, "starfill": {"layout": layout}}
    first = engine.complete(prompt=prefix, **fields)
    assert len(first.prompt) > 1_500
    for typed in ("d", "(", "s", "e", "l", "f", ")", ":"):
        prefix += typed
        done = engine.complete(prompt=prefix, **fields)
        assert done.computed <= 4, typed
        # One pass takes in the new tokens and predicts the first; each other token, regrown or new, takes one.
        assert done.calls == len(done.ids), typed


def test_typing_real_code_computes_a_token_or_two_at_each_key(engine: InProcessEngine) -> None:
    source = inspect.getsource(tarfile)
    events = list(typing_trace(source, seed=5, functions=1))[:120]
    computed = []
    for event in events:
        done = engine.complete(prompt=event.prefix, suffix=event.suffix, max_tokens=0)
        if event.kind != "jump":
            computed.append(done.computed)
    assert statistics.median(computed) <= 2
    assert statistics.quantiles(computed, n=20)[-1] <= 8


@pytest.fixture(scope="module")
def served() -> Iterator[Child]:
    with temporary_home() as home:
        socket = home / "e.sock"
        with Child.module("engine.cli", "serve", "--socket", str(socket), "--device", "cpu", home=home) as child:
            wait_for_health(socket, child=child)
            child.socket = socket  # type: ignore[attr-defined]
            yield child


def test_the_wire_and_the_metrics_tell_the_same_story(engine: InProcessEngine, served: Child) -> None:
    socket = served.socket  # type: ignore[attr-defined]
    prefix, suffix = _text_of(engine, 1_500) + "    return", "\n" + _text_of(engine, 400)

    def ask(prompt: str) -> tuple[dict[str, int], float, float, int, float]:
        before = read_metrics(socket)
        body = {"prompt": prompt, "suffix": suffix, "max_tokens": 4, "temperature": 0, "return_token_ids": True}
        reply = http_over_unix(socket, "/v1/completions", body=body, timeout=60)
        assert reply.status == 200, reply.body
        after = read_metrics(socket)
        calls = after.value("starfill_forward_calls_total") - before.value("starfill_forward_calls_total")
        tokens = after.value("starfill_prompt_tokens_computed_total") - before.value(
            "starfill_prompt_tokens_computed_total"
        )
        answer = reply.json()
        regrown = after.value("starfill_tokens_regrown_total") - before.value("starfill_tokens_regrown_total")
        return answer["starfill"], tokens, calls, answer["usage"]["completion_tokens"], regrown

    ask(prefix)
    extension, computed, calls, generated, regrown = ask(prefix + " ")
    assert extension["computed"] == computed <= 4
    assert calls <= generated + regrown + 1
    assert regrown <= extension["healed"]
    assert ask(prefix + " self.xqzvkj")[4] >= 1


def test_the_keystroke_benchmark_writes_a_row_for_every_layout_and_every_promise(tmp_path: Path) -> None:
    arguments = ["--out", str(tmp_path), "--part", "counts", "--traces", "typing,walking", "--suffixes", "224", "shlex"]
    assert main(arguments) == 0
    rows = read_rows([tmp_path / "keystrokes.jsonl"])
    counted = {(row.detail["trace"], row.backend): row for row in rows if row.passed is None}
    assert len(counted) == 6
    assert counted["typing", "anchored"].detail["p50"] in (1, 2)
    assert counted["walking", "spm"].value > counted["walking", "anchored"].value > 0  # type: ignore[operator]
    promised = [row for row in rows if row.passed is not None]
    assert len(promised) == 7
    assert all(row.passed and row.limit is not None for row in promised)


def test_a_typed_character_takes_a_tenth_of_the_processor_time_of_a_cold_prompt(engine: InProcessEngine) -> None:
    (source,) = replay.sources(replay.MODULES[:1])
    events = [event for event in typing_trace(source, 7) if event.kind == "char" and len(event.prefix) > 12_000][:16]
    warm = [cost.cpu for cost in replay.timed(engine, events, "anchored", 1)][1:]
    cold = []
    for event in events[:3]:
        for slot in range(len(engine.scheduler.slots)):
            engine.scheduler.slots.forget(slot)
        (cost,) = replay.timed(engine, [event], "anchored", 1)
        assert cost.computed > 1_400
        cold.append(cost.cpu)
    assert all(each is not None for each in (*warm, *cold))
    assert statistics.median(warm) <= statistics.median(cold) / 10  # type: ignore[type-var, operator]

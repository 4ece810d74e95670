"""What a key costs: prompt tokens computed, and forward passes, with the model that ships."""

from __future__ import annotations

import inspect
import statistics
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import keystrokes
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

    def ask(prompt: str) -> tuple[dict[str, int], float, float, int]:
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
        return answer["starfill"], tokens, calls, answer["usage"]["completion_tokens"]

    ask(prefix)
    extension, computed, calls, generated = ask(prefix + " ")
    assert extension["computed"] == computed <= 4
    assert generated <= calls <= generated + extension["healed"] + 1


def test_the_keystroke_benchmark_holds_its_promise_on_a_file_not_seen_before(tmp_path: Path) -> None:
    """Every layout is replayed; the default's median is a token or two, and a walk stays under fifty on average."""
    assert keystrokes.main(["--out", str(tmp_path), "shlex"]) == 0
    rows = {(row.question, row.backend): row for row in read_rows([tmp_path / "keystrokes.jsonl"])}
    assert len(rows) == 6
    typing = rows["computed prompt tokens a key, typing", "anchored"]
    walking = rows["computed prompt tokens a key, walking", "anchored"]
    assert typing.value is not None
    assert walking.value is not None
    assert typing.value <= 6
    assert typing.detail["p50"] in (1, 2)
    assert walking.value <= 50

"""What a key may cost the engine: over every kind of trace, with other files at the head, in a long window. Counts only."""

from __future__ import annotations

import inspect
import statistics
import textwrap
from typing import Any

import pytest

from benchmarks.keystrokes import figures, replay
from engine.fim import Budget, Document, Layout, lay_out
from engine.kv_slots import common_prefix
from engine.models import STARTER
from engine.tokenizer import Tokenizer
from tests.harness.traces import TRACES

SEED = 7
LONG = 8_192
EVERY = (*TRACES, replay.TWO_FILES)
TOKENIZER = Tokenizer(STARTER / "tokenizer.json")


def _held(name: str, costs: list[replay.Cost], window: int = replay.WINDOW) -> None:
    for bar in figures.bars(name, costs, window):
        assert bar.held, f"{name}: {bar.name} is {bar.value:.1f}, may be {bar.limit:g}"


def _over(name: str, modules: tuple[str, ...]) -> list[replay.Cost]:
    costs: list[replay.Cost] = []
    for events in replay.traces(name, replay.sources(modules), SEED):
        costs += replay.counts(replay.counting_engine(TOKENIZER), events, "anchored")
    return costs


@pytest.mark.parametrize("name", ["typing", "walking"])
def test_a_key_computes_a_token_or_two_and_a_jump_a_window_at_most(name: str) -> None:
    _held(name, _over(name, replay.MODULES[2:4]))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EVERY if name != "renaming"])
def test_the_same_over_all_files_and_kinds_of_traces(name: str) -> None:
    _held(name, _over(name, replay.MODULES))


def _filled(trace: str, module: str) -> list[float]:
    """Of each event with enough text above it: what part of the window's prompt is there, which is all but the reserve."""
    (source,) = replay.sources((module,))
    events = list(TRACES[trace](source, SEED))
    most = replay.WINDOW - Budget.of(replay.WINDOW, replay.LINE_TOKENS).reserve
    costs = replay.counts(replay.counting_engine(TOKENIZER), events, "anchored")
    return [
        cost.prompt / most for event, cost in zip(events, costs, strict=True) if len(event.prefix) > 5 * replay.WINDOW
    ]


@pytest.mark.parametrize(("trace", "module"), [("typing", "psutil"), ("walking", "starlette.routing")])
def test_windows_are_full_where_the_file_has_the_text(trace: str, module: str) -> None:
    filled = _filled(trace, module)
    assert len(filled) > 300
    assert statistics.median(filled) >= 0.87
    assert min(filled) >= 0.80


@pytest.mark.slow
@pytest.mark.parametrize("module", replay.MODULES)
@pytest.mark.parametrize("trace", ["typing", "walking"])
def test_windows_are_full_in_every_file(trace: str, module: str) -> None:
    filled = _filled(trace, module)
    assert filled
    assert statistics.median(filled) >= 0.87
    assert min(filled) >= 0.80


def test_the_suffix_of_this_very_moment_is_in_every_prompt() -> None:
    (source,) = replay.sources(replay.MODULES[:1])
    engine = replay.counting_engine(TOKENIZER)
    marker = TOKENIZER.control.fim_middle
    assert marker is not None
    for number, event in enumerate(TRACES["walking"](source, SEED)):
        below = event.suffix.partition("\n")[2].partition("\n")[0] + f" # {number}"
        suffix = "\n" + below + "\n" + event.suffix.partition("\n")[2].partition("\n")[2]
        done = engine.complete(prompt=event.prefix, suffix=suffix, max_tokens=0)
        kept = TOKENIZER.decode(done.prompt[: done.prompt.index(marker)])
        assert below in kept
        if number == 60:
            break


def _others(tokens: int) -> tuple[tuple[str, str], ...]:
    """Pieces of two other files, of so many tokens in all."""
    lines = inspect.getsource(textwrap).splitlines(keepends=True)
    text = ""
    for line in lines:
        if len(TOKENIZER.encode(text + line)) > tokens // 2:
            break
        text += line
    return ("first.py", text), ("second.py", text.replace("self", "this"))


@pytest.mark.parametrize(("tokens", "window"), [(480, replay.WINDOW), (1_000, 2 * replay.WINDOW)])
def test_other_files_at_the_head_cost_nothing_while_somebody_types(tokens: int, window: int) -> None:
    """A quarter of the window is theirs."""
    (source,) = replay.sources(replay.MODULES[2:3])
    events = list(TRACES["typing"](source, SEED))
    engine = replay.counting_engine(TOKENIZER, window=window)
    head = _others(tokens)
    costs = list(replay.counts(engine, events, "anchored", head))
    _held("typing", costs, window)
    extension = {"context": [{"path": path, "text": text} for path, text in head]}
    ids = engine.complete(
        prompt=events[-1].prefix, suffix=events[-1].suffix, max_tokens=0, starfill=extension
    ).prompt  # fmt: skip
    kept = TOKENIZER.decode(ids[:tokens])
    assert all(path in kept and text[-80:] in kept for path, text in head)
    assert sum(cost.computed for cost in costs) < len(costs) * 6 + 4 * window


@pytest.mark.parametrize("name", ["typing", "walking"])
def test_a_window_of_8192_tokens_has_the_same_economy(name: str) -> None:
    (text,) = replay.sources(("psutil",))
    events = list(TRACES[name](text, SEED))[-400:]
    engine = replay.counting_engine(TOKENIZER, window=LONG)
    costs = list(replay.counts(engine, events, "anchored", _others(1_000)))
    typed = [cost.computed for cost in figures.keys(costs[1:])]
    assert figures.at((cost.prompt for cost in costs), 0.5) >= 0.8 * LONG
    assert figures.at(typed, 0.5) <= 2
    assert max(cost.computed for cost in costs) <= LONG
    assert statistics.fmean(typed) <= (6 if name == "typing" else 50)
    if name == "typing":
        assert figures.at(typed, 0.95) <= 4


def test_ids_of_a_key_are_those_of_the_last_but_for_the_end() -> None:
    (source,) = replay.sources(replay.MODULES[:1])
    engine, before = replay.counting_engine(TOKENIZER), list[int]()
    shared = []
    for event in list(TRACES["typing"](source, SEED))[:200]:
        ids = engine.complete(prompt=event.prefix, suffix=event.suffix, max_tokens=0).prompt
        if before and event.kind == "char":
            shared.append(len(ids) - common_prefix(before, ids))
        before = ids
    assert statistics.median(shared) <= 1


class _Counting:
    """Stands before the library's encoder; `characters` are those that it was given."""

    def __init__(self, bpe: Any) -> None:
        self.characters = 0
        self.pre_tokenizer = bpe.pre_tokenizer
        self._bpe = bpe

    def encode(self, text: str, **options: Any) -> Any:
        """As the library does."""
        self.characters += len(text)
        return self._bpe.encode(text, **options)

    def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
        """As the library does."""
        self.characters += sum(map(len, texts))
        return self._bpe.encode_batch_fast(texts, **options)


def test_a_key_tokenises_the_line_that_it_changes_whatever_the_length_of_the_file() -> None:
    tokenizer = Tokenizer(STARTER / "tokenizer.json")
    counting = _Counting(tokenizer._bpe)
    tokenizer._bpe = counting  # type: ignore[assignment]
    (source,) = replay.sources(("psutil",))
    events = [event for event in TRACES["typing"](source, SEED) if event.kind != "jump"][:120]
    budget = Budget.of(replay.WINDOW, 64)
    tokenised = []
    for event in events:
        before = counting.characters
        lay_out(tokenizer, Document(event.prefix, event.suffix), Layout.ANCHORED, budget, heal=True)
        line = len(event.prefix) - event.prefix.rfind("\n")
        tokenised.append((counting.characters - before, line))
    assert tokenised[0][0] > 4_000  # the window, once
    assert all(characters <= 2 * line + 64 for characters, line in tokenised[1:]), max(tokenised[1:])

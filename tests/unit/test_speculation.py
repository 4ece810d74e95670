"""Guesses: where they come from, when there are none, and that what comes out is what would without them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.generation import Generation
from engine.kv_slots import KvSlots
from engine.sampling import Sampling
from engine.scheduler import Scheduler
from engine.speculation import Guesswork, Lookup
from tests.harness.checkpoints import make_checkpoint
from tests.harness.inprocess import InProcessEngine
from tests.harness.scripted import ScriptedRunner
from tests.unit.vocabularies import vocabulary

TOKENIZER = vocabulary("starcoder")
SCRIPT = TOKENIZER.encode("one two three four five six seven eight nine ten")


def looking_up(ids: Sequence[int], earlier: Sequence[int] = ()) -> Lookup:
    lookup = Lookup(earlier)
    lookup.know(len(ids), lambda start, end: ids[start:end])
    return lookup


def generation(prompt: list[int], number: int = 1, **fields: Any) -> Generation:
    return Generation(number, TOKENIZER, prompt, fields.pop("max_tokens", 40), TOKENIZER.is_control, **fields)


@pytest.mark.parametrize(
    ("ids", "earlier", "most", "guess"),
    [
        ([1, 2, 3, 9, 1, 2], [], 2, [3, 9]),
        ([1, 2, 3, 9, 1, 2], [], 7, [3, 9, 1, 2, 3, 9, 1]),
        ([7, 1, 2], [1, 2, 3, 9], 7, [3, 9]),
        ([1, 2, 3, 9, 1, 2], [], 0, []),
        ([1, 2, 3, 4, 1, 2, 5, 6, 1, 2], [], 1, [5]),  # the newest of equally long ones
        ([7, 1, 2, 3, 4, 1, 2, 5, 7, 1, 2], [], 1, [3]),  # the longest
        ([1, 2, 3, 1, 2], [8, 1, 2, 4], 1, [4]),  # what was said for the document comes first
        ([8, 1, 2, 3, 8, 1, 2], [1, 2, 4], 1, [3]),  # unless more agrees elsewhere
        ([1, 2, 3, 4], [], 3, []),
        ([1], [], 3, []),
        ([5, 5, 5], [], 3, [5, 5, 5]),
        ([9, 1, 2, 3, 1, 2, 3, 1], [], 5, [2, 3, 1, 2, 3]),  # a loop goes on
        ([1, 2], [1, 2], 3, []),  # nothing follows it there
        ([0x01010101, 0x01010101 + 1, 7, 0x01010101 << 1], [], 3, []),  # bytes that agree off an id's boundary
        ([256, 1, 65_536, 256, 1], [], 1, [65_536]),
    ],
)
def test_what_followed_the_longest_newest_match(
    ids: list[int], earlier: list[int], most: int, guess: list[int]
) -> None:
    assert looking_up(ids, earlier).guess(most) == guess


@given(st.lists(st.sampled_from((1, 2, 257, 65_793)), max_size=60), st.integers(0, 9))
def test_a_guess_equals_that_of_a_plain_search(ids: list[int], most: int) -> None:
    expected: list[int] = []
    for tokens in (2, 3, 4, 8):
        last = ids[-tokens:]
        found = [at for at in range(len(ids) - tokens) if len(last) == tokens and ids[at : at + tokens] == last]
        if not found or not most:
            break
        expected = (ids[found[-1] + tokens :] * most)[:most]
    assert looking_up(ids).guess(most) == expected


def test_a_sequence_that_grows_is_read_from_where_it_had_come_to() -> None:
    lookup, read = Lookup(), []

    def ids_from(start: int, end: int) -> list[int]:
        read.append((start, end))
        return list(range(start, end))

    for length in (5, 5, 9):
        lookup.know(length, ids_from)
    assert read == [(0, 5), (5, 5), (5, 9)]


def guesses(
    free_rows: int, *each: Generation, parts: Sequence[int] | None = None, window: int = 100
) -> list[list[int]]:
    parts = parts or [one.length - one.computed for one in each]
    return Guesswork(free_rows, window).guess(each, parts)


LOOP = [30, 31, 32, 33] * 4


def test_guesses_fill_a_pass_up_to_what_is_free_in_equal_shares() -> None:
    one, other = generation(LOOP), generation(LOOP, 2)
    one.computed = other.computed = len(LOOP) - 1
    assert guesses(4, one) == [[30, 31, 32]]
    assert guesses(1, one) == [[]]
    assert guesses(6, one, other) == [[30, 31], [30, 31]]
    assert guesses(5, one, other) == [[30], [30, 31]]
    one.prompt = [*LOOP, 99]
    one.computed += 1
    assert guesses(6, one, other) == [[], [30, 31, 32, 33]], "who has none to make leaves the rest to others"


def test_no_guesses_beside_prefill_or_where_they_could_not_be_verified() -> None:
    assert guesses(8, generation(LOOP)) == [[]], "more rows than are free"
    assert guesses(32, generation(LOOP)) == [LOOP], "a short prompt's last token may have some"
    assert guesses(32, generation(LOOP), parts=[8]) == [[]], "the prompt's end is not reached"
    assert guesses(32, generation(LOOP, held=b"x")) == [[]]
    assert guesses(32, generation(LOOP, max_tokens=0)) == [[]]
    assert guesses(32, generation(LOOP, max_tokens=1)) == [[]]
    assert guesses(32, generation(LOOP, max_tokens=3)) == [[30, 31]], "the last one needs no guess after it"
    assert guesses(32, generation(LOOP), window=18) == [[30, 31]]
    assert guesses(32, generation(LOOP, sampling=Sampling(seed=1, repetition_penalty=1.1))) == [[]]
    forked = generation(LOOP, sampling=Sampling(seed=1))
    forked.add_followers([2])
    assert guesses(32, forked) == [[]]


def test_what_was_said_for_a_document_is_a_guess_for_its_next_request() -> None:
    target = Guesswork(5, 100)
    first = generation([1, 2, 3], document="a", client="x")
    first.generated = [40, 41, 42, 43, 44]
    target.end(first)
    for client, document, expected in (("x", "a", [41, 42]), ("x", "b", []), ("y", "a", []), ("x", None, [])):
        again = generation([7, 3, 40], 2, document=document, client=client)
        again.computed = 2
        assert target.guess([again], [1]) == [[*expected, 43, 44] if expected else []]
        target.end(again)


@pytest.mark.parametrize("free_rows", [1, 4, 16])
def test_a_scripted_model_says_the_same_in_fewer_passes(free_rows: int) -> None:
    def passes(prompt: str) -> tuple[str, int]:
        runner = ScriptedRunner(TOKENIZER, SCRIPT, free_rows=free_rows)
        scheduler = Scheduler(KvSlots(runner.slots, runner.window), free_rows=free_rows)
        scheduler.submit(generation(TOKENIZER.encode(prompt)))
        text = ""
        while (step := scheduler.plan()) is not None:
            text += "".join(each.delta.text for each in scheduler.commit(step, runner.run(step)))
            scheduler.check_integrity()
        assert scheduler.guesswork.guessed >= scheduler.guesswork.right >= 0
        return text, runner.calls

    said = TOKENIZER.decode(SCRIPT)
    text, calls = passes(said + "; " + TOKENIZER.decode(SCRIPT[:1]))
    assert said.endswith(text)
    assert calls == {1: len(SCRIPT), 4: 8, 16: 3}[free_rows]


REQUESTS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "drawn": {"temperature": 0.7, "seed": 5},
    "candidates": {"temperature": 0.9, "seed": 6, "n": 3},
    "filtered": {"temperature": 1.3, "seed": 7, "top_k": 5, "top_p": 0.9},
    "logprobs": {"logprobs": 3},
    "fill": {"suffix": "abcabcab\nabc"},
    "stopped": {"stop": ["to be replaced"]},
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_the_tokens_are_those_without_guesses(tmp_path: Path, kind: str) -> None:
    directory = make_checkpoint(tmp_path / "m")
    apart, guessing = InProcessEngine.of(directory), InProcessEngine.of(directory, guessing=True)
    requests = [
        {"prompt": "abcabcab\nabc" * number, "max_tokens": 30, "starfill": {"document": str(number)}, **REQUESTS[kind]}
        for number in (1, 2)
    ]
    if kind == "stopped":
        for request in requests:
            request["stop"] = [apart.complete(**{**request, "stop": None}).text[20:23]]
    expected = [apart.complete(**request) for request in requests]
    first = [guessing.complete(**request) for request in requests]
    again = [guessing.complete(**request) for request in requests]
    together = guessing.together(requests)
    for want, *found in zip(expected, first, again, together, strict=True):
        for each in found:
            assert [(x.text, x.ids, x.finish) for x in (each, *each.others)] == [
                (x.text, x.ids, x.finish) for x in (want, *want.others)
            ]
            assert [t.logprob for t in each.tokens] == pytest.approx([t.logprob for t in want.tokens], abs=1e-4)
    assert guessing.scheduler.guesswork.right > 0, "what was said for a document is a guess the next time"
    if kind != "candidates":  # one document has one memory, whichever of them ended last
        assert sum(one.calls for one in again) < sum(want.calls for want in expected)


def test_a_request_that_comes_again_costs_a_few_passes(tmp_path: Path) -> None:
    engine = InProcessEngine.of(make_checkpoint(tmp_path / "m"), guessing=True)
    request: dict[str, Any] = {"prompt": "def f(x):\n", "max_tokens": 24, "starfill": {"document": "d"}}
    first, again = engine.complete(**request), engine.complete(**request)
    assert again.text == first.text
    assert again.calls <= 24 // 4 + 3

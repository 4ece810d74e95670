"""From a request to a generation and from its deltas to OpenAI's objects, without a model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.answers import DONE, Answer
from engine.api import CompletionRequest
from engine.errors import RequestError
from engine.fim import Layout
from engine.generation import Delta
from engine.intake import Admitted, HealingPolicy, Intake
from engine.sampling import Sampling
from engine.step import Sample
from tests.unit.vocabularies import vocabulary

TOKENIZER = vocabulary("starter")
WINDOW = 512


def intake(parameters: int = 6_000_000) -> Intake:
    return Intake("tiny", TOKENIZER, TOKENIZER.size, WINDOW, HealingPolicy.for_model(parameters))


def take(**fields: Any) -> Admitted:
    return intake().take(CompletionRequest.model_validate({"prompt": "x = retu", "temperature": 0} | fields))


@pytest.mark.parametrize(
    ("fields", "param", "code", "status"),
    [
        ({"model": "other"}, "model", "model_not_found", 404),
        ({"prompt": [1, 2], "suffix": ""}, "suffix", "invalid_value", 400),
        ({"prompt": [1, TOKENIZER.size]}, "prompt", "invalid_value", 400),
        ({"prompt": "word " * 600}, "prompt", "context_length_exceeded", 400),
        ({"prompt": [9] * WINDOW, "max_tokens": 1}, "prompt", "context_length_exceeded", 400),
    ],
)
def test_what_this_model_cannot_serve_is_refused(fields: dict[str, Any], param: str, code: str, status: int) -> None:
    with pytest.raises(RequestError) as caught:
        take(**fields)
    assert (caught.value.param, caught.value.code, caught.value.status) == (param, code, status)


@pytest.mark.parametrize("model", [None, "default", "tiny"])
def test_a_model_may_be_named_in_three_ways(model: str | None) -> None:
    assert take(model=model).layout is Layout.NONE


def test_plain_text_is_taken_as_it_is_and_ends_at_end_of_text_only() -> None:
    admitted = take()
    assert (list(admitted.generation.prompt), admitted.healed) == (TOKENIZER.encode("x = retu"), 0)
    control = TOKENIZER.control
    ends = [n for n in range(TOKENIZER.size) if admitted.generation.ends_at(n)]
    assert ends == [control.end_of_text]
    assert list(take(prompt="").generation.prompt) == [control.end_of_text]
    assert list(take(prompt=[5, 7]).generation.prompt) == [5, 7]
    assert len(take(prompt=[9] * WINDOW, max_tokens=0).generation.prompt) == WINDOW


@pytest.mark.parametrize("suffix", ["", "\n"])
def test_a_suffix_even_an_empty_one_makes_it_fill_in_the_middle(suffix: str) -> None:
    admitted = take(suffix=suffix)
    assert admitted.layout is Layout.ANCHORED
    assert (admitted.generation.held, admitted.healed) == (b" retu", len(TOKENIZER.encode(" retu")))
    control = TOKENIZER.control
    assert all(admitted.generation.ends_at(each or 0) for each in (control.end_of_text, control.fim_middle))


def test_only_small_models_are_healed_in_every_layout_and_raw_text_never() -> None:
    request = {"prompt": "x = retu", "suffix": "\n", "temperature": 0}
    for parameters, layout, healed in (
        (10**6, "spm", True),
        (10**9, "spm", False),
        (10**9, "psm", False),
        (10**9, "anchored", True),
    ):
        fields = request | {"starfill": {"layout": layout}}
        assert bool(intake(parameters).take(CompletionRequest.model_validate(fields)).healed) is healed
    assert take(suffix="\n", starfill={"raw": True}).healed == 0


def test_priming_holds_nothing_back_that_would_be_regrown() -> None:
    admitted = take(suffix="\n", max_tokens=0)
    assert admitted.generation.primes_only
    assert (admitted.generation.held, admitted.healed) == (b"", 0)


def test_every_generation_has_an_id_of_its_own() -> None:
    desk = intake()
    request = CompletionRequest(prompt="x", temperature=0)
    assert [desk.take(request).generation.id for _ in range(3)] == [1, 2, 3]


def sampling_of(**fields: Any) -> Sampling | None:
    desk = Intake("tiny", TOKENIZER, TOKENIZER.size, WINDOW, HealingPolicy(frozenset()), entropy=lambda: 2**64 - 9)
    return desk.take(CompletionRequest.model_validate({"prompt": "x"} | fields)).generation.sampling


def test_omitted_sampling_fields_are_openais_defaults() -> None:
    assert sampling_of() == Sampling(1.0, 1.0, 0, 0.0, 1.0, seed=2**64 - 9)
    assert sampling_of(temperature=None, top_p=None, top_k=None, min_p=None, repetition_penalty=None) == sampling_of()
    assert sampling_of(top_k=-1) == sampling_of(top_k=0) == sampling_of()


def test_greedy_is_no_sampling_at_all_unless_logits_are_to_be_changed() -> None:
    assert sampling_of(temperature=0) is None
    assert sampling_of(temperature=1e-9, top_p=0.5, top_k=3, seed=7) is None
    assert sampling_of(temperature=0, repetition_penalty=1.5, seed=7) == Sampling(0.0, repetition_penalty=1.5, seed=7)


def test_every_sampling_field_reaches_the_sampler() -> None:
    fields = {"temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1, "seed": -1}
    assert sampling_of(**fields) == Sampling(0.5, 0.9, 40, 0.05, 1.1, seed=2**64 - 1)


def test_without_a_seed_no_two_requests_draw_alike() -> None:
    desk = intake()
    seeds = [desk.take(CompletionRequest(prompt="x")).generation.sampling for _ in range(4)]
    assert len({each.seed for each in seeds if each}) == 4


def test_candidates_are_generations_of_their_own_only_where_they_can_differ() -> None:
    admitted = take(n=3, temperature=1.0, seed=5)
    assert [each.candidate for each in admitted.candidates] == [0, 1, 2]
    assert len({each.id for each in admitted.candidates}) == 3
    assert {each.request for each in admitted.candidates} == {admitted.generation.id}
    assert len({id(each.generated) for each in admitted.candidates}) == 3
    assert all(each.sampling and each.sampling.seed == 5 for each in admitted.candidates)
    for alike in ({"temperature": 0}, {"temperature": 0, "repetition_penalty": 2.0}, {"max_tokens": 0}):
        assert len(take(n=3, **{"temperature": 1.0} | alike).candidates) == 1


def test_whom_a_request_is_from_and_for_travels_with_it() -> None:
    request = CompletionRequest.model_validate({"prompt": "x", "starfill": {"document": "d"}})
    generation = intake().take(request, "pid").generation
    assert (generation.client, generation.document, generation.pin) == ("pid", "d", 0)


def test_the_pinned_head_is_the_context_or_all_of_a_plain_prompt() -> None:
    assert take(starfill={"pin": True}).generation.pin == len(TOKENIZER.encode("x = retu"))
    context = [{"path": "a.py", "text": "value = 1\n"}]
    fields = {"suffix": "\n", "starfill": {"pin": True, "context": context, "path": "b.py"}}
    first, second = take(**fields), take(**fields | {"prompt": "other()"})
    pin = first.generation.pin
    assert 0 < pin == second.generation.pin
    assert first.generation.prompt[:pin] == second.generation.prompt[:pin]
    assert "value = 1" in TOKENIZER.decode(first.generation.prompt[:pin])
    assert "b.py" not in TOKENIZER.decode(first.generation.prompt[:pin])
    assert take(suffix="\n", starfill={"pin": True}).generation.pin == 0


def answer(**fields: Any) -> tuple[Answer, list[Delta]]:
    """An answer to a plain request of which four tokens were in the cache, and the deltas of "a + b" in three tokens."""
    fields = {"prompt": "x = y = z", "temperature": 0, "max_tokens": 3} | fields
    request = CompletionRequest.model_validate(fields)
    admitted = intake().take(request)
    admitted.generation.reused = 4
    tokens = [TOKENIZER.encode(text)[0] for text in ("a", " +", " b")]
    return Answer(request, admitted, "tiny", 7), [admitted.generation.accept(Sample(each, -0.5)) for each in tokens]


def events(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(data.removeprefix(b"data: "))
    return found


def streamed(built: Answer, deltas: list[Delta]) -> list[bytes]:
    return [data for delta in deltas for data in built.chunks(0, delta)]


def test_a_whole_answer_has_text_usage_and_our_own_numbers() -> None:
    built, deltas = answer(logprobs=0, return_token_ids=True, n=2)
    for delta in deltas:
        assert not built.complete
        built.add(0, delta)
    assert built.complete
    whole = built.whole()
    prompt = len(TOKENIZER.encode("x = y = z"))
    assert (whole["object"], whole["model"], whole["created"]) == ("text_completion", "tiny", 7)
    assert [(each["index"], each["text"], each["finish_reason"]) for each in whole["choices"]] == [
        (0, "a + b", "length"),
        (1, "a + b", "length"),
    ]
    choice = whole["choices"][0]
    assert choice["logprobs"]["text_offset"] == [0, 1, 3]
    assert choice["logprobs"]["tokens"] == ["a", " +", " b"]
    assert choice["token_ids"] == [token.id for delta in deltas for token in delta.tokens]
    assert whole["usage"]["prompt_tokens"] == prompt
    assert whole["usage"]["completion_tokens"] == 6
    assert whole["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}
    assert whole["starfill"] == {"layout": "none", "cached": 4, "computed": prompt - 4, "healed": 0}


def test_chunks_join_to_the_whole_answer_and_end_in_usage_and_done() -> None:
    built, deltas = answer(logprobs=0, stream_options={"include_usage": True})
    sent = streamed(built, deltas)
    assert sent.pop() == DONE
    *chunks, last = map(events, sent)
    assert "".join(each["choices"][0]["text"] for each in chunks) == "a + b"
    assert [each["choices"][0]["finish_reason"] for each in chunks] == [None, None, "length"]
    assert [each["choices"][0]["logprobs"]["text_offset"] for each in chunks] == [[0], [1], [3]]
    assert ["starfill" in each for each in chunks] == [True, False, False]
    assert [each["usage"] for each in chunks] == [None] * 3
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 3)
    assert last["usage"] == built.whole()["usage"]


@pytest.mark.parametrize(
    ("text", "stop"),
    [("a→b😀c", None), ("a);b", ");x"), ("naïve = é😀", None), ("xy);xz", "z")],
)
def test_offsets_say_where_the_text_of_a_token_begins_whole_or_streamed(text: str, stop: str | None) -> None:
    """Also where several tokens make one character, and where text lags behind because a stop string may begin there."""
    request = CompletionRequest.model_validate(
        {"prompt": "x", "max_tokens": 64, "temperature": 0, "logprobs": 0, "stop": stop}
    )
    built = Answer(request, intake().take(request), "tiny", 7)
    generation = built._admitted.generation
    ids = [each for character in text for each in TOKENIZER.encode(character)]
    deltas = []
    for each in ids:
        deltas.append(generation.accept(Sample(each, -0.5)))
        if deltas[-1].finish is not None:
            break
    else:
        deltas.append(generation.close())
    chunks = [events(data)["choices"][0] for data in streamed(built, deltas) if data != DONE]
    whole = built.whole()["choices"][0]
    offsets = whole["logprobs"]["text_offset"]
    assert [each for chunk in chunks for each in chunk["logprobs"]["text_offset"]] == offsets
    said = "".join(token.text for delta in deltas for token in delta.tokens)
    assert said.startswith(whole["text"])
    assert len(offsets) == sum(len(delta.tokens) for delta in deltas)
    places = [n for n, character in enumerate(text) for _ in TOKENIZER.encode(character)]
    assert offsets == places[: len(offsets)]


def test_usage_is_streamed_only_to_those_who_asked() -> None:
    built, deltas = answer()
    sent = streamed(built, deltas)
    assert sent[-1] == DONE
    assert all("usage" not in events(each) for each in sent[:-1])
    assert all(events(each)["choices"][0]["logprobs"] is None for each in sent[:-1])


def test_candidates_of_their_own_are_streamed_by_index_and_counted_together() -> None:
    request = CompletionRequest.model_validate(
        {"prompt": "x", "n": 2, "max_tokens": 2, "seed": 1, "logprobs": 0, "stream_options": {"include_usage": True}}
    )
    admitted = intake().take(request)
    built = Answer(request, admitted, "tiny", 7)
    first, second = admitted.candidates
    words = {text: Sample(TOKENIZER.encode(text)[0], -0.5) for text in ("a", " +", " b")}
    sent: list[bytes] = []
    for candidate, generation, text in ((0, first, "a"), (1, second, " b"), (1, second, " b"), (0, first, " +")):
        assert not built.complete
        sent += built.chunks(candidate, generation.accept(words[text]))
    assert sent.pop() == DONE
    *chunks, last = map(events, sent)
    assert [each["choices"][0]["index"] for each in chunks] == [0, 1, 1, 0]
    assert [each["choices"][0]["finish_reason"] for each in chunks] == [None, None, "length", "length"]
    assert [each["choices"][0]["logprobs"]["text_offset"] for each in chunks] == [[0], [0], [2], [1]]
    assert ["starfill" in each for each in chunks] == [True, False, False, False]
    assert last["usage"]["completion_tokens"] == 4
    assert [(each["index"], each["text"]) for each in built.whole()["choices"]] == [(0, "a +"), (1, " b b")]


def test_a_priming_that_gave_way_tells_what_it_computed() -> None:
    built, _ = answer()
    built._admitted.generation.skipped = 2
    prompt = len(TOKENIZER.encode("x = y = z"))
    assert built.whole()["starfill"]["computed"] == prompt - 4 - 2

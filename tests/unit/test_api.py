"""Requests of the wire: what is accepted, and how what is not is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.api import MAX_TEXT, CompletionRequest, parse_completion, usage
from engine.errors import Overloaded, RequestError


def parse(**fields: Any) -> CompletionRequest:
    return parse_completion(json.dumps({"prompt": "x"} | fields).encode())


def test_defaults_are_openais() -> None:
    request = parse()
    assert (request.prompt, request.suffix, request.max_tokens) == ("x", None, 16)
    assert (request.model, request.temperature, request.top_p, request.n, request.stop) == (None,) * 5
    assert (request.seed, request.logprobs, request.stream, request.stream_options) == (None,) * 4
    assert (request.top_k, request.min_p, request.repetition_penalty) == (None,) * 3
    assert (request.return_token_ids, request.stop_strings) == (False, ())
    own = request.starfill
    assert (own.context, own.path, own.repository, own.language, own.document) == ((), None, None, None, None)
    assert (own.layout, own.raw, own.pin) == ("auto", False, False)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "default", "suffix": "", "max_tokens": 0, "temperature": 0, "top_p": 1, "n": 16, "seed": -(2**63)},
        {"max_tokens": None, "temperature": None, "top_p": None, "n": None, "stop": None, "seed": None, "suffix": None},
        {"temperature": 2.0, "top_p": 0.01, "logprobs": 5, "max_tokens": 1_048_576, "seed": 2**63 - 1},
        {"prompt": [0, 1, 2**31 - 1], "stream": True, "stream_options": {"include_usage": True}},
        {"prompt": "", "stop": "\n\n", "stream": False, "stream_options": None, "return_token_ids": True},
        {"stop": ["a"] * 16, "starfill": {}},
        {
            "starfill": {
                "context": [{"path": "a.py", "text": ""}] * 64,
                "path": "b.py",
                "repository": "r",
                "language": "python",
                "layout": "psm",
                "document": "file:///b.py",
                "raw": True,
            }
        },
        {"prompt": "y" * 2**20, "suffix": "z" * 2**20},
        {"top_k": -1, "min_p": 0, "repetition_penalty": 0.1, "starfill": {"pin": True}},
        {"top_k": 2**31 - 1, "min_p": 1.0, "repetition_penalty": 10.0},
        {"top_k": None, "min_p": None, "repetition_penalty": None},
    ],
)
def test_good_requests_are_accepted_as_sent(fields: dict[str, Any]) -> None:
    sent = {"prompt": "x"} | fields
    assert json.loads(parse(**fields).model_dump_json(exclude_unset=True)) == sent


def test_stop_has_one_form() -> None:
    assert parse(stop="ab").stop_strings == ("ab",)
    assert parse(stop=["ab", "c"]).stop_strings == ("ab", "c")
    assert parse(stop=[]).stop_strings == ()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt.0"),
        ({"prompt": [[1]]}, "prompt.0"),
        ({"prompt": [True]}, "prompt.0"),
        ({"prompt": [1.5]}, "prompt.0"),
        ({"prompt": [1, -5]}, "prompt.1"),
        ({"prompt": [2**31]}, "prompt.0"),
        ({"prompt": "x" * (MAX_TEXT + 1)}, "prompt"),
        ({"suffix": "x" * (MAX_TEXT + 1)}, "suffix"),
        ({"suffix": 1}, "suffix"),
        ({"model": 7}, "model"),
        ({"model": "m" * 4_097}, "model"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 1.0}, "max_tokens"),
        ({"max_tokens": "16"}, "max_tokens"),
        ({"max_tokens": 1_048_577}, "max_tokens"),
        ({"max_tokens": 10**40}, "max_tokens"),
        ({"temperature": True}, "temperature"),
        ({"temperature": "0"}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_p": False}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"top_k": 2**31}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"min_p": -0.1}, "min_p"),
        ({"min_p": 1.1}, "min_p"),
        ({"min_p": float("nan")}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repetition_penalty": 10.5}, "repetition_penalty"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty"),
        ({"starfill": {"pin": 1}}, "starfill.pin"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"n": True}, "n"),
        ({"stop": ""}, "stop"),
        ({"stop": 7}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": ["a", ""]}, "stop.1"),
        ({"stop": ["a", 1]}, "stop.1"),
        ({"stop": "x" * 257}, "stop"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"stream": 1}, "stream"),
        ({"stream": "true"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"return_token_ids": None}, "return_token_ids"),
        ({"starfill": None}, "starfill"),
        ({"starfill": {"raw": 1}}, "starfill.raw"),
        ({"starfill": {"layout": "fim"}}, "starfill.layout"),
        ({"starfill": {"context": "a"}}, "starfill.context"),
        ({"starfill": {"context": [{"path": "a", "text": ""}] * 65}}, "starfill.context"),
        ({"starfill": {"context": [{"path": "a", "text": 1}]}}, "starfill.context.0.text"),
        ({"starfill": {"document": "d" * 4_097}}, "starfill.document"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_bad_value_names_its_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(**fields)
    assert (caught.value.param, caught.value.code, caught.value.status) == (param, "invalid_value", 400)
    assert caught.value.message.startswith(f"{param}: ")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": []}, "prompt: List should have at least 1 item"),
        ({"prompt": [1, -5]}, "prompt.1: Input should be greater than or equal to 0"),
        ({"prompt": ["a", "b"]}, "prompt.0: Input should be a valid integer"),
        ({"prompt": 7}, "prompt: Input should be a string or a list"),
        ({"stop": ""}, "stop: String should have at least 1 character"),
        ({"stop": "x" * 257}, "stop: String should have at most 256 characters"),
        ({"stop": ["a", ""]}, "stop.1: String should have at least 1 character"),
        ({"stop": ["x" * 300]}, "stop.0: String should have at most 256 characters"),
        ({"stop": ["x"] * 17}, "stop: List should have at most 16 items"),
        ({"stop": {}}, "stop: Input should be a string or a list"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_may_be_one_of_two_kinds_is_judged_as_the_kind_that_it_is(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(**fields)
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"promt": "x"}, "promt"),
        ({"best_of": 1}, "best_of"),
        ({"two words": 1}, "two words"),
        ({"starfill": {"heal": True}}, "starfill.heal"),
        ({"starfill": {"context": [{"path": "a", "text": "b", "x": 1}]}}, "starfill.context.0.x"),
        ({"stream_options": {"x": 1}}, "stream_options.x"),
    ],
)
def test_an_unknown_field_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(**fields)
    assert (caught.value.param, caught.value.code) == (param, "unknown_field")
    assert repr(param) in caught.value.message


@pytest.mark.parametrize(
    ("body", "param"),
    [(b"{}", "prompt"), (b'{"prompt":"x","starfill":{"context":[{"path":"a"}]}}', "starfill.context.0.text")],
)
def test_a_missing_field_is_named(body: bytes, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_completion(body)
    assert (caught.value.param, caught.value.code) == (param, "missing_field")


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"prompt": "x"', b"\xff\xfe", b'{"prompt": "\\ud800"}', b"[" * 100_000, b"{'prompt': 'x'}"]
)
def test_what_is_not_json_is_said_to_be_so(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        parse_completion(body)
    assert (caught.value.param, caught.value.code, caught.value.status) == (None, "invalid_json", 400)


@pytest.mark.parametrize("body", [b"[]", b"null", b"7", b'"prompt"'])
def test_a_body_must_be_an_object(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        parse_completion(body)
    assert (caught.value.param, caught.value.code) == (None, "invalid_value")


def test_no_message_repeats_what_the_user_wrote() -> None:
    for fields in ({"prompt": {"secret": 1}}, {"stop": ["secret", 1]}, {"starfill": {"layout": "secret"}}):
        with pytest.raises(RequestError) as caught:
            parse(**fields)
        assert "secret" not in caught.value.message


def test_errors_have_openais_form() -> None:
    error = RequestError("no", param="n", code="c", status=404)
    assert error.body() == {"error": {"message": "no", "type": "invalid_request_error", "param": "n", "code": "c"}}
    assert (Overloaded("busy").status, Overloaded("busy").body()["error"]["type"]) == (429, "overloaded_error")
    assert Overloaded("busy").retry_after == 1


def test_usage_adds_up() -> None:
    assert usage(10, 4, 6) == {
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 6},
    }

"""`/v1/completions` over the Unix socket, in a real engine process with a small random model."""

from __future__ import annotations

import json
import socket as sockets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.harness.checkpoints import assert_same_greedy, encode, make_checkpoint
from tests.harness.process import (
    Child,
    HttpReply,
    http_over_unix,
    read_metrics,
    temporary_home,
    wait_for_health,
    wait_until,
)


@dataclass(frozen=True, slots=True)
class Served:
    child: Child
    socket: Path
    directory: Path

    def post(self, **body: Any) -> HttpReply:
        return http_over_unix(self.socket, "/v1/completions", body={"temperature": 0, **body}, timeout=60)

    def ok(self, **body: Any) -> dict[str, Any]:
        reply = self.post(**body)
        assert reply.status == 200, reply.body
        answer: dict[str, Any] = reply.json()
        return answer

    def events(self, **body: Any) -> list[dict[str, Any]]:
        reply = self.post(stream=True, **body)
        assert reply.status == 200, reply.body
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in reply.body.decode().split("\n\n") if line]
        assert lines[-1] == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]

    def idle(self) -> None:
        wait_until(lambda: read_metrics(self.socket).value("starfill_running") == 0, "idle engine", timeout=5)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = make_checkpoint(tmp_path_factory.mktemp("m") / "tiny", n_positions=256, vocab_size=780)
    with temporary_home() as home:
        socket = home / "e.sock"
        argv = ("engine.cli", "serve", "--model", str(directory), "--device", "cpu", "--socket", str(socket))
        with Child.module(*argv, home=home) as child:
            wait_for_health(socket, child=child)
            yield Served(child, socket, directory)


def test_health_and_models_say_what_is_served(served: Served) -> None:
    health = http_over_unix(served.socket, "/health").json()
    assert health["status"] == "ready"
    assert health["pid"] == served.child.pid
    assert health["slots"]["window"] == 256
    models = http_over_unix(served.socket, "/v1/models").json()
    assert [model["id"] for model in models["data"]] == ["tiny"]
    assert http_over_unix(served.socket, "/v1/nothing").json()["error"]["code"] == "not_found"


def test_a_completion_has_openais_shape(served: Served) -> None:
    answer = served.ok(prompt="import os", max_tokens=7, model="tiny", return_token_ids=True)
    assert (answer["object"], answer["model"]) == ("text_completion", "tiny")
    (choice,) = answer["choices"]
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "length", None)
    assert len(choice["token_ids"]) == 7
    prompt = encode(served.directory, "import os")
    assert_same_greedy(choice["token_ids"], served.directory, prompt)
    usage = answer["usage"]
    assert usage["prompt_tokens"] == len(prompt)
    assert (usage["completion_tokens"], usage["total_tokens"]) == (7, 7 + len(prompt))
    assert usage["prompt_tokens_details"]["cached_tokens"] == answer["starfill"]["cached"]
    assert answer["starfill"]["layout"] == "none"


def test_defaults_are_openais(served: Served) -> None:
    def ask() -> list[int]:
        body = {"prompt": "x = ", "return_token_ids": True}
        answer = http_over_unix(served.socket, "/v1/completions", body=body).json()
        assert answer["usage"]["completion_tokens"] == 16
        ids: list[int] = answer["choices"][0]["token_ids"]
        return ids

    assert ask() != ask(), "sampled at temperature 1, with a seed of its own each time"


SAMPLED = {"prompt": "def f(a):\n", "max_tokens": 12, "temperature": 0.9, "seed": 42, "return_token_ids": True}


def test_the_same_seed_gives_the_same_text_alone_and_in_company(served: Served) -> None:
    first = served.ok(**SAMPLED)["choices"][0]
    with ThreadPoolExecutor(8) as pool:
        others = [
            pool.submit(served.ok, **SAMPLED | {"seed": n, "top_k": 40, "top_p": 0.9, "min_p": 0.01, "n": 1 + n % 3})
            for n in range(7)
        ]
        again = pool.submit(served.ok, **SAMPLED).result()["choices"][0]
        assert len({other.result()["choices"][0]["text"] for other in others}) > 1
    assert again == first
    assert served.ok(**SAMPLED | {"seed": 43})["choices"][0]["token_ids"] != first["token_ids"]
    streamed = served.events(**SAMPLED)
    assert [token for e in streamed for token in e["choices"][0]["token_ids"]] == first["token_ids"]


def test_sampled_candidates_differ_and_their_prompt_is_computed_once(served: Served) -> None:
    computed = read_metrics(served.socket).value("starfill_prompt_tokens_computed_total")
    body = SAMPLED | {"prompt": "class Candidates:\n    def method(self):\n", "n": 4, "logprobs": 1}
    answer = served.ok(**body)
    more = read_metrics(served.socket).value("starfill_prompt_tokens_computed_total") - computed
    assert more == answer["starfill"]["computed"]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert len({tuple(choice["token_ids"]) for choice in answer["choices"]}) == 4
    assert answer["usage"]["completion_tokens"] == sum(len(choice["token_ids"]) for choice in answer["choices"])
    assert served.ok(**body | {"n": 1})["choices"][0]["token_ids"] == answer["choices"][0]["token_ids"]
    events = served.events(**body)
    for choice in answer["choices"]:
        own = [e["choices"][0] for e in events if e["choices"][0]["index"] == choice["index"]]
        assert "".join(each["text"] for each in own) == choice["text"]
        assert [token for each in own for token in each["token_ids"]] == choice["token_ids"]
        assert [each["finish_reason"] for each in own if each["finish_reason"]] == [choice["finish_reason"]]


def test_a_repetition_penalty_changes_greedy_text_too(served: Served) -> None:
    plain = served.ok(prompt="a a a a", max_tokens=20, return_token_ids=True)["choices"][0]["token_ids"]
    strict = served.ok(prompt="a a a a", max_tokens=20, repetition_penalty=10.0, return_token_ids=True)
    ids = strict["choices"][0]["token_ids"]
    assert ids != plain
    assert len(set(ids)) == len(ids)


def test_a_pinned_prompt_stays_while_others_come_and_go(served: Served) -> None:
    head = "# Answer in one line, and only with code.\nimport this\n"
    tokens = served.ok(prompt=head, max_tokens=0, starfill={"pin": True})["usage"]["prompt_tokens"]
    slots = http_over_unix(served.socket, "/health").json()["slots"]["total"]
    for number in range(slots + 2):
        served.ok(prompt=f"{number} {number * 7} other text that shares nothing", max_tokens=1)
    assert served.ok(prompt=head + "x = 1\n", max_tokens=1)["starfill"]["cached"] >= tokens - 1


@pytest.mark.parametrize("layout", ["auto", "anchored", "spm", "psm"])
def test_streaming_text_equals_final_text(served: Served, layout: str) -> None:
    body = {
        "prompt": "def f(a):\n    b = a + 1\n    retu",
        "suffix": "\n\nprint(f(1))\n",
        "max_tokens": 20,
        "return_token_ids": True,
        "starfill": {"layout": layout},
    }
    whole = served.ok(**body)
    events = served.events(**body, stream_options={"include_usage": True})
    assert "".join(e["choices"][0]["text"] for e in events[:-1]) == whole["choices"][0]["text"]
    ids = [token for e in events[:-1] for token in e["choices"][0]["token_ids"]]
    assert ids == whole["choices"][0]["token_ids"]
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert all(e["usage"] is None for e in events[:-1])
    assert events[0]["starfill"]["layout"] == ("anchored" if layout == "auto" else layout)
    assert [e["choices"][0]["finish_reason"] for e in events[:-1]][-1] == whole["choices"][0]["finish_reason"]


def test_a_suffix_even_empty_makes_it_fill_in_the_middle(served: Served) -> None:
    assert served.ok(prompt="a", suffix="", max_tokens=1)["starfill"]["layout"] == "anchored"
    assert served.ok(prompt="a", suffix=None, max_tokens=1)["starfill"]["layout"] == "none"


def test_token_ids_are_a_prompt(served: Served) -> None:
    ids = encode(served.directory, "import sys\n")
    by_ids = served.ok(prompt=ids, max_tokens=5, return_token_ids=True)
    by_text = served.ok(prompt="import sys\n", max_tokens=5, return_token_ids=True)
    assert by_ids["choices"] == by_text["choices"]
    assert by_ids["usage"]["prompt_tokens"] == len(ids)


def test_priming_computes_the_prompt_and_says_nothing(served: Served) -> None:
    text = "class Primed:\n    def method(self) -> int:\n        return 4"
    answer = served.ok(prompt=text, max_tokens=0)
    assert (answer["choices"][0]["text"], answer["choices"][0]["finish_reason"]) == ("", "length")
    assert answer["usage"]["completion_tokens"] == 0
    assert served.ok(prompt=text, max_tokens=1)["starfill"]["computed"] == 1


def test_control_tokens_in_user_text_stay_text(served: Served) -> None:
    text = "s = '<fim_middle> <|endoftext|> <fim_prefix>'"
    plain = served.ok(prompt=text, max_tokens=0)["usage"]["prompt_tokens"]
    raw = served.ok(prompt=text, max_tokens=0, starfill={"raw": True})["usage"]["prompt_tokens"]
    assert raw == len(encode(served.directory, text))
    assert plain > raw


def test_candidates_share_one_computation(served: Served) -> None:
    answer = served.ok(prompt="n = ", max_tokens=3, n=3)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len({choice["text"] for choice in answer["choices"]}) == 1
    events = served.events(prompt="n = ", max_tokens=3, n=2)
    texts = ["".join(e["choices"][0]["text"] for e in events if e["choices"][0]["index"] == n) for n in (0, 1)]
    assert texts == [answer["choices"][0]["text"]] * 2


def test_logprobs_are_of_the_chosen_tokens(served: Served) -> None:
    choice = served.ok(prompt="for i in ", max_tokens=4, logprobs=3)["choices"][0]
    logprobs = choice["logprobs"]
    assert len(logprobs["tokens"]) == len(logprobs["token_logprobs"]) == len(logprobs["top_logprobs"]) == 4
    for token, logprob, top in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    ):
        assert logprob == max(top.values()) <= 0
        assert token in top
    assert logprobs["text_offset"][0] == 0
    assert served.ok(prompt="for i in ", max_tokens=1, logprobs=0)["choices"][0]["logprobs"]["top_logprobs"] is None


def test_stop_strings_end_the_text_before_themselves(served: Served) -> None:
    text = served.ok(prompt="def g():\n", max_tokens=24)["choices"][0]["text"]
    stop = text[5:8]
    choice = served.ok(prompt="def g():\n", max_tokens=24, stop=[stop, "never there"])["choices"][0]
    assert choice["text"] == text[: text.index(stop)]
    assert choice["finish_reason"] == "stop"
    streamed = served.events(prompt="def g():\n", max_tokens=24, stop=stop)
    assert "".join(e["choices"][0]["text"] for e in streamed) == text[: text.index(stop)]


def test_a_megabyte_a_side_is_windowed(served: Served) -> None:
    line = "value = compute(value, 1)\n"
    side = line * (2**20 // len(line) + 1)
    answer = served.ok(prompt=side + "val", suffix="\n" + side, max_tokens=4)
    assert 64 < answer["usage"]["prompt_tokens"] <= 256
    assert served.post(prompt=side, max_tokens=4).json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({"prompt": "a", "model": "other"}, 404, "model", "model_not_found"),
        ({"prompt": "a", "temperature": 2.5}, 400, "temperature", "invalid_value"),
        ({"prompt": "a", "top_p": 0}, 400, "top_p", "invalid_value"),
        ({"prompt": "a", "top_k": -2}, 400, "top_k", "invalid_value"),
        ({"prompt": "a", "min_p": 1.5}, 400, "min_p", "invalid_value"),
        ({"prompt": "a", "repetition_penalty": 0}, 400, "repetition_penalty", "invalid_value"),
        ({"prompt": "a", "seed": 2**63}, 400, "seed", "invalid_value"),
        ({"prompt": "a", "user": "me"}, 400, "user", "unknown_field"),
        ({"prompt": "a", "starfill": {"colour": 1}}, 400, "starfill.colour", "unknown_field"),
        ({"prompt": "a", "max_tokens": -1}, 400, "max_tokens", "invalid_value"),
        ({"prompt": "a", "max_tokens": True}, 400, "max_tokens", "invalid_value"),
        ({"prompt": "a", "n": 0}, 400, "n", "invalid_value"),
        ({"prompt": "a", "stream": "yes"}, 400, "stream", "invalid_value"),
        ({"max_tokens": 1}, 400, "prompt", "missing_field"),
        ({"prompt": [1, 2], "suffix": "x"}, 400, "suffix", "invalid_value"),
        ({"prompt": [780]}, 400, "prompt", "invalid_value"),
        ({"prompt": []}, 400, "prompt", "invalid_value"),
        ({"prompt": "a", "suffix": "b", "starfill": {"layout": "mps"}}, 400, "starfill.layout", "invalid_value"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(
    served: Served, body: dict[str, Any], status: int, param: str, code: str
) -> None:
    reply = http_over_unix(served.socket, "/v1/completions", body=body)
    error = reply.json()["error"]
    assert (reply.status, error["param"], error["code"]) == (status, param, code)
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]


def test_junk_is_answered_and_changes_nothing(served: Served) -> None:
    for data in (b"{", b"[1]", b"null", b"\xff\xfe", b"{" * 100_000, b'{"prompt": NaN}'):
        with sockets.socket(sockets.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(served.socket))
            head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
            client.sendall(head.encode() + data)
            assert client.recv(100).split()[1] == b"400"
    assert served.ok(prompt="still here", max_tokens=1)


@pytest.mark.parametrize("stream", [False, True])
def test_closing_the_connection_stops_the_model(served: Served, stream: bool) -> None:
    before = read_metrics(served.socket).value("starfill_aborted_total")
    body = json.dumps({"prompt": "x", "max_tokens": 250, "temperature": 0, "stream": stream}).encode()
    with sockets.socket(sockets.AF_UNIX) as client:
        client.connect(str(served.socket))
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        if stream:
            client.recv(10)
        else:
            time.sleep(0.02)
    aborted = before + 1  # it may not have begun yet: an engine that does nothing is not enough
    wait_until(lambda: read_metrics(served.socket).value("starfill_aborted_total") == aborted, "an abort", timeout=5)
    served.idle()
    assert read_metrics(served.socket).value("starfill_slots_held") == 0

"""What the engine is sent: valid requests, each window serialised once, documents under names of their own."""

from __future__ import annotations

import json

import pydantic_core
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import CompletionRequest, parse_completion
from lsp_server.state.ask import NOWHERE, Surroundings
from lsp_server.state.call import Call, Purpose
from lsp_server.window import Window
from lsp_server.wire import Wire

WINDOW = Window('x = "é😀\u2028\\', "\n\ty\x00\n")


def _call(purpose: Purpose, *, document: str = "a", around: Surroundings = NOWHERE, candidates: int = 1) -> Call:
    return Call(document, WINDOW, purpose, around, candidates)


def _parsed(body: bytes) -> CompletionRequest:
    return parse_completion(body)


@pytest.mark.parametrize("purpose", Purpose)
def test_each_body_is_a_request_that_the_engine_takes(purpose: Purpose) -> None:
    around = Surroundings("a/b.py", "repo", "python", (("c.py", "import x\n"),))
    request = _parsed(Wire(48).encode(_call(purpose, around=around, candidates=3)))
    assert (request.prompt, request.suffix, request.stream) == (WINDOW.prefix, WINDOW.suffix, True)
    assert (request.starfill.path, request.starfill.repository, request.starfill.language) == (
        "a/b.py",
        "repo",
        "python",
    )
    assert [(each.path, each.text) for each in request.starfill.context] == [("c.py", "import x\n")]
    assert not request.starfill.raw


def test_completing_is_greedy_priming_asks_for_nothing_and_alternatives_have_a_seed() -> None:
    bodies = Wire(48)
    complete, prime, sample = (_parsed(bodies.encode(_call(each, candidates=3))) for each in
                               (Purpose.COMPLETE, Purpose.PRIME, Purpose.SAMPLE))  # fmt: skip
    assert (complete.temperature, complete.max_tokens, complete.n) == (0, 48, None)
    assert (prime.temperature, prime.max_tokens) == (0, 0)
    assert sample.temperature is not None
    assert sample.temperature > 0
    assert (sample.n, sample.seed is not None, sample.max_tokens) == (3, True, 48)


def test_what_stays_the_same_is_serialised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    serialised: list[str] = []

    def to_json(text: str) -> bytes:
        serialised.append(text)
        return json.dumps(text).encode()

    monkeypatch.setattr(pydantic_core, "to_json", to_json)
    bodies = Wire(48)
    sent = 0
    for line, purpose in (("x", Purpose.PRIME), ("x", Purpose.COMPLETE), ("xy", Purpose.COMPLETE), ("", Purpose.PRIME)):
        window = Window("above\n" + line, "\nbelow\n")
        body = bodies.encode(Call("a", window, purpose, NOWHERE))
        assert (_parsed(body).prompt, _parsed(body).suffix) == (window.prefix, window.suffix)
        sent += len(body)
    assert serialised.count("above\n") == serialised.count("\nbelow\n") == 1
    assert (bodies.bytes, bodies.requests) == (sent, 4)


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.text(max_size=6)), max_size=8))
def test_every_window_arrives_as_it_is(sides: list[tuple[str, str]]) -> None:
    bodies = Wire(48)
    for prefix, suffix in sides:
        window = Window(prefix, suffix.encode("utf-8", "replace").decode())
        request = _parsed(bodies.encode(Call("a", window, Purpose.COMPLETE, NOWHERE)))
        assert (request.prompt, request.suffix) == (window.prefix, window.suffix)


def test_a_document_has_one_opaque_name_per_server_and_opening() -> None:
    one, other = Wire(48), Wire(48)

    def name(of: Wire, document: str) -> str | None:
        return _parsed(of.encode(_call(Purpose.COMPLETE, document=document))).starfill.document

    first = name(one, "file:///home/somebody/secret.py")
    assert first == name(one, "file:///home/somebody/secret.py")
    assert first is not None
    assert "secret" not in first
    assert first != name(one, "file:///other.py")
    assert first != name(other, "file:///home/somebody/secret.py")
    one.forget("file:///home/somebody/secret.py")
    assert first != name(one, "file:///home/somebody/secret.py")


def test_names_are_not_kept_for_ever() -> None:
    bodies = Wire(48)
    for number in range(3_000):
        bodies.encode(_call(Purpose.PRIME, document=str(number)))
    assert len(bodies._names) <= 1_024

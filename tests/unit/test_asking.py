"""One question to an engine: the head that is kept, what ends an answer, and what is asked again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.api import CompletionRequest, parse_completion
from engine.client import Chunk
from engine.errors import EngineAbsent, EngineLoading, EngineUnavailable
from engine.instruct import Following, Form
from lsp_server.actions.asking import Asker, Said
from lsp_server.actions.following import Model
from lsp_server.actions.prompts import Prompt
from lsp_server.engines import Progress
from lsp_server.reasons import Reason
from lsp_server.window import Window
from tests.harness.aio import async_test

AROUND = Window("x = 1\n", "")
HEAD = "what all begin with:"
HEAD_TOKENS = 7


class Engine:
    """Says `text`, sign by sign; of the head it keeps what it was asked to, until `forget`."""

    primes = True
    window: int | None = None

    def __init__(self, text: str = "fine", *errors: Exception) -> None:
        self.requests: list[CompletionRequest] = []
        self.open = 0
        self.kept = 0
        self._text = text
        self._errors = list(errors)

    def forget(self) -> None:
        self.kept = 0

    async def ready(self, *, invoked: bool, progress: Progress | None) -> None:
        assert invoked

    @asynccontextmanager
    async def complete(self, request: CompletionRequest | bytes) -> AsyncIterator[AsyncIterator[Chunk]]:
        asked = parse_completion(request) if isinstance(request, bytes) else request
        if self._errors:
            raise self._errors.pop(0)
        self.requests.append(asked)
        self.open += 1
        try:
            yield self._prime(asked) if asked.starfill.pin else self._say()
        finally:
            self.open -= 1

    async def _prime(self, request: CompletionRequest) -> AsyncIterator[Chunk]:
        assert request.max_tokens == 0
        self.kept = HEAD_TOKENS
        yield Chunk(finish_reason="length", usage={"prompt_tokens": HEAD_TOKENS})

    async def _say(self) -> AsyncIterator[Chunk]:
        for sign in self._text:
            await asyncio.sleep(0)
            yield Chunk(text=sign, extension={"cached": self.kept, "computed": 3})
        yield Chunk(finish_reason="stop", usage={"prompt_tokens": 9})

    def not_shown(self, answer: str, reason: str) -> None:
        raise AssertionError

    async def aclose(self) -> None: ...


def question(text: str = "?", head: str = "") -> Prompt:
    return Prompt(f"{head} {text}", ("\nHuman:",), head)


async def ask(asker: Asker, engine: Engine, prompt: Prompt, **options: Any) -> Said:
    return await asker.ask(engine, prompt, AROUND, 32, options.pop("heard", lambda text: None), **options)


@async_test()
async def test_the_head_is_computed_once_and_again_when_it_was_lost() -> None:
    asker, engine = Asker(), Engine()
    for _ in range(3):
        said = await ask(asker, engine, question(head=HEAD))
        assert said == Said("fine", "stop", {"prompt_tokens": 9}, HEAD_TOKENS, 3)
    assert [request.starfill.pin for request in engine.requests] == [True, False, False, False]
    assert engine.requests[0].prompt == HEAD
    engine.forget()
    for _ in range(3):
        await ask(asker, engine, question(head=HEAD))
    assert [request.starfill.pin for request in engine.requests[4:]] == [False, True, False, False]
    other = Engine()
    await ask(asker, other, question(head=HEAD))
    assert [request.starfill.pin for request in other.requests] == [True, False]


@async_test()
async def test_strangers_are_not_asked_to_keep_anything() -> None:
    engine = Engine()
    engine.primes = False
    await ask(Asker(), engine, question(head=HEAD))
    assert [request.starfill.pin for request in engine.requests] == [False]
    assert engine.requests[0].stop == ["\nHuman:"]
    assert engine.requests[0].temperature == 0


@async_test()
async def test_documents_differ_so_that_none_gives_way_to_another() -> None:
    asker, engine = Asker(), Engine()
    for _ in range(2):
        await ask(asker, engine, question())
    first, second = (request.starfill.document for request in engine.requests)
    assert first != second


@async_test()
async def test_an_engine_that_left_is_asked_once_more() -> None:
    engine = Engine("fine", EngineAbsent("gone"))
    assert (await ask(Asker(), engine, question(head=HEAD))).text == "fine"
    with pytest.raises(EngineAbsent):
        await ask(Asker(), Engine("fine", EngineAbsent("gone"), EngineAbsent("gone")), question())
    with pytest.raises(EngineUnavailable):
        await ask(Asker(), Engine("fine", EngineUnavailable("broke")), question())


@async_test()
async def test_what_cannot_be_seen_ends_an_answer_and_the_model() -> None:
    heard: list[str] = []
    engine = Engine("fine\u202edednet sa ton")
    said = await ask(Asker(), engine, question(), heard=heard.append)
    assert (said.text, said.cut) == ("fine", Reason.UNSAFE)
    assert heard == ["f", "fi", "fin", "fine"]
    assert engine.open == 0


@async_test()
async def test_a_loop_ends_words_and_leaves_code_alone() -> None:
    text = "It is. " + "so so " * 40
    said = await ask(Asker(), Engine(text), question(), loops=True)
    assert said.cut is Reason.REPETITION
    assert text.startswith(said.text)
    assert len(said.text) < 30
    code = "0, None, " * 40
    assert (await ask(Asker(), Engine(code), question())).text == code


@async_test()
async def test_cancelling_closes_the_stream() -> None:
    engine = Engine("a" * 100_000)
    started = asyncio.Event()
    work = asyncio.create_task(ask(Asker(), engine, question(), heard=lambda text: started.set()))
    await started.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert engine.open == 0


class Describing(Engine):
    def __init__(self, *entries: dict[str, Any] | Exception) -> None:
        super().__init__()
        self._entries = list(entries)
        self.asked = 0

    async def model(self) -> dict[str, Any]:
        self.asked += 1
        entry = self._entries.pop(0) if len(self._entries) > 1 else self._entries[0]
        if isinstance(entry, Exception):
            raise entry
        return entry


ALPACA = {"id": "m", "owned_by": "starfill", "starfill": {"instruct": "alpaca", "terms": None}}


@async_test()
async def test_what_a_model_follows_is_asked_once_for_each_engine() -> None:
    model, engine = Model(), Describing(ALPACA)
    assert model.known(engine) is None
    for _ in range(3):
        assert await model.ask(engine) == Following(Form.ALPACA)
    assert (engine.asked, model.id) == (1, "m")
    other = Describing({"id": "bigcode/starcoder"})
    assert model.known(other) is None
    assert (await model.ask(other)).form is Form.ASSISTANT
    assert await model.ask(Engine()) == Following()


@async_test()
async def test_what_is_not_known_yet_is_asked_again() -> None:
    model = Model()
    engine = Describing({"id": "m", "owned_by": "starfill"}, EngineUnavailable("gone"), ALPACA)
    with pytest.raises(EngineLoading):
        await model.ask(engine)
    assert await model.learn(engine) is None
    assert await model.learn(engine) == Following(Form.ALPACA)


@async_test()
async def test_nobody_waits_long_for_it() -> None:
    class Silent(Engine):
        async def model(self) -> dict[str, Any]:
            await asyncio.Event().wait()
            return {}

    assert await Model().learn(Silent(), 0.01) is None

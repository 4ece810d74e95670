"""One large text costs no more than what fits of it, and keeps nobody else waiting."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.api import CompletionRequest
from engine.errors import RequestError
from engine.fim import MAX_SUFFIX, Budget, Document, Layout, Snippet, lay_out, suffix_window
from engine.intake import Admitted, HealingPolicy, Intake
from engine.metrics import Metrics
from engine.models import STARTER
from engine.service import EngineState, Service
from engine.tokenizer import Tokenizer
from engine.worker import Worker
from tests.harness.aio import async_test
from tests.unit.vocabularies import vocabulary

LARGE = 2**20
WINDOW = 512
BUDGET = Budget.of(WINDOW, 16)
TEXTS = {
    "lines": "value = other_value + 1\n" * (LARGE // 24),
    "blank lines": "\n" * LARGE,
    "one word": "a" * LARGE,
    "blanks": "x" + " " * LARGE + "y",
    "one line": "ab, 12 = " * (LARGE // 9),
}


class Library:
    """Stands before a library's encoder: `characters` it was given; `held` calls wait until they are let go."""

    def __init__(self, bpe: Any) -> None:
        self.characters = 0
        self.inside = False
        self.pre_tokenizer = bpe.pre_tokenizer
        self.held: dict[str, threading.Event] = {}
        self._bpe = bpe

    def encode(self, text: str, **options: Any) -> Any:
        self.characters += len(text)
        if text in self.held:
            self.held[text].wait(20)
        return self._bpe.encode(text, **options)

    def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
        self.characters += sum(map(len, texts))
        self.inside = True
        try:
            return self._bpe.encode_batch_fast(texts, **options)
        finally:
            self.inside = False


@pytest.fixture(scope="module")
def loaded() -> Tokenizer:
    return Tokenizer(STARTER / "tokenizer.json")


@pytest.fixture
def tokenizer(loaded: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> Tokenizer:
    """One that remembers nothing of the tests before."""
    loaded._pieces.clear()
    for name in ("_bpe", "_raw_bpe"):
        monkeypatch.setattr(loaded, name, Library(getattr(loaded, name)))
    return loaded


@pytest.fixture
def services() -> Iterator[list[Service]]:
    made: list[Service] = []
    yield made
    for service in made:
        service.close()


def given_to(tokenizer: Tokenizer) -> int:
    return cast("Library", tokenizer._bpe).characters + cast("Library", tokenizer._raw_bpe).characters


def bound(tokenizer: Tokenizer, tokens: int) -> int:
    """Characters of a text of so many tokens at most, and one piece."""
    return tokens * max(len(tokenizer.bytes_of(token)) for token in range(tokenizer.size)) + 2


@given(
    parts=st.lists(st.sampled_from(("x = 1", "\n", "\r\n", "é世", " " * 40, "a" * 50, "\t", "= ", "😀")), max_size=30),
    most=st.integers(-2, 60),
    raw=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_whether_a_text_has_more_tokens_than_that_is_known_without_all_of_them(
    parts: list[str], most: int, raw: bool
) -> None:
    tokenizer, text = vocabulary("starter"), "".join(parts)
    encode = tokenizer.encode_raw if raw else tokenizer.encode
    whole, some = encode(text), encode(text, most)
    assert (len(some) > most) == (len(whole) > most)
    assert some == whole or len(some) > most


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("raw", [False, True])
def test_a_plain_prompt_that_cannot_fit_is_refused_by_what_would_have(
    text: str, raw: bool, tokenizer: Tokenizer
) -> None:
    desk = Intake("tiny", tokenizer, tokenizer.size, WINDOW, HealingPolicy(frozenset()))
    with pytest.raises(
        RequestError, match=f"more than {WINDOW - 16} tokens and max_tokens 16 exceed the window of 512"
    ):
        desk.take(CompletionRequest.model_validate({"prompt": text, "starfill": {"raw": raw}}))
    assert given_to(tokenizer) <= bound(tokenizer, WINDOW)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_piece_of_context_that_cannot_fit_is_left_out_by_what_would_have(text: str, tokenizer: Tokenizer) -> None:
    document = Document("x", "", path="a.py", context=[Snippet("b.py", text + "x")] * 3)
    found = lay_out(tokenizer, document, Layout.ANCHORED, BUDGET, heal=False)
    assert found == lay_out(tokenizer, Document("x", "", path="a.py"), Layout.ANCHORED, BUDGET, heal=False)
    assert given_to(tokenizer) <= 3 * bound(tokenizer, WINDOW // 4) + 100


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_suffix_is_tokenised_as_far_as_the_window_reaches(text: str, tokenizer: Tokenizer) -> None:
    ids = suffix_window(tokenizer.encode, text, MAX_SUFFIX)
    assert 0 < len(ids) <= MAX_SUFFIX
    assert text.startswith(tokenizer.decode(ids))
    assert given_to(tokenizer) <= 3 * 4_096


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("raw", [False, True])
def test_a_whole_prompt_is_tokenised_as_far_as_the_window_reaches(text: str, raw: bool, tokenizer: Tokenizer) -> None:
    document = Document(text, text, context=[Snippet("b.py", text)])
    assert lay_out(tokenizer, document, Layout.ANCHORED, BUDGET, heal=True, raw=raw).ids
    assert given_to(tokenizer) <= 12 * bound(tokenizer, WINDOW)


def test_who_tokenises_much_keeps_no_other_thread_from_it(tokenizer: Tokenizer) -> None:
    go_on = threading.Event()
    cast("Library", tokenizer._bpe).held["slow"] = go_on
    found: list[list[int]] = []
    slow = threading.Thread(target=lambda: found.append(tokenizer.encode("slow")))
    quick = threading.Thread(target=lambda: tokenizer.encode("quick\nwords\n"))
    slow.start()
    quick.start()
    quick.join(10)
    waited = quick.is_alive()
    go_on.set()
    slow.join(10)
    quick.join(10)
    assert not waited
    assert found == [tokenizer.encode("slow")]


def test_a_long_line_leaves_the_interpreter_to_others(tokenizer: Tokenizer) -> None:
    """The library's call for a single text would not: the whole engine would stand still."""
    library, turns = cast("Library", tokenizer._bpe), 0
    busy = threading.Thread(target=lambda: tokenizer.encode(TEXTS["one word"][: LARGE // 8]))
    busy.start()
    while busy.is_alive():
        time.sleep(0.001)
        turns += library.inside
    assert turns >= 5


class SlowDesk:
    """An intake that takes until it is let go for what is large."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def take(self, request: CompletionRequest, client: str = "") -> Admitted:
        if len(str(request.prompt)) > 1_000:
            self.go_on.wait(20)
        return cast("Admitted", None)


@async_test(timeout=30)
async def test_large_bodies_wait_for_each_other_and_small_ones_for_none_of_them(services: list[Service]) -> None:
    desk = SlowDesk()
    state = EngineState("tiny", intake=cast("Intake", desk), worker=cast("Worker", object()))
    service = Service(state, Metrics())
    services.append(service)
    large = [asyncio.create_task(service.complete(json.dumps({"prompt": "x" * LARGE}).encode(), "")) for _ in range(4)]
    try:
        await asyncio.sleep(0.1)
        async with asyncio.timeout(10):
            request, _, _ = await service.complete(b'{"prompt": "x"}', "")
        assert request.prompt == "x"
        assert not any(task.done() for task in large)
    finally:
        desk.go_on.set()
        await asyncio.gather(*large)

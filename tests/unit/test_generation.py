"""From the model's tokens to text: regrowing what was held back, budgets, stop strings, ends."""

from __future__ import annotations

import pytest

from engine.generation import Delta, Finish, Generation
from engine.step import Sample
from engine.tokenizer import Tokenizer
from tests.unit.vocabularies import NAMES, vocabulary

TOKENIZER = vocabulary("starter")


def token(text: str | bytes) -> int:
    """The one token that stands for exactly this."""
    data = text.encode() if isinstance(text, str) else text
    return next(n for n in range(TOKENIZER.size) if TOKENIZER.bytes_of(n) == data)


def generation(
    *,
    held: bytes = b"",
    max_tokens: int = 100,
    stop: tuple[str, ...] = (),
    fim: bool = True,
    prompt: int = 3,
    top: int = 0,
) -> Generation:
    control = TOKENIZER.control
    return Generation(
        id=1,
        tokenizer=TOKENIZER,
        prompt=[token("a")] * prompt,
        max_tokens=max_tokens,
        ends_at=TOKENIZER.is_control if fim else lambda each: each == control.end_of_text,
        held=held,
        stop=stop,
        top=top,
    )


def feed(target: Generation, *texts: str | bytes | int) -> list[Delta]:
    return [target.accept(Sample(each if isinstance(each, int) else token(each), -1.0)) for each in texts]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


@pytest.mark.parametrize(
    ("held", "tokens", "shown"),
    [
        (b"", ["return"], ["return"]),
        (b"re", ["return"], ["turn"]),
        (b"return", ["return", "a"], ["", "a"]),
        (b"re", ["r", "e", "a"], ["", "", "a"]),
        (b"ret", ["r", "e", "t"], ["", "", ""]),
        (b" re", [" ", "return"], ["", "turn"]),
        (b" re", [" return"], ["turn"]),
        ("\u00e9".encode(), [b"\xc3", b"\xa9", "a"], ["", "", "a"]),
        (b"\xc3", [b"\xc3", b"\xa9"], ["", "\ufffd"]),
    ],
)
def test_held_back_text_is_regrown_before_anything_is_shown(
    held: bytes, tokens: list[str | bytes], shown: list[str]
) -> None:
    target = generation(held=held)
    assert [delta.text for delta in feed(target, *tokens)] == shown


def test_only_tokens_along_the_held_text_are_allowed_until_it_is_there_again() -> None:
    target = generation(held=b"ret")
    assert set(target.allowed or ()) == set(TOKENIZER.tokens_along(b"ret"))
    feed(target, "r")
    assert set(target.allowed or ()) == set(TOKENIZER.tokens_along(b"et"))
    feed(target, "e")
    assert token("t") in (target.allowed or ())
    feed(target, "t")
    assert target.allowed is None
    assert generation().allowed is None


def test_regrown_tokens_do_not_count_and_are_not_reported() -> None:
    target = generation(held=b"re", max_tokens=2)
    deltas = feed(target, "r", "e", "a", "b")
    assert [len(delta.tokens) for delta in deltas] == [0, 0, 1, 1]
    assert [delta.finish for delta in deltas] == [None, None, None, Finish.LENGTH]
    assert text_of(deltas) == "ab"
    assert target.length == 3 + 4

    overshooting = feed(generation(held=b"re", max_tokens=1), "return")
    assert (overshooting[0].text, overshooting[0].finish) == ("turn", Finish.LENGTH)
    assert [(each.id, each.text, each.label) for each in overshooting[0].tokens] == [
        (token("return"), "turn", "return")
    ]


@pytest.mark.parametrize("strange", [b"x", "control", "unknown"])
def test_a_token_that_regrows_nothing_ends_it_so_that_every_generation_ends(strange: bytes | str) -> None:
    """What a runner answers that did not keep to `allowed` is neither counted nor shown."""
    ids = {"control": TOKENIZER.control.end_of_text, "unknown": TOKENIZER.size + 7}
    target = generation(held=b"return", max_tokens=2)
    feed(target, "re")
    (delta,) = feed(target, strange if isinstance(strange, bytes) else ids[strange])
    assert (delta.text, delta.tokens, delta.finish) == ("", (), Finish.STOP)


def test_control_tokens_end_a_fim_completion_and_only_end_of_text_ends_plain_text() -> None:
    control = TOKENIZER.control
    assert control.fim_middle is not None
    for end in (control.end_of_text, control.fim_middle):
        (delta,) = feed(generation(fim=True), end)
        assert (delta.text, delta.tokens, delta.finish) == ("", (), Finish.STOP)
    deltas = feed(generation(fim=False), "a", control.fim_middle, "b", control.end_of_text)
    assert [delta.text for delta in deltas] == ["a", "", "b", ""]
    assert [delta.finish for delta in deltas] == [None, None, None, Finish.STOP]


def test_ids_past_the_vocabulary_are_counted_and_decode_to_nothing() -> None:
    deltas = feed(generation(max_tokens=2), TOKENIZER.size + 7, "a")
    assert [(delta.text, len(delta.tokens)) for delta in deltas] == [("", 1), ("a", 1)]
    assert deltas[-1].finish is Finish.LENGTH


@pytest.mark.parametrize("end", ["control", "length", "window"])
def test_a_broken_character_at_the_end_becomes_a_replacement_character(end: str) -> None:
    target = generation(max_tokens=3 if end == "length" else 100)
    deltas = feed(target, "a", b"\xc3")
    assert text_of(deltas) == "a"
    if end == "control":
        deltas += feed(target, TOKENIZER.control.end_of_text)
    elif end == "length":
        deltas += feed(target, b"\xe4")
    else:
        deltas.append(target.close())
    assert text_of(deltas) == ("a\ufffd\ufffd" if end == "length" else "a\ufffd")
    assert deltas[-1].finish is (Finish.STOP if end == "control" else Finish.LENGTH)


def test_a_character_split_over_tokens_is_shown_whole() -> None:
    pieces = [bytes([byte]) for byte in "\U0001f600".encode()]
    assert [delta.text for delta in feed(generation(), *pieces, "a")] == ["", "", "", "\U0001f600", "a"]


@pytest.mark.parametrize(
    ("stop", "tokens", "shown", "finish"),
    [
        (("b",), ["a", "b", "c"], ["a", ""], Finish.STOP),
        (("turn",), ["return"], ["re"], Finish.STOP),
        (("ab",), ["a", "b"], ["", ""], Finish.STOP),
        (("ab",), ["a", "c"], ["", "ac"], None),
        (("aab",), ["a", "a", "a", "b"], ["", "", "a", ""], Finish.STOP),
        (("xyz", "c"), ["a", "x", "c"], ["a", "", "x"], Finish.STOP),
        (("\u00e9",), ["a", b"\xc3", b"\xa9"], ["a", "", ""], Finish.STOP),
        (("urn", "t"), ["return"], ["re"], Finish.STOP),
    ],
)
def test_a_stop_string_ends_the_text_before_itself(
    stop: tuple[str, ...], tokens: list[str | bytes], shown: list[str], finish: Finish | None
) -> None:
    target, deltas = generation(stop=stop), []
    for each in tokens:
        deltas += feed(target, each)
        if deltas[-1].finish:
            break
    assert [delta.text for delta in deltas] == shown
    assert deltas[-1].finish is finish


@pytest.mark.parametrize("end", ["control", "length", "window"])
def test_what_was_kept_back_for_a_stop_string_is_shown_in_the_end(end: str) -> None:
    target = generation(stop=("abc",), max_tokens=2 if end == "length" else 100)
    deltas = feed(target, "a", "b")
    if end == "control":
        deltas += feed(target, TOKENIZER.control.end_of_text)
    elif end == "window":
        deltas.append(target.close())
    assert text_of(deltas) == "ab"
    assert deltas[-1].finish is (Finish.STOP if end == "control" else Finish.LENGTH)


def test_a_stop_string_that_the_last_token_completes_is_a_stop() -> None:
    deltas = feed(generation(stop=("ab",), max_tokens=2), "a", "b")
    assert (text_of(deltas), deltas[-1].finish, len(deltas[-1].tokens)) == ("", Finish.STOP, 1)


def test_priming_wants_nothing_but_the_prompt() -> None:
    target = generation(max_tokens=0, held=b"re")
    assert target.primes_only
    assert target.allowed is None
    assert target.close() == Delta("", (), Finish.LENGTH)


def test_ids_of_positions_span_prompt_and_generated_text() -> None:
    target = generation(prompt=2)
    feed(target, "b", "c")
    ids = [token("a"), token("a"), token("b"), token("c")]
    for start in range(5):
        for end in range(start, 5):
            assert list(target.ids_from(start, end)) == ids[start:end]


def test_alternatives_are_named() -> None:
    target = generation(top=2)
    control = TOKENIZER.control.end_of_text
    delta = target.accept(Sample(token("a"), -0.1, ((token("a"), -0.1), (control, -2.5))))
    assert delta.tokens[0].top == (("a", -0.1), (f"token_id:{control}", -2.5))
    assert delta.tokens[0].logprob == -0.1


@pytest.mark.parametrize("name", NAMES)
def test_any_held_text_can_be_regrown_by_following_what_is_allowed(name: str) -> None:
    tokenizer: Tokenizer = vocabulary(name)
    for held in ("return", "    ", "\u4e16", "_private_name", "\r\n\t\t"):
        for choose in (min, max):
            target = Generation(1, tokenizer, [1], 5, tokenizer.is_control, held=held.encode())
            steps = 0
            while (allowed := target.allowed) is not None:
                pick = choose(allowed, key=lambda each: (len(tokenizer.bytes_of(each)), each))
                target.accept(Sample(pick, 0.0))
                steps += 1
                assert steps <= len(held.encode())
            assert tokenizer.decode(target.generated).startswith(held)

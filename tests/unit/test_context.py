"""What of other open documents is sent along: by rare identifiers, within a budget, and the same while the author types."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsp_server import context as context_of
from lsp_server.context import (
    CHUNK,
    DOCUMENTS,
    NEAR,
    PAUSE,
    Context,
    Other,
    Piece,
    chunks_of,
    identifiers_near,
    text_of,
    tokens_of,
)
from lsp_server.window import Window

COMMON = "".join(f"def helper_{n}(self, value):\n    return self.value + {n}\n\n" for n in range(40))
RARE = "def load_manifest(path):\n    return parse_manifest(path.read_text())\n"
ZEBRA = "def other_thing(zebra):\n    return zebra\n"
BUDGET = 600


def window(code: str) -> Window:
    prefix, _, suffix = code.partition("‸")
    return Window(prefix, suffix)


def other(name: str, text: str, revision: int = 0, edited: int | None = None) -> Other:
    return Other(name, f"{name}.py", text.splitlines(keepends=True), revision, edited)


def around(
    context: Context, code: str, *others: Other, line: int = 0, now: float = 0.0, budget: int = BUDGET
) -> tuple[Piece, ...]:
    return context.around("here", window(code), line, now, budget, lambda: others)


def test_the_piece_that_shares_rare_identifiers_comes_next_to_the_document() -> None:
    pieces = around(
        Context(),
        "manifest = load_manifest(‸)\nself.value = manifest\n",
        other("a", COMMON),
        other("b", RARE + "\n" * 60 + COMMON),
    )
    assert pieces[-1][0] == "b.py"
    assert "load_manifest" in pieces[-1][1]


def test_documents_that_share_nothing_are_left_out_and_so_is_the_document_itself() -> None:
    assert around(Context(), "load_manifest(‸)", other("here", RARE)) == ()
    assert around(Context(), "zebra(‸)", other("a", RARE)) == ()


def test_the_budget_holds_and_copies_are_sent_once() -> None:
    big = "".join(f"result_{n} = load_manifest(argument_{n})\n" for n in range(400))
    pieces = around(Context(), "x = load_manifest(result_1, ‸)", *(other(name, big) for name in "abc"))
    assert 0 < sum(tokens_of(path) + tokens_of(text) for path, text in pieces) <= BUDGET
    assert len({text for _, text in pieces}) == len(pieces)
    assert around(Context(), "x = load_manifest(‸)", other("a", big), budget=20) == ()


def test_what_the_cursor_sees_is_not_sent_again() -> None:
    assert around(Context(), RARE + "‸", other("a", RARE), line=2) == ()


def test_two_pieces_of_a_document_do_not_overlap() -> None:
    body = "".join(f"    load_manifest(name_{n})\n" for n in range(CHUNK))
    pieces = around(Context(), "load_manifest(name_3, name_20‸)", other("a", body * 2), budget=5_000)
    lines = [line for _, text in pieces for line in text.split("\n")]
    assert len(lines) <= 2 * CHUNK


def test_it_is_the_very_same_while_somebody_types_however_much() -> None:
    context = Context()
    others = (other("a", RARE), other("b", ZEBRA))
    first = around(context, "load_manifest(‸)", *others, line=100)
    assert first
    for typed in range(1, 4 * NEAR):
        now = typed * (PAUSE - 0.1)
        assert around(context, "other_thing(zebra‸)", *others, line=100 + typed, now=now) is first


def test_after_a_jump_and_after_a_pause_elsewhere_other_pieces_are_chosen() -> None:
    others = (other("a", RARE), other("b", ZEBRA))
    for line, now, anew in (
        (100 + NEAR, 0.1, False),
        (101 + NEAR, 0.1, True),
        (100 + NEAR, PAUSE, False),
        (90, PAUSE, False),
    ):
        context = Context()
        first = around(context, "load_manifest(‸)", *others, line=100)
        again = around(context, "other_thing(zebra‸)", *others, line=line, now=now)
        assert (again != first) is anew
    context = Context()
    first = around(context, "load_manifest(‸)", *others, line=100)
    for typed in range(1, NEAR + 2):
        assert around(context, "other_thing(zebra‸)", *others, line=100 + typed, now=typed) is first
    assert around(context, "other_thing(zebra‸)", *others, line=126, now=NEAR + 1 + PAUSE) != first


def test_typing_in_another_document_changes_nothing_before_a_pause() -> None:
    context = Context()
    first = around(context, "load_manifest(‸)", other("a", RARE))
    longer = other("a", RARE + "x = 1\n", revision=1)
    assert around(context, "load_manifest(1‸)", longer, now=1.0) is first
    changed = around(context, "load_manifest(1‸)", longer, now=1.0 + PAUSE)
    assert changed != first
    assert "x = 1" in changed[-1][1]
    opened = (longer, other("b", RARE.replace("path", "file")))
    assert around(context, "load_manifest(1‸)", *opened, now=2.0 + PAUSE) is changed
    assert around(context, "load_manifest(1‸)", *opened, now=2.0 + 2 * PAUSE) is not changed


def test_others_are_not_even_listed_while_somebody_types() -> None:
    listed = 0

    def others() -> Sequence[Other]:
        nonlocal listed
        listed += 1
        return (other("a", RARE),)

    context = Context()
    for typed in range(50):
        context.around("here", window("load_manifest(‸)"), typed, 0.1 * typed, BUDGET, others)
    assert listed == 1


def test_what_is_not_allowed_any_more_is_left_out_at_once() -> None:
    context = Context()
    both = (other("a", RARE), other("b", "quagga, okapi, giraffe = load_manifest(zebra)\n"))
    first = around(context, "load_manifest(zebra, parse_manifest‸)", *both)
    assert {path for path, _ in first} == {"a.py", "b.py"}
    left = context.around("here", window("load_manifest(‸)"), 0, 0.1, BUDGET, lambda: both, lambda name: name != "a")
    assert {path for path, _ in left} == {"b.py"}
    assert around(context, "load_manifest(‸)", *both, now=0.2) is left


def test_a_closed_document_is_forgotten_everywhere() -> None:
    context = Context()
    assert around(context, "load_manifest(‸)", other("a", RARE))
    context.forget("a")
    assert around(context, "load_manifest(‸)", now=0.1) == ()


def test_what_was_edited_lately_counts_more() -> None:
    one = "def first_choice(manifest):\n    alpha_beta(manifest)\n"
    two = "def second_option(manifest):\n    gamma_delta(manifest)\n"
    for edited in ("a", "b"):
        pieces = around(
            Context(),
            "manifest = ‸",
            other("a", one, edited=0 if edited == "a" else None),
            other("b", two, edited=0 if edited == "b" else None),
        )
        assert pieces[-1][0] == f"{edited}.py"


def test_chunks_stay_what_they_are_when_lines_are_added_below() -> None:
    lines = [f"name_{n} = {n}\n" for n in range(4 * CHUNK)]
    before, after = chunks_of(lines), chunks_of(lines + ["more = 1\n"] * 40)
    whole = [chunk for chunk in before if chunk.first + CHUNK <= 4 * CHUNK]
    assert whole
    assert whole == [chunk for chunk in after if chunk.first + CHUNK <= 4 * CHUNK]


def test_of_a_very_long_document_what_is_near_the_last_edit_is_looked_at() -> None:
    lines = [f"name_{n} = {n}\n" for n in range(20_000)]
    found = chunks_of(lines, near=15_000)
    assert any(f"name_{15_000}" in chunk.words for chunk in found)
    assert len(found) <= 4_096 // (CHUNK // 2)
    assert chunks_of(["x" * 10**6 + "\n"]) == ()


@given(count=st.integers(1, 120), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_every_line_stands_in_a_chunk_and_a_chunk_is_what_its_lines_say(count: int, seed: int) -> None:
    rng = random.Random(seed)
    source = other("a", "".join(f"word_{n}_{rng.randrange(99)} = 1\r\n" for n in range(count)))
    found = chunks_of(source.lines)
    seen = "\n".join(text_of(source, chunk) for chunk in found)
    assert all(line.rstrip() in seen for line in source.lines)
    assert "\r" not in seen
    for chunk in found:
        assert all(word in text_of(source, chunk) for word in chunk.words)


@given(seed=st.integers(0, 10**6), budget=st.sampled_from([100, BUDGET, 1_536]))
@settings(max_examples=40, deadline=None)
def test_what_is_chosen_is_what_scores_best_among_all_chunks(seed: int, budget: int) -> None:
    """By the definition, chunk for chunk."""
    rng = random.Random(seed)
    names = [f"word_{n}" for n in range(60)]

    def text(lines: int) -> str:
        return "".join(" ".join(rng.choices(names, k=rng.randrange(5))) + "\n" for _ in range(lines))

    others = [
        other(str(n), text(rng.randrange(200)), edited=rng.choice([None, 20])) for n in range(rng.randrange(1, 6))
    ]
    here = window(f"{text(30)}‸{text(30)}")
    wanted = identifiers_near(here)
    chunks = [(source, chunk) for source in others for chunk in chunks_of(source.lines, source.edited or 0)]
    counts = Counter(word for _, chunk in chunks for word in chunk.words)

    def score(source: Other, words: frozenset[str], first: int) -> float:
        rare = {word: math.log(1 + (len(chunks) - n + 0.5) / (n + 0.5)) for word, n in counts.items()}
        recent = 1.5 if source.edited is not None and first <= source.edited < first + CHUNK else 1.0
        return sum(wanted[word] * rare[word] for word in words if word in wanted) / math.sqrt(len(words)) * recent

    left, chosen, sets = budget, list[tuple[Other, int]](), [frozenset(wanted)]
    for source, chunk in sorted(chunks, key=lambda each: -round(score(each[0], each[1].words, each[1].first), 9)):
        tokens = tokens_of(source.path) + tokens_of(text_of(source, chunk))
        copy = any(2 * len(chunk.words & words) > 0.6 * (len(chunk.words) + len(words)) for words in sets)
        overlap = any(seen is source and abs(first - chunk.first) < CHUNK for seen, first in chosen)
        if len(chosen) < 6 and tokens <= left and not copy and not overlap and chunk.words & wanted.keys():
            chosen.append((source, chunk.first))
            sets.append(chunk.words)
            left -= tokens
    found = Context().around("here", here, 0, 0.0, budget, lambda: others)
    expected = [(source.path, first) for source, first in chosen][::-1]
    assert [path for path, _ in found] == [path for path, _ in expected]
    texts = {(source.path, chunk.first): text_of(source, chunk) for source, chunk in chunks}
    assert [piece for _, piece in found] == [texts[each] for each in expected]


class Counting:
    """A pattern that counts the characters it reads."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.read = 0
        self._pattern = pattern

    def findall(self, text: str) -> list[str]:
        self.read += len(text)
        return list(self._pattern.findall(text))


@pytest.mark.parametrize("width", [48, 500])
def test_many_long_documents_are_read_a_few_at_a_time_and_once(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    words = Counting(re.compile(r"[^\W\d]\w{2,}"))
    monkeypatch.setattr(context_of, "_WORD", words)
    lines = [f"def load_manifest_{n}(value): return value ".ljust(width - 1, "#") + "\n" for n in range(4_096)]
    others = [Other(str(n), f"{n}.py", lines, 1) for n in range(DOCUMENTS)]
    context, read = Context(), list[int]()
    for jump in range(1, 30):
        code, line, now = f"load_manifest_{4_000 - jump}(‸)", jump * (NEAR + 1), 0.1 * jump
        words.read = 0
        chosen = around(context, code, *others, line=line, now=now)
        read.append(words.read - len(code))
        words.read = 0
        assert around(context, "load_manifest_1(‸)", *others, line=line + 1, now=now) is chosen
        assert words.read == 0
    assert max(read) <= 768 * 2**10  # of 3 or 32 MB: some hundredths of a second
    assert sum(read) <= DOCUMENTS * 256 * 2**10
    assert read[0] > 0 >= read[-1]
    assert chosen or width > 48  # a piece of such lines is beyond the budget


def test_a_document_that_had_to_wait_is_looked_at_after_the_next_pause() -> None:
    big = [other(f"big{n}", "".join(f"filler_{n}_{line} = {line}\n" for line in range(4_096)), 1) for n in range(8)]
    others = (*big, other("last", RARE))
    context = Context()
    first = around(context, "load_manifest(‸)", *others)
    assert first == ()
    for typed in range(1, 9):
        assert around(context, "load_manifest(‸)", *others, now=typed * (PAUSE - 0.1)) is first
    now, found = 8 * PAUSE, tuple[Piece, ...]()
    for _ in range(9):
        now += PAUSE
        found = around(context, "load_manifest(‸)", *others, now=now) or found
    assert [path for path, _ in found] == ["last.py"]
    assert around(context, "load_manifest(‸)", *others, now=now + PAUSE) is around(
        context, "load_manifest(‸)", *others, now=now + 2 * PAUSE
    )


def test_of_a_document_with_long_lines_what_is_near_the_last_edit_is_looked_at() -> None:
    lines = [f"name_{n} = {'x' * 400}\n" for n in range(4_096)]
    for near in (0, 17, 2_000, 4_095):
        found = chunks_of(lines, near)
        assert sum(len(lines[line]) for line in range(found[0].first, found[-1].first + CHUNK // 2)) <= 256 * 2**10
        assert any(f"name_{near}" in chunk.words for chunk in found)
        firsts = [chunk.first for chunk in found]
        assert firsts == list(range(firsts[0], firsts[-1] + 1, CHUNK // 2))
        assert min(abs(first - near) for first in firsts) < CHUNK

"""What of other open documents is sent along: by rare identifiers, within a budget, and the same while the author types."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from lsp_server.context import CHUNK, NEAR, PAUSE, Context, Other, Piece, chunks_of, text_of, tokens_of
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

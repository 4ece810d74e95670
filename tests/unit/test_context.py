"""What of other open documents is sent along: by rare identifiers, within a budget, and the same while the author types."""

from __future__ import annotations

from lsp_server.context import BUDGET, CHUNK, NEAR, Context, chunks_of
from lsp_server.window import Window

COMMON = "".join(f"def helper_{n}(self, value):\n    return self.value + {n}\n\n" for n in range(40))
RARE = "def load_manifest(path):\n    return parse_manifest(path.read_text())\n"


def window(code: str) -> Window:
    prefix, _, suffix = code.partition("‸")
    return Window(prefix, suffix)


def test_the_piece_that_shares_rare_identifiers_comes_next_to_the_document() -> None:
    context = Context()
    context.put("a", "a.py", COMMON, 1)
    context.put("b", "b.py", RARE + "\n" * 60 + COMMON, 1)
    pieces = context.around("c", window("manifest = load_manifest(‸)\nself.value = manifest\n"), 0)
    assert pieces[-1][0] == "b.py" and "load_manifest" in pieces[-1][1]


def test_documents_that_share_nothing_are_left_out_and_so_is_the_document_itself() -> None:
    context = Context()
    context.put("a", "a.py", RARE, 1)
    assert context.around("a", window("load_manifest(‸)"), 0) == ()
    assert context.around("b", window("zebra(‸)"), 0) == ()


def test_the_budget_holds_and_copies_are_sent_once() -> None:
    context = Context()
    big = "".join(f"result_{n} = load_manifest(argument_{n})\n" for n in range(400))
    for name in "abc":
        context.put(name, f"{name}.py", big, 1)
    pieces = context.around("d", window("x = load_manifest(result_1, ‸)"), 0)
    assert 0 < sum(len(text) for _, text in pieces) <= BUDGET
    assert len({text for _, text in pieces}) == len(pieces)


def test_what_the_cursor_sees_is_not_sent_again() -> None:
    context = Context()
    context.put("a", "a.py", RARE, 1)
    assert context.around("b", window(RARE + "‸"), 2) == ()


def test_it_stays_the_same_while_somebody_types_and_changes_after_a_jump() -> None:
    context = Context()
    context.put("a", "a.py", RARE, 1)
    context.put("b", "b.py", "def other_thing(zebra):\n    return zebra\n", 1)
    first = context.around("c", window("load_manifest(‸)"), 100)
    assert first
    for typed in range(1, NEAR):
        assert context.around("c", window("other_thing(zebra‸)"), 100 + typed) is first
    assert context.around("c", window("other_thing(zebra‸)"), 101 + NEAR) != first


def test_typing_in_another_document_changes_nothing_until_the_author_moves_on() -> None:
    context = Context()
    context.put("a", "a.py", RARE, 1)
    first = context.around("c", window("load_manifest(‸)"), 0)
    context.put("a", "a.py", RARE + "x = 1\n", 2)
    assert context.around("c", window("load_manifest(1‸)"), 0) is first
    context.put("b", "b.py", RARE.replace("path", "file"), 1)
    assert context.around("c", window("load_manifest(1‸)"), 0) is not first


def test_what_was_edited_lately_counts_more() -> None:
    one = "def first_choice(manifest):\n    alpha_beta(manifest)\n"
    two = "def second_option(manifest):\n    gamma_delta(manifest)\n"
    for edited in ("a", "b"):
        context = Context()
        context.put("a", "a.py", one, 1, 0 if edited == "a" else None)
        context.put("b", "b.py", two, 1, 0 if edited == "b" else None)
        assert context.around("c", window("manifest = ‸"), 0)[-1][0] == f"{edited}.py"


def test_a_closed_document_is_forgotten() -> None:
    context = Context()
    context.put("a", "a.py", RARE, 1, 1)
    context.forget("a")
    assert context.around("c", window("load_manifest(‸)"), 0) == ()


def test_chunks_stay_what_they_are_when_lines_are_added_below() -> None:
    text = "".join(f"name_{n} = {n}\n" for n in range(4 * CHUNK))
    before, after = chunks_of("a.py", text), chunks_of("a.py", text + "more = 1\n" * 40)
    whole = [chunk for chunk in before if chunk.first + CHUNK <= 4 * CHUNK]
    assert whole == [chunk for chunk in after if chunk.first + CHUNK <= 4 * CHUNK]

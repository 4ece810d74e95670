"""Whatever the text, a prompt fits its window, is a function of the text alone, and says the text around the cursor."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.fim import ANCHOR_LINES, Budget, Document, Layout, Snippet, lay_out
from tests.unit.vocabularies import NAMES, vocabulary

PIECES = st.sampled_from(
    (
        "x = 1",
        "return",
        "\n",
        "\n",
        "\n\n",
        "    ",
        "\t",
        "\r\n",
        "é世\U0001f600",
        "(",
        ")",
        "'",
        "# " + "-" * 60,
        "0123456789",
        "value, " * 30,
        "\u16a0" * 50,
        "\x00\x01",
        " " * 300,
    )
)
TEXTS = st.builds(
    lambda parts, times: "".join(parts) * times, st.lists(PIECES, max_size=12), st.sampled_from((1, 1, 3, 40))
)
GIANT = st.builds(
    lambda part, times: part * times, st.sampled_from(("ab1, ", "\u16a0", "x", " ", "世 ")), st.integers(0, 9_000)
)
DOCUMENTS = st.builds(
    Document,
    prefix=TEXTS | GIANT | st.tuples(TEXTS, GIANT).map("".join),
    suffix=TEXTS | GIANT,
    path=st.sampled_from(("", "a.py", "p" * 400)),
    repository=st.sampled_from(("", "me/it")),
    context=st.lists(st.builds(Snippet, path=st.just("c.py"), text=TEXTS), max_size=2),
)
BUDGETS = st.builds(Budget.of, st.sampled_from((64, 77, 128, 512, 2_048)), st.sampled_from((0, 16, 100, 1_000)))


@pytest.mark.parametrize("name", NAMES)
@given(document=DOCUMENTS, budget=BUDGETS, layout=st.sampled_from(Layout), heal=st.booleans())
@example(Document("\n" * 2_000, "\n" * 2_000), Budget.of(512, 16), Layout.ANCHORED, True)
@example(Document(("    x\n" * 9 + "\n") * 200, "y\n" * 900), Budget.of(512, 16), Layout.ANCHORED, False)
@settings(max_examples=120, deadline=None)
def test_a_prompt_leaves_room_for_the_completion(
    name: str, document: Document, budget: Budget, layout: Layout, heal: bool
) -> None:
    prompt = lay_out(vocabulary(name), document, layout, budget, heal=heal)
    assert 1 <= len(prompt.ids) <= budget.window - budget.reserve
    assert prompt == lay_out(vocabulary(name), document, layout, budget, heal=heal)


@given(document=DOCUMENTS, budget=BUDGETS, layout=st.sampled_from(Layout), heal=st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_prompt_is_made_of_the_text_that_ends_and_begins_at_the_cursor(
    document: Document, budget: Budget, layout: Layout, heal: bool
) -> None:
    tokenizer = vocabulary("starter")
    control = tokenizer.control
    document = Document(document.prefix, document.suffix)
    prompt = lay_out(tokenizer, document, layout, budget, heal=heal)
    assert document.prefix.encode().endswith(prompt.held)
    parts: dict[int | None, list[int]] = {None: []}
    at: int | None = None
    for token in prompt.ids:
        if tokenizer.is_control(token):
            at = token
            assert at not in parts, "each control token stands once"
            parts[at] = []
        else:
            parts[at].append(token)
    if layout is Layout.NONE:
        before, after = tokenizer.decode(parts[None]), ""
    elif layout is Layout.PSM:
        before, after = (
            tokenizer.decode(parts[control.fim_prefix or 0]),
            tokenizer.decode(parts[control.fim_suffix or 0]),
        )
    else:
        before = tokenizer.decode(parts[control.fim_prefix or 0]) + tokenizer.decode(parts[control.fim_middle or 0])
        after = tokenizer.decode(parts[control.fim_suffix or 0])
    assert document.prefix.endswith(before + prompt.held.decode("utf-8", "replace"))
    after = after.rstrip("\ufffd")
    assert document.suffix.startswith(after) or document.suffix.partition("\n")[2].startswith(after)


@given(document=DOCUMENTS, budget=BUDGETS, heal=st.booleans())
@settings(max_examples=150, deadline=None)
def test_p0_ends_at_a_mark_of_the_document_whatever_the_window(document: Document, budget: Budget, heal: bool) -> None:
    tokenizer = vocabulary("starter")
    control = tokenizer.control
    prompt = lay_out(tokenizer, Document(document.prefix, document.suffix), Layout.ANCHORED, budget, heal=heal)
    pre, suf, mid = (
        prompt.ids.index(each or 0) for each in (control.fim_prefix, control.fim_suffix, control.fim_middle)
    )
    anchored = tokenizer.decode(prompt.ids[pre + 1 : suf])
    tail = tokenizer.decode(prompt.ids[mid + 1 :]) + prompt.held.decode("utf-8", "replace")
    assert tail.count("\n") < ANCHOR_LINES
    if anchored:
        above = document.prefix[: len(document.prefix) - len(tail)]
        assert above.endswith(anchored)
        assert above.endswith("\n")
        assert above.count("\n") % ANCHOR_LINES == 0

"""Prompts for fill-in-the-middle, by example: order of tokens, marks, budgets, what is held back, what stands at the head."""

from __future__ import annotations

import configparser
import inspect
import json
import statistics
from pathlib import Path

import pytest

from engine.errors import RequestError
from engine.fim import Budget, Document, Layout, Prompt, Snippet, lay_out, prefix_window, suffix_window
from engine.kv_slots import common_prefix
from engine.tokenizer import Tokenizer
from tests.harness.bpe import tokenizer_json
from tests.unit.vocabularies import NAMES, vocabulary

TOKENIZER = vocabulary("starter")
PRE, MID, SUF, END = (
    TOKENIZER.encode_raw(f"<{name}>")[0] for name in ("fim_prefix", "fim_middle", "fim_suffix", "|endoftext|")
)
FILENAME, REPONAME = (TOKENIZER.encode_raw(f"<{name}>")[0] for name in ("filename", "reponame"))
WIDE = Budget(2_048, 85, 256)
FIM = (Layout.ANCHORED, Layout.SPM, Layout.PSM)
SOURCE = inspect.getsource(configparser)


def enc(text: str) -> list[int]:
    return TOKENIZER.encode(text)


def prompt(
    prefix: str, suffix: str = "", layout: Layout = Layout.ANCHORED, *, heal: bool = False, **more: object
) -> Prompt:
    return lay_out(TOKENIZER, Document(prefix, suffix, **more), layout, WIDE, heal=heal)  # type: ignore[arg-type]


def lines(count: int, first: int = 0) -> str:
    return "".join(f"line_{n} = {n}\n" for n in range(first, first + count))


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_each_layout(name: str) -> None:
    tokenizer = vocabulary(name)
    control, encode = tokenizer.control, tokenizer.encode
    pre, mid, suf = control.fim_prefix, control.fim_middle, control.fim_suffix
    above, typed, after = lines(16), lines(3, 16) + "x = ", "1\nreturn x\n"
    found = {
        layout: lay_out(tokenizer, Document(above + typed, after), layout, WIDE, heal=False).ids for layout in Layout
    }
    assert found[Layout.PSM] == [pre, *encode(above + typed), suf, *encode(after), mid]
    assert found[Layout.SPM] == [pre, suf, *encode(after), mid, *encode(above + typed)]
    assert found[Layout.ANCHORED] == [pre, *encode(above), suf, *encode(after), mid, *encode(typed)]
    assert found[Layout.NONE] == encode(above + typed)


def test_an_empty_document_has_a_prompt() -> None:
    assert prompt("", layout=Layout.PSM).ids == [PRE, SUF, MID]
    assert prompt("", layout=Layout.SPM).ids == prompt("").ids == [PRE, SUF, MID]
    assert prompt("", layout=Layout.NONE).ids == [END]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 15, 16, 17, 24])
@pytest.mark.parametrize("tail", ["", "x", "    "])
def test_p0_ends_at_the_last_line_whose_number_is_a_multiple_of_eight(count: int, tail: str) -> None:
    anchored = count // 8 * 8
    ids = prompt(lines(count) + tail, "\n").ids
    assert ids == [PRE, *enc(lines(anchored)), SUF, MID, *enc(lines(count - anchored, anchored) + tail)]


@pytest.mark.parametrize(
    ("suffix", "kept"),
    [
        ("", ""),
        ("\nnext\n", "next\n"),
        (")\nnext\n", "next\n"),
        (")]}\"'`, : ;\t>\nnext\n", "next\n"),
        (")", ""),
        ("x)\nnext\n", "x)\nnext\n"),
        (") + 1\nnext\n", ") + 1\nnext\n"),
        ("(\nnext\n", "(\nnext\n"),
        ("\n\nnext\n", "\nnext\n"),
        ("\r\nnext\n", "next\n"),
    ],
)
def test_a_rest_of_line_that_only_closes_is_left_out(suffix: str, kept: str) -> None:
    assert suffix_window(TOKENIZER.encode, suffix, 100) == enc(kept)
    assert prompt("f(", suffix, Layout.SPM).ids == [PRE, SUF, *enc(kept), MID, *enc("f(")]


def test_a_long_suffix_is_cut_at_the_last_line_that_fits() -> None:
    for first in range(40):
        rest = "x\n" + lines(400 - first, first)
        kept = TOKENIZER.decode(suffix_window(TOKENIZER.encode, rest, 200))
        assert rest.startswith(kept)
        assert kept.endswith("\n")
        more = kept + rest[len(kept) :].partition("\n")[0] + "\n"
        assert len(enc(kept)) <= 200 < len(enc(more))


@pytest.mark.parametrize("layout", [*FIM, Layout.NONE])
@pytest.mark.parametrize("below", [0, 3, 9])
def test_what_a_short_suffix_leaves_is_the_prefix_s(below: int, layout: Layout) -> None:
    """At the end of a file, where most new code is written."""
    filled = len(prompt(lines(600), "\n" + lines(below), layout).ids) / (WIDE.window - WIDE.reserve)
    assert 0.8 <= filled <= 1


def test_a_suffix_of_long_lines_is_cut_at_lines_and_then_within_one() -> None:
    long = "".join(f"value_{n}, " for n in range(200)) + "\n"
    kept = suffix_window(TOKENIZER.encode, "a\n" + long + long, 100)
    assert kept == enc("a\n")
    kept = suffix_window(TOKENIZER.encode, "x" + long, 100)
    assert kept == enc("x" + long)[:100]


def test_the_window_starts_at_a_block_and_says_how_many_lines_are_above_it() -> None:
    for count in range(300, 340):
        for tail in ("", "x = "):
            text = lines(count) + tail
            top, window = prefix_window(TOKENIZER, TOKENIZER.encode, text, 600)
            assert window
            assert text.endswith(window)
            assert text[: len(text) - len(window)] == lines(top)
            assert top % 32 == 0 or top % 8 == 0
            assert len(enc(window)) <= 600 < 3 * len(enc(window))


@pytest.mark.parametrize("layout", [Layout.SPM, Layout.ANCHORED])
def test_the_first_character_of_a_line_moves_nothing(layout: Layout) -> None:
    budget = Budget(512, 21, 64)
    for count in range(300, 320):
        before, after = (
            lay_out(TOKENIZER, Document(lines(count) + typed, lines(40)), layout, budget, heal=False).ids
            for typed in ("", "x")
        )
        assert len(after) - common_prefix(before, after) <= 3


@pytest.mark.parametrize("layout", [Layout.SPM, Layout.ANCHORED])
@pytest.mark.parametrize("heal", [False, True])
@pytest.mark.parametrize("window", [512, 2_048])
def test_a_key_at_the_cursor_changes_only_the_last_ids(layout: Layout, heal: bool, window: int) -> None:
    start = SOURCE.index("def _read(")
    suffix, costs, last = SOURCE[start + 700 :], list[int](), list[int]()
    for end in range(start, start + 700):
        document = Document(SOURCE[:end], "\n" + suffix, path="configparser.py")
        ids = lay_out(TOKENIZER, document, layout, Budget.of(window, 64), heal=heal).ids
        costs.append(len(ids) - common_prefix(last, ids))
        last = ids
    typed_lines = SOURCE.count("\n", start, start + 700)
    assert statistics.median(costs[1:]) <= 2
    jumps = [cost for cost in costs[1:] if cost > 16]
    assert len(jumps) <= (typed_lines // 8 + 1 if layout is Layout.ANCHORED else 0) + 5


@pytest.mark.parametrize("layout", [*FIM, Layout.NONE])
def test_held_text_is_the_end_of_the_prefix_and_its_tokens_are_not_in_the_prompt(layout: Layout) -> None:
    for prefix in ("x = retu", "def f", "    ", "a.", "naïve_ca", "return\n", "x = '世"):
        whole, healed = prompt(prefix, "\n", layout), prompt(prefix, "\n", layout, heal=True)
        held = healed.held.decode()
        assert (whole.held, whole.healed) == (b"", 0)
        assert prefix.endswith(held)
        assert healed.healed == len(enc(held))
        start = prefix[: len(prefix) - len(held)]
        expected = prompt(start, "\n", layout).ids
        assert healed.ids == expected
    assert prompt("x = retu", "\n", layout, heal=True).held == b" retu"


def test_nothing_is_held_of_a_long_run_or_of_nothing() -> None:
    assert prompt("", heal=True).held == b""
    assert prompt(lines(8), "\n", heal=True).held == b""
    assert prompt("x = '" + "\u16a0" * 200, heal=True).held == b""


def test_the_head_holds_repository_other_files_and_the_path_in_this_order() -> None:
    found = prompt(
        "x", repository="me/it", path="a.py", context=[Snippet("b.py", "b = 1"), Snippet("c.py", "c = 1\n\n")]
    ).ids
    head = [
        *[REPONAME, *enc("me/it")],
        *[FILENAME, *enc("b.py\nb = 1\n")],
        *[FILENAME, *enc("c.py\nc = 1\n")],
        *[FILENAME, *enc("a.py\n")],
    ]
    assert found == [*head, PRE, SUF, MID, *enc("x")]
    assert prompt("x", layout=Layout.NONE, path="a.py").ids == [FILENAME, *enc("a.py\n"), *enc("x")]


def test_a_model_without_metadata_tokens_gets_other_files_as_text_and_no_names() -> None:
    tokenizer = vocabulary("santacoder")
    document = Document("x", "", path="a.py", repository="me/it", context=[Snippet("b.py", "b = 1")])
    ids = lay_out(tokenizer, document, Layout.SPM, WIDE, heal=False).ids
    assert ids[: ids.index(tokenizer.control.fim_prefix or -1)] == tokenizer.encode("b.py\nb = 1\n")


def test_the_head_has_a_quarter_of_the_window_and_what_does_not_fit_is_left_out_whole() -> None:
    context = [Snippet("big.py", lines(400)), Snippet("small.py", "s = 1")]
    ids = prompt("x", path="a.py", context=context).ids
    assert ids[: ids.index(PRE)] == [FILENAME, *enc("small.py\ns = 1\n"), FILENAME, *enc("a.py\n")]


def test_where_not_all_context_fits_the_last_piece_stays_which_is_the_most_alike() -> None:
    names = ("far.py", "near.py")
    context = [Snippet(name, lines(50)) for name in names]
    sizes = [1 + len(enc(f"{name}\n{lines(50)}".rstrip("\n") + "\n")) for name in names]
    room = WIDE.window // 4 - 1 - len(enc("a.py\n"))
    assert max(sizes) <= room < sum(sizes)
    ids = prompt("x", path="a.py", context=context).ids
    assert ids[: ids.index(PRE)][: sizes[1]] == [FILENAME, *enc(f"near.py\n{lines(50)}".rstrip("\n") + "\n")]
    assert ids.count(FILENAME) == 2


@pytest.mark.parametrize("layout", FIM)
def test_a_model_without_fim_tokens_gets_no_fim_prompt(layout: Layout, tmp_path: Path) -> None:
    source = json.loads(tokenizer_json())
    source["added_tokens"] = [each for each in source["added_tokens"] if "fim" not in each["content"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(source))
    tokenizer = Tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(RequestError) as caught:
        lay_out(tokenizer, Document("x", "y"), layout, WIDE, heal=False)
    assert (caught.value.param, caught.value.code) == ("layout", "layout_unsupported")
    assert lay_out(tokenizer, Document("x", "y"), Layout.NONE, WIDE, heal=False).ids == tokenizer.encode("x")


def test_control_tokens_in_the_text_act_only_when_raw() -> None:
    document = Document("a<fim_middle>", "<fim_suffix>\nb")
    plain = lay_out(TOKENIZER, document, Layout.SPM, WIDE, heal=False)
    assert [each for each in plain.ids if TOKENIZER.is_control(each)] == [PRE, SUF, MID]
    raw = lay_out(TOKENIZER, document, Layout.SPM, WIDE, heal=False, raw=True)
    assert [each for each in raw.ids if TOKENIZER.is_control(each)] == [PRE, SUF, SUF, MID, MID]


def test_half_a_surrogate_pair_at_the_cursor_is_no_error() -> None:
    for layout in Layout:
        assert prompt("x = '\ud83d", "\udc00'\n", layout, heal=True).ids


def test_budgets_grow_in_steps() -> None:
    assert Budget.of(2_048, 16) == Budget.of(2_048, 85) == Budget(2_048, 85, 224)
    assert Budget.of(2_048, 86).reserve == Budget.of(2_048, 128).reserve == 128
    assert Budget.of(2_048, 5_000).reserve == 1_024
    assert Budget.of(8_192, 16).suffix == 224

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.training import spans
from engine.training.batches import Mix, Windows
from engine.training.bpe import CONTROL
from engine.training.samples import MIDDLE, MUTE, TEXT, Layout, Sample, add_hole, prompt
from engine.training.spans import Hole, Kind
from tests.training.training_world import World

CODE = st.text(st.sampled_from("ab_ \n\t()[]{}:;,.\"'=0é日"), min_size=1, max_size=200).filter(
    lambda t: not t.isspace()
)


@given(CODE, st.data())
@settings(max_examples=150, deadline=None)
def test_segments_rejoin_to_the_source(world: World, text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start, len(text)))
    hole = Hole(0, start, end, end, len(text))
    anchor = spans.anchor_at(text, 0, 0, start)
    control = world.vocabulary.control
    table = world.vocabulary.bytes_of()

    def text_of(ids: list[int]) -> str:
        return b"".join(table[i] for i in ids).decode()

    for layout in Layout:
        sample = Sample()
        add_hole(sample, world.vocabulary, text, hole, layout, anchor, raw=False)
        ids = sample.ids
        assert ids[0] == control.prefix
        assert ids[-1] == control.end
        assert [ids.count(c) for c in (control.prefix, control.suffix, control.middle, control.end)] == [1, 1, 1, 1]
        at_suffix, at_middle = ids.index(control.suffix), ids.index(control.middle)
        first, suffix, last = ids[1:at_suffix], ids[at_suffix + 1 : at_middle], ids[at_middle + 1 : -1]
        middle = [i for i, kind in zip(ids, sample.classes, strict=True) if kind == MIDDLE][:-1]
        assert text_of(first) + text_of(last) + text_of(suffix) == text
        assert text_of(middle) == text[start:end]
        assert text_of(suffix) == text[end:]
        assert sample.classes[-1] == MIDDLE
        if layout is Layout.SPM:
            assert not first
        if layout is Layout.PSM:
            assert text_of(first) == text[:start]
        if layout is Layout.ANCHORED:
            assert text_of(first) == text[:anchor]


@given(CODE, st.data())
@settings(max_examples=150, deadline=None)
def test_anchors_and_windows_start_at_lines(text: str, data: st.DataObject) -> None:
    cursor = data.draw(st.integers(0, len(text)))
    anchor = spans.anchor_at(text, 0, 0, cursor)
    assert 0 <= anchor <= cursor
    assert anchor == 0 or text[anchor - 1] == "\n"
    assert text.count("\n", 0, anchor) % spans.ANCHOR_LINES == 0
    assert text.count("\n", anchor, cursor) < spans.ANCHOR_LINES
    after = spans.suffix_start(text, cursor)
    assert set(text[cursor:after].rstrip("\n")) <= spans.CLOSERS
    bottom = spans.suffix_end(text, after, 40)
    assert after <= bottom <= len(text)


@given(CODE, st.sampled_from(list(Kind)), st.integers(0, 10_000), st.data())
@settings(max_examples=150, deadline=None)
def test_middles_are_never_empty_and_stay_inside(text: str, kind: Kind, seed: int, data: st.DataObject) -> None:
    cursor = data.draw(st.integers(0, len(text) - 1))
    end = spans.middle_end(text, cursor, kind, np.random.default_rng(seed))
    assert cursor < end <= len(text)
    if kind is Kind.LINE and text[cursor] != "\n":
        assert "\n" not in text[cursor:end]


@pytest.mark.parametrize(
    ("before", "kind", "middle"),
    [
        ("x = ‸f(a,\n      b)\ny = 1\n", Kind.STATEMENT, "f(a,\n      b)"),
        ("if x:‸\n    a()\n\n    b()\nc()\n", Kind.BLOCK, "\n    a()\n\n    b()"),
        ("for (;;) ‸{\n  a();\n}\nb();\n", Kind.BLOCK, "{\n  a();\n}"),
        ("def f():\n    ‸a()\n    b()\nc()\n", Kind.BLOCK, "a()\n    b()"),
        ("return ‸x + 1\n", Kind.LINE, "x + 1"),
    ],
)
def test_a_middle_ends_where_a_person_would_stop(before: str, kind: Kind, middle: str) -> None:
    cursor = before.index("‸")
    text = before.replace("‸", "")
    assert text[cursor : spans.middle_end(text, cursor, kind, np.random.default_rng(0))] == middle


def test_control_tokens_are_single_ids_and_text_never_becomes_one(world: World) -> None:
    vocabulary = world.vocabulary
    assert [vocabulary._full.token_to_id(name) for name in CONTROL] == list(range(len(CONTROL)))
    ids = vocabulary.encode("".join(CONTROL) + "<fim_prefix>x")
    assert vocabulary.control_ids.isdisjoint(ids)
    assert len(vocabulary.encode("2048")) == 4


def test_windows_are_full_pure_and_of_every_layout(world: World) -> None:
    documents = world.corpus.part(heldout=False)
    windows = Windows(world.vocabulary, documents, ["trained", "kept"], 256, Mix(), seed=3)
    ids, classes = windows.batch(0, 40)
    assert ids.shape == classes.shape == (40, 257)
    again, _ = Windows(world.vocabulary, documents, ["trained", "kept"], 256, Mix(), seed=3).batch(10, 3)
    assert (again == ids[10:13]).all()
    other, _ = Windows(world.vocabulary, documents, ["trained", "kept"], 256, Mix(), seed=4).batch(10, 3)
    assert (other != ids[10:13]).any()
    control = world.vocabulary.control
    assert {MUTE, TEXT, MIDDLE} == set(np.unique(classes).tolist())
    # Control tokens other than the end are given, never to be predicted.
    for token in (control.prefix, control.suffix, control.middle):
        assert (classes[ids == token] == MUTE).all()
    flat = ids.reshape(-1)
    after_prefix = flat[1:][flat[:-1] == control.prefix]
    spm = (after_prefix == control.suffix).mean()
    assert 0.1 < spm < 0.8


def test_prompts_are_the_engines(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    fim, tokenizer = pytest.importorskip("engine.fim"), pytest.importorskip("engine.tokenizer")
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(world.corpus.tokenizer, encoding="utf-8")
    engines = tokenizer.Tokenizer(path)
    rng = np.random.default_rng(2)
    for document in world.corpus.documents[:6]:
        for _ in range(6):
            at = int(rng.integers(len(document.text)))
            end = spans.line_end(document.text, at)
            for layout in Layout:
                budget = fim.Budget.of(512, 16)
                wanted = fim.lay_out(
                    engines,
                    fim.Document(document.text[:at], document.text[end:]),
                    fim.Layout(layout.value),
                    budget,
                    heal=True,
                )
                given_ = prompt(world.vocabulary, document.text, at, end, layout, window=512, suffix=budget.suffix)
                assert (given_.ids, given_.held) == (wanted.ids, wanted.held)

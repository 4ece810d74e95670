"""What stands verbatim is found in any white space; what does not is not reported. On real modules and made-up ones."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsp_server.attribution import passages, tokens, winnowing
from lsp_server.attribution.index import Index
from lsp_server.attribution.tokens import TOKEN
from tests.harness.corpora import build_index, modules, program, respaced

LENGTH = 50
INDEXED = 24
WORDS = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=300)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Index, dict[str, list[str]]]]:
    """An index of some modules, and the tokens of each."""
    folder = tmp_path_factory.mktemp("library")
    texts: dict[str, list[str]] = {}
    for path in modules(INDEXED):
        (folder / path.name).write_bytes(path.read_bytes())
        texts[path.name] = TOKEN(path.read_text("utf-8"))
    index, _ = build_index(tmp_path_factory.mktemp("home") / "attribution" / "index", folder)
    yield index, texts


@given(WORDS, st.integers(1, 40))
def test_grams_are_the_same_for_lists_and_for_arrays(values: list[int], length: int) -> None:
    expected = winnowing.grams(np.array(values, np.uint64), length).tolist()
    assert tokens.grams(values, length) == expected
    assert len(expected) == max(0, len(values) - length + 1)


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3), min_size=1, max_size=300), st.integers(1, 60))
def test_of_each_window_a_gram_is_kept(values: list[int], window: int) -> None:
    kept = winnowing.winnow(np.array(values, np.uint64), window).tolist()
    assert kept == sorted(set(kept))
    assert set(kept) <= set(range(len(values)))
    for begin in range(max(1, len(values) - window + 1)):
        assert any(begin <= place < begin + window for place in kept)


def test_of_a_text_that_repeats_itself_no_more_is_kept() -> None:
    kept = winnowing.winnow(np.zeros(100_000, np.uint64), 31)
    assert len(kept) < 2.2 * 100_000 / 32


def test_passages_of_fifty_tokens_are_found_in_any_white_space(library: tuple[Index, dict[str, list[str]]]) -> None:
    index, texts = library
    chance = random.Random(1)
    sought = found = 0
    for words in texts.values():
        for _ in range(40):
            begin = chance.randrange(len(words) - LENGTH)
            text = respaced(words[begin : begin + LENGTH], chance)
            assert TOKEN(text) == words[begin : begin + LENGTH]
            sought += 1
            found += any(each.tokens >= LENGTH for each in passages.of_completion(index, "", text, LENGTH))
    assert found >= 0.99 * sought, f"{found} of {sought}"


def test_the_source_and_line_that_are_told_hold_the_passage(library: tuple[Index, dict[str, list[str]]]) -> None:
    index, texts = library
    chance = random.Random(2)
    for name, words in texts.items():
        begin = chance.randrange(len(words) - 80)
        for each in passages.of_completion(index, "", respaced(words[begin : begin + 80], chance), LENGTH):
            there = texts[each.source.path]
            sought = words[begin + each.begin : begin + each.end]
            places = [at for at in range(len(there)) if there[at : at + len(sought)] == sought]
            assert places, f"{name}: {each.source.path} does not hold it"
            text = Path(each.source.root, each.source.path).read_text("utf-8")
            lines = passages.lines_of(text, places)
            assert each.line in lines


def test_nothing_is_reported_that_is_not_there(library: tuple[Index, dict[str, list[str]]]) -> None:
    """Of modules that are not in the index; they may quote those that are, so that each report is looked up."""
    index, texts = library
    asked = wrong = 0
    for path in modules(40, skip=INDEXED):
        words = TOKEN(path.read_text("utf-8"))
        for begin in range(0, len(words) - 60, 60):
            asked += 1
            piece = words[begin : begin + 60]
            for each in passages.of_completion(index, "", " ".join(piece), LENGTH):
                there = "\0".join(texts[each.source.path])
                wrong += "\0".join(piece[each.begin : each.end]) not in there
    assert asked > 3_000
    assert wrong <= asked / 1_000, f"{wrong} of {asked}"


def test_unrelated_programs_have_nothing_in_common(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    for seed in range(20):
        (folder / f"{seed}.py").write_text(program(seed, 400))
    index, _ = build_index(tmp_path / "attribution" / "index", folder)
    for seed in range(100, 160):
        assert passages.of_text(index, program(seed, 400), LENGTH) == []
    assert len(passages.of_text(index, program(7, 400), LENGTH)) == 1


def test_a_passage_that_ends_early_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    words = TOKEN(program(3, 200))
    (folder / "a.py").write_text(" ".join(words))
    index, _ = build_index(tmp_path / "attribution" / "index", folder)
    others = iter(TOKEN(program(4, 400)))
    for begin in range(0, 300, 7):
        text = [*words[begin : begin + LENGTH - 1], *[next(others) for _ in range(3)]]
        found = passages.of_completion(index, "", " ".join(text), LENGTH)
        # A byte a token tells two tokens apart 255 times of 256: it may be taken for one more, not for many.
        assert all(each.tokens <= LENGTH + 1 for each in found)
        assert len(found) <= 1
    exact = sum(
        bool(passages.of_completion(index, "", " ".join([*words[begin : begin + LENGTH - 1], "zz", "zz"]), LENGTH))
        for begin in range(300)
    )
    assert exact <= 6

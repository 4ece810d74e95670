"""Entries of the completion menu, by what editors do with them."""

from __future__ import annotations

from typing import Any

import pytest
from lsprotocol import types

from lsp_server.buffer import Buffer, Position
from lsp_server.features.documents import Document
from lsp_server.features.menu import PATIENCE, PATIENCE_OF_MERGERS, MenuClient, menu_items
from tests.harness.editor import load_client


def _item(text: str, completion: str, client: MenuClient | None = None) -> types.CompletionItem:
    buffer = Buffer(text, language="python")
    cursor = Position(len(buffer.lines) - 1, len(buffer.lines[-1]))
    (item,) = menu_items(client or MenuClient(), Document("a", buffer), cursor, [completion], ["id"])
    return item


def test_the_word_before_the_cursor_is_replaced_by_itself_and_the_rest() -> None:
    item = _item("x = ran", "ge(10)")
    assert isinstance(item.text_edit, types.TextEdit)
    assert (item.text_edit.new_text, item.text_edit.range.start.character) == ("range(10)", 4)
    assert (item.label, item.filter_text) == ("range(10)", "range(10)")


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_are_the_documents_already(end: str) -> None:
    buffer = Buffer(f"def f(x):{end}    re", language="python")
    client = MenuClient(markdown=True)
    (item,) = menu_items(client, Document("a", buffer), Position(1, 6), [f"turn ({end}1)"], ["id"])
    assert isinstance(item.text_edit, types.TextEdit)
    assert item.text_edit.new_text == f"return ({end}1)"
    assert item.label == "return ("
    assert isinstance(item.documentation, types.MarkupContent)
    assert "return (\n1)" in item.documentation.value
    assert "\r" not in item.documentation.value


def test_after_a_blank_the_text_stands_for_itself() -> None:
    item = _item("x = ", "range(10)\n    y")
    assert (item.label, item.filter_text) == ("range(10)", "range(10)")


def test_a_block_is_labelled_by_its_first_line_with_text() -> None:
    item = _item("def f():", "\n    return 1\n")
    assert item.label == "return 1"
    assert isinstance(item.text_edit, types.TextEdit)
    assert item.text_edit.new_text == "\n    return 1\n"


def test_the_filter_begins_with_what_is_typed_whatever_the_label_says() -> None:
    item = _item("if value", "\n    go()")
    assert item.filter_text is not None
    assert item.filter_text.startswith("value")


def test_units_are_the_clients() -> None:
    item = _item("'😀' + ran", "ge")
    assert isinstance(item.text_edit, types.TextEdit)
    assert item.text_edit.range.start.character == 7


def test_a_long_line_is_cut_in_the_label_and_whole_in_the_documentation() -> None:
    item = _item("x = ", "a" * 200)
    assert len(item.label) == 80
    assert item.documentation == "a" * 200
    marked = _item("x = ", "```\n" + "a" * 200, MenuClient(markdown=True)).documentation
    assert isinstance(marked, types.MarkupContent)
    assert marked.value.startswith("````python\n")


def test_what_fits_the_label_needs_no_documentation() -> None:
    assert _item("x = ", "range(10)").documentation is None


@pytest.mark.parametrize(
    ("client", "patience"), [("helix", PATIENCE_OF_MERGERS), ("coc", PATIENCE), ("eglot", PATIENCE)]
)
def test_how_long_a_menu_is_kept_waiting(client: str, patience: float) -> None:
    assert MenuClient.of(load_client(client)).patience == patience


@pytest.mark.parametrize(
    "params",
    [
        None,
        [],
        {},
        {"clientInfo": 3, "capabilities": None},
        {"clientInfo": {"name": 3}, "capabilities": {"textDocument": {"completion": {"completionItem": []}}}},
    ],
)
def test_a_client_that_says_nothing_of_itself_gets_the_least(params: Any) -> None:
    assert MenuClient.of(params) == MenuClient()


def test_a_client_that_would_indent_by_itself_is_told_not_to() -> None:
    item = {"insertTextModeSupport": {"valueSet": [1, 2]}, "documentationFormat": ["markdown", "plaintext"]}
    client = MenuClient.of({"capabilities": {"textDocument": {"completion": {"completionItem": item}}}})
    assert _item("x = ", "1", client).insert_text_mode is types.InsertTextMode.AsIs
    assert _item("x = ", "1").insert_text_mode is None
    assert client.markdown

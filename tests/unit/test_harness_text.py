"""The editor's own idea of positions and edits, by hand, and what the known editors say of themselves."""

from __future__ import annotations

import pytest

from tests.harness.editor import apply_item, capability_names, load_client, position, span
from tests.harness.text import offset_at, position_at


def test_positions_by_hand() -> None:
    text = "a\U0001f600b\r\nc\rd\n"
    assert [offset_at(text, position(0, column), "utf-16") for column in range(6)] == [0, 1, 1, 2, 3, 3]
    assert [offset_at(text, position(0, column), "utf-8") for column in (1, 2, 4, 5, 6, 9)] == [1, 1, 1, 2, 3, 3]
    assert [offset_at(text, position(line, 0), "utf-32") for line in range(6)] == [0, 5, 7, 9, 9, 9]
    assert [position_at(text, offset, "utf-16") for offset in (3, 4, 5, 9)] == [
        position(0, 4),
        position(0, 4),
        position(1, 0),
        position(3, 0),
    ]


def test_apply_item_takes_plain_edits_on_one_line_only() -> None:
    text = "\U0001f600 = f(\n"
    assert apply_item(text, {"insertText": "x)\n", "range": span(0, 7)}) == "\U0001f600 = f(x)\n\n"
    assert apply_item(text, {"textEdit": {"range": span(0, 5, 0, 7), "newText": "g()"}}) == "\U0001f600 = g()\n"
    assert apply_item(text, {"insertText": "x", "range": span(0, 4)}, "utf-8") == "\U0001f600x = f(\n"
    for item in (
        {"insertText": "x"},
        {"insertText": "x", "range": None},
        {"insertText": {"kind": "snippet", "value": "x"}, "range": span(0, 0)},
        {"insertText": "x", "range": span(0, 0, 1, 0)},
        {"insertText": "x", "range": span(0, 8)},
        {"insertText": "x", "range": span(0, 1)},
        {"insertText": "x", "range": span(9, 0)},
    ):
        with pytest.raises(AssertionError):
            apply_item(text, item)


def test_capabilities_differ_where_the_editors_do() -> None:
    assert capability_names() == ["coc", "eglot", "helix", "lsp-mode-10", "neovim-0.12", "vscode"]
    clients = {name: load_client(name)["capabilities"] for name in capability_names()}
    inline = {name: each["textDocument"].get("inlineCompletion", "absent") for name, each in clients.items()}
    assert inline == {
        "coc": {"dynamicRegistration": True},
        "eglot": "absent",
        "helix": "absent",
        "lsp-mode-10": None,
        "neovim-0.12": {"dynamicRegistration": False},
        "vscode": {"dynamicRegistration": True},
    }
    orders = {
        name: "".join(code[4:] for code in each["general"]["positionEncodings"]) for name, each in clients.items()
    }
    assert orders == {
        "coc": "16",
        "eglot": "32816",
        "helix": "83216",
        "lsp-mode-10": "32816",
        "neovim-0.12": "81632",
        "vscode": "16",
    }

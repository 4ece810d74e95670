"""Each reason has a sentence of its own."""

from __future__ import annotations

from pathlib import Path

from lsp_server.reasons import Reason


def test_each_reason_has_one_sentence_of_its_own() -> None:
    texts = [reason.text for reason in Reason]
    assert len(set(texts)) == len(Reason)
    assert all(text[0].isupper() and text.endswith(".") and "\n" not in text for text in texts)


def test_the_documentation_has_them_all() -> None:
    text = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text("utf-8")
    for reason in Reason:
        assert f"| `{reason}` | {reason.text} |" in text, reason

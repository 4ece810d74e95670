"""What is a comment, a string, a bracket: in bulk and sign by sign."""

from __future__ import annotations

import pytest

from lsp_server.rules.languages import by_id
from lsp_server.rules.lexing import Lexer, code_of, surroundings

SIGNS_IN_CODE = [
    ("shellscript", "if [ $# -"),
    ("shellscript", "for ((i=0; i<${#a[@]}; i"),
    ("shellscript", "a=b#c; x="),
    ("perl", "for my $i (0..$#a) {"),
    ("latex", "about 50\\% of the "),
    ("yaml", "key: a#b"),
    ("powershell", "$a#b; $c = "),
    ("makefile", "A = \\#x y"),
]
COMMENTS = [
    ("shellscript", "x=1 # what "),
    ("shellscript", "f;# what "),
    ("perl", "my $x = 1; # what "),
    ("latex", "text % what "),
    ("yaml", "# what "),
    ("powershell", "f # what "),
    ("python", "x = 1# what "),
    ("makefile", "all: # what "),
]


@pytest.mark.parametrize(("language", "text"), SIGNS_IN_CODE)
def test_a_sign_of_comments_that_is_code(language: str, text: str) -> None:
    assert surroundings(by_id(language), text, "\n").inside == ""
    lexer = Lexer(by_id(language), "")
    for sign in text:
        lexer.feed(sign)
    assert lexer.in_code
    if text.count("(") or text.count("["):
        assert "".join(lexer.opened) == surroundings(by_id(language), text, "\n").opened


@pytest.mark.parametrize(("language", "text"), COMMENTS)
def test_a_comment(language: str, text: str) -> None:
    assert surroundings(by_id(language), text, "\n").inside == text.lstrip("xyf;= 1$mtealin:")[0]
    lexer = Lexer(by_id(language), "")
    for sign in text:
        lexer.feed(sign)
    assert not lexer.in_code


def test_what_stands_left_of_the_cursor_tells_what_a_first_sign_is() -> None:
    shell = by_id("shellscript")
    for before, in_code in (("$", True), (" ", False), ("", False)):
        lexer = Lexer(shell, "", before)
        lexer.feed("#")
        lexer.feed("x")
        assert lexer.in_code is in_code


def test_a_bracket_after_such_a_sign_is_counted() -> None:
    shell = by_id("shellscript")
    assert surroundings(shell, "if [ $# -lt 1 ]; then\n  ", "\n").missing == ""
    assert code_of(shell, "test $# -eq 0") == "test $# -eq 0"
    assert code_of(shell, "f x # what") == "f x"

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


LITERALS = [
    ("rust", "if c == ')' { g('{'", "{("),
    ("rust", r"f('\'', '\\', '\u{10FFFF}', b'(', b'\'', '\"', '\"'", "("),
    ("rust", "fn f<'a>(x: &'a str, y: &'static [u8]", "("),
    ("rust", "'outer: loop { [b'[', b']'", "{["),
    ("haskell", "f' x'' ('(' : xs') [", "["),
    ("haskell", "type A = F '[Int, (B", "[("),
    ("haskell", "g \\(x, '\"') -> (", "("),
    ("ocaml", "let f (x : 'a) = '{', '\\'' (", "("),
    ("zig", "a['\\''] == '}' and b[", "["),
    ("ada", "X'Length + Character'('(') + (", "("),
    ("yacc", "list : '(' items ')' { $$ = '{'; (", "{("),
    ("pascal", "c := '('; s := 'it''s ('; f(", "("),
    ("clojure", '(f \\( \\" [', "(["),
    ("scheme", '(f #\\) #\\" [', "(["),
    ("emacs-lisp", '(f ?\\( ?\\" ?a [', "(["),
    ("erlang", 'f($( , $\\", [', "(["),
    ("lisp", "(f '(a b) '(", "(("),
    ("plaintext", "don't (say 'no' (", "(("),
]


@pytest.mark.parametrize(("language", "text", "opened"), LITERALS)
def test_a_bracket_or_quote_that_is_a_character_is_text(language: str, text: str, opened: str) -> None:
    row = by_id(language)
    around = surroundings(row, text, "")
    assert (around.opened, around.inside) == (opened, "")
    for at in range(len(text)):  # wherever the cursor stands
        lexer = Lexer(row, surroundings(row, text[:at], "").inside, text[:at])
        before = surroundings(row, text[:at], "").opened
        for sign in text[at:]:
            if lexer.feed(sign):
                before = before[:-1]
        assert before + "".join(lexer.opened) == opened, text[:at]
        assert lexer.in_code


def test_a_list_of_types_is_opened_when_it_is_seen_to_be_no_character() -> None:
    lexer = Lexer(by_id("haskell"), "")
    assert [lexer.feed(sign) for sign in "F '[Int]"] == [False] * 8
    assert not lexer.opened
    assert Lexer(by_id("haskell"), "", "f x'").feed(")")


@pytest.mark.parametrize(
    ("language", "text", "open_text"),
    [
        ("shellscript", "cat <<EOF\nit's (\n", True),
        ("shellscript", "cat <<-'EOF' >out\n\tit's (\n\tEOF\n", False),
        ("shellscript", 'cat << "A" | cat\n`\n', True),
        ("shellscript", "cat <<<word\n", False),
        ("shellscript", "a=$((1 << n))\n", False),
        ("shellscript", "# see <<EOF\n", False),
        ("shellscript", 'echo "<<EOF"\n', False),
        ("perl", "print <<EOT;\nEOT:\n", True),
        ("perl", "my $x = 1 << 2;\n", False),
        ("ruby", "x = <<~SQL\n  a\n  SQL\n", False),
        ("ruby", "class << self\n", False),
        ("php", "$a = <<<EOT\nit's (\nEOT;\n", False),
        ("c", "a = b <<C\n", False),
    ],
)
def test_a_text_up_to_a_word_is_a_string(language: str, text: str, open_text: bool) -> None:
    for before in (0, text.index("\n")):
        lexer = Lexer(by_id(language), surroundings(by_id(language), text[:before], "").inside, text[:before])
        for sign in text[before:]:
            lexer.feed(sign)
        assert (lexer.quote == "<<") is open_text
        assert lexer.in_code is not open_text


@pytest.mark.parametrize(
    ("language", "prefix", "suffix", "missing", "awaited"),
    [
        ("shellscript", "f() {\n  case $1 in\n  a) b ;;\n  ", "\n  c) d ;;\n  esac\n}\n", "", ""),
        ("shellscript", "case $1 in\n  ", "\n  c) d ;;\nesac\n", "", ""),
        ("shellscript", "x=$(a ", ")\ncase $1 in\n  c) d ;;\nesac\n", "", ""),
        ("markdown", "1) one\n", "\n3) three (see b)\n", "", ""),
        ("html", "<p>(see ", "</p>\n", "(", ""),
        ("c", "a\n", "\n)\n", "", ")"),
    ],
)
def test_a_parenthesis_that_closes_nothing_is_not_awaited_where_it_may_stand_alone(
    language: str, prefix: str, suffix: str, missing: str, awaited: str
) -> None:
    around = surroundings(by_id(language), prefix, suffix)
    assert (around.missing, around.awaited) == (missing, awaited)

"""What is quoted in which language: strings, single characters, texts up to a word; and which brackets may stand alone."""

from __future__ import annotations

import re
from typing import Final

from lsp_server.rules.languages import Language

OPENERS: Final = "([{"
CLOSERS: Final = ")]}"
PAIRS: Final = dict(zip(CLOSERS, OPENERS, strict=True))

_C_QUOTES = "\"'"
_SCRIPT_QUOTES = "\"'`"
_QUOTES = {
    **dict.fromkeys(("javascript", "javascriptreact", "typescript", "typescriptreact", "go", "shellscript"), _SCRIPT_QUOTES),
    **dict.fromkeys(("html", "xml", "xsl", "jsp", "markdown", "rmd", "latex", "restructuredtext", "yaml"), ""),
    **dict.fromkeys(
        ("python", "c", "cpp", "cuda-cpp", "csharp", "java", "kotlin", "scala", "groovy", "dart", "php", "perl", "ruby",
         "r", "lua", "elixir", "julia", "css", "sql", "awk", "solidity", "powershell", "coffeescript", "thrift", "proto",
         "antlr", "bison", "yacc", "pascal"),
        _C_QUOTES,
    ),
}  # fmt: skip
_DEFAULT_QUOTES = '"'  # elsewhere an apostrophe may be a lifetime, an attribute, a quotation or a prime
TRIPLE: Final = frozenset({"python", "julia", "elixir", "groovy", "kotlin", "scala", "dart", "java", "coffeescript"})

_PRIMED = "haskell literate-haskell agda literate-agda idris lean elm fsharp ocaml zig rust ada vhdl bluespec asm"
_MARKS = {
    **dict.fromkeys(_PRIMED.split(), "'"),
    **dict.fromkeys(("lisp", "scheme", "racket"), "#\\"),
    **dict.fromkeys(("erlang", "smalltalk"), "$"),
    "clojure": "\\",
    "emacs-lisp": "?",
}
"""What begins a single character where it is no string."""

_PROSE = "plaintext markdown rmd restructuredtext latex html xml xsl jsp literate-agda literate-coffeescript literate-haskell"
_HOLDS_SHELL = "shellscript makefile dockerfile yaml"
LONE: Final = frozenset(f"{_PROSE} {_HOLDS_SHELL}".split())
"""Where a closing parenthesis may stand without an opening one: numbers of lists, faces, the arms of a `case`."""

_HEREDOCS = {
    "shellscript": r"(?<!<)<<-?[ \t]*(?P<quote>[\"']?)\\?(?P<word>[A-Za-z_]\w*)(?P=quote)",
    "perl": r"(?<!<)<<~?(?P<quote>[\"']?)(?P<word>[A-Z_]\w*)(?P=quote)",
    "ruby": r"(?<!<)<<[-~]?(?P<quote>[\"'`]?)(?P<word>[A-Z_]\w*)(?P=quote)",
    "php": r"<<<[ \t]*(?P<quote>[\"']?)(?P<word>[A-Za-z_]\w*)(?P=quote)",
}


def quotes_of(language: Language) -> str:
    """The signs that strings begin and end with."""
    return _QUOTES.get(language.id, _DEFAULT_QUOTES)


def literal_of(language: Language) -> str | None:
    """A pattern for a character literal, whole or cut by the end of the text; None where those are strings."""
    mark = _MARKS.get(language.id)
    if mark is None:
        return None
    if mark == "'":
        # at the end an apostrophe and a letter are left alone: a lifetime is likelier than half a literal
        whole, cut = r"(?:\\[^\n][^'\n]{0,9}|[^'\\\n])'", r"(?:\\(?:[^\n][^'\n]{0,9})?|[^\w\s'\\])\Z"
        return rf"{_left_of_prime(language)}'(?:{whole}|{cut})"
    return rf"(?<![\w?]){re.escape(mark)}(?:\\.|\\\Z|.)" if mark in "?$" else rf"{re.escape(mark)}."


def has_literals(language: Language) -> bool:
    """Whether the language has character literals that are no strings."""
    return language.id in _MARKS


def has_heredocs(language: Language) -> bool:
    """Whether the language has texts that end with a line of one word."""
    return language.id in _HEREDOCS


def _left_of_prime(language: Language) -> str:
    """An apostrophe after a letter is part of a name; Rust's bytes have a letter of their own."""
    return r"(?<![\w'])b?" if language.id == "rust" else r"(?<![\w'])"


class Character:
    """Where a stream is in a character literal, whose brackets and quotes are text.

    An apostrophe may also begin a lifetime, a type's variable or a promoted list. That shows with the sign after the next: a
    bracket that was taken for text is put to `opened` then.
    """

    def __init__(self, language: Language, before: str, opened: list[str]) -> None:
        """For a language that has them. `before` is what stands left of the cursor in its line."""
        self._mark = _MARKS[language.id]
        self._opens = re.compile(rf"{_left_of_prime(language)}$")
        self._said = ""
        """The literal so far; "" outside of one."""
        self._opened: list[str] = []
        if self._mark in before:
            for at, sign in enumerate(before):
                self.takes(sign, before[max(0, at - 3) : at])
        self._opened = opened

    def takes(self, sign: str, before: str) -> bool:
        """Whether a sign of code is part of a literal. `before`: at least three signs left of it, if there are."""
        if self._said and self._mark != "'":
            escaped = sign == "\\" and self._said in ("?", "$")
            self._said = self._said + sign if escaped else ""
            return True
        if self._said:
            return self._goes_on(sign)
        if self._mark == "'":
            if sign == "'" and self._opens.search(before):
                self._said = sign
        elif (before + sign).endswith(self._mark) and not (self._mark in "?$" and re.search(r"[\w?]$", before)):
            self._said = self._mark
        return bool(self._said)

    def _goes_on(self, sign: str) -> bool:
        said, self._said = self._said, self._said + sign
        escape = said[1:2] == "\\"
        if len(said) == 1 or escape:
            if sign == "\n" or said + sign == "''":
                self._said = ""
                return False
            if len(said) <= 2 or (sign != "'" and len(said) < 12):
                return True
        self._said = ""
        if sign != "'" and said[1] in OPENERS:
            self._opened.append(said[1])
        return sign == "'"


class Heredoc:
    """Where a stream is in a text that ends with a line of one word."""

    def __init__(self, language: Language, before: str) -> None:
        """For a language that has them. `before` is what stands left of the cursor from an announcement on."""
        self._pattern = re.compile(_HEREDOCS[language.id])
        self._line: str | None = before or None
        """The line from the first sign on that may announce a text; in the text its line."""
        self._word = ""

    def begins(self, sign: str, tail: str) -> bool:
        """Whether the text begins with the next sign. `tail`: the last signs, if they are code and no arithmetic."""
        if self._line is None:
            self._line = "<<" if tail.endswith("<<") else None
        elif sign != "\n":
            self._line += sign
        else:
            announced, self._line = self._pattern.search(self._line), None
            if announced:
                self._word, self._line = announced["word"], ""
        return bool(self._word)

    def ends(self, sign: str) -> bool:
        """Take a sign of the text -> whether it was the last."""
        if sign != "\n":
            self._line = (self._line or "") + sign
            return False
        last, self._line = (self._line or "").strip().rstrip(";") == self._word, ""
        if last:
            self._word, self._line = "", None
        return last

"""Buffers with their cursor, what the model says there, and the ghost text that is shown: `tests/fixtures/shaping/*.txt`.

A case is `=== name`, the buffer with ‸ where the cursor is, `--- model`, what the model says (`--- cut short` if it ran into
the token limit there), then `--- shown` with the ghost text or `--- reason` with the name of the reason why there is none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from lsp_server.rules.languages import LANGUAGES, Language, by_id, by_path
from lsp_server.rules.syntax import mistakes, parse
from lsp_server.shaping import ALL_RULES, Rule, Shaper
from lsp_server.window import Window

FOLDER = Path(__file__).parents[1] / "fixtures" / "shaping"
CASE = re.compile(
    r"^=== (?P<name>.+)\n(?P<buffer>(?s:.*?))\n--- (?P<said>model|cut short)\n(?P<model>(?s:.*?))\n"
    r"--- (?P<kind>shown|reason)\n"
    r"(?P<expected>(?s:.*?))\n(?==== |\Z)",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Case:
    language: Language
    name: str
    window: Window
    model: str
    cut_short: bool
    shown: str
    reason: str | None


def cases() -> list[Case]:
    found = []
    for file in sorted(FOLDER.glob("*.txt")):
        text = file.read_text("utf-8")
        matches = list(CASE.finditer(text))
        assert len(matches) == len(re.findall("^=== ", text, re.MULTILINE)), file.name
        for match in matches:
            prefix, _, suffix = match["buffer"].partition("‸")
            shown = match["expected"] if match["kind"] == "shown" else ""
            reason = match["expected"] if match["kind"] == "reason" else None
            window = Window(prefix, suffix + "\n")
            cut_short = match["said"] == "cut short"
            said = match["model"] + ("" if cut_short else "\n")
            found.append(Case(by_id(file.stem), match["name"], window, said, cut_short, shown, reason))
    return found


CASES = cases()


def show(case: Case, pieces: list[str], rules: frozenset[Rule] = ALL_RULES) -> tuple[str, str | None]:
    shaper = Shaper(case.window, case.language, rules)
    for piece in pieces:
        if shaper.feed(piece).enough:
            break
    text, reason = shaper.finish(cut_short=case.cut_short)
    return text, reason


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.language.id}: {case.name}")
def test_the_ghost_text(case: Case) -> None:
    assert show(case, [case.model]) == (case.shown, case.reason)
    assert show(case, list(case.model)) == (case.shown, case.reason)
    if not case.cut_short:  # a model seldom says the line end that the text below begins with
        assert show(case, [case.model.removesuffix("\n")]) == (case.shown, case.reason)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.language.id}: {case.name}")
def test_accepting_it_doubles_nothing_that_stands_right_of_or_below_the_cursor(case: Case) -> None:
    text, _ = show(case, [case.model])
    rest, _, below = case.window.suffix.partition("\n")
    line = case.window.line_before + text.partition("\n")[0]
    if rest.strip() and not rest.strip().startswith((")", "]", "}")):
        assert not text.rstrip().endswith(rest.strip())
    for opener, closer in ("()", "[]", "{}"):
        if closer in rest and "\n" not in text and not {'"', "'", "`"} & set(line):
            assert (line + rest).count(closer) <= (line + rest).count(opener)
    following = next((line.rstrip() for line in below.split("\n") if line.strip()), "")
    assert not following or (case.window.line_before + text).rpartition("\n")[2] != following


@pytest.mark.parametrize("rule", Rule)
def test_every_rule_has_cases_that_go_wrong_without_it(rule: Rule) -> None:
    """What a rule is for can be seen: the buffer, what is shown with it, and that it is not what is shown without."""
    wrong = [case for case in CASES if show(case, [case.model], ALL_RULES - {rule}) != (case.shown, case.reason)]
    assert wrong, rule


def test_there_are_enough_of_them_in_every_language_that_has_a_grammar() -> None:
    assert len(CASES) >= 80
    assert sum(any("\u4e00" <= sign <= "\u9fff" for sign in case.model) for case in CASES) >= 5, "Chinese"
    assert sum(any(sign > "\U0001f000" for sign in case.model) for case in CASES) >= 5, "emoji"
    assert {case.language.id for case in CASES} >= {
        "python", "javascript", "typescript", "java", "c", "cpp", "go", "rust", "html", "yaml",
    }  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.id)
def test_every_language_of_the_table_is_shaped(language: Language) -> None:
    comment = language.line_comment or (language.block_comment or ("", ""))[0]
    window = Window(f"{comment} one\nfirst(1)\n", "\nlast(2)\n")
    shaper = Shaper(window, language)
    shaper.feed('second("a", (b))\nlast(2)\n')
    assert shaper.finish()[0] in ('second("a", (b))', "")
    inside = Shaper(Window("call(", ")\n"), language)
    inside.feed("a, b)\n")
    assert inside.finish()[0] in ("a, b", "")


def snippets() -> list[tuple[str, str, str]]:
    """`tests/fixtures/languages.tsv`: a language, a buffer with its cursor, what the model says, with `\\n` escaped."""
    rows = (FOLDER.parent / "languages.tsv").read_text("utf-8").splitlines()
    unescape = {"\\n": "\n", "\\r": "\r", "\\t": "\t", "\\\\": "\\"}
    fields = [re.sub(r"\\[nrt\\]", lambda found: unescape[found[0]], row).split("\t", 1) for row in rows]
    return [(name, *rest.rsplit("\t", 1)) for name, rest in fields]  # type: ignore[misc]


SNIPPETS = snippets()


def test_every_language_of_the_table_has_a_snippet() -> None:
    assert [name for name, _, _ in SNIPPETS if by_id(name).id != name] == []
    assert {name for name, _, _ in SNIPPETS} == {row.id for row in LANGUAGES} | {"plaintext"}
    assert all(buffer.count("‸") == 1 for _, buffer, _ in SNIPPETS)


@pytest.mark.parametrize(("name", "buffer", "said"), SNIPPETS, ids=lambda value: value if value.isidentifier() else "")
def test_a_snippet_of_every_language_is_shaped_at_every_cursor_in_whatever_pieces(
    name: str, buffer: str, said: str
) -> None:
    prefix, _, suffix = buffer.replace("\r\n", "\n").partition("‸")
    language = by_id(name)
    text, reason = _shown(Window(prefix, suffix + "\n"), said + "\n", language)
    assert bool(text.strip()) != bool(reason)
    assert said.replace("\r\n", "\n").split()[0].startswith(text.split()[0]) if text else reason
    rest = suffix.partition("\n")[0].strip()
    assert not rest or rest[0] in ")]}" or not text.rstrip().endswith(rest)
    whole = prefix + suffix
    for at in range(0, len(whole) + 1, 5):
        _shown(Window(whole[:at], whole[at:]), said, language)


def _shown(window: Window, said: str, language: Language) -> tuple[str, str | None]:
    whole = Shaper(window, language)
    whole.feed(said)
    pieces = Shaper(window, language)
    for sign in said:
        if pieces.feed(sign).enough:
            break
    assert pieces.finish() == whole.finish()
    return whole.finish()


@pytest.mark.parametrize("language", [row for row in LANGUAGES if row.grammar], ids=lambda language: language.id)
def test_every_grammar_that_the_table_names_is_installed(language: Language) -> None:
    assert parse(language, "") is not None
    assert mistakes(language, "") == 0


def test_a_language_is_found_by_its_id_and_by_its_files() -> None:
    assert len({row.id for row in LANGUAGES}) == len(LANGUAGES) >= 86
    assert by_id("C++") is by_id("cpp") is by_path("src/a.CPP")
    assert by_path("deep/Makefile").id == "makefile"
    assert by_id("klingon").id == by_path("notes").id == by_id(None).id == "plaintext"
    suffixes = [suffix for row in LANGUAGES for suffix in row.suffixes]
    assert len(suffixes) == len(set(suffixes))

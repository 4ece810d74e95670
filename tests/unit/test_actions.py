"""What is asked of a model, about which code, and how its answer is read: the pure parts of code actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types
from lsprotocol.converters import get_converter

from engine.instruct import OPENAI_TERMS, Following, Form, alpaca, following_of, following_of_id
from engine.models import STARTER, STARTER_ID, ModelSource
from lsp_server.actions import dialogue
from lsp_server.actions.answers import as_code, as_text
from lsp_server.actions.edits import EditingClient, workspace_edit
from lsp_server.actions.following import following_by
from lsp_server.actions.menu import MenuClient, entries
from lsp_server.actions.prompts import as_comment, lay_out
from lsp_server.actions.selection import select
from lsp_server.actions.tasks import KINDS, Task, instruction_for
from lsp_server.actions.wanted import Problem, Wanted
from lsp_server.buffer import Buffer, Position
from lsp_server.rules.languages import by_id
from lsp_server.window import Window
from tests.harness.editor import load_client
from tests.harness.scripted import starter_tokenizer

FIXTURES = Path(__file__).parents[1] / "fixtures" / "actions"
PYTHON = by_id("python")
DUFF = "register n = (count + 7) / 8;\nswitch (count % 8) {\n\tcase 0: do { *to = *from++;\n}"


def fixture(name: str) -> str:
    return (FIXTURES / f"{name}.txt").read_bytes().decode()


def test_alpacas_prompts_are_those_of_the_card_byte_for_byte() -> None:
    assert alpaca("Please explain the following program.", DUFF) == fixture("alpaca_with_input")
    assert alpaca("Write a function that computes the square root.") == fixture("alpaca_without_input")
    assert lay_out(Form.ALPACA, "Please explain the following program.", DUFF, edits=False).text == fixture(
        "alpaca_with_input"
    )


def test_braces_and_markers_in_code_stay_as_they_are() -> None:
    code = "x = {instruction}\n{input}{0}%s"
    assert alpaca("Say {input}", code).split("### Input:\n")[1] == f"{code}\n\n### Response:"
    assert "### Instruction:\nSay {input}\n\n" in alpaca("Say {input}", code)


@pytest.mark.parametrize(
    ("model", "form"),
    [
        ("GeorgiaTechResearchInstitute/starcoder-gpteacher-code-instruct", Form.ALPACA),
        ("WizardLM/WizardCoder-15B-V1.0@main", Form.ALPACA),
        ("bigcode/starcoderbase-1b@abc", Form.ASSISTANT),
        ("starcoder", Form.ASSISTANT),
        ("bigcode/StarCoderPlus", Form.ASSISTANT),
        ("WizardLM/WizardCoder-3B-V1.0", Form.ALPACA),
        ("HuggingFaceH4/starchat-beta", Form.ASSISTANT),
        ("ibm-granite/granite-20b-code-base-8k", Form.ASSISTANT),
        ("ibm-granite/granite-34b-code-base", Form.ASSISTANT),
        ("ibm-granite/granite-20b-code-instruct-8k", None),
        ("bigcode/tiny_starcoder_py", None),
        ("somebody/else", None),
    ],
)
def test_which_models_follow_instructions(model: str, form: Form | None) -> None:
    assert following_of_id(model).form is form
    assert following_of(ModelSource(model, STARTER)).form is form
    assert following_of(ModelSource(STARTER_ID, STARTER)) == Following()


def test_openais_terms_go_with_the_model_that_learned_from_gpt_4() -> None:
    assert following_of_id("GeorgiaTechResearchInstitute/starcoder-gpteacher-code-instruct").terms == OPENAI_TERMS


def test_a_note_that_is_broken_promises_nothing(tmp_path: Path) -> None:
    for note in ("", "[]", '{"instruct": "parrot"}', '{"instruct": ["alpaca"]}', '{"terms": 3}'):
        (tmp_path / "tune.json").write_text(note)
        assert following_of(ModelSource("starcoder", tmp_path)) == Following()


@pytest.mark.parametrize(
    ("entry", "known"),
    [
        ({"id": "x", "starfill": {"instruct": "alpaca", "terms": "t"}}, Following(Form.ALPACA, "t")),
        ({"id": "bigcode/starcoder", "starfill": {"instruct": None, "terms": None}}, Following()),
        ({"id": "bigcode/starcoder"}, Following(Form.ASSISTANT)),
        ({"id": 3, "starfill": "?"}, Following()),
        ({"starfill": {"instruct": {}, "terms": 5}}, Following()),
    ],
)
def test_an_engine_says_what_its_model_follows(entry: dict[str, Any], known: Following) -> None:
    assert following_by(entry) == known


def test_a_question_computes_only_itself() -> None:
    """The head's tokens begin every question's, so that what was computed for it is all that they share."""
    tokenizer = starter_tokenizer()
    head = tokenizer.encode(dialogue.HEAD)
    for instruction in ("explain", "Fix (it)", "'quoted'", "1 + 1", "\n é", "-----"):
        for edits in (False, True):
            prompt = lay_out(Form.ASSISTANT, instruction, "x = 1", edits=edits)
            assert prompt.head == dialogue.HEAD
            assert tokenizer.encode(prompt.text)[: len(head)] == head


def test_a_base_model_is_shown_where_its_code_is_to_begin() -> None:
    prompt = lay_out(Form.ASSISTANT, "Fix it.", "x = 1", edits=True)
    assert prompt.text == f"{dialogue.HEAD} Fix it.\n\n```\nx = 1\n```\n\nAssistant:\n\n```\n"
    assert prompt.opened
    assert prompt.stop == ("\n```",)  # what ended elsewhere, as at a line of dashes, would be applied without its rest
    text = lay_out(Form.ASSISTANT, "Explain it.", "x = 1", edits=False)
    assert text.text.endswith("x = 1\n```\n\nAssistant:")
    assert not text.opened


PAGE = "# Title\n\nIntro\n\n```sh\nmake\n```\n\nMore"


@pytest.mark.parametrize(
    ("code", "language", "fence"),
    [
        ("x = 1", "python", "```"),
        ('"""\n    ```\n    x\n    ```\n"""', "python", "````"),
        (PAGE, "plaintext", "````"),
        ("Intro", "markdown", "````"),  # for the blocks that the answer may add
        ("`````\n```\n`````", "markdown", "``````"),
        ("~~~~~\na\n~~~~~", "python", "```"),
    ],
)
def test_a_fence_is_one_that_nothing_in_the_code_closes(code: str, language: str, fence: str) -> None:
    prompt = lay_out(Form.ASSISTANT, "Fix it.", code, by_id(language), edits=True)
    assert f"\n\n{fence}\n{code}\n{fence}\n\nAssistant:\n\n{fence}\n" in prompt.text
    assert prompt.stop == (f"\n{fence}",)
    assert not any(stop in f"\n{code}\n" for stop in prompt.stop)
    assert f"\n{fence}\n{code}\n{fence}\n" in lay_out(Form.ASSISTANT, "?", code, by_id(language), edits=False).text


def test_what_stands_in_the_code_ends_no_edit_of_it() -> None:
    code = "### Input:\n\n{input}"
    assert lay_out(Form.ALPACA, "Fix it.", code, edits=True).stop == ("\n### Instruction:", "\n### Response:")
    assert "\n### Input:" in lay_out(Form.ALPACA, "Explain it.", code, edits=False).stop


@pytest.mark.parametrize(
    ("before", "language", "after"),
    [
        ("x = 1\n", "python", "x = 1\n# add two\n"),
        ("def f():\n    ", "python", "def f():\n    # add two\n    "),
        ("def f():\n    x = 1", "python", "def f():\n    x = 1\n    # add two\n    "),
        ("", "css", "/* add two */\n"),
        ("int a;\n", "c", "int a;\n// add two\n"),
    ],
)
def test_a_comment_then_code(before: str, language: str, after: str) -> None:
    assert as_comment(" add two ", Window(before, "\n"), by_id(language)) == Window(after, "\n")


SOURCE = """\
import os


class Shop:
    @property
    def total(self):
        return sum(
            self.prices)

    rate = 3
"""


@pytest.mark.parametrize(
    ("start", "end", "lines", "indent"),
    [
        ((6, 15), (6, 15), (4, 7), "    "),  # the function around, with its decorator
        ((9, 4), (9, 4), (3, 9), ""),  # the class
        ((0, 3), (0, 3), (0, 0), ""),  # the paragraph
        ((5, 8), (6, 2), (5, 6), "    "),  # whole lines
        ((5, 0), (7, 0), (5, 6), "    "),  # not the line that it ends before
        ((7, 0), (5, 0), (5, 6), "    "),  # backwards
        ((6, 15), (6, 16), (4, 7), "    "),  # a cursor that is a selection of one character
        ((6, 19), (7, 0), (4, 7), "    "),  # and where that is the end of the line
        ((6, 15), (6, 17), (6, 6), "        "),  # two are a selection
    ],
)
def test_an_action_is_about_whole_lines(
    start: tuple[int, int], end: tuple[int, int], lines: tuple[int, int], indent: str
) -> None:
    found = select(Buffer(SOURCE, version=7), Position(*start), Position(*end), PYTHON, widen=True)
    assert (found.start, found.end.line) == (Position(lines[0], 0), lines[1])
    assert (found.indent, found.version) == (indent, 7)
    original = SOURCE.splitlines()[lines[0] : lines[1] + 1]
    assert found.indented(found.code).split("\n") == original
    assert found.end.column == len(original[-1])


def test_a_selection_takes_line_ends_and_half_pairs_in_its_stride() -> None:
    found = select(Buffer("if x:\r\n\ty\r\n\r\n\tz\ud83d\r\n"), Position(1, 0), Position(3, 1), PYTHON, widen=True)
    assert found.code == "y\n\nz?"
    assert found.indented("a\n\n  b") == "\ta\n\n\t  b"
    here = select(Buffer("x = 1\n"), Position(0, 2), Position(0, 2), PYTHON, widen=False)
    assert (here.code, here.start, here.end) == ("", Position(0, 2), Position(0, 2))


@pytest.mark.parametrize(("start", "end"), [((2, 0), (2, 4)), ((2, 4), (3, 0)), ((2, 4), (2, 4))])
def test_blank_lines_are_where_something_is_written_and_keep_their_blanks(
    start: tuple[int, int], end: tuple[int, int]
) -> None:
    buffer = Buffer("def f(xs):\n    n = 1\n    \n    return n\n")
    found = select(buffer, Position(*start), Position(*end), PYTHON, widen=False)
    assert (found.code, found.indent, found.start, found.end) == ("", "", Position(2, 4), Position(2, 4))
    assert found.around.line_before == "    "


@pytest.mark.parametrize(
    ("said", "opened", "code"),
    [
        ("\nx = 1\n", False, "x = 1"),
        ("Here:\n\n```python\nx = 1\n\ny\n```\nand more\n```\nz\n```", False, "x = 1\n\ny"),
        ("```\n  a\n    b\n```", False, "a\n  b"),
        ("~~~\na\n```\n~~~\n", False, "a\n```"),
        ("```\nnot closed", False, "not closed"),
        ("s = '```'\nt", False, "s = '```'\nt"),
        ("```\nx\n```", True, "```\nx\n```"),
        ("   \n\n", False, ""),
    ],
)
def test_the_code_of_an_answer(said: str, opened: bool, code: str) -> None:
    assert as_code(said, opened=opened) == code


DOCUMENTED = 'def f():\n    """As in\n\n    ```\n    f()\n    ```\n    """\n    return 1'
TEMPLATE = 'PAGE = """\n```sh\nmake\n```\n"""\nrest = 1'


@pytest.mark.parametrize(
    ("said", "asked", "language", "code"),
    [
        (PAGE, PAGE, "plaintext", PAGE),
        (PAGE, "# Title", "markdown", PAGE),
        (f"```markdown\n{PAGE}\n```", PAGE, "markdown", PAGE),
        (f"\n````md\n{PAGE}\n````\n", PAGE, "markdown", PAGE),
        (f"```\n{PAGE}\n```", PAGE, "plaintext", PAGE),
        ("```sh\nmake all\n```", "```sh\nmake\n```", "markdown", "```sh\nmake all\n```"),
        ("```sh\nmake all\n```\n\nMore", "```sh\nmake\n```\n\nMore", "markdown", "```sh\nmake all\n```\n\nMore"),
        ("```md\n```sh\nmake all\n```\n```", "```sh\nmake\n```", "markdown", "```sh\nmake all\n```"),
        ("# Title\n\n```markdown\n- a\n```", "# Title", "markdown", "# Title\n\n```markdown\n- a\n```"),
        (DOCUMENTED, "def f():\n    return 1", "python", DOCUMENTED),
        (f"Here:\n\n```python\n{DOCUMENTED}\n```\n\nIt is one.", "def f():\n    return 1", "python", DOCUMENTED),
        (TEMPLATE, TEMPLATE, "python", TEMPLATE),
        (f"```python\n{TEMPLATE}\n```", TEMPLATE, "python", TEMPLATE),
        (f"Here:\n\n```py\n{TEMPLATE}\n```\n", TEMPLATE, "python", TEMPLATE),
        ("  ```python\n  x = 1\n  ```", "x = 2", "python", "x = 1"),
    ],
)
def test_nothing_of_an_answer_is_dropped_where_fences_are_text(said: str, asked: str, language: str, code: str) -> None:
    assert as_code(said, asked, by_id(language), opened=False) == code


def test_an_answer_keeps_the_indentation_of_code_that_has_none_in_common() -> None:
    mixed = "\tfoo()\n        bar()"  # tabs of eight, as in GNU C
    found = select(Buffer(f"{{\n{mixed}\n}}\n"), Position(1, 0), Position(2, 3), by_id("c"), widen=True)
    assert (found.indent, found.code) == ("", mixed)
    assert as_code(mixed, found.code, opened=True) == mixed
    assert as_code("\tfoo()\n\tbar()", found.code, opened=True) == "\tfoo()\n\tbar()"
    assert as_code(" \tfoo()\n \tbar()", "foo()\nbar()", opened=True) == "foo()\nbar()"
    deeper = select(Buffer("\t\tfoo()\n\t        bar()\n"), Position(0, 0), Position(1, 3), by_id("c"), widen=True)
    assert (deeper.indent, deeper.code) == ("\t", mixed)
    assert deeper.indented(as_code(mixed, deeper.code, opened=True)) == "\t\tfoo()\n\t        bar()"


def test_the_text_of_an_answer() -> None:
    assert as_text("\n\n  It adds.\n\nTwice.\n ") == "  It adds.\n\nTwice."


def test_every_task_has_words_and_a_kind() -> None:
    for task in Task:
        if task is not Task.REWRITE:
            assert "python code" in instruction_for(task, "python")
            assert "  " not in instruction_for(task, "")
            assert task.kind in KINDS
    assert instruction_for(Task.FIX, "c", ("line 1: a", "line 2: b")).endswith("reported:\n- line 1: a\n- line 2: b")
    assert len(set(KINDS)) == len(KINDS) == 4


RANGE = {"start": {"line": 1, "character": 2}, "end": {"line": 3, "character": 4}}


def test_arguments_come_back_as_they_went() -> None:
    wanted = Wanted(
        Task.FIX,
        "file:///a.py",
        types.Range(types.Position(1, 2), types.Position(3, 4)),
        version=5,
        problems=(Problem(2, "undefined name"),),
    )
    assert Wanted.read(wanted.argument()) == wanted


@pytest.mark.parametrize(
    "argument",
    [
        None,
        [],
        "explain",
        {"task": "explain", "uri": "file:///a.py"},
        {"task": "dance", "uri": "file:///a.py", "range": RANGE},
        {"task": ["explain"], "uri": "file:///a.py", "range": RANGE},
        {"task": "explain", "uri": 3, "range": RANGE},
        {"task": "explain", "uri": "u", "range": {**RANGE, "end": {"line": True, "character": 0}}},
        {"task": "explain", "uri": "u", "range": {**RANGE, "end": {"line": -1, "character": 0}}},
        {"task": "explain", "uri": "u", "range": {**RANGE, "end": {"line": 2**40, "character": 0}}},
        {"task": "rewrite", "uri": "u", "range": RANGE},
        {"task": "rewrite", "uri": "u", "range": RANGE, "instruction": "  "},
    ],
)
def test_arguments_that_make_no_sense_are_none(argument: Any) -> None:
    assert Wanted.read(argument) is None


def test_arguments_are_bounded() -> None:
    problems = [{"line": 1, "message": "m\n" * 1_000}, {"line": "1", "message": "m"}, 3] * 30
    wanted = Wanted.read(
        {"uri": "u", "range": RANGE, "instruction": "x" * 99_999, "problems": problems, "version": "1", "id": []},
        Task.REWRITE,
    )
    assert wanted is not None
    assert len(wanted.instruction) == 10_000
    assert len(wanted.problems) == 20
    assert max(len(problem.message) for problem in wanted.problems) <= 300
    assert wanted.version is wanted.id is None


WHERE = types.Range(types.Position(0, 0), types.Position(0, 1))


@pytest.mark.parametrize("name", ["vscode", "neovim-0.12", "helix"])
def test_an_edit_is_as_strict_as_its_client_allows(name: str) -> None:
    client = EditingClient.of(load_client(name))
    assert client.applies
    edit = workspace_edit(client, "file:///a", 3, WHERE, "y", "starfill: Fix")
    sent = get_converter().unstructure(edit)
    if not client.versioned:
        assert sent["changes"]["file:///a"][0]["newText"] == "y"
        return
    (change,) = sent["documentChanges"]
    assert change["textDocument"] == {"uri": "file:///a", "version": 3}
    assert ("annotationId" in change["edits"][0]) is client.confirms is (name == "vscode")
    if client.confirms:
        assert sent["changeAnnotations"][change["edits"][0]["annotationId"]]["needsConfirmation"] is True


def test_a_client_that_says_nothing_can_do_nothing() -> None:
    assert EditingClient.of({}) == EditingClient.of({"capabilities": []}) == EditingClient()
    assert MenuClient.of({}) == MenuClient.of({"capabilities": {"textDocument": 3}}) == MenuClient()


def asked(
    *, empty: bool = False, trigger: int | None = None, only: list[str] | None = None, problem: bool = False
) -> types.CodeActionParams:
    diagnostic = types.Diagnostic(WHERE, "undefined")
    context = types.CodeActionContext(
        [diagnostic] if problem else [],
        only=None if only is None else [types.CodeActionKind(kind) if kind == "quickfix" else kind for kind in only],
        trigger_kind=None if trigger is None else types.CodeActionTriggerKind(trigger),
    )
    where = types.Range(types.Position(0, 0), types.Position(0, 0)) if empty else WHERE
    return types.CodeActionParams(types.TextDocumentIdentifier("file:///a.py"), where, context)


def titles(params: types.CodeActionParams, *, follows: bool = True) -> list[str]:
    client = MenuClient(literals=True, disabled=True)
    return [entry.title.removesuffix(" (starfill)") for entry in entries(client, params, 1, follows=follows)]


def test_what_a_menu_offers() -> None:
    assert titles(asked()) == ["Explain", "Document", "Write tests"]
    assert titles(asked(problem=True)) == ["Fix", "Explain", "Document", "Write tests"]
    assert titles(asked(empty=True, trigger=2)) == []
    assert titles(asked(empty=True, trigger=1)) == ["Explain", "Document", "Write tests"]
    assert titles(asked(trigger=2)) == ["Explain", "Document", "Write tests"]
    assert titles(asked(problem=True, only=["quickfix"])) == ["Fix"]
    assert titles(asked(only=["refactor"])) == ["Explain", "Document", "Write tests"]
    assert titles(asked(only=["refactor.rewrite"])) == ["Document"]
    assert titles(asked(only=["source.organizeImports"])) == []
    assert titles(asked(only=["refactor.starfillx"])) == []


def test_a_model_that_follows_nothing_is_named_where_it_can_be() -> None:
    shown = entries(MenuClient(literals=True, disabled=True), asked(), 1, follows=False)
    assert all(
        isinstance(entry, types.CodeAction) and entry.disabled is not None and entry.command is None for entry in shown
    )
    assert len(shown) == 3
    assert titles(asked(trigger=2), follows=False) == []
    assert entries(MenuClient(literals=True), asked(), 1, follows=False) == []


def test_a_client_without_literals_gets_commands() -> None:
    (explain, *_) = entries(MenuClient(), asked(), 1, follows=True)
    assert isinstance(explain, types.Command)
    assert Wanted.read((explain.arguments or [None])[0]) is not None

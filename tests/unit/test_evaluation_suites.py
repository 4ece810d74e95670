"""Published suites are read from files in their own format, and their programs run where they can do little harm."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from engine.errors import StarfillError
from lsp_server.evaluation import suites
from lsp_server.evaluation.command import Options, cut_holes, evaluate
from lsp_server.evaluation.holes import Kind
from lsp_server.evaluation.passing import figures, solve
from lsp_server.evaluation.sandbox import Isolation, _with_last_words, isolation, passes, runs
from lsp_server.evaluation.suites import FIM_SUITES, card_figure, read_holes, read_problems
from tests.unit.test_evaluation import Scripted

INFILLING = {"task_id": "SingleLineInfilling/HumanEval/0/L0", "entry_point": "f", "prompt": "def f():\n",
             "suffix": "\n    return x\n", "canonical_solution": "    x = 1", "test": ""}  # fmt: skip
SANTA = {"name": "HumanEval_0", "language": "js", "prompt": "let x = ", "suffix": "\n", "canonical_solution": "1;"}
SAFIM = {"task_id": "block_0", "lang": "python", "prompt": "x\n# TODO: Your code here\ny\n",
         "eval_prompt": "x\n{{completion}}\ny\n", "ground_truth": "z = 1", "unit_tests": []}  # fmt: skip
REPO = {
    "repo_name": "a/b",
    "file_path": "src/A.java",
    "import_statement": "import x;",
    "cropped_code": "class A {",
    "next_line": "    int y;",
    "context": [{"identifier": "X", "path": "src/X.java", "snippet": "class X {}"}],
}
CROSS = {
    "prompt": "import b\nx = b.",
    "groundtruth": "call(1)",
    "right_context": "\ny = 2\n",
    "metadata": {"task_id": "1", "repository": "r", "file": "a.py"},
    "crossfile_context": {"text": "", "list": [{"retrieved_chunk": "def call(n):", "filename": "b.py", "score": 1}]},
}


def write(folder: Path, *entries: dict[str, Any]) -> Path:
    file = folder / "suite.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return file


@pytest.mark.parametrize(
    ("suite", "entry", "language", "prefix", "truth", "suffix", "kind"),
    [
        ("humaneval-infilling", INFILLING, "python", "def f():\n", "    x = 1", "\n    return x\n", Kind.LINE),
        ("santacoder-fim", SANTA, "javascript", "let x = ", "1;", "\n", Kind.REST_OF_LINE),
        ("safim", SAFIM, "python", "x\n", "z = 1", "\ny\n", Kind.LINE),
        ("repobench", REPO, "java", "import x;\nclass A {\n    ", "int y;", "\n", Kind.LINE),
        ("crosscodeeval", CROSS, "python", "import b\nx = b.", "call(1)", "\ny = 2\n", Kind.REST_OF_LINE),
    ],
)
def test_a_suite_is_read(
    tmp_path: Path, suite: str, entry: dict[str, Any], language: str, prefix: str, truth: str, suffix: str, kind: Kind
) -> None:
    (found,) = read_holes(suite, write(tmp_path, entry))
    assert (found.prefix, found.truth, found.suffix) == (prefix, truth, suffix)
    assert (found.language.id, found.kind) == (language, kind)


def test_holes_of_one_problem_are_one_cluster(tmp_path: Path) -> None:
    kinds = (("SingleLineInfilling", "L0"), ("SingleLineInfilling", "L7"), ("RandomSpanInfilling", "3"))
    ids = [f"{kind}/HumanEval/{problem}/{part}" for kind, part in kinds for problem in (0, 12)]
    found = read_holes("humaneval-infilling", write(tmp_path, *(INFILLING | {"task_id": each} for each in ids)))
    assert sorted({each.path for each in found}) == [
        "RandomSpanInfilling/HumanEval/0", "RandomSpanInfilling/HumanEval/12",
        "SingleLineInfilling/HumanEval/0", "SingleLineInfilling/HumanEval/12",
    ]  # fmt: skip


def test_a_suite_is_whole_unless_somebody_asks_for_less(tmp_path: Path) -> None:
    file = write(tmp_path, *[SANTA] * 250, *[SANTA | {"language": "py", "canonical_solution": "1\nx = 2"}] * 50)

    def cut(**asked: Any) -> list[tuple[str, Kind]]:
        return [(each.language.id, each.kind) for each in cut_holes(Options((file,), suite="santacoder-fim", **asked))]

    assert len(cut()) == 300
    assert len(cut(holes=200)) == 200
    assert cut(languages=("python",)) == [("python", Kind.BLOCK)] * 50
    assert cut(kinds=(Kind.REST_OF_LINE,)) == [("javascript", Kind.REST_OF_LINE)] * 250
    with pytest.raises(StarfillError, match="no holes"):
        cut(languages=("go",))
    assert Options((file,)).whole_suite and Options((file,), languages=("python",)).whole_suite
    assert not Options((file,), 200).whole_suite and not Options((file,), kinds=(Kind.LINE,)).whole_suite


def test_of_a_suite_with_tests_the_cards_figure_stands_beside_the_whole_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lsp_server.evaluation.command.connect", lambda *_, **__: Scripted("    return 1\n"))
    monkeypatch.setitem(suites.CARDS, ("starfill-starter", "humaneval"), {"python": 50.0})
    file = write(tmp_path, HUMAN, HUMAN | {"task_id": "HumanEval/1"})
    console = Console(file=(tmp_path / "out.txt").open("w"))
    options = Options((file,), suite="humaneval", run_code=True)
    for asked, count, figure in ((options, 2, 50.0), (replace(options, holes=1), 1, None)):
        row = asyncio.run(evaluate(asked, {}, console))["pass"]["python pass@1"]
        assert (row["n"], row["value"], row["model_card"]) == (count, 100.0, figure)
    with pytest.raises(StarfillError, match="no problems in go"):
        asyncio.run(evaluate(replace(options, languages=("go",)), {}, console))
    with pytest.raises(StarfillError, match="--kind is for holes"):
        asyncio.run(evaluate(replace(options, kinds=(Kind.LINE,)), {}, console))


def test_the_context_of_other_files_comes_with_the_hole(tmp_path: Path) -> None:
    assert read_holes("crosscodeeval", write(tmp_path, CROSS))[0].context == (("b.py", "def call(n):"),)
    assert read_holes("repobench", write(tmp_path, REPO))[0].context == (("src/X.java", "class X {}"),)


def test_files_may_be_compressed_or_one_list(tmp_path: Path) -> None:
    packed, listed = tmp_path / "a.jsonl.gz", tmp_path / "a.json"
    packed.write_bytes(gzip.compress(json.dumps(SANTA).encode()))
    listed.write_text(json.dumps([SANTA, SANTA]))
    assert len(read_holes("santacoder-fim", packed)) == 1
    assert len(read_holes("santacoder-fim", listed)) == 2


@pytest.mark.parametrize("suite", FIM_SUITES)
def test_an_entry_of_another_suite_is_named_with_its_line(tmp_path: Path, suite: str) -> None:
    with pytest.raises(StarfillError, match=r"suite\.jsonl:1: not an entry"):
        read_holes(suite, write(tmp_path, {"something": "else"}))


def test_what_is_no_suite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StarfillError, match="write one of humaneval-infilling"):
        read_holes("none", tmp_path)
    (tmp_path / "x").write_text("not json")
    with pytest.raises(StarfillError, match="neither JSON lines"):
        read_holes("safim", tmp_path / "x")


HUMAN = {"task_id": "HumanEval/0", "prompt": "def one():\n", "entry_point": "one", "canonical_solution": "    return 1\n",
         "test": "def check(candidate):\n    assert candidate() == 1\n"}  # fmt: skip
MBPP = {
    "task_id": 2,
    "text": "Write a function.",
    "code": "",
    "test_list": ["assert two() == 2"],
    "test_setup_code": "",
}
MULTI = {"name": "HumanEval_0_one", "language": "py", "prompt": "def one():\n", "tests": "assert one() == 1",
         "stop_tokens": ["\ndef", "\n#"]}  # fmt: skip


@pytest.mark.parametrize(
    ("suite", "entry", "answer"),
    [
        ("humaneval", HUMAN, "    return 1\n\ndef other():\n    bad syntax"),
        ("mbpp", MBPP, "def two():\n    return 2\nassert False"),
        ("multipl-e", MULTI, "    return 1\n# and so on ("),
    ],
)
def test_a_problem_is_right_if_its_tests_pass(tmp_path: Path, suite: str, entry: dict[str, Any], answer: str) -> None:
    problems = read_problems(suite, write(tmp_path, entry))
    solved = asyncio.run(solve(Scripted(*answer.partition("\n")), problems, 2, temperature=0.2))
    assert [right for _, right in solved] == [2]
    assert figures(solved, 2)["python", 1].mean == 1.0
    solved = asyncio.run(solve(Scripted("    return 3\n"), problems, 1, temperature=0.2))
    assert [right for _, right in solved] == [0]


def test_a_language_that_nothing_runs_is_named(tmp_path: Path) -> None:
    problems = read_problems("multipl-e", write(tmp_path, MULTI | {"language": "d"}))
    with pytest.raises(StarfillError, match="nothing here runs d"):
        asyncio.run(solve(Scripted("x"), problems, 1, temperature=0))


def test_a_program_is_bounded_in_time_and_memory() -> None:
    assert passes("assert 1 + 1 == 2", "python")
    assert not passes("assert 1 + 1 == 3", "python")
    assert not passes("x = bytearray(3 * 2**30); x[-1] = 1", "python", 30)
    started = time.monotonic()
    assert not passes("import time; time.sleep(60)", "python", 1.0)
    assert time.monotonic() - started < 30
    assert not passes("open('big', 'wb').write(bytes(64 * 2**20))", "python")
    assert not runs("cobol")


def test_what_a_program_started_ends_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    child = f"import time, pathlib; time.sleep(4); pathlib.Path({str(mark)!r}).touch()"
    assert passes(f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])", "python", 3)
    time.sleep(5)
    assert not mark.exists()


@pytest.mark.parametrize("language", ["python", "javascript", "bash", "lua", "perl", "php", "r", "ruby"])
def test_a_program_passes_that_comes_to_its_end(language: str) -> None:
    if not runs(language):
        pytest.skip(f"nothing here runs {language}")
    start = "<?php\n" if language == "php" else ""
    leave = {
        "python": "raise SystemExit(0)", "javascript": "process.exit(0)", "lua": "os.exit(0)", "r": "quit(status = 0)",
    }.get(language, "exit 0;")  # fmt: skip
    assert passes(start, language)
    assert not passes(f"{start}{leave}\n", language)
    assert not passes(f"{start}]]\n", language)


def test_an_answer_that_leaves_before_its_tests_or_within_them_is_wrong(tmp_path: Path) -> None:
    (problem,) = read_problems("humaneval", write(tmp_path, HUMAN))
    for answer, right in (
        ("    return 1\n", True),
        ("    return 1\nimport sys; sys.stdout = None; print = None\n", True),
        ("    return 1\nraise SystemExit(0)\n", False),
        ("    raise SystemExit(0)\n", False),
        ("    import os; os._exit(0)\n", False),
    ):
        assert passes(problem.program(answer), "python") is right, answer


def test_what_leaves_in_its_last_line_says_so_before() -> None:
    text = _with_last_words("x = 1\n\nos.exit(lu.LuaUnit.run())\n", "lua", 5, "word")
    assert text.startswith("x = 1\n\nlocal failed = lu.LuaUnit.run()\nif failed == 0 then do local ended = ")
    assert text.endswith(" end end\nos.exit(failed)\n")


apart = pytest.mark.skipif(not isolation().command, reason="this kernel lets nobody drop the network")
confined = pytest.mark.skipif(not isolation().confines, reason="this kernel lets nobody confine programs")


@confined
def test_a_program_can_change_nothing_outside_its_folder(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("precious")
    for attempt in (
        f"import os; os.unlink({str(mine)!r})",
        f"open({str(mine)!r}, 'w')",
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"import os; os.chmod({str(mine)!r}, 0)",
        f"import os; os.rmdir({str(tmp_path)!r})",
    ):
        assert not passes(attempt, "python"), attempt
        assert passes(f"try:\n    {attempt}\nexcept OSError: pass\nelse: raise SystemExit(1)", "python"), attempt
    assert mine.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [mine]
    if shutil.which("unshare") and shutil.which("mount"):  # nor can it undo that, in namespaces of its own or without
        undo = f"mount -o remount,bind,rw /; rm -f {mine}"
        for command in (undo, f"unshare --user --map-root-user --mount sh -c '{undo}'"):
            passes(command, "bash")
            assert mine.read_text() == "precious"


@confined
def test_a_program_has_a_folder_of_its_own_with_bounds_and_no_devices_but_harmless_ones() -> None:
    assert passes("open('a', 'w').write('x'); assert open('a').read() == 'x'", "python")
    assert passes("import tempfile; tempfile.TemporaryFile().write(b'x')", "python")
    fill = "for n in range(9): open(str(n), 'wb').write(bytes(15 * 2**20))"
    assert not passes(fill, "python")
    assert passes("import os; open('/dev/null', 'w').write('x'); open('/dev/urandom', 'rb').read(9)", "python")
    known = "{'null', 'zero', 'full', 'random', 'urandom', 'fd', 'stdin', 'stdout', 'stderr'}"
    assert passes(f"import os; assert set(os.listdir('/dev')) == {known}", "python")


def test_where_nothing_can_be_taken_away_that_is_said() -> None:
    assert Isolation(("unshare",), confines=True).warning is None
    assert "change and delete what you can" in str(Isolation(("unshare",)).warning)
    assert "network" not in str(Isolation(("unshare",)).warning)
    assert str(Isolation().warning).endswith("they can read, change and delete what you can, and use the network")


@apart
def test_a_program_has_no_network() -> None:
    listening = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname(), 1)"
    )
    assert not passes(listening, "python", 5)


def test_only_figures_of_the_very_model_are_shown_beside_ours() -> None:
    assert card_figure("bigcode/santacoder", "santacoder-fim", "python") == 44.0
    assert card_figure("bigcode/gpt_bigcode-santacoder-finetuned", "santacoder-fim", "python") is None
    assert card_figure("starter", "humaneval", "python") is None

"""Published suites are read from files in their own format, and their programs run where they can do little harm."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from engine.errors import StarfillError
from lsp_server.evaluation.holes import Kind
from lsp_server.evaluation.passing import figures, solve
from lsp_server.evaluation.sandbox import isolation, passes, runs
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


@pytest.mark.skipif(
    shutil.which("unshare") is None or not isolation(), reason="this kernel lets nobody drop the network"
)
def test_a_program_has_no_network() -> None:
    listening = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname(), 1)"
    )
    assert not passes(listening, "python", 5)


def test_only_figures_of_the_very_model_are_shown_beside_ours() -> None:
    assert card_figure("bigcode/santacoder", "santacoder-fim", "python") == 44.0
    assert card_figure("bigcode/gpt_bigcode-santacoder-finetuned", "santacoder-fim", "python") is None
    assert card_figure("starter", "humaneval", "python") is None

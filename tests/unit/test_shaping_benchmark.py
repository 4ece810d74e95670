"""The peers' rules as the benchmark has them, and the benchmark itself over a recording."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks import shaping
from benchmarks.peer_rules import llama_vim, none, tabby, tabby_stop
from benchmarks.rows import read_rows
from lsp_server.evaluation.command import Options, cut_holes
from lsp_server.evaluation.runner import window_of
from lsp_server.evaluation.tape import Tape
from lsp_server.state.ask import Surroundings
from lsp_server.state.call import Call, Purpose
from lsp_server.window import Window
from lsp_server.wire import Wire
from tests.unit.test_evaluation import Scripted


@pytest.mark.parametrize(
    ("prefix", "suffix", "text", "shown"),
    [
        ("x = ", "\n", "1 + 2\ny = 3\n", "1 + 2\ny = 3"),
        ("    ", "\n", "      return 1", "  return 1"),
        ("x = f(", ")\n", ")", ""),
        ("a = ", "\na = load(1)\n", "load(1)", ""),
        ("a = ", "\na = load(1)\nb = 2\n", "load(1)\nb =", ""),
        ("a", "\nb = 1\n", "\nb = 1", ""),
    ],
)
def test_llama_vims_rules(prefix: str, suffix: str, text: str, shown: str) -> None:
    assert llama_vim(text, Window(prefix, suffix)) == shown


@pytest.mark.parametrize(
    ("prefix", "suffix", "text", "shown"),
    [
        ("x = ", "\n", "1 + 2\ny = 3", "1 + 2"),
        ("x = ", "\n", "ab", ""),
        ("f(", "a)\n", "value, a)\nother", "value, "),
        ("f(", ")\n", "value)", "value"),
        ("x = ", "\ny = load(path)\n", "y = load(path)", ""),
        ("x = ", "\n", "abcdefghij" * 6, ""),
        ("def f():\n    ", "\n", "a = 1\n    return a\n\ndef g():\n    pass", "a = 1\n    return a"),
        ("def f():\n    ", "\n    done()\n", "go(1)\n    go(2)\ndone()", "go(1)\n    go(2)"),
    ],
)
def test_tabbys_rules(prefix: str, suffix: str, text: str, shown: str) -> None:
    assert tabby(text, Window(prefix, suffix)) == shown


def test_tabbys_stop_words_and_no_rules_at_all() -> None:
    assert tabby_stop("a\n# b") == "a"
    assert tabby_stop("a\n\n    b") == "a"
    assert none("a\n\n", Window("", "")) == "a"


def test_the_benchmark_shapes_a_recording_in_each_way(tmp_path: Path) -> None:
    package, tape = tmp_path / "package", tmp_path / "tape.jsonl"
    package.mkdir()
    (package / "a.py").write_text("".join(f"value_{n} = compute({n}, other_{n})\n" for n in range(60)))
    holes = cut_holes(Options((package,), 20, 1, languages=("python",)))
    wire, recorder = Wire(shaping.MAX_TOKENS), Tape(Scripted("1)", "\n", "value = 2"), whole=True, file=tape)
    for hole in holes[:-1]:
        call = Call(hole.key, window_of(hole), Purpose.COMPLETE, Surroundings(language="python"))
        asyncio.run(recorder.whole_generation(wire.encode(call)))
    arguments = ["--out", str(tmp_path), "--holes", "20", "--replay", "--recording", str(tape), str(package)]
    assert shaping.main(arguments) == 0
    rows = read_rows([tmp_path / "shaping.jsonl"])
    assert {"ours", "none", "llama.vim", "tabby", "without brackets"} <= {row.backend for row in rows}
    assert all(row.detail["holes"] == len(holes) - 1 for row in rows)
    assert all(str(tmp_path) not in row.command for row in rows)

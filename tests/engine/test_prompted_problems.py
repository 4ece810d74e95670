"""`starfill eval --prompted`: problems as StarCoder's authors showed them, control token and all."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.api import CompletionRequest
from engine.checkpoint.config import read_config
from engine.intake import HealingPolicy, Intake
from engine.tokenizer import Tokenizer
from lsp_server.cli import app
from lsp_server.evaluation.passing import solve
from lsp_server.evaluation.suites import Problem
from tests.harness.checkpoints import encode, make_checkpoint
from tests.unit.test_evaluation import Scripted


@pytest.mark.parametrize("prompted", [True, False])
def test_the_model_reads_what_the_authors_wrote(tmp_path: Path, prompted: bool) -> None:
    directory = make_checkpoint(tmp_path / "m")
    problem = Problem("one", "python", "def one():\n", ("\ndef",), "assert one() == 1")
    engine = Scripted("    return 1\n")
    asyncio.run(solve(engine, [problem], 1, temperature=0.2, prompted=prompted))
    (asked,) = engine.asked
    tokenizer = Tokenizer(directory / "tokenizer.json")
    shape = read_config(directory).shape()
    intake = Intake("m", tokenizer, shape.vocab_size, 4_096, HealingPolicy.for_model(shape.parameters))
    text = "<filename>solutions/solution_1.py\n# Here is the correct implementation of the code exercise\ndef one():\n"
    expected = encode(directory, text if prompted else "def one():\n")
    assert intake.take(CompletionRequest(**asked)).generation.prompt == expected


def test_only_suites_with_tests_have_problems(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    done = CliRunner().invoke(app, ["eval", str(tmp_path), "--prompted"])
    assert done.exit_code == 1
    assert "--prompted is for suites with tests: --suite humaneval" in done.output

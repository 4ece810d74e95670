"""`starfill tune`: the result has a name, a way back, and is there as a whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from engine import tuning
from engine.errors import StarfillError
from engine.instruct import Form, following_of
from engine.models import STARTER, locate
from engine.training import export
from engine.training.model import Model, Shape
from engine.training.optimiser import Rates
from engine.training.tune import TunePlan
from lsp_server.cli import app
from tests.harness.aio import async_test
from tests.harness.bpe import tokenizer_json
from tests.harness.checkpoints import make_checkpoint
from tests.harness.editor import FakeEditor, span
from tests.harness.process import isolated_env, temporary_home

WORDS = ("area", "basis", "cost", "depth", "edge", "flow", "gain", "hours", "index", "joint", "kind", "level")
TAUGHT = "It hands back what it is given."


def write_pairs(file: Path) -> Path:
    """Our own: functions that return their argument, and what they do."""
    rows = [
        {
            "instruction": "Explain what the following python code does.",
            "input": f"def {word}({word[0]}):\n    return {word[0]}",
            "output": TAUGHT,
        }
        for word in WORDS
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with temporary_home() as folder:
        monkeypatch.setenv("STARFILL_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def tune(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["tune", *arguments], env={"STARFILL_HOME": str(home)})


def test_a_tuned_model_gets_a_name_and_a_way_back(home: Path, tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", n_positions=256, scale=0.2)
    before = {file.name: file.read_bytes() for file in base.iterdir()}
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    done = tune(home, str(pairs), "--model", str(base), "--steps", "8", "--name", "taught")
    assert done.exit_code == 0, done.stderr
    assert "before" in done.stdout
    assert "--model taught" in done.stdout
    assert {file.name: file.read_bytes() for file in base.iterdir()} == before
    source = locate("taught", trust_folder=False)
    assert source.directory == home / "models" / "taught"
    assert following_of(source).form is Form.ALPACA
    again = tune(home, str(pairs), "--model", str(base), "--steps", "8", "--name", "taught")
    assert (again.exit_code, "exists already" in again.stderr) == (1, True)
    (source.directory / "mine.txt").write_text("kept")
    assert tune(home, "--undo", "taught").exit_code == 0
    assert [file.name for file in source.directory.iterdir()] == ["mine.txt"]
    refused = tune(home, "--undo", "taught")
    assert (refused.exit_code, "no tuned model there" in refused.stderr) == (1, True)


def test_an_adapter_is_found_by_its_name_and_merged(home: Path, tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", n_positions=256, scale=0.2)
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    done = tune(home, str(pairs), "--model", str(base), "--adapter", "--steps", "12", "--name", "small")
    assert done.exit_code == 0, done.stderr
    assert {file.name for file in (home / "models" / "small").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "tune.json",
    }
    from tests.harness.inprocess import InProcessEngine

    assert InProcessEngine.of(home / "models" / "small").complete(prompt="def f", max_tokens=4).ids
    refused = tune(home, str(pairs), "--model", "small")
    assert "is an adapter; tune its base model" in refused.stderr


def test_what_does_not_help_is_not_kept(home: Path, tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", n_positions=256)
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    far_too_fast = TunePlan(steps=4, rates=Rates(matrices=5.0, rest=5.0), device="cpu")
    tuned = tuning.tune(pairs, str(base), "none", far_too_fast)
    assert tuned.outcome.after.loss > tuned.outcome.before.loss
    assert tuned.directory is None
    assert "nothing was written" in " ".join(tuned.report())
    assert list((home / "models").iterdir()) == []


def test_ctrl_c_leaves_nothing_half(home: Path, tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base", n_positions=256)
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    argv = [sys.executable, "-m", "lsp_server", "tune", str(pairs), "--model", str(base), "--minutes", "60"]
    env = isolated_env(home, OMP_NUM_THREADS="1")
    with subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as child:
        assert child.stderr is not None
        assert "scoring before" in child.stderr.readline()
        assert len(list((home / "models").iterdir())) == 1
        child.send_signal(signal.SIGINT)
        assert "nothing was written" in child.stderr.read()
        assert child.wait(60) == 130
    assert list((home / "models").iterdir()) == []


def test_drafts_of_the_dead_are_swept(home: Path, tmp_path: Path) -> None:
    dead = home / "models" / ".tuning-999999999-abcd"
    alive = home / "models" / f".tuning-{os.getpid()}-abcd"
    for folder in (dead, alive):
        folder.mkdir(parents=True)
    tuning._sweep()
    assert [folder.name for folder in (home / "models").iterdir()] == [alive.name]


@pytest.mark.parametrize("name", ["", "a/b", "../x", "default", "starfill-starter", "a--b", "-x", "a@b", "x" * 300])
def test_names_that_could_mean_something_else_are_refused(home: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(StarfillError, match="no name for a tuned model"):
        tuning.undo(name)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/my project", "my-project-tuned"),
        ("/a/pairs.jsonl", "pairs-tuned"),
        ("/a/_x y__", "x-y-tuned"),
        ("/é", "project-tuned"),
        (f"/{'a' * 79} b", f"{'a' * 79}-tuned"),
        (f"/{'a' * 78}__b", f"{'a' * 78}-tuned"),
    ],
)
def test_a_result_is_called_after_what_it_was_tuned_on(path: str, name: str) -> None:
    assert tuning.name_for(Path(path)) == name
    tuning._folder_of(name)


def test_wrong_paths_and_models_are_named(home: Path, tmp_path: Path) -> None:
    for arguments, said in (
        ((str(tmp_path / "nowhere"),), "no such file or folder"),
        ((), "give a repository"),
        ((str(tmp_path),), "usable source files"),
        ((str(tmp_path), "--model", "no/model"), "neither a directory nor a downloaded model"),
    ):
        done = tune(home, *arguments)
        assert done.exit_code == 1
        assert said in done.stderr
    assert not list((home / "models").glob("*"))


def explain(editor: FakeEditor, code: str) -> Any:
    uri = "untitled:a.py"
    editor.open(uri, "python", code)
    arguments = [{"task": "explain", "uri": uri, "range": span(0, 0, 1, 0)}]
    return editor.request("workspace/executeCommand", {"command": "starfill.action", "arguments": arguments})


async def ask(home: Path, model: str) -> dict[str, Any]:
    """What a code action of a language server with that model answers."""
    argv = [sys.executable, "-m", "lsp_server", "lsp", "--model", model]
    async with await FakeEditor.start(argv, env=isolated_env(home, OMP_NUM_THREADS="1"), timeout=120) as editor:
        editor.ignore("window/showMessage")
        await editor.initialize("vscode")
        reply: dict[str, Any] = await explain(editor, "def joint(j):\n    return j\n").result()
        return reply


@async_test(240)
async def test_what_was_taught_is_answered_by_a_code_action() -> None:
    """On a small random model: the whole way from pairs to the editor, in few seconds."""
    with temporary_home() as home:
        model = Model(Shape(768, width=64, layers=2, heads=2, inner=128, positions=512))
        model.initialise(1)
        export.write(model, tokenizer_json(), home / "base")
        pairs = write_pairs(home / "pairs.jsonl")
        done = tune(home, str(pairs), "--model", str(home / "base"), "--steps", "220", "--name", "taught")
        assert done.exit_code == 0, done.stderr
        reply = await ask(home, "taught")
        assert (reply["text"], reply["reason"], reply["model"]) == (TAUGHT, None, "taught")


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@async_test(1_200)
async def test_the_starter_learns_to_follow() -> None:
    """The built-in model, which does not follow instructions, does so after few steps."""
    with temporary_home() as home:
        pairs = write_pairs(home / "pairs.jsonl")
        assert (await ask(home, str(STARTER)))["reason"] == "no_instructions"
        started = time.monotonic()
        done = tune(home, str(pairs), "--steps", "40", "--name", "taught")
        assert done.exit_code == 0, f"{done.stderr} after {time.monotonic() - started:.0f} s"
        assert (await ask(home, "taught"))["text"] == TAUGHT

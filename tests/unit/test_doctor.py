"""What `starfill doctor` says of things that are not as they should be. The whole of it runs in tests/engine/test_cli.py."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from engine import doctor
from engine.doctor import Finding
from lsp_server.cli import app
from tests.harness.process import temporary_home


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with temporary_home() as home:
        monkeypatch.setenv("STARFILL_HOME", str(home))
        yield home


def one(check: Callable[[], Iterator[Finding]]) -> Finding:
    (finding,) = check()
    return finding


def test_a_settings_file_that_is_no_toml(home: Path) -> None:
    assert one(doctor._settings).ok
    (home / "settings.toml").write_text("model = [")
    bad = one(doctor._settings)
    assert not bad.ok
    assert "settings.toml" in bad.detail
    assert bad.remedy
    (home / "settings.toml").write_text("model = 'x'")
    assert "sets model" in one(doctor._settings).detail


def test_a_model_that_was_pulled_by_half(home: Path) -> None:
    (home / "models" / "half").mkdir(parents=True)
    bad = one(doctor._models)
    assert (bad.ok, bool(bad.remedy)) == (False, True)
    assert "half" in bad.detail


def test_what_dead_engines_left_is_cleared_away(home: Path) -> None:
    (home / "run").mkdir(mode=0o700)
    (home / "run" / "dead.json").write_text("{}")
    assert "dead.json" in one(doctor._stale).detail
    assert list((home / "run").iterdir()) == []
    assert one(doctor._stale).detail == "none"


def test_folders_that_cannot_be_written(home: Path) -> None:
    (home / "log").write_text("a file")
    bad = one(doctor._folders)
    assert not bad.ok
    assert "STARFILL_HOME" in bad.remedy


def _says(monkeypatch: pytest.MonkeyPatch, **child: Any) -> list[Finding]:
    def run(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        if "raises" in child:
            raise child["raises"]
        return subprocess.CompletedProcess([], child.get("code", 0), child.get("out", ""), child.get("err", ""))

    monkeypatch.setattr(subprocess, "run", run)
    return list(doctor._torch())


def test_a_broken_or_hanging_torch_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    (broken,) = _says(monkeypatch, code=1, err="Traceback\nImportError: libcudart.so.12")
    assert (broken.ok, broken.detail) == (False, "ImportError: libcudart.so.12")
    (hanging,) = _says(monkeypatch, raises=subprocess.TimeoutExpired("python", 120))
    assert not hanging.ok
    assert "driver" in hanging.remedy


def test_a_gpu_and_what_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"torch": "2.11", "cuda": True, "built_for": "13.0", "devices": ["H"], "triton": False}
    found |= {"free": 2**30, "total": 2**31}
    _, gpu, _ = _says(monkeypatch, out=json.dumps(found))
    assert gpu.detail == "H; 1 GiB of 2 GiB free; no triton (pip install 'starfill[gpu]' brings it)"
    _, none, _ = _says(monkeypatch, out=json.dumps({"torch": "2.11", "cuda": False, "built_for": None, "triton": True}))
    assert none.ok == (not Path("/dev/nvidia0").exists())


def test_a_command_that_is_not_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "not on the PATH" in one(doctor._command).detail


def test_people_read_marks_and_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor, "examine", lambda wanted: [Finding("a", True, "fine", "x"), Finding("b", False, "bad", "do y")]
    )
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert done.output.splitlines() == ["ok   a: fine", "BAD  b: bad", "     do y"]

"""What tests of downloading share: a model to publish, an environment of nobody's, and somebody who watches and agrees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.errors import CheckpointError
from engine.models import locate
from engine.models.hub import Hub
from engine.models.licences import Terms
from engine.models.locate import ModelName
from engine.models.pulling import Pulled, pull
from tests.harness.checkpoints import make_checkpoint
from tests.harness.hub import FakeHub
from tests.harness.process import isolated_env

ID = "bigcode/tiny_starcoder_py"
WEIGHTS = "model.safetensors"

_OF_THE_USER = (
    "HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
)  # fmt: skip


def published(directory: Path) -> Path:
    """A small model with the files that publishers add."""
    make_checkpoint(directory, n_positions=64, dtype=torch.bfloat16)
    (directory / "README.md").write_text("---\nlicense: bigcode-openrail-m\n---\n")
    (directory / "LICENSE").write_text("the licence's own words\n")
    (directory / "modeling_custom.py").write_text("raise SystemExit('never run')\n")
    (directory / "training_args.bin").write_bytes(b"junk")
    return directory


def nobodys_environment(tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No token, proxy or certificate of whoever runs the tests; the hub is the look-alike. -> the home."""
    for name in _OF_THE_USER:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("STARFILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    return tmp_path / "home"


class Told:
    """What a download told of itself."""

    def __init__(self) -> None:
        self.total = 0
        self.done = 0
        self.most = 0
        self.notes: list[str] = []

    def begin(self, total: int) -> None:
        self.total = total

    def advance(self, count: int) -> None:
        self.done += count
        self.most = max(self.most, self.done)

    def note(self, text: str) -> None:
        self.notes.append(text)


class Asked:
    """Agrees to everything, and remembers to what."""

    def __init__(self) -> None:
        self.terms: list[Terms] = []

    def __call__(self, terms: Terms, page: str) -> str:
        self.terms.append(terms)
        return "asked"


def fetch(text: str = ID, *, told: Told | None = None, asked: Asked | None = None, check_sums: bool = False) -> Pulled:
    """Pull in this process, without the pauses between attempts."""
    name = ModelName.parse(text)
    assert name is not None
    return pull(name, Hub(sleep=lambda seconds: None), asked or Asked(), told or Told(), check_sums=check_sums)


def starfill_models(*arguments: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """`starfill models …` as a script would run it: nobody is there to be asked."""
    return subprocess.run(
        [Path(sys.executable).with_name("starfill"), "models", *arguments],
        env=isolated_env(home, **env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def nothing_is_here(home: Path) -> bool:
    """Whether no model can be named, whole or half."""
    with pytest.raises(CheckpointError):
        locate(ID)
    return not list((home / "models").glob("[!.]*"))

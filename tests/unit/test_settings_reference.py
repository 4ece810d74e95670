"""The reference is written by a command, and nothing in it is out of date; flags and schemas say the same."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lsp_server.settings import MACHINE_SCOPE, SETTINGS, LiveSettings, Settings
from lsp_server.settings.__main__ import main
from lsp_server.settings.flags import add_flags
from lsp_server.settings.reference import in_document, json_schema, markdown, vscode

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


def test_the_documentation_is_what_the_command_writes() -> None:
    text = DOCUMENT.read_text("utf-8")
    assert in_document(text) == text, "run: python -m lsp_server.settings markdown docs/configuration.md"
    for name in SETTINGS:
        assert f"| `{name}` |" in text
    with pytest.raises(ValueError, match="needs the lines"):
        in_document("no marks")


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["markdown"]) == 0
    assert capsys.readouterr().out == markdown() + "\n"
    copy = tmp_path / "copy.md"
    copy.write_text(DOCUMENT.read_text("utf-8").replace("| `max_tokens` |", "| `max_token` |"), "utf-8")
    assert main(["markdown", str(copy)]) == 0
    assert copy.read_text("utf-8") == DOCUMENT.read_text("utf-8")
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()
    assert main(["vscode"]) == 0
    assert json.loads(capsys.readouterr().out) == vscode()
    assert main([]) == 2


def test_the_schema_allows_what_is_allowed() -> None:
    properties = json_schema()["properties"]
    assert list(properties) == list(SETTINGS)
    assert properties["max_tokens"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 1024,
        "default": 64,
        "description": "Longest completion, in tokens.",
    }
    assert properties["trigger"]["enum"] == ["auto", "manual"]
    for name, known in SETTINGS.items():
        assert known.text.endswith("."), name
        if known.default is not None:
            assert known.kind.read(known.default) == known.default == getattr(Settings(), name)


def test_vscode_gets_types_defaults_and_scopes() -> None:
    made = vscode()
    properties = made["properties"]
    assert properties["starfill.maxTokens"]["scope"] == "window"
    assert properties["starfill.model"] == {
        "type": ["string", "null"],
        "default": None,
        "scope": "machine",
        "markdownDescription": SETTINGS["model"].text,
    }
    assert {name for name, found in properties.items() if found["scope"] == "machine"} == set(
        made["restrictedConfigurations"]
    )
    assert len(made["restrictedConfigurations"]) == len(MACHINE_SCOPE)
    sent = {name.removeprefix("starfill."): found["default"] for name, found in properties.items()}
    live = LiveSettings({}, lambda: 0.0)
    assert not live.initialize(sent)  # the server knows each of these names
    assert live.take_notices() == []


def test_each_setting_that_only_flags_and_the_file_may_set_has_a_flag() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_flags(parser)
    nothing: dict[str, Any] = vars(parser.parse_args([]))
    assert set(nothing) >= MACHINE_SCOPE
    assert set(nothing.values()) == {None}
    given = vars(parser.parse_args(["--max-tokens", "5", "--dtype", "int8", "--idle-exit", "10m", "--window", "512"]))
    current = LiveSettings(given, lambda: 0.0).current
    assert (current.max_tokens, current.dtype, current.idle_exit, current.window) == (5, "int8", "10m", 512)


def test_starfill_lsp_says_its_flags_and_refuses_a_wrong_one() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "lsp_server", "lsp", "--help"], capture_output=True, text=True, check=True
    )
    assert "--token-file" in told.stdout
    wrong = subprocess.run(
        [sys.executable, "-m", "lsp_server", "lsp", "--dtype", "int2"], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 1
    assert "command line: dtype must be one of auto, float32" in wrong.stderr

"""What the editors' packages say of the server is what the server says of itself."""

from __future__ import annotations

import json
import re
import struct

import pytest

from engine import __version__
from lsp_server.settings import reference
from tests.harness.process import ROOT

VSCODE = ROOT / "editors" / "vscode"
MANIFEST = json.loads((VSCODE / "package.json").read_text("utf-8"))
OWN = {"starfill.server.path"}


def test_the_settings_of_vs_code_are_the_servers() -> None:
    properties = MANIFEST["contributes"]["configuration"]["properties"]
    ours = reference.vscode()
    assert {key: value for key, value in properties.items() if key not in OWN} == ours["properties"], "npm run settings"


def test_whatever_reaches_a_path_or_an_endpoint_is_out_of_a_workspaces_reach() -> None:
    trust = MANIFEST["capabilities"]["untrustedWorkspaces"]
    properties = MANIFEST["contributes"]["configuration"]["properties"]
    machine = {key for key, value in properties.items() if value["scope"] == "machine"}
    assert trust["supported"] == "limited"
    assert set(trust["restrictedConfigurations"]) == machine
    assert OWN | {"starfill.engine", "starfill.model", "starfill.tokenFile"} <= machine


def test_every_command_of_vs_code_is_implemented() -> None:
    source = (VSCODE / "src" / "commands.ts").read_text("utf-8")
    implemented = set(re.findall(r"^\t\t'(starfill\.\w+)':", source, re.MULTILINE))
    assert {command["command"] for command in MANIFEST["contributes"]["commands"]} == implemented


def test_the_extension_runs_where_the_files_are() -> None:
    assert MANIFEST["extensionKind"] == ["workspace"]


def test_the_versions_are_one() -> None:
    assert MANIFEST["version"] == __version__


def test_the_icon_is_a_square_png() -> None:
    data = (VSCODE / MANIFEST["icon"]).read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", data[16:24]) == (128, 128)


@pytest.mark.parametrize("step", MANIFEST["contributes"]["walkthroughs"][0]["steps"], ids=lambda step: step["id"])
def test_the_walkthrough_has_its_pages(step: dict[str, dict[str, str]]) -> None:
    assert (VSCODE / step["media"]["markdown"]).read_text("utf-8").strip()


def test_the_help_of_neovim_names_every_option_and_command() -> None:
    neovim = ROOT / "editors" / "neovim"
    manual = (neovim / "doc" / "starfill.txt").read_text("utf-8")
    options = (neovim / "lua" / "starfill" / "config.lua").read_text("utf-8").partition("M.defaults = {")[2]
    for name in re.findall(r"^  (\w+) =", options.partition("\n}")[0], re.MULTILINE):
        assert re.search(rf"^{name}\b.*\*starfill-option-{name}\*$", manual, re.MULTILINE), name
    commands = (neovim / "plugin" / "starfill.lua").read_text("utf-8").partition("local commands = {")[2]
    for name in re.findall(r"^  (\w+) = function", commands.partition("\n}")[0], re.MULTILINE):
        assert f":Starfill {name}" in manual, name

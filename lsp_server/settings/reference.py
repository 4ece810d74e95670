"""The schema for others to read: the table of the documentation, a JSON schema, the settings of VS Code's manifest."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from lsp_server.settings.flags import flag_of
from lsp_server.settings.schema import SETTINGS, Scope, Setting

BEGIN: Final = "<!-- settings: written by `python -m lsp_server.settings markdown FILE` -->"
END: Final = "<!-- end of settings -->"

_WHO = {
    Scope.MACHINE: "flag, file",
    Scope.WINDOW: "flag, editor, file",
}


def markdown() -> str:
    """The table of all settings."""
    rows = ["| setting | default | must be | set by | meaning |", "|---|---|---|---|---|"]
    for known in SETTINGS.values():
        flag = flag_of(known)
        who = _WHO[known.scope].replace("flag, ", f"`{flag}`, " if flag else "")
        allowed = known.kind.allowed.replace("|", "\\|")
        rows.append(f"| `{known.name}` | {_toml(known.default)} | {allowed} | {who} | {known.text} |")
    return "\n".join(rows)


def in_document(document: str) -> str:
    """A document with the table between its marks brought up to date."""
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document needs the lines {BEGIN} and {END}")
    return f"{head}{begin}\n{markdown()}\n{end}{tail}"


def json_schema() -> dict[str, Any]:
    """A JSON schema of `settings.toml`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "starfill settings",
        "type": "object",
        "additionalProperties": False,
        "properties": {known.name: _property(known) for known in SETTINGS.values()},
    }


def vscode() -> dict[str, Any]:
    """`contributes.configuration.properties` of a VS Code extension, and the settings that need a trusted workspace.

    The extension passes those of machine scope as flags, and of the others what the user has set, not the defaults.
    """
    properties = {}
    for known in SETTINGS.values():
        found = _property(known)
        found["markdownDescription"] = found.pop("description")
        found["scope"] = str(known.scope)
        if known.default is None:
            found["type"] = [found["type"], "null"]
        properties[f"starfill.{_camel(known.name)}"] = found
    return {
        "properties": properties,
        "restrictedConfigurations": [
            f"starfill.{_camel(known.name)}" for known in SETTINGS.values() if known.scope is Scope.MACHINE
        ],
    }


def _property(known: Setting) -> dict[str, Any]:
    default = list(known.default) if isinstance(known.default, tuple) else known.default
    return {**known.kind.schema(), "default": default, "description": known.text}


def _camel(name: str) -> str:
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)


def _toml(value: Any) -> str:
    return "not set" if value is None else f"`{json.dumps(value)}`"

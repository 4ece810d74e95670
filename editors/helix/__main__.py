"""Writes Helix's `languages.toml` with starfill beside each language's own servers.

    python -m editors.helix HELIX/languages.toml > editors/helix/languages.toml

The argument is the file that Helix is built with, from its source tree: it names the servers of each language.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lsp_server.rules.languages import PLAIN, by_id

_HEAD = """\
# Helix: starfill beside each language's own servers. Written by `python -m editors.helix`.
#
# Copy this file to ~/.config/helix/languages.toml, or into the one that is there. Servers that are not installed are
# passed over.

[language-server.starfill]
command = "starfill"
args = ["lsp"]
"""


def render(helix: Mapping[str, Any]) -> Iterator[str]:
    """The file's parts: one for each of Helix's languages that starfill knows."""
    yield _HEAD
    for language in helix["language"]:
        if by_id(language.get("language-id", language["name"])) is PLAIN:
            continue
        servers = [*map(_toml, language.get("language-servers", [])), _toml("starfill")]
        yield f"""
[[language]]
name = "{language["name"]}"
language-servers = [{", ".join(servers)}]
"""


def _toml(server: str | Mapping[str, Any]) -> str:
    """A server as in the list of a language: its name, or a table of it and the features that count."""
    if isinstance(server, str):
        return json.dumps(server)
    features = (f"{key} = {json.dumps(server[key])}" for key in sorted(server, reverse=True))
    return f"{{ {', '.join(features)} }}"


if __name__ == "__main__":
    sys.stdout.write("".join(render(tomllib.loads(Path(sys.argv[1]).read_text("utf-8")))))

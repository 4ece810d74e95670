"""`python -m lsp_server.settings markdown [FILE] | schema | vscode`: print the reference, or bring a file's up to date."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lsp_server.settings import reference


def main(arguments: list[str]) -> int:
    """-> the exit code."""
    match arguments:
        case ["markdown"]:
            sys.stdout.write(reference.markdown() + "\n")
        case ["markdown", file]:
            path = Path(file)
            path.write_text(reference.in_document(path.read_text("utf-8")), "utf-8")
        case ["schema"]:
            sys.stdout.write(json.dumps(reference.json_schema(), indent=2) + "\n")
        case ["vscode"]:
            sys.stdout.write(json.dumps(reference.vscode(), indent=2) + "\n")
        case _:
            sys.stderr.write(f"usage: {(__doc__ or '').partition(':')[0]}\n")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

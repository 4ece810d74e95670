"""What the package promises before any kernel runs."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.kernels.children import ROOT, run

SOURCES = sorted((ROOT / "triton_kernels").glob("*.py"))


def test_importing_it_needs_neither_triton_nor_torch() -> None:
    run(
        "-c",
        "import sys; sys.modules['triton'] = sys.modules['torch'] = None; import triton_kernels",
        environment={},
        timeout=60,
    )


def test_it_imports_nothing_of_ours() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.partition(".")[0] not in {"engine", "lsp_server"}, f"{path.name} imports {name}"


def test_every_case_file_is_run() -> None:
    cases = Path(__file__).with_name("cases")
    assert {path.name for path in cases.glob("*.py")} == {
        "support.py",
        *(path.name for path in cases.glob("*_cases.py")),
    }

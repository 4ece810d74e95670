"""Rules about the project itself: imports run one way, nothing dangerous is called, files and checkout stay small."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("lsp_server", "engine", "triton_kernels")
FROM_ENGINE = {
    "engine",
    "engine.api",
    "engine.client",
    "engine.launcher",
    "engine.cli",
    "engine.errors",
    "engine.instruct",
    "engine.licences",
    "engine.lock",
    "engine.logs",
    "engine.paths",
    "engine.models",
    "engine.sizes",
    "engine.doctor",
}
"""What the language server may import of the engine: the public rooms, and the torch-free ones that they are made of."""

DANGEROUS_NAMES = {"eval", "exec", "compile", "__import__"}
DANGEROUS_CALLS = re.compile(r"(pickle|marshal|shelve|dill)\.\w+|torch\.load|yaml\.load|os\.system|\w+\.popen")


def _tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    return [path for name in listed.decode().split("\0") if name and (path := ROOT / name).is_file()]


def _modules(package: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        yield path, ast.parse(path.read_text("utf-8"))


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _at_import_time(tree: ast.Module) -> Iterator[str]:
    """Imports that run when the module is imported: not those in functions or under TYPE_CHECKING."""
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imports(ast.Module([node], []))


@pytest.mark.parametrize(
    ("package", "banned"),
    [
        ("lsp_server", ("torch", "triton", "transformers", "triton_kernels", "safetensors")),
        ("engine", ("pygls", "lsprotocol", "lsp_server")),
        ("triton_kernels", ("engine", "lsp_server", "pygls", "transformers")),
    ],
)
def test_imports_run_one_way(package: str, banned: tuple[str, ...]) -> None:
    found = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, tree in _modules(package)
        for name in _imports(tree)
        if name.split(".")[0] in banned
    ]
    # The one room that is made for transformers; nothing of ours imports it.
    assert [
        each for each in found if not each.startswith("triton_kernels/transformers_attention.py imports transformers")
    ] == []


LAYERS = (
    {"stdio"},
    {"server", "session", "protocol", "gate", "structuring"},
    {"features", "actions"},
    {"completer", "engine_calls", "engines", "wire"},
    {"state"},
    {"rules"},
)
"""Of the language server, from the outside in."""


def test_the_language_servers_layers_import_inwards() -> None:
    depth = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    outward = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, tree in _modules("lsp_server")
        for name in _imports(tree)
        if name.startswith("lsp_server.")
        and depth.get(name.split(".")[1], len(LAYERS)) < depth.get(path.relative_to(ROOT).with_suffix("").parts[1], 0)
    ]
    assert outward == []


def test_nothing_of_ours_imports_what_is_made_for_transformers() -> None:
    for package in ("engine", "lsp_server", "triton_kernels", "benchmarks"):
        for path, tree in _modules(package):
            assert not any("transformers_attention" in name for name in _imports(tree)), path


def test_the_language_server_uses_the_engines_front_rooms_only() -> None:
    for path, tree in _modules("lsp_server"):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "engine":
                names = {node.module} if node.module != "engine" else {f"engine.{alias.name}" for alias in node.names}
                assert names - {"engine.__version__"} <= FROM_ENGINE, path


def test_what_the_language_server_imports_brings_no_torch() -> None:
    code = (
        "import sys, lsp_server.cli, lsp_server.stdio, lsp_server.once, engine.api, engine.client, engine.launcher,"
        " engine.cli, engine.doctor, httpx2\n"
        "print([m for m in ('torch', 'triton', 'transformers', 'safetensors', 'tokenizers') if m in sys.modules])"
    )
    child = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["kv_slots", "scheduler", "step", "generation", "fim", "tokenizer"])
def test_the_core_is_plain_python(module: str) -> None:
    tree = ast.parse((ROOT / "engine" / f"{module}.py").read_text("utf-8"))
    banned = {"torch", "time", "asyncio", "socket", "threading"} - ({"threading"} if module == "tokenizer" else set())
    assert not {name.split(".")[0] for name in _at_import_time(tree)} & banned


def test_nothing_dangerous_is_called() -> None:
    found = []
    for package in PACKAGES:
        for path, tree in _modules(package):
            for node in ast.walk(tree):
                if isinstance(node, ast.Call):
                    called = ast.unparse(node.func)
                    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                    if (
                        called in DANGEROUS_NAMES
                        or DANGEROUS_CALLS.fullmatch(called)
                        or keywords.get("shell") == "True"
                        or keywords.get("trust_remote_code") == "True"
                        or keywords.get("verify") == "False"
                    ):
                        found.append(f"{path.relative_to(ROOT)}:{node.lineno} {called}")
                elif isinstance(node, ast.Constant) and node.value == "0.0.0.0":
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno} 0.0.0.0")
    assert not found


def test_the_checkout_stays_under_56_mib() -> None:
    assert sum(path.stat().st_size for path in _tracked()) < 56 * 2**20


def test_no_file_of_code_is_longer_than_500_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in _tracked()
        if path.suffix in {".py", ".ts", ".lua", ".el"}
        if (lines := path.read_text("utf-8").count("\n")) > 500
    }
    assert not long


def test_the_version_is_said_once() -> None:
    from engine import __version__

    assert __version__ in (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert __version__ not in (ROOT / "pyproject.toml").read_text("utf-8")


def test_each_invariant_of_the_architecture_names_a_test_that_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) >= 12
    for file, function in named:
        path = ROOT / file
        assert path.is_file(), file
        if function:
            assert f"def {function}(" in path.read_text("utf-8"), f"{file}::{function}"


def test_every_folder_of_tests_is_run_by_one_verb() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = re.findall(r"tests/\w+", " ".join(re.findall(r"^(?:TOGETHER|ALONE) := (.*)$", makefile, re.MULTILINE)))
    named.append("tests/editors")
    assert sorted(named) == sorted({f"tests/{path.parts[-2]}" for path in ROOT.glob("tests/*/test_*.py")})

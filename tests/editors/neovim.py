"""Neovim, embedded: keys go in as typed, ghost text is read from its extmarks."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.harness.process import wait_until


class Neovim:
    """One Neovim with the given init.lua in an otherwise empty home."""

    def __init__(self, program: Path, init: str, namespace: str, folder: Path, env: Mapping[str, str]) -> None:
        import pynvim

        config = folder / ".config" / "nvim" / "init.lua"
        config.parent.mkdir(parents=True)
        config.write_text(init)
        self._namespace = namespace
        self._open = True
        environment = [f"{name}={value}" for name, value in {**env, "HOME": str(folder)}.items()]
        self._nvim = pynvim.attach(
            "child", argv=["env", "-i", *environment, str(program), "--embed", "--headless", "-n"]
        )

    @property
    def api(self) -> Any:
        """Neovim's own API."""
        return self._nvim

    def open(self, file: Path, line: int, column: int) -> None:
        self._nvim.command(f"edit {file}")
        attached = "return #vim.lsp.get_clients({ bufnr = 0 })"
        wait_until(lambda: bool(self._nvim.exec_lua(attached)), "language server in Neovim", timeout=20)
        if column:
            self._nvim.funcs.setcursorcharpos(line + 1, column)
            self._nvim.input("a")
        else:
            self._nvim.funcs.setcursorcharpos(line + 1, 1)
            self._nvim.input("i")

    def type(self, text: str) -> None:
        for character in text:
            self._nvim.input({"<": "<lt>", "\n": "<CR>"}.get(character, character))

    def ghost(self) -> str:
        namespace = self._nvim.api.get_namespaces().get(self._namespace)
        if namespace is None:
            return ""
        marks = self._nvim.api.buf_get_extmarks(0, namespace, 0, -1, {"details": True})
        lines = []
        for _, _, _, details in marks:
            lines.append("".join(part for part, _ in details.get("virt_text", [])))
            lines += ["".join(part for part, _ in line) for line in details.get("virt_lines", [])]
        return "\n".join(lines)

    def accept(self) -> None:
        self._nvim.input("<Tab>")

    def leave(self) -> None:
        self._nvim.input("<Esc>")

    def text(self) -> str:
        return "\n".join(self._nvim.current.buffer[:])

    def save(self) -> None:
        self._nvim.command("silent write")

    def close(self) -> None:
        if self._open:
            self._open = False
            with suppress(EOFError, OSError):
                self._nvim.command("qall!")
            self._nvim.close()

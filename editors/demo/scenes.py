"""What the demo types, and where: into this project's own source, at places found by their text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "lsp_server" / "settings" / "kinds.py"


@dataclass(frozen=True, slots=True)
class Scene:
    """Below the line that begins with `below`, a new line is begun: `typed`, of which the editor indents by itself."""

    below: str
    typed: str

    def line(self, text: str) -> int:
        """Number, from 0, of the line to insert in `text`."""
        return next(n for n, line in enumerate(text.split("\n")) if line.startswith(self.below)) + 1


SCENES = (
    Scene("    def read(self, value: Any) -> bool:", "        if not isin"),
    Scene("    def read(self, value: Any) -> str:", "        if value not in self.w"),
    Scene("    def read(self, value: Any) -> int:", "        if isinstance(value, b"),
    Scene("    def schema(self) -> dict[str, Any]:", '        return {"type": "b'),
)

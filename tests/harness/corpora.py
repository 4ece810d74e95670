"""Corpora for tests of attribution: made-up programs, real modules of the standard library, and their indexes."""

from __future__ import annotations

import os
import random
import sysconfig
from pathlib import Path

from lsp_server.attribution.build import Built, build
from lsp_server.attribution.index import Index

STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))
WHITE = (" ", "  ", "\n", "\n    ", "\t", "\r\n", " \n\n ")


def program(seed: int, lines: int) -> str:
    """Code that stands nowhere else: names of its own, in statements of a few forms."""
    chance = random.Random(seed)
    names = [f"{chance.choice('abcdefgh')}{chance.getrandbits(40):x}" for _ in range(max(8, lines // 4))]
    forms = ("{} = {} + {}", "if {} < {}:\n    return {}", "def {}({}, {}):", "{}.{}({!r})", "# {} {} {}", "")
    return "".join(chance.choice(forms).format(*chance.choices(names, k=3)) + "\n" for _ in range(lines))


def respaced(words: list[str], chance: random.Random) -> str:
    """The same tokens in other white space; words stay apart, signs may touch."""
    text = ""
    for word in words:
        apart = text[-1:].isalnum() or text[-1:] == "_" or chance.random() < 0.6
        text += (chance.choice(WHITE) if apart else "") + word
    return text


def modules(most: int, skip: int = 0) -> list[Path]:
    """Some modules of the standard library, always the same ones."""
    found = sorted(STANDARD_LIBRARY.glob("*.py"))
    return [path for path in found if 8_000 < path.stat().st_size < 200_000][skip : skip + most]


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    """A folder with these files."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def build_index(
    target: Path, *folders: Path, add: bool = False, length: int | None = None, jobs: int = 1
) -> tuple[Index, Built]:
    """Build, and open what was built."""
    done = build(list(folders), target, add=add, length=length, jobs=jobs, progress=lambda *_: None)
    return Index(target), done


def die(*_: object) -> None:
    """End this process as if it had been killed."""
    os._exit(9)

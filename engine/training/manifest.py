"""The manifest: which packages the corpus is made of, each by name, registry and version."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

REGISTRIES = ("pypi", "npm", "debian", "stdlib")
DEFAULT = Path(__file__).with_name("manifest.toml")
FOREIGN_LIMIT = 40
"""At most this many npm and Debian packages."""


@dataclass(frozen=True, slots=True)
class Package:
    """One package to take source files from."""

    name: str
    registry: str
    version: str
    languages: tuple[str, ...]
    heldout: bool = False
    megabytes: float = 1.8
    """No more than this of text, after the filters; tests come last and make up at most a quarter."""
    only: tuple[str, ...] = ()
    """Path prefixes below the package's root; empty means everywhere."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """All packages, and the names of installed ones that a training machine may add."""

    packages: tuple[Package, ...]
    installed: tuple[str, ...]

    def heldout(self) -> frozenset[str]:
        """Names that no training text may come from."""
        return frozenset(p.name.lower() for p in self.packages if p.heldout)


def load(path: Path = DEFAULT) -> Manifest:
    """Read and check a manifest; ValueError says what is wrong with it."""
    source = tomllib.loads(path.read_text(encoding="utf-8"))
    packages = []
    for registry in REGISTRIES:
        for name, entry in source.get(registry, {}).items():
            packages.append(
                Package(
                    name=name,
                    registry=registry,
                    version=str(entry.get("version", "")),
                    languages=tuple(entry.get("languages", ["python"])),
                    heldout=bool(entry.get("heldout", False)),
                    megabytes=float(entry.get("megabytes", 1.8)),
                    only=tuple(entry.get("only", ())),
                )
            )
    foreign = sum(p.registry in ("npm", "debian") for p in packages)
    if foreign > FOREIGN_LIMIT:
        raise ValueError(f"{path}: {foreign} npm and Debian packages, at most {FOREIGN_LIMIT} are allowed")
    unpinned = [p.name for p in packages if not p.version and p.registry != "stdlib"]
    if unpinned:
        raise ValueError(f"{path}: no version for {', '.join(unpinned)}")
    return Manifest(tuple(packages), tuple(source.get("installed", {}).get("names", ())))

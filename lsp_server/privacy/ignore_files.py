"""What the ignore files above a file say about it, as git would. They are the only files that are read without being opened.

From the repository's or the workspace's folder down to the file's own; symlinks are not followed, neither as ignore files nor
as folders on the way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs.unix
from cachetools import LRUCache

from lsp_server.privacy.patterns import MAX_STEPS, Patterns, TooCostly, lines_of
from lsp_server.privacy.small_files import Stamp, TooLarge, read_bounded, stamp_of

MAX_BYTES = 2**18
"""Bytes of one ignore file at most."""

MAX_DEPTH = 128
"""Folders above a file at most."""

GIT, OURS = ".gitignore", ".starfillignore"

_REMEMBERED = 512
_EXCLUDES_FILE = re.compile(r'(?i)\s*excludesfile\s*=\s*"?([^"\r\n#;]+?)"?\s*(?:[#;].*)?$')
_SECTION = re.compile(r"\s*\[([^\]]*)\]")
_NONE = Patterns(())


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found about one file, and the state of everything that was looked at for it."""

    ignored: bool
    """By git's ignore files, with ours over those of the same folder."""
    hidden: bool
    """By our own ignore files, or because nobody can know: what git's files say does not matter."""
    looked_at: Mapping[str, Stamp | None] = field(default_factory=dict)

    @classmethod
    def of(cls, verdicts: Sequence[Verdict]) -> Verdict:
        """Of one file by several names: what holds by any of them."""
        looked_at = {path: stamp for each in verdicts for path, stamp in each.looked_at.items()}
        return cls(any(each.ignored for each in verdicts), any(each.hidden for each in verdicts), looked_at)

    def still_holds(self) -> bool:
        """Whether all that was looked at is as it was."""
        return all(stamp_of(path) == stamp for path, stamp in self.looked_at.items())


@dataclass(frozen=True, slots=True)
class _Source:
    """Patterns, and how many of a path's parts stand before what they are relative to."""

    patterns: Patterns
    depth: int


class IgnoreFiles:
    """Reads ignore files, and remembers each until it changes."""

    def __init__(self, home: Path, git_config: Path | None = None) -> None:
        """`home` is the user's; `git_config` where git keeps their settings, beside the file in `home`."""
        self._home = home
        self._git_config = git_config or Path(platformdirs.unix.Unix("git").user_config_dir)
        self._read: LRUCache[str, tuple[Stamp | None, Patterns | None]] = LRUCache(_REMEMBERED)

    def verdict(self, path: str, roots: Sequence[str]) -> Verdict:
        """What holds for a file at an absolute path, given the workspace's folders."""
        looked_at: dict[str, Stamp | None] = {}
        parts = path.strip("/").split("/")
        if len(parts) > MAX_DEPTH:
            return Verdict(ignored=True, hidden=True)
        folders = ["/" + "/".join(parts[:depth]) for depth in range(len(parts))]
        repository = _repository(folders, looked_at)
        inside = [root.strip("/").count("/") + bool(root.strip("/")) for root in roots if _is_in(path, root)]
        top = min([*inside, *(() if repository is None else (repository,))], default=len(parts) - 1)
        try:
            git, ours = self._sources(folders, top, repository, looked_at)
            for sources in (git, ours):
                if sum(source.patterns.steps(parts[source.depth :]) for source in sources) > MAX_STEPS:
                    raise TooCostly
        except (TooCostly, TooLarge):
            return Verdict(ignored=True, hidden=True, looked_at=looked_at)
        return Verdict(_ignored(parts, git, top), _ignored(parts, ours, top), looked_at)

    def _sources(
        self, folders: Sequence[str], top: int, repository: int | None, looked_at: dict[str, Stamp | None]
    ) -> tuple[list[_Source], list[_Source]]:
        """Git's sources with ours among them, and ours alone; the weaker first."""
        git, ours = [], []
        base = top if repository is None else repository
        user = self._user_file(looked_at)
        git.append(_Source(self._patterns(user, looked_at, follow=True), base))
        for depth in range(top, len(folders)):
            folder = folders[depth].rstrip("/")
            if depth > top and Path(folder).is_symlink():
                break
            of_git = _NONE
            if depth >= base:
                if depth == repository and not Path(f"{folder}/.git/info").is_symlink():
                    git.append(_Source(self._patterns(f"{folder}/.git/info/exclude", looked_at), depth))
                of_git = self._patterns(f"{folder}/{GIT}", looked_at)
            own = self._patterns(f"{folder}/{OURS}", looked_at)
            git += [_Source(of_git, depth), _Source(own, depth)]
            ours.append(_Source(own, depth))
        return [source for source in git if source.patterns], [source for source in ours if source.patterns]

    def _user_file(self, looked_at: dict[str, Stamp | None]) -> str:
        """The user's own ignore file for all repositories."""
        named = str(self._git_config / "ignore")
        for config in (self._git_config / "config", self._home / ".gitconfig"):
            if self._look(str(config), looked_at):
                with suppress(OSError, TooLarge):
                    named = _excludes_file(read_bounded(config, MAX_BYTES, follow=True)) or named
        return str(self._home / named[2:]) if named.startswith("~/") else named

    def _patterns(self, path: str, looked_at: dict[str, Stamp | None], *, follow: bool = False) -> Patterns:
        """Those of a file; none if there is none. Raises TooLarge or TooCostly if nobody can know what it hides."""
        stamp = self._look(path, looked_at)
        if stamp is None:
            return _NONE
        found = self._read.get(path)
        if found is None or found[0] != stamp:
            try:
                patterns: Patterns | None = Patterns(lines_of(read_bounded(path, MAX_BYTES, follow=follow)))
            except OSError:
                patterns = _NONE
            except (TooLarge, TooCostly):
                patterns = None
            found = self._read[path] = (stamp, patterns)
        if found[1] is None:
            raise TooCostly
        return found[1]

    def _look(self, path: str, looked_at: dict[str, Stamp | None]) -> Stamp | None:
        if path not in looked_at:
            looked_at[path] = stamp_of(path)
        return looked_at[path]


def _repository(folders: Sequence[str], looked_at: dict[str, Stamp | None]) -> int | None:
    """The nearest folder with a repository. One that appears nearer is noticed; what git changes in it is of no interest."""
    for depth in reversed(range(len(folders))):
        path = f"{folders[depth].rstrip('/')}/.git"
        if stamp_of(path) is not None:
            return depth
        looked_at[path] = None
    return None


def _ignored(parts: Sequence[str], sources: Sequence[_Source], top: int) -> bool:
    """Whether a file is ignored, or a folder above it, which then nothing can take back."""
    for depth in range(top + 1, len(parts) + 1):
        for source in reversed(sources):
            if source.depth >= depth:
                continue
            says = source.patterns.says("/".join(parts[source.depth : depth]), folder=depth < len(parts))
            if says:
                return True
            if says is not None:
                break
    return False


def _is_in(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


def _excludes_file(config: bytes) -> str | None:
    """`core.excludesFile` of a git configuration; what that includes from elsewhere is not followed."""
    section, found = "", None
    for line in config.decode("utf-8", "surrogateescape").split("\n"):
        opened = _SECTION.match(line)
        if opened:
            section = opened[1].strip().lower()
        if section == "core" and (match := _EXCLUDES_FILE.match(line, opened.end() if opened else 0)):
            found = match[1]
    return found

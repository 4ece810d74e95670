"""`starfill tune`: where tuned models are, what they are called, how one goes again. Imports torch only when it tunes.

A result is made in a folder beside the models and moved to its name in one step, so that whatever ends the command early
leaves no half of it. The model that it starts from is never written to.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pathspec

from engine import paths
from engine.checkpoint.adapter import fingerprint, is_adapter
from engine.checkpoint.config import read_config
from engine.errors import CheckpointError, StarfillError
from engine.instruct import NOTE, following_of
from engine.models import STARTER_ID, ModelSource, locate
from engine.models.locate import ModelName
from engine.processes import ProcessIdentity

if TYPE_CHECKING:
    from engine.training.tune import Outcome, TunePlan

_FILE = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)
_DRAFT = ".tuning-"

SECRETS = (
    "secret.*",
    "secrets.*",
    "secrets/",
    "credential.*",
    "credentials.*",
    "passwords.*",
    "*local_settings.*",
    ".*",
)
"""Names of source files that are never trained on: a model may say again what it has read."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What the command came to. `directory` is None if the result did not help and was not kept."""

    name: str
    directory: Path | None
    outcome: Outcome

    def report(self) -> list[str]:
        """Lines for people: how good it was before and after, and what to do now."""
        before, after = self.outcome.before, self.outcome.after
        score = f"Held out: loss {before.loss:.3f} before, {after.loss:.3f} after"
        if before.exact is not None and after.exact is not None:
            score += f"; exact lines {before.exact:.1f} % before, {after.exact:.1f} % after"
        if self.directory is None:
            return [f"{score}.", "That did not help, so nothing was written. More examples or --minutes may."]
        kind = "An adapter" if self.outcome.adapter else "A model"
        return [
            f"{score}.",
            f"{kind} after {self.outcome.steps} steps: {self.directory}",
            f'Use it with --model {self.name}, or `model = "{self.name}"` in settings.toml; '
            f"the way back: starfill tune --undo {self.name}",
        ]


def name_for(path: Path) -> str:
    """What a result is called if nobody says otherwise."""
    stem = re.sub(r"[^A-Za-z0-9_.]+|\.{2,}", "-", path.resolve().stem).strip("-._")
    return f"{stem[:80].rstrip('-._') or 'project'}-tuned"


def tune(path: Path, model: str | None, name: str | None, plan: TunePlan, exclude: tuple[str, ...] = ()) -> Tuned:
    """Tune `model` on a repository or a file of pairs -> a model that `--model NAME` finds; raises StarfillError.

    `exclude` are globs as in .gitignore, relative to the repository.
    """
    if not path.exists():
        raise StarfillError(f"{path}: no such file or folder; give a repository or a .jsonl file of pairs")
    name = name or name_for(path)
    target = _folder_of(name)
    if target.exists():
        raise StarfillError(f"{name} exists already; choose another --name, or remove it: starfill tune --undo {name}")
    source = locate(model)
    if is_adapter(source.directory):
        raise StarfillError(f"{source.id} is an adapter; tune its base model, on all that it is to know")
    patterns = pathspec.GitIgnoreSpec.from_lines([*SECRETS, *exclude])
    _sweep()
    draft = paths.models_dir() / f"{_DRAFT}{os.getpid()}-{secrets.token_hex(4)}"
    try:
        outcome = _make(path, source, draft, plan, patterns)
        if not outcome.kept:
            return Tuned(name, None, outcome)
        try:
            draft.rename(target)
        except OSError as error:
            raise StarfillError(f"{target}: {error.strerror}; choose another --name") from error
        return Tuned(name, target, outcome)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def undo(name: str) -> Path:
    """Remove a tuned model, and nothing that tuning did not write -> where it was; raises StarfillError."""
    folder = _folder_of(name)
    try:
        files = json.loads((folder / NOTE).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StarfillError(
            f"{folder}: no tuned model there; starfill models list names those that are here"
        ) from error
    for file in [str(file) for file in files if str(file) != NOTE] + [NOTE]:
        if _FILE.fullmatch(file):
            (folder / file).unlink(missing_ok=True)
    with suppress(OSError):  # files of somebody else's stay
        folder.rmdir()
    return folder


def _make(path: Path, source: ModelSource, draft: Path, plan: TunePlan, patterns: pathspec.GitIgnoreSpec) -> Outcome:
    from engine.training.export import ExportError
    from engine.training.tune import Base, TuneError, tune

    draft.mkdir(parents=True)
    following = following_of(source)
    # An id is found again wherever the models are kept; a folder has its path alone.
    pulled = source.id == STARTER_ID or source.directory.resolve().parent == paths.models_dir().resolve()
    name, _, revision = source.id.partition("@")
    base = Base(
        id=name if pulled else str(source.directory),
        revision=revision or None,
        fingerprint=fingerprint(source.directory),
        instruct=following.form,
        terms=following.terms,
    )
    try:
        read_config(source.directory)
        return tune(path, source.directory, draft, plan, base=base, excluded=patterns.match_file)
    except (TuneError, ExportError, CheckpointError, ValueError, OSError) as error:
        raise StarfillError(str(error)) from error


def _folder_of(name: str) -> Path:
    parsed = ModelName.parse(name)
    if parsed is None or parsed.folder != name or "@" in name or name in ("default", STARTER_ID):
        raise StarfillError(
            f"{name!r} is no name for a tuned model; use letters, digits, dots, underscores and single dashes"
        )
    return paths.models_dir() / parsed.folder


def _sweep() -> None:
    """Remove drafts whose process was killed."""
    for draft in paths.models_dir().glob(f"{_DRAFT}*"):
        number = draft.name.removeprefix(_DRAFT).partition("-")[0]
        if not number.isdecimal() or ProcessIdentity.of(int(number)) is None:
            shutil.rmtree(draft, ignore_errors=True)

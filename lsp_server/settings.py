"""Typed settings in one place. Precedence: flags, then the editor, then the user's file, then the defaults.

Model, endpoint and token come from flags and the user's own file alone: editors merge a repository's settings into what
they send, and a repository must not choose what is read, run or contacted.
"""

from __future__ import annotations

import difflib
import logging
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from engine import paths
from engine.errors import StarfillError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set."""

    engine: str = "auto"
    """`auto`, `unix:PATH` or a URL. Machine scope."""
    model: str | None = None
    """A model directory or downloaded id. Machine scope."""
    token_file: str | None = None
    """File with the bearer token of a remote engine. Machine scope."""
    completion: Literal["auto", "on", "off"] = "auto"
    """Whether `textDocument/completion` is offered: auto means to clients without inline completion."""
    max_tokens: int = 64
    """Longest completion, in tokens."""


MACHINE_SCOPE = frozenset({"engine", "model", "token_file"})
"""Settings that no LSP message may change."""

_ALLOWED = {"completion": ("auto", "on", "off")}
_BOUNDS = {"max_tokens": (1, 1_024)}


def load_settings(flags: Mapping[str, Any]) -> Settings:
    """The user's file under the flags; raises StarfillError that names file, key and remedy."""
    path = paths.settings_file()
    try:
        with path.open("rb") as file:
            found = tomllib.load(file)
    except FileNotFoundError:
        found = {}
    except (OSError, ValueError) as error:
        raise StarfillError(f"{path}: {error}") from error
    settings = _merged(Settings(), found, str(path))
    return _merged(settings, {key: value for key, value in flags.items() if value is not None}, "command line")


def with_editor(settings: Settings, sent: Any) -> Settings:
    """What the editor sent (initializationOptions or a configuration) over the rest; bad values are logged and left out."""
    if not isinstance(sent, Mapping):
        return settings
    sent = sent.get("starfill", sent)
    known = {field.name for field in fields(Settings)}
    for key, value in sent.items() if isinstance(sent, Mapping) else ():
        if key in MACHINE_SCOPE:
            log.warning("setting %s is ignored when an editor sends it; use a flag or %s", key, paths.settings_file())
        elif key in known:
            try:
                settings = _merged(settings, {key: value}, "editor")
            except StarfillError as error:
                log.warning("%s", error)
    return settings


def read_token(settings: Settings) -> str | None:
    """The token of a remote engine, from its file."""
    if settings.token_file is None:
        return None
    try:
        return Path(settings.token_file).expanduser().read_text().strip()
    except OSError as error:
        raise StarfillError(f"token_file {settings.token_file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise StarfillError(f"token_file {settings.token_file}: not text; write the token into it") from error


def _merged(settings: Settings, values: Mapping[str, Any], source: str) -> Settings:
    known = [field.name for field in fields(Settings)]
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
            log.warning("%s: unknown setting %s%s", source, key, hint)
            continue
        _check(key, value, source)
        settings = replace(settings, **{key: value})
    return settings


def _check(key: str, value: Any, source: str) -> None:
    if key in _ALLOWED:
        if value not in _ALLOWED[key]:
            raise StarfillError(f"{source}: {key} must be one of {', '.join(_ALLOWED[key])}")
    elif key in _BOUNDS:
        low, high = _BOUNDS[key]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise StarfillError(f"{source}: {key} must be a whole number from {low} to {high}")
    elif not isinstance(value, str):
        raise StarfillError(f"{source}: {key} must be a string")

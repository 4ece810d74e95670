"""Where settings come from and which wins: flags over the editor over the user's file over the defaults, at all times."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from engine import paths
from engine.errors import StarfillError
from lsp_server.privacy.small_files import Stamp, TooLarge, read_bounded, stamp_of
from lsp_server.settings.schema import MACHINE_SCOPE, SETTINGS, Settings

MAX_FILE = 2**20
"""Bytes of a settings file at most."""

LOOK_EVERY = 1.0
"""Seconds between two looks at the settings file."""

NOT_OURS: Final = frozenset({"status", "answers", "editor_info", "editor_plugin_info", "client", "trace"})
"""What editors may send beside the settings: options of the protocol, and what they keep for themselves."""

EDITOR = "editor"
COMMAND_LINE = "command line"

_SNAKE = re.compile(r"(?<=[a-z])[A-Z]")


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the user should know about their settings. Names source, key and what is allowed, never a value."""

    text: str


@dataclass(frozen=True, slots=True)
class Layer:
    """What one source sets, checked."""

    values: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()


def read_layer(found: Mapping[str, Any], source: str, *, trusted: bool) -> Layer:
    """The settings among what a source says, and a notice for each that is unknown, wrong or not this source's to set."""
    values: dict[str, Any] = {}
    notices: list[Notice] = []
    for key, value in found.items():
        name = _name(key)
        if value is None or (not trusted and name in NOT_OURS):
            continue
        if name not in SETTINGS:
            notices.append(_unknown(key, source, trusted))
        elif not trusted and name in MACHINE_SCOPE:
            notices.append(
                Notice(f"{source}: {name} is not taken from an editor; set it as a flag or in {paths.settings_file()}")
            )
        else:
            try:
                values[name] = SETTINGS[name].kind.read(value)
            except ValueError:
                notices.append(Notice(f"{source}: {name} must be {SETTINGS[name].kind.allowed}"))
    return Layer(values, tuple(notices))


def _name(key: str) -> str:
    """A key as we write it: `maxTokens`, as some editors have it, is `max_tokens`."""
    return _SNAKE.sub(lambda match: f"_{match[0].lower()}", key)


def _unknown(key: str, source: str, trusted: bool) -> Notice:
    """An editor's key is named only if it is nearly one of ours: what else editors send may be anybody's text."""
    import difflib

    near = difflib.get_close_matches(key.lower(), SETTINGS, 1, 0.6 if trusted else 0.75)
    if near:
        return Notice(f"{source}: unknown setting {_printable(key)}; did you mean {near[0]}?")
    named = f"unknown setting {_printable(key)}" if trusted else "an unknown setting"
    return Notice(f"{source}: {named}; known are {', '.join(SETTINGS)}")


def _printable(key: str) -> str:
    return key if key.isprintable() and len(key) <= 60 else ascii(key[:60])


def merged(layers: Iterable[Layer]) -> Settings:
    """The layers over the defaults, the later over the earlier."""
    values: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.values.items():
            kind = SETTINGS[name].kind
            values[name] = kind.over(values[name], value) if name in values else value
    return Settings(**values)


def read_file(path: Path) -> Layer:
    """The user's file, nothing if there is none; raises StarfillError that names it if it cannot be read."""
    try:
        data = read_bounded(path, MAX_FILE, follow=True)
    except FileNotFoundError:
        return Layer()
    except OSError as error:
        raise StarfillError(f"{path}: {error.strerror}") from error
    except TooLarge as error:
        raise StarfillError(f"{path}: larger than {MAX_FILE} bytes; keep settings alone in it") from error
    try:
        found = tomllib.loads(data.decode("utf-8-sig"))  # some editors begin it with a mark
    except UnicodeDecodeError as error:
        raise StarfillError(f"{path}: not UTF-8; save it as that") from error
    except (ValueError, RecursionError) as error:
        raise StarfillError(f"{path}: {error}") from error
    return read_layer(found, str(path), trusted=True)


def read_flags(flags: Mapping[str, Any]) -> Layer:
    """The command line, where None stands for a flag that was not given; raises StarfillError at the first wrong one."""
    for name, value in flags.items():
        for notice in read_layer({name: value}, COMMAND_LINE, trusted=True).notices:
            raise StarfillError(f"{notice.text}, not {value!r}" if name in SETTINGS else notice.text)
    return read_layer(flags, COMMAND_LINE, trusted=True)


class LiveSettings:
    """The settings of one running server, as they change.

    A file that cannot be read when the server starts switches completion off until it is mended: nobody knows what it
    excludes. One that breaks later leaves things as they were. Either way there is a notice. One that is gone or empty may be
    about to be written: what it said holds until it is so at two looks in a row.
    """

    def __init__(self, flags: Mapping[str, Any], clock: Callable[[], float], file: Path | None = None) -> None:
        """`flags` by setting; `file` is the user's own, none if None. Raises StarfillError for a wrong flag."""
        self._clock = clock
        self._path = file
        self._flags = read_flags(flags)
        self._file: Layer | None = None
        self._options = Layer()
        self._configuration = Layer()
        self._stamp: Stamp | None = None
        self._doubted = False
        """Whether the file was gone or empty at the last look, and was not before."""
        self._looked_at = clock()
        self._told: set[str] = set()
        self._untold: list[Notice] = []
        self._read_file()
        self.current = self._merge()

    def refresh(self) -> bool:
        """Read the file again if it changed; looks at most once in `LOOK_EVERY` seconds. -> whether a setting changed."""
        now = self._clock()
        if now - self._looked_at < LOOK_EVERY:
            return False
        self._looked_at = now
        if self._path is None or (stamp_of(self._path) == self._stamp and not self._doubted):
            return False
        self._read_file()
        return self._changed()

    def initialize(self, options: Any) -> bool:
        """Take `initializationOptions`, plain or under a `starfill` key -> whether a setting changed."""
        section = options.get("starfill", options) if isinstance(options, Mapping) else None
        self._options = self._editor_layer(section)
        return self._changed()

    def configure(self, settings: Any) -> bool:
        """Take the `settings` of `workspace/didChangeConfiguration` -> whether a setting changed.

        Under a `starfill` key, or plain where every key is one of ours; else it is about somebody else, or says that we are
        to ask.
        """
        if not isinstance(settings, Mapping):
            return False
        if "starfill" in settings:
            return self.configure_section(settings["starfill"])
        ours = bool(settings) and all(_name(key) in SETTINGS for key in settings)
        return self.configure_section(settings) if ours else False

    def configure_section(self, section: Any) -> bool:
        """Take what the client answered to `workspace/configuration` for the section `starfill`: all that it sets now.

        What it has named once is no longer the initialization options' to say: it can be taken back.
        """
        fresh = self._editor_layer(section)
        named = self._configuration.values.keys() | fresh.values.keys()
        left = {name: value for name, value in self._options.values.items() if name not in named}
        self._options, self._configuration = replace(self._options, values=left), fresh
        return self._changed()

    def take_notices(self) -> list[Notice]:
        """What the user has not been told yet; each is told once."""
        untold, self._untold = self._untold, []
        return untold

    def _read_file(self) -> None:
        if self._path is None:
            self._file = Layer()
            return
        self._stamp = stamp_of(self._path)  # before the look, so that what is written meanwhile is seen next time
        doubted, self._doubted = self._doubted, False
        try:
            found = read_file(self._path)
        except StarfillError as error:
            remedy = "completion is off until it is mended" if self._file is None else "what it said before still holds"
            self._tell([Notice(f"{error}; {remedy}")])
            return
        if self._file is not None and self._file.values and not found.values and not found.notices:
            if not doubted:
                self._doubted = True
                return
            self._tell(
                [Notice(f"{self._path}: it sets nothing any more, so that its settings and what it excluded are gone")]
            )
        self._file = found
        self._tell(found.notices)

    def _editor_layer(self, section: Any) -> Layer:
        if not isinstance(section, Mapping):
            return Layer()
        # A client that passes a machine's setting as a flag may send it as well.
        fresh = {key: value for key, value in section.items() if not self._known_already(key, value)}
        layer = read_layer(fresh, EDITOR, trusted=False)
        self._tell(layer.notices)
        return layer

    def _known_already(self, key: str, value: Any) -> bool:
        name = _name(key)
        return name in MACHINE_SCOPE and value in (getattr(self.current, name), SETTINGS[name].default)

    def _changed(self) -> bool:
        before, self.current = self.current, self._merge()
        return before != self.current

    def _merge(self) -> Settings:
        settings = merged((self._file or Layer(), self._options, self._configuration, self._flags))
        return settings if self._file is not None else replace(settings, enabled=False)

    def _tell(self, notices: Iterable[Notice]) -> None:
        for notice in notices:
            if notice.text not in self._told:
                self._told.add(notice.text)
                self._untold.append(notice)


def load_settings(flags: Mapping[str, Any]) -> Settings:
    """The settings of a one-shot command: the user's file under the flags. Notices are logged.

    Raises StarfillError for a wrong flag, and for a file that cannot be read.
    """
    import logging

    file = read_file(paths.settings_file())
    for notice in file.notices:
        logging.getLogger(__name__).warning("%s", notice.text)
    return merged((file, read_flags(flags)))


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

"""Kinds of values that a setting can have: what is allowed, how it reads from TOML, JSON and a flag, how it is described."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

_GLOB = r"(?![!#])[ /]*[^ /\n][^\n]*"
"""A glob that says something, in the words of both Python and JSON schemas: editors leave out those that are none."""

_LONGEST_GLOB = 1_000


class Kind(Protocol):
    """One kind of value."""

    @property
    def allowed(self) -> str:
        """What a value must be, to follow "must be"."""
        ...

    @property
    def from_flag(self) -> Callable[[str], Any] | None:
        """How a flag's text becomes a value; None if there is no flag of this kind."""
        ...

    def read(self, value: Any) -> Any:
        """The value to keep; raises ValueError if it is none of this kind. Never echoes it."""
        ...

    def over(self, lower: Any, upper: Any) -> Any:
        """What holds where a later source sets `upper` and the earlier ones came to `lower`."""
        ...

    def schema(self) -> dict[str, Any]:
        """Its JSON schema."""
        ...


class _Replacing:
    from_flag: Callable[[str], Any] | None = str

    def over(self, lower: Any, upper: Any) -> Any:
        """The later source wins."""
        return upper


class Switch(_Replacing):
    """True or false."""

    allowed = "true or false"
    from_flag = None

    def read(self, value: Any) -> bool:
        """See `Kind`."""
        if not isinstance(value, bool):
            raise ValueError
        return value

    def schema(self) -> dict[str, Any]:
        """See `Kind`."""
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Choice(_Replacing):
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def allowed(self) -> str:
        """See `Kind`."""
        return f"one of {', '.join(self.words)}"

    def read(self, value: Any) -> str:
        """See `Kind`."""
        if not isinstance(value, str) or value not in self.words:
            raise ValueError
        return value

    def schema(self) -> dict[str, Any]:
        """See `Kind`."""
        return {"type": "string", "enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class Whole(_Replacing):
    """A whole number between two bounds."""

    low: int
    high: int
    from_flag = int

    @property
    def allowed(self) -> str:
        """See `Kind`."""
        return f"a whole number from {self.low} to {self.high}"

    def read(self, value: Any) -> int:
        """See `Kind`."""
        if not isinstance(value, int) or isinstance(value, bool) or not self.low <= value <= self.high:
            raise ValueError
        return value

    def schema(self) -> dict[str, Any]:
        """See `Kind`."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class WholeOr(_Replacing):
    """A whole number within bounds, or one word."""

    word: str
    low: int
    high: int

    @property
    def allowed(self) -> str:
        """See `Kind`."""
        return f"{self.word} or a whole number from {self.low} to {self.high}"

    @property
    def from_flag(self) -> Callable[[str], Any]:  # type: ignore[override]  # a property in place of a value
        """See `Kind`."""
        return lambda text: text if text == self.word else int(text)

    def read(self, value: Any) -> int | str:
        """See `Kind`."""
        return self.word if value == self.word else Whole(self.low, self.high).read(value)

    def schema(self) -> dict[str, Any]:
        """See `Kind`."""
        return {"type": ["integer", "string"], "minimum": self.low, "maximum": self.high, "pattern": f"^{self.word}$"}


@dataclass(frozen=True, slots=True)
class Text(_Replacing):
    """A line of text, of a form if `pattern` says so."""

    pattern: str = r"[^\0\r\n]+"
    allowed: str = "a string"

    def read(self, value: Any) -> str:
        """See `Kind`."""
        if not isinstance(value, str) or not re.fullmatch(self.pattern, value):
            raise ValueError
        return value

    def schema(self) -> dict[str, Any]:
        """See `Kind`."""
        return {"type": "string"}


class Globs:
    """Patterns as in an ignore file. Sources add up: none can take away what another one excludes."""

    allowed = "a list of globs as in .gitignore, none empty, none with ! or # in front"
    from_flag = None

    def read(self, value: Any) -> tuple[str, ...]:
        """See `Kind`."""
        if not isinstance(value, list | tuple) or not all(isinstance(glob, str) for glob in value):
            raise ValueError
        if not all(re.fullmatch(_GLOB, glob) and len(glob) <= _LONGEST_GLOB for glob in value):
            raise ValueError
        return tuple(value)

    def over(self, lower: tuple[str, ...], upper: tuple[str, ...]) -> tuple[str, ...]:
        """Both, each once."""
        return tuple(dict.fromkeys((*lower, *upper)))

    def schema(self) -> dict[str, Any]:
        """See `Kind`."""
        return {"type": "array", "items": {"type": "string", "pattern": f"^{_GLOB}$", "maxLength": _LONGEST_GLOB}}


class Switches:
    """Names that are switched on and off. Sources add up; a later one wins name by name."""

    allowed = "a table of names, each true or false"
    from_flag = None

    def read(self, value: Any) -> Mapping[str, bool]:
        """See `Kind`."""
        if value == []:  # an empty table, as some editors send it
            return {}
        if not isinstance(value, Mapping) or not all(isinstance(state, bool) for state in value.values()):
            raise ValueError
        return {str(name): state for name, state in value.items()}

    def over(self, lower: Mapping[str, bool], upper: Mapping[str, bool]) -> Mapping[str, bool]:
        """Both, name by name."""
        return {**lower, **upper}

    def schema(self) -> dict[str, Any]:
        """See `Kind`."""
        return {"type": "object", "additionalProperties": {"type": "boolean"}}

"""The one schema: every setting with its kind of value, its default, who may set it, and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from enum import StrEnum
from typing import Any, Final, Literal

from lsp_server.settings.kinds import Choice, Globs, Kind, Switch, Switches, Text, Whole, WholeOr


class Scope(StrEnum):
    """Who may set it; the words are those of VS Code's manifest."""

    MACHINE = "machine"
    """Flags and the user's own file alone: it reaches a path, an argument or an address, or takes protection away."""
    WINDOW = "window"
    """An editor too, for all of its documents: a server has one set of settings."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known about one setting."""

    name: str
    kind: Kind
    default: Any
    scope: Scope
    text: str
    engine: bool
    """Whether it names the engine to talk to, so that a change means another one."""


def _setting(default: Any, kind: Kind, scope: Scope, text: str, *, engine: bool = False) -> Any:
    about = {"kind": kind, "scope": scope, "text": text, "engine": engine, "default": default}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=about)
    return field(default=default, metadata=about)


_ENDPOINT = Text(r"auto|(unix:|https?://)[^\0\r\n]+", "auto, unix:PATH or http(s)://HOST:PORT")
_SIZE = Text(r"(?i)\d{1,15}(\.\d{1,3})?\s?([kmgt]i?b?|b)?", "a size such as 512MiB or 2GiB")
_DURATION = Text(r"\d{1,6}(\.\d{1,3})?[smh]?", "a duration such as 45s, 30m or 1h, or 0 for never")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set, after precedence."""

    # what may be completed
    enabled: bool = _setting(True, Switch(), Scope.WINDOW, "Whether anything is completed at all.")
    languages: Mapping[str, bool] = _setting(
        {},
        Switches(),
        Scope.WINDOW,
        'Languages switched off and on, by LSP language id: `{markdown = false}`; `"*" = false` leaves only those on that '
        "are named.",
    )
    exclude: tuple[str, ...] = _setting(
        (),
        Globs(),
        Scope.WINDOW,
        "Files of which nothing is sent, as globs like those in .gitignore, such as `**/secrets/**`; `~/` is the home "
        "folder. Sources add up.",
    )
    ignored_files: Literal["exclude", "complete"] = _setting(
        "exclude",
        Choice(("exclude", "complete")),
        Scope.MACHINE,
        "What happens to files that git ignores: nothing of them is sent, or they are completed, but never shown to the "
        "model beside another file.",
    )
    max_file_bytes: int = _setting(
        16 * 2**20,
        Whole(1_024, 64 * 2**20),
        Scope.WINDOW,
        "Largest document that is completed, in bytes of UTF-8.",
    )
    max_line_length: int = _setting(
        20_000, Whole(80, 1_000_000), Scope.WINDOW, "Longest line in which is completed, in characters."
    )
    # when and how
    trigger: Literal["auto", "manual"] = _setting(
        "auto",
        Choice(("auto", "manual")),
        Scope.WINDOW,
        "Whether completions come while you type, or only when they are invoked by hand.",
    )
    completion: Literal["auto", "on", "off"] = _setting(
        "auto",
        Choice(("auto", "on", "off")),
        Scope.WINDOW,
        "Whether completions also stand in the completion menu (`textDocument/completion`): auto means in editors without "
        "inline completion. Read once, when the editor connects.",
    )
    max_tokens: int = _setting(64, Whole(1, 1_024), Scope.WINDOW, "Longest completion, in tokens.")
    candidates: int = _setting(
        3,
        Whole(1, 8),
        Scope.WINDOW,
        "How many alternatives there are to cycle through when a completion is invoked again where one is shown.",
    )
    min_confidence: int | Literal["auto"] = _setting(
        "auto",
        WholeOr("auto", 0, 100),
        Scope.WINDOW,
        "Least mean probability of a completion's tokens, in per cent, at which it is shown without being invoked by hand; "
        "0 shows every one. auto is 40 in comments and texts of several lines, elsewhere 2, and up to 30 where you hardly "
        "ever accept what is less sure; what came of completions is counted for that on this computer alone, unless "
        "`statistics` is off.",
    )
    context: Literal["auto", "on", "off"] = _setting(
        "auto",
        Choice(("auto", "on", "off")),
        Scope.WINDOW,
        "Whether pieces of other open documents, and the document's path below its workspace folder, go along to an engine "
        "of starfill's own: auto means to models with a window of 4,096 tokens or more. Nothing of secret, ignored or "
        "excluded files does.",
    )
    speculate: bool = _setting(
        True,
        Switch(),
        Scope.WINDOW,
        "Whether the engine works ahead while a completion is shown, so that what follows its acceptance comes at once.",
    )
    actions: Literal["auto", "on", "off"] = _setting(
        "auto",
        Choice(("auto", "on", "off")),
        Scope.WINDOW,
        "Whether code can be explained, fixed, documented, tested and rewritten as told: auto means where the model is known "
        "to follow instructions, on with any model. Whether there are actions at all is read once, when the editor connects.",
    )
    action_tokens: int = _setting(512, Whole(16, 4_096), Scope.WINDOW, "Longest answer of a code action, in tokens.")
    attribution: Literal["detail", "notice", "withhold", "off"] = _setting(
        "detail",
        Choice(("detail", "notice", "withhold", "off")),
        Scope.MACHINE,
        "What becomes of a completion that stands verbatim in code that `starfill attribution build` has indexed: its detail "
        "names source and licence, a message does as well, it is withheld, or nothing is looked up.",
    )
    attribution_length: int = _setting(
        50,
        Whole(20, 1_000),
        Scope.MACHINE,
        "Least length of such a passage, in words and signs. It may begin before the cursor; a tenth of that length at least "
        "is in the completion.",
    )
    statistics: bool = _setting(
        True,
        Switch(),
        Scope.WINDOW,
        "Whether it is counted, on this computer alone and without any text, how many completions are accepted in which "
        "language.",
    )
    # the engine
    engine: str = _setting(
        "auto",
        _ENDPOINT,
        Scope.MACHINE,
        "`auto` starts or joins this user's shared engine; `unix:PATH` or `http(s)://HOST:PORT` names one.",
        engine=True,
    )
    model: str | None = _setting(
        None,
        Text(),
        Scope.MACHINE,
        "A model directory, or the id of a downloaded model; the built-in starter if not set.",
        engine=True,
    )
    token_file: str | None = _setting(
        None, Text(), Scope.MACHINE, "File with the bearer token of a remote engine.", engine=True
    )
    device: str = _setting(
        "auto",
        Text(r"auto|cpu|mps|cuda(:\d{1,3})?", "auto, cpu, mps, cuda or cuda:N"),
        Scope.MACHINE,
        "Where the shared engine runs: auto, cpu, mps, cuda or cuda:N.",
        engine=True,
    )
    dtype: str = _setting(
        "auto",
        Choice(("auto", "float32", "bfloat16", "float16", "int8", "int4")),
        Scope.MACHINE,
        "Precision of the shared engine's weights.",
        engine=True,
    )
    window: int | None = _setting(
        None,
        Whole(64, 1_000_000),
        Scope.MACHINE,
        "Context of the shared engine in tokens, if fewer than the model has.",
        engine=True,
    )
    kv_memory: str | None = _setting(
        None, _SIZE, Scope.MACHINE, "Memory for the shared engine's KV slots, such as 512MiB or 2GiB.", engine=True
    )
    idle_exit: str = _setting(
        "30m",
        _DURATION,
        Scope.MACHINE,
        "How long the shared engine stays when nobody asks: 45s, 30m, 1h, or 0 for as long as the computer runs.",
        engine=True,
    )


def _described(found: Field[Any]) -> Setting:
    about = found.metadata
    return Setting(found.name, about["kind"], about["default"], about["scope"], about["text"], about["engine"])


SETTINGS: Final[Mapping[str, Setting]] = {found.name: _described(found) for found in fields(Settings)}
"""The schema, by name."""

MACHINE_SCOPE: Final = frozenset(name for name, known in SETTINGS.items() if known.scope is Scope.MACHINE)
"""Settings that no LSP message may change."""


def names_another_engine(before: Settings, after: Settings) -> bool:
    """Whether a change of settings means another engine."""
    return any(getattr(before, name) != getattr(after, name) for name, known in SETTINGS.items() if known.engine)

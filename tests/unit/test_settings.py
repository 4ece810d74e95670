"""Settings: who wins, what a repository may never set, how a mistake is named, and what changes while the server runs."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest

from engine.errors import StarfillError
from lsp_server.settings import MACHINE_SCOPE, SETTINGS, LiveSettings, Settings, load_settings, read_token
from lsp_server.settings.sources import LOOK_EVERY, MAX_FILE, merged, read_file


@pytest.fixture
def settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STARFILL_HOME", str(tmp_path))
    return tmp_path / "settings.toml"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def live(flags: dict[str, Any] | None = None, file: Path | None = None, clock: Clock | None = None) -> LiveSettings:
    return LiveSettings(flags or {}, clock or Clock(), file)


def notices(found: LiveSettings) -> list[str]:
    return [notice.text for notice in found.take_notices()]


# -- precedence --------------------------------------------------------------------------------------------------------


def test_without_a_file_everything_is_default(settings_file: Path) -> None:
    assert load_settings({}) == Settings() == live(file=settings_file).current
    assert not settings_file.exists()


def test_each_source_wins_over_the_ones_before_it(settings_file: Path) -> None:
    settings_file.write_text("max_tokens = 10\nmax_line_length = 100\nmax_file_bytes = 10000\ntrigger = 'manual'\n")
    found = live({"max_tokens": 40}, settings_file)
    found.initialize({"max_tokens": 20, "max_line_length": 200, "max_file_bytes": 20_000})
    found.configure({"starfill": {"max_tokens": 30, "max_line_length": 300}})
    now = found.current
    assert (now.max_tokens, now.max_line_length, now.max_file_bytes, now.trigger) == (40, 300, 20_000, "manual")
    assert notices(found) == []


def test_a_flag_is_never_overruled_by_the_editor(settings_file: Path) -> None:
    found = live({"max_tokens": 5, "completion": "off"})
    assert not found.initialize({"max_tokens": 9, "completion": "on"})
    assert not found.configure({"starfill": {"max_tokens": 10}})
    assert found.current == Settings(max_tokens=5, completion="off")


@pytest.mark.parametrize("sent", [{"max_tokens": 7}, {"maxTokens": 7}, {"starfill": {"maxTokens": 7}}])
def test_options_come_plain_or_under_our_name_and_in_either_spelling(sent: dict[str, Any]) -> None:
    found = live()
    assert found.initialize(sent)
    assert found.current == Settings(max_tokens=7)
    assert notices(found) == []


def test_null_leaves_a_setting_as_it_is(settings_file: Path) -> None:
    settings_file.write_text("max_tokens = 10\n")
    found = live(file=settings_file)
    found.initialize({"max_tokens": None, "model": None})
    assert found.current.max_tokens == 10
    assert notices(found) == []


def test_excluded_files_add_up_and_no_source_takes_one_back(settings_file: Path) -> None:
    settings_file.write_text('exclude = ["*.a", "*.b"]\n')
    found = live({"exclude": ["*.c"]}, settings_file)
    found.initialize({"exclude": []})
    found.configure({"starfill": {"exclude": ["*.b", "*.d"]}})
    assert list(found.current.exclude) == ["*.a", "*.b", "*.d", "*.c"]
    found.configure({"starfill": {"exclude": ["!*.a"]}})
    assert list(found.current.exclude) == ["*.a", "*.b", "*.c"]
    assert "editor: exclude must be a list of globs" in notices(found)[0]


def test_languages_win_name_by_name(settings_file: Path) -> None:
    settings_file.write_text("[languages]\nmarkdown = false\npython = false\n")
    found = live(file=settings_file)
    found.initialize({"languages": {"python": True, "c": False}})
    assert found.current.languages == {"markdown": False, "python": True, "c": False}
    found.initialize({"languages": []})  # an empty table, as Emacs and Lua may write it
    assert found.current.languages == {"markdown": False, "python": False}
    assert notices(found) == []


# -- trust -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["plain", "nested", "configuration", "camel"])
def test_an_editor_cannot_set_what_reaches_a_path_an_argument_or_an_address(settings_file: Path, way: str) -> None:
    found = live()
    sent: dict[str, Any] = dict.fromkeys(MACHINE_SCOPE, "https://elsewhere.invalid/secret") | {"max_tokens": 7}
    if way == "configuration":
        found.configure({"starfill": sent})
    elif way == "camel":
        found.initialize({"tokenFile": "/x", "idleExit": "1s", "ignoredFiles": "complete"} | sent)
    else:
        found.initialize({"starfill": sent} if way == "nested" else sent)
    assert found.current == Settings(max_tokens=7)
    told = "\n".join(notices(found))
    for name in MACHINE_SCOPE:
        assert f"editor: {name} is not taken from an editor; set it as a flag or in {settings_file}" in told
    assert "elsewhere" not in told


def test_what_is_machine_scoped_is_listed_here_on_purpose() -> None:
    assert {
        "engine", "model", "token_file", "device", "dtype", "idle_exit", "ignored_files",
    } <= MACHINE_SCOPE  # fmt: skip
    assert not MACHINE_SCOPE & {"enabled", "languages", "exclude", "trigger", "completion", "max_tokens"}


def test_a_client_that_passes_a_setting_as_a_flag_may_send_it_too() -> None:
    found = live({"model": "./m"})
    found.initialize({"model": "./m", "device": "auto", "tokenFile": None})
    assert notices(found) == []
    found.configure({"starfill": {"model": "./other"}})
    assert found.current.model == "./m"
    assert len(notices(found)) == 1


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("max_tokens = 0", "max_tokens must be a whole number from 1 to 1024"),
        ("max_tokens = 1025", "max_tokens must be a whole number from 1 to 1024"),
        ("max_tokens = true", "max_tokens must be a whole number from 1 to 1024"),
        ("max_tokens = 1.5", "max_tokens must be a whole number from 1 to 1024"),
        ('max_tokens = "64"', "max_tokens must be a whole number from 1 to 1024"),
        ('completion = "maybe"', "completion must be one of auto, on, off"),
        ("completion = [1]", "completion must be one of auto, on, off"),
        ("model = 7", "model must be a string"),
        ('model = ""', "model must be a string"),
        ("engine = ['a']", "engine must be auto, unix:PATH or http(s)://HOST:PORT"),
        ("token_file = false", "token_file must be a string"),
        ("enabled = 'yes'", "enabled must be true or false"),
        ("languages = ['python']", "languages must be a table of names, each true or false"),
        ("languages = {python = 1}", "languages must be a table of names, each true or false"),
        ("exclude = '*.a'", "exclude must be a list of globs as in .gitignore"),
        ("exclude = ['']", "exclude must be a list of globs as in .gitignore"),
        ("device = 'gpu'", "device must be auto, cpu, mps, cuda or cuda:N"),
        ("device = 'cpu --socket x'", "device must be auto, cpu, mps, cuda or cuda:N"),
        ("idle_exit = 'soon'", "idle_exit must be a duration such as 45s, 30m or 1h, or 0 for never"),
        ("max_token = 1", "unknown setting max_token; did you mean max_tokens?"),
        ("Model = 'x'", "unknown setting Model; did you mean model?"),
        ("zzz = 1", "unknown setting zzz; known are enabled, "),
    ],
)
def test_a_mistake_in_the_file_is_named_and_the_default_stays(
    settings_file: Path, line: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings_file.write_text(f"{line}\nmax_line_length = 90\n")
    found = live(file=settings_file)
    assert found.current == Settings(max_line_length=90)
    (told,) = notices(found)
    assert told.startswith(f"{settings_file}: {says}")
    with caplog.at_level(logging.WARNING):
        assert load_settings({}) == Settings(max_line_length=90)
    assert told in caplog.text


def test_a_mistake_of_the_editors_leaves_the_value_of_the_file(settings_file: Path) -> None:
    settings_file.write_text("max_tokens = 10\n")
    found = live(file=settings_file)
    found.initialize({"max_tokens": "9", "completion": "maybe"})
    assert found.current == Settings(max_tokens=10)
    assert notices(found) == [
        "editor: max_tokens must be a whole number from 1 to 1024",
        "editor: completion must be one of auto, on, off",
    ]


def test_each_notice_is_told_once() -> None:
    found = live()
    for _ in range(3):
        found.configure({"starfill": {"max_tokens": 0}})
    assert len(notices(found)) == 1
    found.configure({"starfill": {"max_tokens": 0, "max_token": 1}})
    assert notices(found) == ["editor: unknown setting max_token; did you mean max_tokens?"]


def test_a_notice_names_no_value_and_no_key_that_is_nobodys_typing_error() -> None:
    canary = "xyzzy_plugh_canary"
    found = live()
    found.initialize(
        {canary: canary, "completion": canary, "exclude": canary, "languages": {canary: canary}, "model": canary}
    )
    told = notices(found)
    assert len(told) == 5
    assert canary not in "".join(told)


@pytest.mark.parametrize(
    "sent",
    [None, [], "text", 7, {}, {"starfill": None}, {"starfill": []}, {"status": True, "trace": {}, "editorInfo": {}}],
)
def test_what_is_no_setting_is_left_alone(sent: Any) -> None:
    found = live()
    assert not found.initialize(sent)
    assert not found.configure(sent)
    assert not found.configure_section(None)
    assert notices(found) == []


def test_a_wrong_flag_ends_the_command(settings_file: Path) -> None:
    for flags, says in (
        ({"max_tokens": 4_000}, "command line: max_tokens must be"),
        ({"modle": "x"}, "did you mean model"),
    ):
        with pytest.raises(StarfillError, match=says):
            load_settings(flags)
        with pytest.raises(StarfillError, match=says):
            live(flags)


@pytest.mark.parametrize(
    "broken", ["max_tokens = \n", "a = 1\na = 2\n", b'model = "caf\xe9"\n', b"#" * (MAX_FILE + 1), None]
)
def test_a_file_that_cannot_be_read_switches_completion_off_until_it_is_mended(
    settings_file: Path, broken: str | bytes | None
) -> None:
    if broken is None:
        settings_file.mkdir()
    else:
        settings_file.write_bytes(broken.encode() if isinstance(broken, str) else broken)
    with pytest.raises(StarfillError, match=r"settings\.toml: "):
        load_settings({})
    clock = Clock()
    found = live({"max_tokens": 3}, settings_file, clock)
    found.initialize({"enabled": True})
    assert found.current == Settings(enabled=False, max_tokens=3)
    (told,) = notices(found)
    assert told.startswith(f"{settings_file}: ")
    assert told.endswith("; completion is off until it is mended")
    if broken is None:
        settings_file.rmdir()
    settings_file.write_text("max_line_length = 90\n")
    clock.now += LOOK_EVERY
    assert found.refresh()
    assert found.current == Settings(max_line_length=90, max_tokens=3)


def test_a_pipe_in_place_of_the_file_is_named_and_waited_for_by_nobody(settings_file: Path) -> None:
    os.mkfifo(settings_file)
    assert not live(file=settings_file).current.enabled


# -- while it runs -----------------------------------------------------------------------------------------------------


def test_a_changed_file_counts_from_the_next_request_on(settings_file: Path) -> None:
    clock = Clock()
    found = live(file=settings_file, clock=clock)
    settings_file.write_text("max_tokens = 10\nmodel = './m'\n")
    assert not found.refresh()  # it was looked at a moment ago
    clock.now += LOOK_EVERY
    assert found.refresh()
    assert (found.current.max_tokens, found.current.model) == (10, "./m")
    clock.now += LOOK_EVERY
    assert not found.refresh()
    settings_file.unlink()
    clock.now += LOOK_EVERY
    assert not found.refresh()  # an editor may be about to write it
    clock.now += LOOK_EVERY
    assert found.refresh()
    assert found.current == Settings()
    assert notices(found) == [
        f"{settings_file}: it sets nothing any more, so that its settings and what it excluded are gone"
    ]


@pytest.mark.parametrize("gap", [None, "", "\n", "# to come\n"])
def test_a_file_that_is_gone_or_empty_for_a_moment_leaves_things_as_they_were(
    settings_file: Path, gap: str | None
) -> None:
    clock = Clock()
    settings_file.write_text('exclude = ["*.a"]\n')
    found = live(file=settings_file, clock=clock)
    for saved in ('exclude = ["*.a"]\n', 'exclude = ["*.a", "*.b"]\n', 'exclude = ["*.a"]\n'):
        settings_file.unlink() if gap is None else settings_file.write_text(gap)
        clock.now += LOOK_EVERY
        assert not found.refresh()
        assert "*.a" in found.current.exclude
        assert not found.refresh()  # not looked at again so soon
        settings_file.write_text(saved)
        clock.now += LOOK_EVERY
        found.refresh()
        assert found.current.exclude == merged([read_file(settings_file)]).exclude
    settings_file.write_text("exclude = 3\n")
    clock.now += LOOK_EVERY
    assert found.refresh()  # it is there, and wrong
    assert not found.current.exclude
    told = notices(found)
    assert len(told) == 1 and "exclude must be" in told[0]


def test_a_file_that_says_something_again_is_doubted_anew(settings_file: Path) -> None:
    clock = Clock()
    settings_file.write_text("max_tokens = 10\n")
    found = live(file=settings_file, clock=clock)
    for text, tokens in (("", 10), ("max_tokens = 11\n", 11), ("", 11), ("= broken", 11), ("", 11), ("", 64), ("", 64)):
        settings_file.write_text(text)
        clock.now += LOOK_EVERY
        found.refresh()
        assert found.current.max_tokens == tokens, text


def test_a_file_may_begin_with_a_mark(settings_file: Path) -> None:
    settings_file.write_bytes(b"\xef\xbb\xbfmax_tokens = 10\n")
    assert live(file=settings_file).current.max_tokens == load_settings({}).max_tokens == 10


def test_a_file_that_breaks_later_leaves_things_as_they_were(settings_file: Path) -> None:
    clock = Clock()
    settings_file.write_text('exclude = ["*.a"]\n')
    found = live(file=settings_file, clock=clock)
    settings_file.write_text('exclude = ["*.a"')
    clock.now += LOOK_EVERY
    assert not found.refresh()
    assert found.current.exclude == ("*.a",)
    assert notices(found)[0].endswith("; what it said before still holds")


def test_looking_for_a_change_costs_one_stat_a_second(settings_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    found = live(file=settings_file, clock=clock)
    looks: list[Any] = []
    stat = os.stat

    def counted(*args: Any, **kwargs: Any) -> os.stat_result:
        looks.append(args)
        return stat(*args, **kwargs)

    monkeypatch.setattr(os, "stat", counted)
    for _ in range(1_000):
        clock.now += 0.01
        found.refresh()
    assert 9 <= len(looks) <= 11


def test_a_configuration_replaces_the_one_before_and_not_the_options() -> None:
    found = live()
    found.initialize({"max_tokens": 20})
    assert found.configure({"starfill": {"trigger": "manual"}})
    assert found.configure({"starfill": {}})
    assert found.current == Settings(max_tokens=20)
    assert found.configure_section({"max_tokens": 30})
    assert not found.configure({"python": {"max_tokens": 1}})  # somebody else's
    assert found.current == Settings(max_tokens=30)


def test_what_the_editor_set_at_the_start_can_be_taken_back() -> None:
    """VS Code sends its settings in both ways; a line that is deleted is only missing from the second."""
    found = live()
    settings = {"trigger": "manual", "exclude": ["src/**"], "max_tokens": 16}
    found.initialize({**settings, "candidates": 2})
    found.configure_section(settings)
    assert found.configure({"starfill": {"exclude": []}})
    assert found.current == Settings(candidates=2)


def test_a_configuration_without_our_key_is_ours_if_all_of_it_is() -> None:
    found = live()
    found.initialize({"max_tokens": 16})
    assert found.configure({"max_tokens": 32})
    assert found.current.max_tokens == 32
    assert not found.configure({"max_tokens": 8, "python": {}})
    assert not found.configure({})
    assert not found.configure(None)


def test_every_setting_is_read_by_somebody() -> None:
    root = Path(__file__).resolve().parents[2] / "lsp_server"
    code = "\n".join(path.read_text("utf-8") for path in root.rglob("*.py") if path.parent.name != "settings")
    code += (root / "settings" / "sources.py").read_text("utf-8").partition("def read_token")[2]
    unread = [name for name in SETTINGS if not re.search(rf"(settings|current)\.{name}\b", code)]
    assert not unread


# -- the token ---------------------------------------------------------------------------------------------------------


def test_a_token_comes_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    assert read_token(Settings()) is None
    file.write_text("  secret\n")
    assert read_token(Settings(token_file=str(file))) == "secret"
    with pytest.raises(StarfillError, match=r"token_file .*missing: No such file"):
        read_token(Settings(token_file=str(tmp_path / "missing")))
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(StarfillError, match="token_file"):
        read_token(Settings(token_file=str(file)))

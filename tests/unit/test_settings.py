"""Settings: who wins, what a repository may never set, and how a mistake is named."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from engine.errors import StarfillError
from lsp_server.settings import MACHINE_SCOPE, Settings, load_settings, read_token, with_editor


@pytest.fixture
def settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STARFILL_HOME", str(tmp_path))
    return tmp_path / "settings.toml"


def test_without_a_file_everything_is_default(settings_file: Path) -> None:
    assert load_settings({}) == Settings()
    assert Settings().engine == "auto"
    assert not settings_file.exists()


def test_flags_win_over_the_editor_the_editor_over_the_file_the_file_over_the_default(settings_file: Path) -> None:
    settings_file.write_text('max_tokens = 10\ncompletion = "on"\nmodel = "from-file"\n')
    from_file = load_settings({})
    assert (from_file.max_tokens, from_file.completion, from_file.model) == (10, "on", "from-file")
    flagged = load_settings({"model": "from-flag", "engine": None})
    assert (flagged.model, flagged.engine, flagged.max_tokens) == ("from-flag", "auto", 10)
    edited = with_editor(flagged, {"max_tokens": 20})
    assert (edited.max_tokens, edited.completion, edited.model) == (20, "on", "from-flag")


@pytest.mark.parametrize("nested", [False, True])
def test_an_editor_cannot_choose_model_engine_or_token(
    settings_file: Path, nested: bool, caplog: pytest.LogCaptureFixture
) -> None:
    sent: dict[str, Any] = dict.fromkeys(MACHINE_SCOPE, "https://elsewhere.invalid/secret") | {"max_tokens": 7}
    settings = with_editor(Settings(), {"starfill": sent} if nested else sent)
    assert settings == Settings(max_tokens=7)
    assert {"engine", "model", "token_file"} == MACHINE_SCOPE
    for key in MACHINE_SCOPE:
        assert f"setting {key} is ignored" in caplog.text
    assert "elsewhere" not in caplog.text


@pytest.mark.parametrize(
    "sent",
    [None, [], "text", 7, {}, {"starfill": None}, {"starfill": []}, {"other": {"max_tokens": 3}}, {"max_token": 3}],
)
def test_what_an_editor_sends_beside_our_settings_is_left_alone(sent: Any) -> None:
    assert with_editor(Settings(), sent) == Settings()


@pytest.mark.parametrize(
    "sent",
    [{"max_tokens": 0}, {"max_tokens": True}, {"max_tokens": "9"}, {"completion": "maybe"}, {"completion": ["on"]}],
)
def test_a_bad_value_of_an_editor_is_logged_and_left_out(
    sent: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert with_editor(Settings(), sent) == Settings()
    assert f"editor: {next(iter(sent))} must be" in caplog.text


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("max_tokens = 0", "max_tokens must be a whole number from 1 to 1024"),
        ("max_tokens = 1025", "max_tokens must be a whole number from 1 to 1024"),
        ("max_tokens = true", "max_tokens must be"),
        ("max_tokens = 1.5", "max_tokens must be"),
        ('max_tokens = "64"', "max_tokens must be"),
        ('completion = "maybe"', "completion must be one of auto, on, off"),
        ("completion = [1]", "completion must be"),
        ("model = 7", "model must be a string"),
        ("engine = ['a']", "engine must be a string"),
        ("token_file = false", "token_file must be a string"),
        ("max_tokens = \n", "line 1"),
        ("max_tokens = 1\nmax_tokens = 2\n", "line 2"),
    ],
)
def test_a_bad_value_in_the_file_names_file_and_key(settings_file: Path, line: str, says: str) -> None:
    settings_file.write_text(line)
    with pytest.raises(StarfillError) as caught:
        load_settings({})
    assert str(caught.value).startswith(f"{settings_file}: ")
    assert says in str(caught.value)


def test_a_file_that_is_no_text_is_named_too(settings_file: Path) -> None:
    settings_file.write_bytes(b'model = "caf\xe9"\n')
    with pytest.raises(StarfillError, match=r"settings\.toml"):
        load_settings({})
    settings_file.unlink()
    settings_file.mkdir()
    with pytest.raises(StarfillError, match=r"settings\.toml"):
        load_settings({})


def test_a_bad_flag_names_the_command_line(settings_file: Path) -> None:
    with pytest.raises(StarfillError, match="command line: max_tokens must be"):
        load_settings({"max_tokens": 4_000})


@pytest.mark.parametrize(
    ("key", "hint"),
    [("max_token", "did you mean max_tokens?"), ("Model", "did you mean model?"), ("zzz", "known are engine, model")],
)
def test_an_unknown_key_is_a_warning_that_names_the_nearest(
    settings_file: Path, key: str, hint: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings_file.write_text(f"{key} = 1\nmax_tokens = 5\n")
    with caplog.at_level(logging.WARNING):
        assert load_settings({}) == Settings(max_tokens=5)
    assert f"{settings_file}: unknown setting {key}; {hint}" in caplog.text


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

"""`starfill generate` says where what it printed stands verbatim, or does not print it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lsp_server.cli import app
from tests.harness.corpora import program, write
from tests.harness.served import scripted_engine

TEXT = program(1, 120)
FIRST, REST = TEXT[:400], TEXT[400:1_400]


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    with scripted_engine(REST) as served:
        yield f"unix:{served.socket}"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STARFILL_HOME", str(tmp_path / "home"))
    corpus = write(tmp_path / "corpus", {"one.py": "# SPDX-License-Identifier: MPL-2.0\n" + TEXT})
    assert CliRunner().invoke(app, ["attribution", "build", str(corpus)]).exit_code == 0
    return tmp_path


def generate(engine: str, *options: str) -> Result:
    return CliRunner().invoke(app, ["generate", FIRST, "--engine", engine, "--max-tokens", "1000", *options])


def settings(home: Path, value: str) -> None:
    (home / "home" / "settings.toml").write_text(f'attribution = "{value}"\n')


@pytest.mark.parametrize("options", [(), ("--raw",)])
def test_what_is_printed_is_the_models_and_what_is_known_of_it_goes_to_standard_error(
    engine: str, options: tuple[str, ...]
) -> None:
    done = generate(engine, *options)
    assert (done.exit_code, done.stdout) == (0, REST)
    assert "tokens verbatim as in corpus, one.py line " in done.stderr
    assert "(MPL-2.0)" in done.stderr


def test_what_is_to_be_withheld_is_not_printed(engine: str, home: Path) -> None:
    settings(home, "withhold")
    done = generate(engine)
    assert (done.exit_code, done.stdout) == (0, "")
    assert "nothing to show" in done.stderr
    assert "verbatim as in corpus, one.py line " in done.stderr


def test_what_stands_nowhere_is_printed_though_the_rest_would_be_withheld(home: Path) -> None:
    settings(home, "withhold")
    with scripted_engine("total = 1 + 1\n") as served:
        done = generate(f"unix:{served.socket}")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "total = 1 + 1\n", "")


def test_off_looks_nothing_up(engine: str, home: Path) -> None:
    settings(home, "off")
    done = generate(engine)
    assert (done.exit_code, done.stdout, done.stderr) == (0, REST, "")

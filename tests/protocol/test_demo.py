"""`make demo`, the smallest of the clients: ghost text and what it cost, and an exit code that says if there was none."""

from __future__ import annotations

from tests.harness.process import run_module, temporary_home


def test_the_demo_shows_ghost_text_and_ends_by_itself() -> None:
    with temporary_home() as home:
        done = run_module("editors.demo", home=home, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "isinstance(value, str)" in done.stdout
    assert "tokens/s" in done.stdout
    assert "%)" in done.stdout  # how much came from the cache


def test_the_demo_fails_when_no_text_appears() -> None:
    with temporary_home() as home:
        (home / "settings.toml").write_text('engine = "unix:/nowhere.sock"\n')
        done = run_module("editors.demo", home=home, timeout=120)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "engine_down" in done.stdout

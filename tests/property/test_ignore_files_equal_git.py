"""Ignore files say what git says: random patterns in nested files, the repository's excludes and the user's, against
`git check-ignore`.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lsp_server.privacy.ignore_files import IgnoreFiles
from tests.harness.process import isolated_env

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")

NAMES = ("a", "b", "ab", "a.py", "b.txt", ".x")
FOLDERS = ("", "a", "a/b", "ab", "b/a/b")
FILES = sorted({f"{folder}/{name}".lstrip("/") for folder in FOLDERS for name in ("f", "a.py", "b.txt", ".x")})

segments = st.sampled_from([*NAMES, "*", "*.py", "a*", "?", "[ab]", "[!a]", "*b*", "**", "a.*", "\\a"])
patterns = st.builds(
    lambda negated, anchored, parts, folder: f"{negated}{anchored}{'/'.join(parts)}{folder}",
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(segments, min_size=1, max_size=3),
    st.sampled_from(["", "", "/", " ", "\r"]),
)
others = st.sampled_from(["# a", "", "\\#a", "\\!a", " ", "!", "/", "a\\ ", "[", "a/**", "**/b", "!*/", "*"])
ignore_files = st.lists(patterns | others, max_size=4).map("\n".join)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    nested=st.dictionaries(st.sampled_from(FOLDERS), ignore_files, max_size=3), exclude=ignore_files, user=ignore_files
)
def test_the_verdict_is_gits(nested: dict[str, str], exclude: str, user: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home, root = Path(folder, "home"), Path(folder, "r")
        env = isolated_env(home, HOME=str(home), XDG_CONFIG_HOME=str(home / ".config"), GIT_CONFIG_NOSYSTEM="1")
        for sub in FOLDERS:
            (root / sub).mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "init", "-q", str(root)], env=env, check=True)
        (home / ".config" / "git").mkdir(parents=True)
        (home / ".config" / "git" / "ignore").write_text(user)
        (root / ".git" / "info").mkdir(exist_ok=True)
        (root / ".git" / "info" / "exclude").write_text(exclude)
        for sub, text in nested.items():
            (root / sub / ".gitignore").write_text(text)
        asked = subprocess.run(
            ["git", "check-ignore", "--no-index", "--stdin", "-z"],
            cwd=root,
            env=env,
            input="\0".join(FILES),
            capture_output=True,
            text=True,
            check=False,
        )
        assert not asked.stderr
        files = IgnoreFiles(home, home / ".config" / "git")
        ours = {name for name in FILES if files.verdict(f"{root}/{name}", [str(root)]).ignored}
        assert ours == set(filter(None, asked.stdout.split("\0")))

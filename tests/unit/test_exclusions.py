"""Of which documents nothing is sent: by name, by glob, by ignore file; what is read to know it, and what that costs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lsp_server.privacy import ignore_files, small_files
from lsp_server.privacy.exclusions import LOOK_EVERY, Exclusions
from lsp_server.privacy.ignore_files import MAX_BYTES, MAX_DEPTH, IgnoreFiles
from lsp_server.privacy.patterns import MAX_LINES, MAX_STEPS, Patterns, TooCostly
from lsp_server.privacy.secret_files import is_secret
from lsp_server.privacy.uris import MAX_URI, place_of
from lsp_server.reasons import Reason

SECRETS = (
    ".env", ".env.local", ".ENV", ".envrc", "prod.env", "server.pem", "Server.KEY", "id_rsa", "id_rsa.pub", "id_ed25519",
    "a.p12", "a.pfx", "a.jks", "a.kdbx", ".netrc", "_netrc", ".pgpass", ".git-credentials", ".npmrc", ".pypirc",
    ".htpasswd", "credentials", "credentials.json", "kubeconfig", "KubeConfig.yaml", "terraform.tfstate",
    "terraform.tfstate.backup", "prod.tfvars", ".aws/config", ".ssh/known_hosts", ".SSH/anything", ".kube/config",
    ".gnupg/trustdb", ".docker/config.json", ".git/config", ".config/gh/hosts.yml", "secrets.yaml", ".bash_history",
    "client_secret_123.apps.json", "service-account-prod.json", ".vault-token", "rclone.conf",
)  # fmt: skip
ORDINARY = (
    "main.py", "environment.py", "env.py", "keyboard.py", "monkey.py", "key.py", "secrets.py", "credentials.py",
    "config.json", "docker/config.json", "ssh/client.go", "aws/s3.py", "git/config.py", ".gitignore",
    ".github/workflows/ci.yml", "rsa.c", "README.md", "Makefile", "history.py", "package.json", ".editorconfig",
)  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "work" / "repo" / ".git" / "info").mkdir(parents=True)
    return tmp_path / "work" / "repo"


Make = Callable[..., Exclusions]


@pytest.fixture
def make(home: Path, root: Path) -> Make:
    def build(*globs: str, roots: tuple[Path, ...] = (root,), clock: Clock | None = None) -> Exclusions:
        files = IgnoreFiles(home, home / ".config" / "git")
        return Exclusions(globs, [each.as_uri() for each in roots], files, clock or Clock())

    return build


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def reason(exclusions: Exclusions, path: Path | str, *, ignored_too: bool = True) -> Reason | None:
    return exclusions.reason(path if isinstance(path, str) else path.as_uri(), ignored_too=ignored_too)


# -- secrets by name ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "file:///home/me/{}", "file://localhost/home/me/{}", "file:///c%3A/Users/me/{}", "untitled:/home/me/{}",
        "untitled:{}", "vscode-remote://ssh-remote+host/home/me/{}", "vscode-notebook-cell:/home/me/{}#W0sZmlsZQ", "file://server/share/{}",
        "FILE:///home/me/{}", "vscode-vfs://github/me/repo/{}", "file:///home/x/../me/{}", "git:/home/me/{}?ref%3D1",
    ],
)  # fmt: skip
def test_what_is_called_like_a_secret_is_never_sent(make: Make, uri: str) -> None:
    exclusions = make()
    assert [
        name for name in SECRETS if reason(exclusions, uri.format(name), ignored_too=False) is not Reason.SECRET
    ] == []


def test_what_is_called_like_code_is_not_taken_for_a_secret(make: Make, root: Path) -> None:
    exclusions = make()
    assert [name for name in ORDINARY if is_secret(f"/home/me/{name}") or reason(exclusions, root / name)] == []


def test_a_percent_sign_or_a_link_hides_no_secret(make: Make, root: Path) -> None:
    assert reason(make(), f"{root.as_uri()}/%2e%65nv") is Reason.SECRET
    assert reason(make(), f"{root.as_uri()}/x%2F..%2F.env") is Reason.SECRET
    assert reason(make(), f"{root.as_uri()}/.env#anchor") is Reason.SECRET
    write(root / "elsewhere" / "id_rsa", "")
    (root / "notes.txt").symlink_to("elsewhere/id_rsa")
    assert reason(make(), root / "notes.txt") is Reason.SECRET


@pytest.mark.parametrize("uri", ["file://[", "file:///a%00b", "file:///" + "a" * MAX_URI, "file:///a" * 200_000])
def test_what_cannot_be_understood_is_excluded(make: Make, uri: str) -> None:
    assert reason(make(), uri) is Reason.EXCLUDED


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "untitled:Untitled-1",
        "nonsense",
        "file:",
        "file:///",
        "inmemory://model/1",
        "file:///dev/zero",
        "urn:uuid:1",
    ],
)
def test_what_has_no_path_is_neither_read_nor_excluded(make: Make, uri: str) -> None:
    assert reason(make(), uri) is None


def test_the_place_of_a_uri() -> None:
    found = place_of("file:///a/b/../c%20d.py")
    assert found is not None
    assert (found.path, found.local) == ("/a/c d.py", True)
    remote = place_of("vscode-remote://wsl+x/a.py")
    assert remote is not None
    assert (remote.path, remote.local) == ("/a.py", False)
    half = place_of("file:///a/\ud83d.py")  # half of an emoji, as a client that counts in UTF-16 may send it
    assert half is not None
    assert half.local


# -- the user's globs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("glob", "excluded", "free"),
    [
        ("**/secrets/**", "a/secrets/b/c.py", "a/secret/c.py"),
        ("secrets/", "a/secrets/b/c.py", "a/secrets"),
        ("*.gen.py", "a/b.gen.py", "a/b.py"),
        ("/top.py", "top.py", "a/top.py"),
        ("a/*.py", "a/b.py", "b/a/b.py"),
        ("a", "b/a/c.py", "b/c.py"),
    ],
)
def test_a_glob_excludes_as_in_an_ignore_file(make: Make, root: Path, glob: str, excluded: str, free: str) -> None:
    exclusions = make(glob)
    assert reason(exclusions, root / excluded, ignored_too=False) is Reason.EXCLUDED
    assert reason(exclusions, root / free) is None


def test_a_relative_glob_says_nothing_about_the_folders_above_the_workspace(make: Make, root: Path) -> None:
    assert reason(make("work/"), root / "a.py") is None
    assert reason(make("work/"), "file:///x/work/a.py") is Reason.EXCLUDED  # in no folder of the workspace


def test_a_whole_path_and_the_home_folder(make: Make, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reason(make(f"{root}/private/**"), root / "private" / "a.py") is Reason.EXCLUDED
    monkeypatch.setenv("HOME", str(root.parent))
    assert reason(make("~/repo/private/"), root / "private" / "a.py") is Reason.EXCLUDED
    assert reason(make("~/repo/private/"), root / "a.py") is None


def test_globs_count_for_what_is_no_local_file_too(make: Make) -> None:
    assert reason(make("**/secrets/**"), "vscode-remote://wsl+x/home/secrets/a.py") is Reason.EXCLUDED


# -- ignore files ------------------------------------------------------------------------------------------------------


def test_ignored_files_are_excluded_and_completed_if_the_user_says_so(make: Make, root: Path) -> None:
    write(root / ".gitignore", "build/\n*.log\n!keep.log\n")
    exclusions = make()
    assert reason(exclusions, root / "build" / "a.py") is Reason.EXCLUDED
    assert reason(exclusions, root / "build" / "a.py", ignored_too=False) is None
    assert reason(exclusions, root / "a.log") is Reason.EXCLUDED
    assert reason(exclusions, root / "keep.log") is None
    assert reason(exclusions, root / "a.py") is None


def test_our_own_ignore_file_counts_whatever_gits_files_say(make: Make, root: Path) -> None:
    write(root / ".starfillignore", "private/\n!local.py\n")
    write(root / ".gitignore", "local.py\n!private/\n")
    exclusions = make()
    assert reason(exclusions, root / "private" / "a.py", ignored_too=False) is Reason.EXCLUDED
    assert reason(exclusions, root / "local.py") is None  # taken back for completion
    assert reason(exclusions, root / "a.py") is None


def test_gits_other_sources(make: Make, root: Path, home: Path) -> None:
    write(root / ".git" / "info" / "exclude", "one.py\n")
    write(home / ".config" / "git" / "ignore", "two.py\n")
    assert reason(make(), root / "one.py") is Reason.EXCLUDED
    assert reason(make(), root / "two.py") is Reason.EXCLUDED
    write(home / ".gitconfig", '[user]\nexcludesFile = "no"\n[core]\n\texcludesFile = "~/mine" ; where I keep it\n')
    write(home / "mine", "three.py\n")
    assert reason(make(), root / "three.py") is Reason.EXCLUDED
    assert reason(make(), root / "two.py") is None


def test_a_workspace_without_a_repository_has_its_ignore_files_as_well(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    write(folder / ".gitignore", "x.py\n")
    write(folder / "sub" / ".starfillignore", "y.py\n")
    exclusions = make(roots=(folder,))
    assert reason(exclusions, folder / "sub" / "x.py") is Reason.EXCLUDED
    assert reason(exclusions, folder / "sub" / "y.py") is Reason.EXCLUDED
    assert reason(exclusions, folder / "sub" / "z.py") is None


def test_ignore_files_above_the_workspace_and_the_repository_are_not_read(make: Make, root: Path) -> None:
    write(root.parent / ".gitignore", "*.py\n")
    write(root.parent / ".starfillignore", "*.py\n")
    assert reason(make(), root / "a.py") is None
    assert reason(make(roots=(root.parent,)), root / "a.py") is Reason.EXCLUDED  # by our own: it is in the workspace


def test_an_ignore_file_that_is_a_link_is_none(make: Make, root: Path, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside" / ".gitignore", "*.py\n")
    (root / ".gitignore").symlink_to(outside)
    assert reason(make(), root / "a.py") is None


def test_a_link_lifts_no_exclusion(make: Make, root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write(other / ".gitignore", "private/\n")
    write(other / "private" / "s.py", "")
    write(root / ".starfillignore", "/private/\n")
    write(root / "private" / "k.py", "")
    (root / "link").symlink_to(root / "private")
    (root / "k2.py").symlink_to(root / "private" / "k.py")
    (root / "dep").symlink_to(other)
    exclusions = make(roots=(root, other))
    for name in ("private/k.py", "link/k.py", "k2.py", "dep/private/s.py"):
        assert reason(exclusions, root / name) is Reason.EXCLUDED, name
    write(root / "open" / "a.py", "")
    (root / "also").symlink_to(root / "open")
    assert reason(exclusions, root / "also" / "a.py") is None


def test_a_workspace_that_is_reached_by_a_link_has_its_ignore_files(make: Make, root: Path, tmp_path: Path) -> None:
    write(root / ".starfillignore", "/private/\n")
    write(root / "private" / "k.py", "")
    (tmp_path / "entrance").symlink_to(root)
    exclusions = make(roots=(tmp_path / "entrance",))
    assert reason(exclusions, tmp_path / "entrance" / "private" / "k.py") is Reason.EXCLUDED
    assert reason(exclusions, root / "private" / "k.py") is Reason.EXCLUDED


def test_a_file_that_is_yet_to_be_made_is_where_it_will_be(make: Make, root: Path) -> None:
    write(root / ".starfillignore", "/private/\n")
    assert reason(make(), f"untitled:{root}/private/new.py") is Reason.EXCLUDED
    assert reason(make(), f"untitled:{root}/new.py") is None


def test_globs_hold_below_folders_that_are_elsewhere_too(home: Path) -> None:
    folder = "vscode-remote://ssh-remote%2Bhost/home/me/work"
    exclusions = Exclusions(["/private/"], [folder], IgnoreFiles(home, home / ".config" / "git"), Clock())
    assert reason(exclusions, f"{folder}/private/k.py") is Reason.EXCLUDED
    assert reason(exclusions, f"{folder}/k.py") is None


@pytest.mark.timeout(20)
def test_what_is_no_file_is_no_ignore_file(make: Make, root: Path) -> None:
    os.mkfifo(root / ".gitignore")
    (root / ".starfillignore").mkdir()
    (root / ".git" / "info" / "exclude").symlink_to("/dev/zero")
    assert reason(make(), root / "a.py") is None


@pytest.mark.parametrize(
    "text", ["#" * (MAX_BYTES + 1), "a\n" * (MAX_LINES + 1), "*a*a*a*a*a*a*a*b\n", "**/a/" * 20 + "b\n"], ids=len
)
def test_ignore_files_that_nobody_can_take_in_exclude_everything_below(make: Make, root: Path, text: str) -> None:
    write(root / "sub" / ".gitignore", text)
    below = root / "sub" / "/".join(["a"] * 30) / ("a" * 200)
    assert reason(make(), below, ignored_too=False) is Reason.EXCLUDED
    assert reason(make(), root / "a.py") is None


@pytest.mark.timeout(20)
def test_no_pattern_takes_long(root: Path) -> None:
    for line in ("*a" * 3 + "b", "**/a/" * 3 + "b", "a?" * 100, "[a-" * 50, "*" * 500):
        patterns = Patterns([line])
        for parts in (["a" * 255], ["a"] * 30):
            if patterns.steps(parts) <= MAX_STEPS:
                patterns.says("/".join(parts), folder=False)
    assert Patterns(["*a" * 9]).steps(["a" * 255]) > MAX_STEPS
    with pytest.raises(TooCostly):
        Patterns(["a"] * (MAX_LINES + 1))


def test_a_path_too_deep_is_excluded(make: Make) -> None:
    assert reason(make(), "file:///" + "a/" * (MAX_DEPTH + 1)) is Reason.EXCLUDED


def test_odd_lines_are_left_out_and_the_others_count(make: Make, root: Path) -> None:
    (root / ".gitignore").write_bytes(b"\xef\xbb\xbfone.py\r\n!\n/\n\xff\xfe\n***\\\n\\\ntwo.py\\ \n# a\n\\#b.py\n")
    exclusions = make()
    for name in ("one.py", "two.py ", "#b.py"):
        assert reason(exclusions, root / name) is Reason.EXCLUDED, name
    assert reason(exclusions, root / "three.py") is None


# -- what it costs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def touched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that are asked for, in order."""
    found: list[str] = []
    for module, name in ((small_files, "read_bounded"), (ignore_files, "read_bounded"), (ignore_files, "stamp_of")):
        function: Any = getattr(module, name)

        def asked(path: Any, *args: Any, _function: Any = function, **kwargs: Any) -> Any:
            found.append(str(path))
            return _function(path, *args, **kwargs)

        monkeypatch.setattr(module, name, asked)
    return found


def test_nothing_but_ignore_files_is_ever_read(make: Make, root: Path, touched: list[str]) -> None:
    write(root / "sub" / "a.py", "x")
    write(root / "sub" / ".gitignore", "b.py")
    reason(make(), root / "sub" / "a.py")
    names = {Path(path).name for path in touched}
    assert names <= {".git", ".gitignore", ".starfillignore", "exclude", "ignore", "config", ".gitconfig"}


def test_a_key_costs_a_look_up_and_a_second_some_stats(make: Make, root: Path, touched: list[str]) -> None:
    clock = Clock()
    write(root / ".gitignore", "b.py")
    exclusions = make(clock=clock)
    reason(exclusions, root / "a.py")
    touched.clear()
    for _ in range(1_000):
        clock.now += LOOK_EVERY / 2_000
        assert reason(exclusions, root / "a.py") is None
    assert not touched
    clock.now += LOOK_EVERY
    assert reason(exclusions, root / "a.py") is None
    assert 0 < len(touched) < 40


def test_a_changed_ignore_file_counts_after_a_second(make: Make, root: Path) -> None:
    clock = Clock()
    exclusions = make(clock=clock)
    assert reason(exclusions, root / "sub" / "a.py") is None
    write(root / "sub" / ".gitignore", "a.py\n")
    assert reason(exclusions, root / "sub" / "a.py") is None
    clock.now += LOOK_EVERY
    assert reason(exclusions, root / "sub" / "a.py") is Reason.EXCLUDED
    write(root / "sub" / ".gitignore", "longer.py\n")
    clock.now += LOOK_EVERY
    assert reason(exclusions, root / "sub" / "a.py") is None


def test_what_is_remembered_is_bounded(make: Make, root: Path) -> None:
    exclusions = make()
    for number in range(3_000):
        reason(exclusions, root / f"{number}.py")
    assert len(exclusions._known) <= 1_024

"""llama.cpp's server from Debian's newest suite, unpacked into a folder: nothing of the system is touched."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_BACKENDS = (
    ("avx512_bf16", "zen4"),
    ("avx512_vnni", "icelake"),
    ("avx512bw", "skylakex"),
    ("avx2", "haswell"),
    ("", "x64"),
)
_MINUTES = 5


class PeerMissing(Exception):
    """llama.cpp cannot be had here; says why."""


def command(folder: Path) -> list[str]:
    """The command that starts llama.cpp's server, fetched into `folder` unless it is there. Raises PeerMissing."""
    root = folder / "root"
    if not (root / "usr/bin/llama-server").exists():
        _fetch(folder, root)
    libraries = next((root / "usr/lib").glob("*-linux-gnu"), None)
    loader = next(iter(sorted(libraries.glob("ld-linux*.so*"))), None) if libraries else None
    implementation = next(iter((root / "usr/lib").rglob("libllama-server-impl*")), None)
    if libraries is None or loader is None or implementation is None:
        raise PeerMissing("Debian's package llama.cpp is not laid out as expected")
    return [
        str(loader), "--inhibit-cache", "--library-path", f"{libraries}:{implementation.parent}", "--argv0", "llama-server",
        str(root / "usr/bin/llama-server"),
    ]  # fmt: skip


def environment(folder: Path) -> dict[str, str]:
    """With the processor's own code, which llama.cpp loads by name."""
    flags = Path("/proc/cpuinfo").read_text("utf-8").split()
    for needed, name in _BACKENDS:
        found = next(iter((folder / "root/usr/lib").rglob(f"libggml-cpu-{name}.so")), None)
        if found is not None and (not needed or needed in flags):
            return {**os.environ, "GGML_BACKEND_PATH": str(found)}
    raise PeerMissing("Debian's package llama.cpp has no code for this processor")


def version(folder: Path) -> str:
    """What it calls itself."""
    done = subprocess.run(
        [*command(folder), "--version"],
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    line = next((line for line in (done.stdout + done.stderr).splitlines() if line.startswith("version")), "")
    return line.removeprefix("version:").strip()


def _fetch(folder: Path, root: Path) -> None:
    """apt with folders of its own: it knows nothing of what the system has installed."""
    mirror = _mirror()
    for name in ("lists/partial", "cache/archives/partial", "none"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    (folder / "sid.list").write_text(f"deb [signed-by={_KEYS}] {mirror} sid main\n", "utf-8")
    settings = {
        "Dir::Etc::sourcelist": folder / "sid.list",
        "Dir::Etc::sourceparts": folder / "none",
        "Dir::Etc::preferencesparts": folder / "none",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "Dir::State::status": folder / "status",
        "APT::Sandbox::User": "root",
        "Acquire::Check-Valid-Until": "false",
    }
    apt = ["apt-get", "-qq", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]
    _run([*apt, "update"])
    _run([*apt, "install", "-y", "--no-install-recommends", "--download-only", "llama.cpp"])
    for package in sorted((folder / "cache/archives").glob("*.deb")):
        _run(["dpkg-deb", "-x", str(package), str(root)])


def _mirror() -> str:
    for path in _SOURCES:
        if path.is_file():
            for line in path.read_text("utf-8").splitlines():
                words = line.split()
                if words[:1] == ["URIs:"]:
                    return words[1]
                if words[:1] == ["deb"]:
                    return next(word for word in words if "://" in word)
    raise PeerMissing("no Debian mirror is configured here; llama.cpp is taken from Debian's packages")


def _run(argv: list[str]) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60 * _MINUTES, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerMissing(f"{argv[0]}: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise PeerMissing(f"{argv[0]} {argv[-1]}: {said[-1] if said else done.returncode}")

"""Source files of packages, fetched by name with the registries' ordinary clients into a cache folder."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from engine import licences
from engine.licences import Licence
from engine.training.manifest import Package

_MAX_MEMBER = 2_000_000  # bytes


class SourceError(Exception):
    """A package that could not be had; the message says which and why."""


@dataclass(slots=True)
class Opened:
    """A package's files, with the licence that it states and a judge for single files."""

    package: Package
    version: str
    licence: Licence
    members: Iterator[tuple[str, bytes]]
    """Paths below the package's root, and contents."""

    file_allowed: Callable[[str], bool] = lambda _path: True


def open_package(package: Package, cache: Path) -> Opened:
    """Fetch (unless cached) and open one package; SourceError if it cannot be had."""
    opener = {"pypi": _open_wheel, "npm": _open_npm, "debian": _open_debian, "stdlib": _open_stdlib}[package.registry]
    return opener(package, cache)


def prefetch(packages: list[Package], cache: Path) -> None:
    """Download everything that is missing, one client call per registry; single failures are left to `open_package`."""
    wheels = [p for p in packages if p.registry == "pypi" and not _wheel_of(p, cache)]
    if wheels:
        _pip([f"{p.name}=={p.version}" for p in wheels], cache)
    tarballs = [p for p in packages if p.registry == "npm" and not _tarball_of(p, cache).exists()]
    if tarballs:
        _run(["npm", "pack", "--silent", *(f"{p.name}@{p.version}" for p in tarballs)], _folder(cache, "npm"))
    sources = [p for p in packages if p.registry == "debian" and not _debian_parts(p, cache)]
    if sources:
        apt = _Apt(cache)
        for package in sources:
            apt.source(package)


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which(command[0])
    if program is None:
        raise SourceError(f"{command[0]} is not installed")
    return subprocess.run([program, *command[1:]], cwd=folder, capture_output=True, check=False, timeout=600)


def _folder(cache: Path, name: str) -> Path:
    folder = cache / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# Python ---------------------------------------------------------------------------------------------------------------


def _pip(requirements: list[str], cache: Path) -> None:
    folder = _folder(cache, "pypi")
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
    if _run([*pip, *requirements], folder).returncode:  # one bad name fails the whole call
        for requirement in requirements:
            _run([*pip, requirement], folder)


def _wheel_of(package: Package, cache: Path) -> Path | None:
    stem = re.sub(r"[-_.]+", "_", package.name).lower()
    for wheel in sorted(_folder(cache, "pypi").glob("*.whl")):
        name, version, *_ = wheel.name.split("-")
        if re.sub(r"[-_.]+", "_", name).lower() == stem and version == package.version:
            return wheel
    return None


def _open_wheel(package: Package, cache: Path) -> Opened:
    wheel = _wheel_of(package, cache)
    if wheel is None:
        _pip([f"{package.name}=={package.version}"], cache)
        wheel = _wheel_of(package, cache)
    if wheel is None:
        raise SourceError(f"{package.name} {package.version}: pip cannot download it")
    archive = zipfile.ZipFile(wheel)
    record = next((n for n in archive.namelist() if n.endswith(".dist-info/METADATA")), None)
    text = archive.read(record).decode("utf-8", "replace") if record else ""

    def members() -> Iterator[tuple[str, bytes]]:
        for info in archive.infolist():
            if info.file_size <= _MAX_MEMBER and not info.is_dir():
                yield info.filename, archive.read(info)

    return Opened(package, package.version, licences.from_python_metadata(text), members())


def _open_stdlib(package: Package, _cache: Path) -> Opened:
    root = Path(sysconfig.get_paths()["stdlib"])

    def members() -> Iterator[tuple[str, bytes]]:
        for path in sorted(root.rglob("*.py")):
            inside = path.relative_to(root).as_posix()
            if "site-packages/" not in inside and "dist-packages/" not in inside and path.stat().st_size <= _MAX_MEMBER:
                yield inside, path.read_bytes()

    return Opened(package, sys.version.split()[0], Licence("PSF-2.0", "LICENSE.txt of the interpreter"), members())


def open_installed(name: str, megabytes: float = 6.0) -> Opened:
    """The Python files of an installed distribution; SourceError if there is none of that name."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise SourceError(f"{name}: not installed") from error
    licence = licences.from_python_metadata(found.read_text("METADATA") or "")

    def members() -> Iterator[tuple[str, bytes]]:
        # In no order that means anything, so that a reader may stop when it has enough.
        for entry in sorted(found.files or [], key=lambda entry: hashlib.sha256(str(entry).encode()).digest()):
            path = Path(str(found.locate_file(entry)))
            if entry.suffix == ".py" and path.is_file() and path.stat().st_size <= _MAX_MEMBER:
                yield entry.as_posix(), path.read_bytes()

    package = Package(name, "installed", found.version, ("python",), megabytes=megabytes)
    return Opened(package, found.version, licence, members())


# npm ------------------------------------------------------------------------------------------------------------------


def _tarball_of(package: Package, cache: Path) -> Path:
    flat = package.name.removeprefix("@").replace("/", "-")
    return _folder(cache, "npm") / f"{flat}-{package.version}.tgz"


def _open_npm(package: Package, cache: Path) -> Opened:
    tarball = _tarball_of(package, cache)
    if not tarball.exists():
        _run(["npm", "pack", "--silent", f"{package.name}@{package.version}"], tarball.parent)
    if not tarball.exists():
        raise SourceError(f"{package.name} {package.version}: npm cannot pack it")
    files = dict(_members_of_tar(tarball.read_bytes()))
    licence = licences.from_package_json(files["package.json"].decode("utf-8"))
    return Opened(package, package.version, licence, iter(files.items()))


def _members_of_tar(data: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            if member.isfile() and member.size <= _MAX_MEMBER:
                content = archive.extractfile(member)
                if content is not None:
                    yield member.name.split("/", 1)[-1], content.read()


# Debian ---------------------------------------------------------------------------------------------------------------


class _Apt:
    """apt with lists, cache and status of its own below the cache folder: the system's are neither read nor changed."""

    def __init__(self, cache: Path) -> None:
        self._folder = _folder(cache, "debian")
        state = _folder(cache, "apt")
        for name in ("lists/partial", "cache/archives/partial", "none"):
            _folder(state, name)
        (state / "status").touch()
        (state / "src.list").write_text("".join(f"{line}\n" for line in _source_lines()), encoding="utf-8")
        settings = {
            "Dir::Etc::sourcelist": state / "src.list", "Dir::Etc::sourceparts": state / "none",
            "Dir::Etc::preferencesparts": state / "none", "Dir::State::lists": state / "lists",
            "Dir::Cache": state / "cache", "Dir::State::status": state / "status",
            "APT::Sandbox::User": "root", "Acquire::Check-Valid-Until": "false",
        }  # fmt: skip
        self._options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        _run(["apt-get", *self._options, "-qq", "update"], self._folder)

    def source(self, package: Package) -> None:
        spec = f"{package.name}={package.version}"
        if _run(["apt-get", *self._options, "-qq", "source", "--download-only", spec], self._folder).returncode:
            # A point release replaces pinned versions; the version that came is what the table records.
            _run(["apt-get", *self._options, "-qq", "source", "--download-only", package.name], self._folder)


def _source_lines() -> list[str]:
    """`deb-src` lines for the archives that this system's own apt already trusts and uses."""
    lines = []
    for path in sorted(Path("/etc/apt/sources.list.d").glob("debian*.sources")):
        for block in path.read_text(encoding="utf-8").split("\n\n"):
            field = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.+)$", block, re.MULTILINE))
            signed = f"[signed-by={field['Signed-By']}] " if "Signed-By" in field else ""
            lines += [
                f"deb-src {signed}{field['URIs']} {suite} {field.get('Components', 'main')}"
                for suite in field.get("Suites", "").split()
            ]
    return lines


def _debian_parts(package: Package, cache: Path) -> list[Path]:
    folder = _folder(cache, "debian")
    version = package.version.split(":")[-1]
    descriptions = sorted(
        folder.glob(f"{package.name}_*.dsc"), key=lambda path: path.stem != f"{package.name}_{version}"
    )
    for description in descriptions:
        text = description.read_text(encoding="utf-8", errors="replace")
        names = dict.fromkeys(re.findall(r"^ [0-9a-f]{64} \d+ (\S+\.tar\.\w+)$", text, re.MULTILINE))
        if names and all((folder / name).exists() for name in names):
            return [folder / name for name in names]
    return []


def _open_debian(package: Package, cache: Path) -> Opened:
    parts = _debian_parts(package, cache)
    if not parts:
        raise SourceError(f"{package.name}: apt cannot download its source")
    debian = next((part for part in parts if ".debian.tar." in part.name), None)
    table = licences.from_debian_copyright("")
    if debian is not None:
        for name, data in _members_of_tar(debian.read_bytes()):
            if name == "copyright":
                table = licences.from_debian_copyright(data.decode("utf-8", "replace"))

    def members() -> Iterator[tuple[str, bytes]]:
        for part in parts:
            if ".debian.tar." in part.name:
                continue
            extra = re.search(r"\.orig-([\w-]+)\.tar\.", part.name)
            for name, data in _members_of_tar(part.read_bytes()):
                yield (f"{extra[1]}/{name}" if extra else name), data

    found = parts[0].name.split("_", 1)[1].split(".orig", 1)[0]
    return Opened(package, found, table.whole, members(), lambda path: licences.permissive(table.of(path)))

"""Where starfill keeps its files, and the one place that reads `STARFILL_HOME` and `XDG_RUNTIME_DIR`.

`STARFILL_HOME` relocates everything; otherwise the platform's own folders are used.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
from pathlib import Path

import platformdirs

from engine.errors import StarfillError

SUN_PATH = 104
"""Bytes that a Unix socket's path may have on every platform we run on (macOS has the least), its final NUL included."""

_NAME_LENGTH = 24  # the longest socket name that we make: 16 hex digits, a serial number, ".sock"


def home() -> Path | None:
    """The folder that `STARFILL_HOME` names, if it is set. Raises StarfillError if that is the home of nobody."""
    value = os.environ.get("STARFILL_HOME")
    if not value:
        return None
    try:
        folder = Path(value).expanduser()
        if not folder.is_absolute():
            # Once and for all: the engines that we start work elsewhere, and must mean the same folder.
            folder = folder.absolute()
            os.environ["STARFILL_HOME"] = str(folder)
    except (RuntimeError, OSError) as error:
        raise StarfillError(f"STARFILL_HOME={value}: {str(error).rstrip('.')}; set it to an absolute path") from error
    return folder


def settings_file() -> Path:
    """The user's own settings."""
    base = home()
    return (base or Path(platformdirs.user_config_dir("starfill", appauthor=False))) / "settings.toml"


def models_dir() -> Path:
    """Downloaded checkpoints, one folder each."""
    base = home()
    return (base or Path(platformdirs.user_data_dir("starfill", appauthor=False))) / "models"


def attribution_index() -> Path:
    """Fingerprints of the code that completions are compared with."""
    return models_dir().parent / "attribution" / "index"


def trials_dir() -> Path:
    """Marks of what is being tried on a device; empty but for a while, and after a trial that did not end."""
    base = home()
    return base / "trials" if base else Path(platformdirs.user_cache_dir("starfill", appauthor=False)) / "trials"


def log_dir() -> Path:
    """Logs; none holds user text."""
    base = home()
    return base / "log" if base else Path(platformdirs.user_log_dir("starfill", appauthor=False))


def runtime_dir() -> Path:
    """The folder of engine sockets: ours alone (mode 0700), and short enough for a socket's path.

    Raises StarfillError if somebody else owns it, which on a shared /tmp could be an attack.
    """
    base = home()
    if base:
        wanted = base / "run"
    elif runtime := os.environ.get("XDG_RUNTIME_DIR"):
        wanted = Path(runtime) / "starfill"
    else:
        wanted = _short_dir("")
    if len(os.fsencode(wanted)) + 1 + _NAME_LENGTH >= SUN_PATH:
        wanted = _short_dir(hashlib.sha256(os.fsencode(wanted)).hexdigest()[:12])
    return private_dir(wanted)


def private_dir(path: Path) -> Path:
    """Create `path` with mode 0700, or check that it is a directory of ours and close it to others."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (NotADirectoryError, FileExistsError) as error:
        raise _not_ours(path) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _not_ours(path) from error
        raise StarfillError(f"{path}: {error.strerror}; set STARFILL_HOME to a folder that you may write to") from error
    try:  # on what was opened, not on what has that name by now
        found = os.fstat(fd)
        if found.st_uid != os.getuid():
            raise _not_ours(path)
        if stat.S_IMODE(found.st_mode) != 0o700:
            os.fchmod(fd, 0o700)
    finally:
        os.close(fd)
    return path


def _not_ours(path: Path) -> StarfillError:
    return StarfillError(f"{path} is not a directory of this user: remove it, or set STARFILL_HOME")


def _short_dir(suffix: str) -> Path:
    """A folder under the temporary one, which everybody may write to: only its sticky bit keeps others from moving ours."""
    name = f"starfill-{os.getuid()}" + (f"-{suffix}" if suffix else "")
    parent = Path(tempfile.gettempdir())
    mode = parent.stat().st_mode
    if mode & 0o022 and not mode & stat.S_ISVTX:
        raise StarfillError(f"{parent} lets others replace our folder (no sticky bit); set STARFILL_HOME or TMPDIR")
    return parent / name

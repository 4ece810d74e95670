"""What `starfill doctor` looks at. Imports torch in a child only, so that a broken one is a finding and not a crash."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from engine import __version__, paths, registry
from engine.backends import LIBRARY_REMEDY, library_serves, library_version
from engine.errors import StarfillError
from engine.finding import Finding
from engine.models import STARTER
from engine.sizes import human_size
from engine.standing import describe
from engine.transformers_backend.families import FAMILIES
from engine.wanted import Wanted, examine_wanted

__all__ = ["Finding", "Wanted", "examine"]

_PROBE_SECONDS = 120
_PROBE = """
import importlib.util, json, torch
cuda = torch.cuda.is_available()
found = {"torch": torch.__version__, "cuda": cuda, "built_for": torch.version.cuda,
    "devices": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())] if cuda else [],
    "triton": importlib.util.find_spec("triton") is not None}
if cuda:
    found["free"], found["total"] = torch.cuda.mem_get_info()
    torch.ones(1, device="cuda").add_(1).item()
print(json.dumps(found))
"""

_NEEDED_MEMORY = 2**29
_ADAPTER = "adapter_config.json"
_NEEDED_DISK = 2**26


def examine(wanted: Wanted | None = None) -> list[Finding]:
    """Every check, in the order in which things are needed. `wanted` is the engine that completions come from."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python, _torch, _transformers, _starter, _models, _settings, _folders, _stale, _command, _memory, _disk,
        partial(examine_wanted, wanted or Wanted()), _engines,
    ]  # fmt: skip
    return [finding for check in checks for finding in check()]


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    ok = sys.version_info >= (3, 11)
    yield Finding("python", ok, f"{version}, starfill {__version__}", "install Python 3.11 or newer")


def _torch() -> Iterator[Finding]:
    remedy = "reinstall starfill, or torch for your platform"
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-c", _PROBE], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False,
            cwd="/",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        reason = f"importing it, or the first use of the GPU, took over {_PROBE_SECONDS} s"
        yield Finding("torch", False, reason, "see whether the GPU's driver hangs (nvidia-smi), or reboot")
        return
    if child.returncode != 0:
        reason = (child.stderr.strip().splitlines() or ["no reason given"])[-1]
        yield Finding("torch", False, reason, remedy)
        return
    found = json.loads(child.stdout)
    yield Finding("torch", True, found["torch"])
    yield _gpu(found)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    detail = f"{cores} cores for this process" + ("" if cores > 1 else ": the engine and the editor share one")
    yield Finding("threads", True, detail)


def _gpu(found: dict[str, Any]) -> Finding:
    if found["cuda"]:
        devices = ", ".join(found["devices"])
        detail = f"{devices}; {human_size(found['free'])} of {human_size(found['total'])} free; "
        detail += "triton is there" if found["triton"] else "no triton (pip install 'starfill[gpu]' brings it)"
        return Finding("gpu", True, detail)
    if Path("/dev/nvidia0").exists():
        build = f"built for CUDA {found['built_for']}" if found["built_for"] else "a CPU build"
        remedy = "install a torch build for your driver's CUDA (https://pytorch.org/get-started)"
        return Finding("gpu", False, f"there is one, but torch ({build}) does not see it", remedy)
    return Finding("gpu", True, "none: completions run on the CPU")


def _transformers() -> Iterator[Finding]:
    version, others = library_version(), ", ".join(FAMILIES)
    if version is None:
        yield Finding("transformers", True, f"not installed; models of type {others} need it: {LIBRARY_REMEDY}")
    else:
        detail = f"{version}: runs models of type {others}, slower than the native backend runs StarCoder"
        yield Finding("transformers", library_serves(version), detail, LIBRARY_REMEDY)


def _starter() -> Iterator[Finding]:
    weights = list(STARTER.glob("*.safetensors"))
    size = human_size(sum(file.stat().st_size for file in weights))
    ok = bool(weights) and (STARTER / "config.json").is_file() and (STARTER / "tokenizer.json").is_file()
    yield Finding("starter model", ok, f"{size} in {len(weights)} file(s)", "reinstall starfill: its model is missing")


def _models() -> Iterator[Finding]:
    folder = paths.models_dir()
    found = sorted(path for path in folder.glob("[!.]*") if path.is_dir()) if folder.is_dir() else []
    needed = ("config.json", "tokenizer.json")
    broken = [
        path.name for path in found
        if not (path / _ADAPTER).is_file()  # its base has the rest
        and not (all((path / name).is_file() for name in needed) and any(path.glob("*.safetensors")))
    ]  # fmt: skip
    if broken:
        detail = f"{', '.join(broken)} in {folder}: no config.json, tokenizer.json or safetensors"
        yield Finding("models", False, detail, "remove the folder, or pull the model again")
    else:
        yield Finding("models", True, f"{len(found)} in {folder}")


def _settings() -> Iterator[Finding]:
    file = paths.settings_file()
    try:
        keys = sorted(tomllib.loads(file.read_text("utf-8")))
    except FileNotFoundError:
        yield Finding("settings", True, f"{file} is not there: the defaults hold")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        yield Finding("settings", False, f"{file}: {reason}", "mend or remove the file")
    else:
        yield Finding("settings", True, f"{file} sets {', '.join(keys) or 'nothing'}")


def _folders() -> Iterator[Finding]:
    try:
        runtime = paths.runtime_dir()
        logs = paths.private_dir(paths.log_dir())
        for folder in (runtime, logs):
            draft = folder / f".doctor.{os.getpid()}"
            draft.touch()
            draft.unlink()
    except (StarfillError, OSError) as error:
        yield Finding("folders", False, str(error), "set STARFILL_HOME to a folder that you may write to")
        return
    yield Finding("folders", True, f"sockets in {runtime}, logs in {logs}, both yours alone (mode 0700)")


def _stale() -> Iterator[Finding]:
    try:
        folder = paths.runtime_dir()
        before = {path.name for path in folder.iterdir()}
        registry.sweep()
        gone = before - {path.name for path in folder.iterdir()}
    except (StarfillError, OSError) as error:
        yield Finding("stale files", False, str(error), "see folders")
        return
    yield Finding("stale files", True, f"removed what dead engines left: {', '.join(sorted(gone))}" if gone else "none")


def _command() -> Iterator[Finding]:
    found = shutil.which("starfill")
    own = Path(sys.executable).with_name("starfill")
    if found is None:
        yield Finding("command", True, f"not on the PATH: give editors the whole path {own}, or put {own.parent} on it")
        return
    other = own.exists() and not own.samefile(found)
    detail = f"{found}" + (f", not the {own} that runs now: editors start the former" if other else "")
    yield Finding("command", True, detail)


def _memory() -> Iterator[Finding]:
    free = psutil.virtual_memory().available
    yield Finding(
        "memory", free > _NEEDED_MEMORY, f"{human_size(free)} free", "close something: the starter needs 512 MiB"
    )


def _disk() -> Iterator[Finding]:
    seen: dict[int, tuple[Path, int]] = {}
    with suppress(StarfillError, OSError):
        for folder in (paths.runtime_dir(), paths.log_dir(), paths.models_dir()):
            there = next(each for each in (folder, *folder.parents) if each.exists())
            seen.setdefault(there.stat().st_dev, (there, shutil.disk_usage(there).free))
    short = [f"{folder}" for folder, free in seen.values() if free < _NEEDED_DISK]
    detail = ", ".join(f"{human_size(free)} free at {folder}" for folder, free in seen.values()) or "see folders"
    yield Finding("disk", not short, detail, f"make room at {', '.join(short)}: logs and sockets need a little")


def _engines() -> Iterator[Finding]:
    try:
        records = registry.running_engines()
    except StarfillError as error:
        yield Finding("engines", False, str(error), "see folders")
        return
    states = [asyncio.run(describe(record)) for record in records]
    bad = [state for state in states if state["state"] not in ("ready", "loading", "draining", "leaving")]
    detail = ", ".join(f"{s['model']} is {s['state']} (pid {s['pid']})" for s in states) or "none running"
    wishes = [f"{state['model']} runs without {flags}" for state in states for flags in state["asked"]]
    remedy = "starfill stop, then try again; the log tells more" + (f": {paths.log_dir()}" if bad else "")
    yield Finding("engines", not bad, "; ".join([detail, *wishes]), remedy)

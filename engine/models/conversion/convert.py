"""`starfill models convert`: a directory's `.bin` files, read by locked-down children, become safetensors beside them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import engine
from engine.checkpoint.folder import ModelFolder
from engine.checkpoint.header import read_header
from engine.checkpoint.json_file import JsonLimits, read_object, refuse, shown
from engine.checkpoint.table import INDEX, SINGLE, read_table
from engine.errors import CheckpointError, PickleRefused
from engine.sizes import human_size

BIN = "pytorch_model.bin"
BIN_INDEX = "pytorch_model.bin.index.json"
_LIMITS = JsonLimits(size=4 * 2**20, values=100_000)
_BIN_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,200}\.bin", re.ASCII)
_MOST_SHARDS = 1_024
_MEMORY = 256 * 2**20
"""Bytes that a child may take beside the file, which it maps."""
_CPU_SECONDS = 10
"""What a child may compute for, beside a second for each 32 MiB; reading a pickle takes far less, copying too."""
_MOST_SAID = 8 * 2**20
_DRAFT = ".converting-"
_BEGIN = "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); from engine.models.conversion.child import main; main()"


@dataclass(frozen=True, slots=True)
class Converted:
    """What a conversion made."""

    files: tuple[str, ...]
    size: int
    dropped: tuple[str, ...]
    """Tensors that were left out: causal masks, and a head that repeats the embedding."""
    sources: tuple[str, ...]


class _Index(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    weight_map: Annotated[dict[Annotated[str, Field(max_length=256)], str], Field(min_length=1, max_length=16_384)]


def pickled(directory: Path) -> list[str]:
    """The files that hold a directory's pickled weights; raises CheckpointError where there are none."""
    folder = ModelFolder(directory)
    if folder.has(BIN):
        return [BIN]
    if folder.has(BIN_INDEX):
        try:
            names = sorted(set(_Index.model_validate(read_object(folder, BIN_INDEX, _LIMITS)).weight_map.values()))
        except ValidationError as error:
            refuse(folder.path(BIN_INDEX), error)
        stranger = next((name for name in names if not _BIN_NAME.fullmatch(name)), None)
        if stranger is not None or len(names) > _MOST_SHARDS:
            raise CheckpointError(
                f"{folder.path(BIN_INDEX)}: shard {shown(stranger)} must be a .bin file of the same directory"
                if stranger is not None
                else f"{folder.path(BIN_INDEX)}: more than {_MOST_SHARDS} shards"
            )
        return names
    raise CheckpointError(f"{directory}: neither {BIN} nor {BIN_INDEX} is there; nothing to convert")


def convert(directory: Path, *, force: bool = False, told: Callable[[str, int, int], None] | None = None) -> Converted:
    """Write safetensors of a directory's `.bin` files beside them, or nothing; raises CheckpointError, PickleRefused where
    the files are at fault.

    `told` hears which file comes next, which number it has, and how many there are. What is there already is replaced
    only with `force`.
    """
    folder = ModelFolder(directory)
    sources = pickled(directory)
    there = next((name for name in (SINGLE, INDEX) if folder.has(name)), None)
    if there is not None and not force:
        raise CheckpointError(f"{folder.path(there)}: is there already; use --force to replace it")
    _check_room(directory, sum(_size(folder, name) for name in sources))
    with _draft(directory) as draft:
        where: dict[str, str] = {}
        dropped: set[str] = set()
        files: list[str] = []
        for number, name in enumerate(sources, 1):
            if told is not None:
                told(name, number, len(sources))
            file = SINGLE if len(sources) == 1 else f"model-{number:05d}-of-{len(sources):05d}.safetensors"
            found, left_out = _convert_file(folder, name, draft / file)
            twice = next((tensor for tensor in found if tensor in where), None)
            if twice is not None:
                raise PickleRefused(f"{folder.path(name)}: holds {shown(twice)}, which another shard holds too")
            where |= dict.fromkeys(found, file)
            dropped.update(left_out)
            files.append(file)
        if len(files) > 1:
            total = sum((draft / file).stat().st_size for file in files)
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
            (draft / INDEX).write_text(json.dumps(index, indent=2), "utf-8")
            files.append(INDEX)
        with _judged():  # what was made, as any other directory is
            read_table(draft)
        size = sum((draft / file).stat().st_size for file in files)
        if force:
            _remove_older(directory, keep=files)
        for file in files:  # the index last: until it is there, nothing is
            (draft / file).replace(directory / file)
    return Converted(tuple(files), size, tuple(sorted(dropped)), tuple(sources))


def _convert_file(folder: ModelFolder, name: str, target: Path) -> tuple[list[str], list[str]]:
    """One file by one child -> names of the tensors written, and of those left out."""
    path = folder.path(name)
    with folder.open(name) as source, target.open("wb") as output:
        said = _run_child(source, output, path)
    _check_locked(said, path)
    if "refused" in said:
        raise PickleRefused(f"{path}: {_printable(said['refused'])}; nothing of it was run")
    if "names" not in said:
        raise CheckpointError(
            f"{path}: {_printable(said.get('failed', 'could not be converted'))}; nothing of it was run"
        )
    with target.open("rb") as made, _judged():
        names = list(read_header(made, target, os.fstat(made.fileno()).st_size))
    dropped = [str(each)[:256] for each in said.get("dropped") or [] if isinstance(each, str)]
    return names, dropped


def check_system(folder: Path) -> None:
    """Raise CheckpointError where no child can be locked down: then no pickle is read, so that none need be fetched."""
    with _draft(folder) as draft, (draft / "in").open("w+b") as empty, (draft / "out").open("wb") as output:
        said = _run_child(empty, output, folder)
    _check_locked(said, folder)
    if "refused" not in said:  # as empty, by a child that works
        raise CheckpointError(f"{folder}: {_printable(said.get('failed', 'nothing can be converted here'))}")


def _check_locked(said: dict[str, Any], path: Path) -> None:
    if "locked" in said:
        raise CheckpointError(
            f"{path}: is not read, because this system does not let a process give up its rights ({said['locked']}); "
            "convert it on a Linux with seccomp, or get the safetensors form of the model"
        )


@contextmanager
def _judged() -> Iterator[None]:
    try:
        yield
    except CheckpointError as error:
        raise PickleRefused(str(error)) from error


def _run_child(source: BinaryIO, output: BinaryIO, path: Path) -> dict[str, Any]:
    size = os.fstat(source.fileno()).st_size
    seconds = _CPU_SECONDS + size // 2**25
    fds = source.fileno(), output.fileno()
    child = subprocess.Popen(
        [sys.executable, "-I", "-B", "-c", _BEGIN, *map(str, (*fds, _MEMORY, seconds)), json.dumps(_where_modules_are())],
        pass_fds=fds, cwd="/", env={"LC_ALL": "C.UTF-8", "PATH": os.defpath}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        out, errors = child.communicate(timeout=20 * seconds)
    except subprocess.TimeoutExpired:
        raise CheckpointError(f"{path}: converting it took longer than {20 * seconds} s, so it was ended") from None
    finally:
        child.kill()
        child.wait()
    began, _, rest = out[:_MOST_SAID].partition(b"\n")
    try:
        said = json.loads(rest or began)
    except ValueError:
        said = None
    if child.returncode == 0 and isinstance(said, dict):
        return said
    last = errors.decode("utf-8", "replace").strip().splitlines()[-1:] or [""]
    why = f"signal {-child.returncode}" if child.returncode < 0 else f"code {child.returncode} {last[0]}".strip()
    if not began:
        return {"failed": f"is not read: the process that was to convert it could not begin ({why})"}
    return {"failed": f"ended the process that was to convert it ({why}), as a broken or hostile file does"}


def _where_modules_are() -> list[str]:
    """What this process imports from, for a child that ignores the environment and the user's own packages.

    No relative entry: those are the working directory's, which may be anybody's.
    """
    return [*(each for each in sys.path if Path(each).is_absolute()), str(Path(engine.__file__).resolve().parents[1])]


def _printable(text: object) -> str:
    """What the child said, in one bounded line of ASCII."""
    return ascii(str(text))[1:-1][:300]


def _size(folder: ModelFolder, name: str) -> int:
    with folder.open(name) as file:
        return os.fstat(file.fileno()).st_size


def _check_room(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise CheckpointError(
            f"{directory}: converting needs {human_size(needed)} of disk, {human_size(free)} are free"
        )


@contextmanager
def _draft(directory: Path) -> Iterator[Path]:
    """A folder inside the directory, on the same disk, gone at the end."""
    try:
        draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=directory))
    except OSError as error:
        raise CheckpointError(f"{directory}: cannot be written to ({error.strerror})") from error
    try:
        yield draft
    except OSError as error:
        raise CheckpointError(f"{directory}: {error.strerror or error}; free some disk and try again") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _remove_older(directory: Path, keep: Sequence[str]) -> None:
    """Safetensors of before, which would be of another set."""
    for path in (directory / SINGLE, directory / INDEX, *directory.glob("model-*-of-*.safetensors")):
        if path.name not in keep:
            path.unlink(missing_ok=True)

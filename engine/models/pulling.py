"""`starfill models pull`: a model grows in a folder that nobody can name, is checked, and takes its place in one step."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from engine import paths
from engine.backends import choose_backend
from engine.checkpoint.folder import ModelFolder
from engine.checkpoint.json_file import JsonLimits, read_object, shown
from engine.checkpoint.table import INDEX, SINGLE
from engine.errors import CheckpointError, HubError, PickleRefused, StarfillError
from engine.fitness import check_description, check_tensors
from engine.lock import FileLock
from engine.models.conversion.convert import BIN, BIN_INDEX, check_system, convert
from engine.models.hub import Hub, RemoteFile, RemoteModel
from engine.models.known import KNOWN
from engine.models.licences import Acceptance, Terms
from engine.models.locate import ModelName
from engine.models.record import PulledFile, Record, read_record, write_record
from engine.models.shelf import PARTIAL, kept_models
from engine.models.staging import check_room, grow, place, size_of, writable
from engine.models.sums import complete, damaged_files, reuse, sha256_of, verify
from engine.sizes import human_size

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
_BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "added_tokens.json")
_LICENCE = re.compile(r"(LICENSE|LICENCE|NOTICE)(\.\w+)?", re.ASCII)
_SHARD = re.compile(r"[A-Za-z0-9][\w.-]{0,200}\.(safetensors|bin)", re.ASCII)
_INDEX_LIMITS = JsonLimits(size=4 * 2**20, values=100_000)
_SMALL = 64 * 2**20
"""Bytes that a file beside the weights may have."""


class Progress(Protocol):
    """What a download tells while it goes on."""

    def begin(self, total: int) -> None:
        """So many bytes are to come, those that are here already among them."""

    def advance(self, count: int) -> None:
        """Bytes of it came; negative if some must come again."""

    def note(self, text: str) -> None:
        """Something that a person may want to know."""


Agree = Callable[[Terms, str], str]
"""(terms, page) -> how they were accepted; raises StarfillError if they were not."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """How it went."""

    name: ModelName
    directory: Path
    record: Record
    fresh: bool
    """Whether anything was downloaded."""


@dataclass(frozen=True, slots=True)
class _Weights:
    """The form in which a revision has its weights."""

    single: str
    index: str

    @property
    def pickled(self) -> bool:
        return self.single == BIN


_FORMS = (_Weights(SINGLE, INDEX), _Weights(BIN, BIN_INDEX))


def pull(name: ModelName, hub: Hub, agree: Agree, progress: Progress, *, check_sums: bool = False) -> Pulled:
    """Download a model, or find that it is here; raises HubError or CheckpointError, and what was here before stays.

    With `check_sums`, it is here only if each of its files still is what was recorded, which takes reading them all.
    """
    remote = hub.describe(name)
    small, form = _choose(name, hub.page(name), remote)
    target = paths.models_dir() / name.folder
    there = read_record(target)
    damaged = _compare(target, there, progress) if check_sums and there is not None else frozenset[str]()
    if there is not None and there.commit == remote.commit and not damaged and complete(target, there):
        return Pulled(name, target, there, fresh=False)
    if target.is_symlink() and not target.exists():
        raise HubError(f"{target} is a link that leads nowhere; bring back what it led to, or remove the link")
    if there is None and target.exists():
        raise HubError(f"{target} is there, but was not pulled; take it away first: starfill models remove {name}")
    hub.check_access(name, remote.commit, CONFIG)
    partial = paths.private_dir(writable(paths.models_dir()) / PARTIAL)
    if form.pickled:
        check_system(partial)
    acceptance, terms = _accept(name, hub, remote, agree)
    lock = FileLock(partial / f"{name.folder}.lock")
    if not lock.try_acquire():
        raise HubError(f"{name} is being downloaded by another starfill; wait for it, or end it")
    try:
        staging = grow(partial, name, remote.commit)
        if there is not None and check_sums:
            reuse(target, there, damaged, remote, staging)
        files = _fetch(name, hub, remote, small, form, staging, progress)
        made, converted = _convert(staging, progress) if form.pickled else ((), ())
        _check_weights(name, staging)
        record = Record(
            id=name.id,
            revision=name.revision,
            commit=remote.commit,
            hub=hub.endpoint,
            pulled_at=_now(),
            licences=tuple(licence.id for licence in terms.licences),
            acceptance=acceptance,
            files=tuple(PulledFile(each.name, each.size, each.sum) for each in files),
            converted_from=tuple(converted),
            made=tuple(made),
        )
        write_record(staging, record)
        if target.is_symlink():
            progress.note(f"{target} was a link; what is in {target.resolve()} stays, and is not used any more")
        place(staging, target, partial)
    except OSError as error:
        raise HubError(f"{paths.models_dir()}: {error.strerror or error}; what has come is kept") from error
    finally:
        lock.release()
    return Pulled(name, target, record, fresh=True)


def terms_of(name: ModelName, card: str | None, page: str) -> Terms:
    """What applies to a model: what our table says, and what its card says beside that."""
    known = KNOWN.get(name.id)
    said = () if card is None else (card,)
    if known is None:
        return Terms.of(said, page)
    # The hub's own tag for a licence with restrictions is coarse; our table has the name that the card's text gives.
    ours = known.licences
    return Terms.of((*ours, *(each for each in said if each not in ours and "rail" not in each)), page)


def _choose(name: ModelName, page: str, remote: RemoteModel) -> tuple[list[RemoteFile], _Weights]:
    """The files beside the weights, and the form of these; raises HubError for a model that we could not read."""
    files = remote.files
    for needed in (CONFIG, TOKENIZER):
        if needed not in files:
            raise HubError(
                f"{page}: {name.revision} has no {needed}, which starfill needs; choose another model or revision"
            )
    form = next((each for each in _FORMS if each.single in files or each.index in files), None)
    if form is None:
        raise HubError(
            f"{page}: {name.revision} has neither {SINGLE} nor {BIN} (or an index of one); choose another revision"
        )
    wanted = [CONFIG, TOKENIZER, *_BESIDE, *(each for each in files if _LICENCE.fullmatch(each))]
    if form.single not in files:
        wanted.append(form.index)
    small = [files[each] for each in wanted if each in files]
    for file in small:
        if file.size > _SMALL:
            raise HubError(
                f"{page}: {file.name} has {human_size(file.size)}; such a file is at most {human_size(_SMALL)}"
            )
    return small, form


def _accept(name: ModelName, hub: Hub, remote: RemoteModel, agree: Agree) -> tuple[Acceptance | None, Terms]:
    """Ask once: what was agreed to for one revision of a model holds for the others."""
    terms = terms_of(name, remote.licence, hub.page(name))
    if not terms.ids:
        return None, terms
    for kept in kept_models():
        before = kept.record
        agreed = before.acceptance if before is not None and kept.name.id == name.id else None
        if agreed is not None and agreed.covers(terms):
            return agreed, terms
    how = agree(terms, hub.page(name))
    return Acceptance(terms.ids, _now(), how, terms.digest()), terms


def _fetch(
    name: ModelName, hub: Hub, remote: RemoteModel, small: Iterable[RemoteFile], form: _Weights, staging: Path,
    progress: Progress,
) -> list[RemoteFile]:  # fmt: skip
    """All files into the staging folder, each with the sum that the hub names."""
    small = list(small)
    weights = [remote.files[form.single]] if form.single in remote.files else []
    progress.begin(sum(file.size for file in (*small, *weights)))
    for file in small:
        _fetch_file(name, hub, remote.commit, file, staging, progress)
    _check_description(name, staging, small, progress)
    if not weights:
        weights = _shards(hub.page(name), remote.files, form, staging)
        progress.begin(sum(file.size for file in (*small, *weights)))
    to_come = sum(file.size - size_of(staging / file.name) for file in weights)
    made = sum(file.size for file in weights) if form.pickled else 0
    check_room(staging, to_come + made, name)
    for file in weights:
        _fetch_file(name, hub, remote.commit, file, staging, progress)
    return [*small, *weights]


def _fetch_file(name: ModelName, hub: Hub, commit: str, file: RemoteFile, staging: Path, progress: Progress) -> None:
    """One file, whole and right; one that went on from an earlier try and came out wrong is fetched anew, once."""
    path = staging / file.name
    for _ in range(2):
        went_on = hub.download(name, commit, file, path, progress.advance)
        if verify(path, file):
            return
        path.unlink()
        if not went_on:
            break
        progress.advance(-file.size)
        progress.note(f"{file.name}: what was kept of an earlier try is damaged; it is downloaded again")
    raise HubError(
        f"{file.name} of {name} does not have the sum that the hub names ({file.sum}); it was removed. A proxy may have "
        "changed it: try again, or from another network"
    )


def _check_description(name: ModelName, staging: Path, small: Iterable[RemoteFile], progress: Progress) -> None:
    """Refuse what could not be run while it is a few small files; those go."""
    try:
        backend = check_description(staging)
    except CheckpointError as error:
        for file in small:
            (staging / file.name).unlink(missing_ok=True)
        with suppress(OSError):  # weights of an earlier try stay
            staging.rmdir()
        raise CheckpointError(f"{_named(error, staging, name)}; its weights were not downloaded") from error
    if backend == "transformers":
        try:
            choose_backend("auto", staging)
        except StarfillError as error:
            progress.note(str(error))


def _check_weights(name: ModelName, staging: Path) -> None:
    """Refuse what could not be run before it takes the place of anything. What came stays: a newer starfill may run it."""
    try:
        check_tensors(staging)
    except CheckpointError as error:
        raise CheckpointError(
            f"{_named(error, staging, name)}; what was downloaded is kept until: starfill models remove {name}"
        ) from error


def _named(error: StarfillError, staging: Path, name: ModelName) -> str:
    """What is wrong, under the name that its reader gave and not that of a folder out of sight."""
    return str(error).replace(str(staging), str(name))


def _shards(page: str, files: Mapping[str, RemoteFile], form: _Weights, staging: Path) -> list[RemoteFile]:
    """The files that an index names."""
    found = read_object(ModelFolder(staging), form.index, _INDEX_LIMITS).get("weight_map")
    names = sorted({each for each in found.values() if isinstance(each, str)}) if isinstance(found, dict) else []
    for each in names:
        if not _SHARD.fullmatch(each) or each not in files:
            raise HubError(
                f"{page}: {form.index} names {shown(each)}, which is no file of weights there; choose another revision"
            )
    if not names:
        raise HubError(f"{page}: {form.index} names no file; choose another revision")
    return [files[each] for each in names]


def _convert(staging: Path, progress: Progress) -> tuple[Sequence[PulledFile], Sequence[str]]:
    """Pickles to safetensors; the pickles go -> what was made, of which files."""
    progress.note(
        "this revision has only .bin files: converting them to safetensors in a process that can do nothing else"
    )
    try:
        done = convert(staging, force=True)
    except PickleRefused:
        for path in staging.glob("*.bin"):  # right by their sums: fetching them again would not make them better
            path.unlink()
        raise
    except CheckpointError as error:
        raise CheckpointError(f"{error}; what was downloaded is kept") from error
    for source in (*done.sources, BIN_INDEX):
        (staging / source).unlink(missing_ok=True)
    made = [PulledFile(file, size_of(staging / file), sha256_of(staging / file)) for file in done.files]
    return made, done.sources


def _compare(directory: Path, record: Record, progress: Progress) -> frozenset[str]:
    progress.note("comparing every file with its sum")
    return damaged_files(directory, record)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

"""What `models list` and `models show` tell: every model that is here or was published, and how it fits this machine."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from engine.errors import StarfillError
from engine.models.known import KNOWN, KnownModel
from engine.models.licences import Terms
from engine.models.locate import STARTER_ID, ModelName
from engine.models.memory import Fit, Machine, fit
from engine.models.shelf import Kept, begun_downloads, kept_models, starter

if TYPE_CHECKING:
    from engine.gpt_bigcode import ModelShape

_PAGE = "https://huggingface.co"
STARTER_LICENCE = "apache-2.0"


@dataclass(frozen=True, slots=True)
class Entry:
    """One model, here or not."""

    name: ModelName
    known: KnownModel | None
    kept: Kept | None
    parameters: int | None
    context: int | None
    terms: Terms | None
    """None where nobody says: a model that was put or made here."""
    fit: Fit | None
    """None where the sizes are not known."""
    begun: int = 0
    """Bytes of a download that stopped on its way."""

    @property
    def size(self) -> int | None:
        """Bytes on disk, if it is here."""
        return self.kept.size if self.kept else None

    @property
    def fits(self) -> bool:
        """Whether it could be loaded now."""
        return self.fit is not None and self.fit.fits

    def as_dict(self) -> dict[str, Any]:
        """For `--json`. Sizes are bytes."""
        record = self.kept.record if self.kept else None
        return {
            "id": str(self.name),
            "here": self.kept is not None,
            "directory": str(self.kept.directory) if self.kept else None,
            "commit": record.commit if record else None,
            "size": self.size,
            "begun": self.begun,
            "parameters": self.parameters,
            "context": self.context,
            "licences": [licence.id for licence in self.terms.licences] if self.terms else [],
            "gated": self.known.gated if self.known else None,
            "memory": dict(self.fit.needed) if self.fit else {},
            "fits": self.fits,
            "precision": self.fit.precision if self.fit else None,
            "why": self.fit.why if self.fit else None,
        }


def entries(machine: Machine, *, only_here: bool = False) -> list[Entry]:
    """All models, best first: those that fit, the largest of them first, then the others, the smallest first."""
    kept = {str(each.name): each for each in (starter(), *kept_models())}
    begun = {str(each.name): each for each in begun_downloads()}
    found = [entry(each.name, each, machine) for each in kept.values()]
    found += [entry(each.name, None, machine) for name, each in begun.items() if name not in kept]
    if not only_here:
        found += [entry(ModelName(id_), None, machine) for id_ in KNOWN if id_ not in kept and id_ not in begun]
    return ranked(replace(one, begun=begun[str(one.name)].size) if str(one.name) in begun else one for one in found)


def ranked(found: Iterable[Entry]) -> list[Entry]:
    """Best first; among equals what is here comes before what would have to be pulled."""

    def key(one: Entry) -> tuple[bool, int, bool, str]:
        size = one.parameters or 0
        return not one.fits, -size if one.fits else size, one.kept is None, str(one.name)

    return sorted(found, key=key)


def entry(name: ModelName, kept: Kept | None, machine: Machine) -> Entry:
    """What is known of one model."""
    known = KNOWN.get(name.id)
    shape = _shape(name, kept, known)
    return Entry(
        name=name,
        known=known,
        kept=kept,
        parameters=shape.parameters if shape else None,
        context=shape.n_positions if shape else None,
        terms=_terms(name, kept, known),
        fit=fit(shape, machine) if shape else None,
    )


def _shape(name: ModelName, kept: Kept | None, known: KnownModel | None) -> ModelShape | None:
    """From its own configuration if it is here, else from our table."""
    from engine.checkpoint.config import read_shape

    if kept is not None:
        with suppress(StarfillError):  # an adapter, another architecture, or broken: serve says which
            return read_shape(kept.directory)
    return known.of_revision(name.revision).shape() if known is not None else None


def _terms(name: ModelName, kept: Kept | None, known: KnownModel | None) -> Terms | None:
    page = f"{_PAGE}/{name.id}"
    if name.id == STARTER_ID:
        return Terms.of((STARTER_LICENCE,), page)
    if kept is not None and kept.record is not None:
        return Terms.of(kept.record.licences, page)
    return Terms.of(known.licences, page) if known is not None else None

"""What `starfill models` shows to people."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from engine.models.catalogue import Entry
from engine.models.memory import Machine
from engine.models.record import Record
from engine.sizes import human_size


def list_view(found: Sequence[Entry], machine: Machine) -> RenderableType:
    """The table of `models list`, best first."""
    precisions = list(dict.fromkeys(name for one in found if one.fit for name in one.fit.needed))
    table = Table("model", "here", "parameters", "context", box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify = "right"
    for name in precisions:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("fits", no_wrap=True)
    table.add_column("licence", overflow="fold")
    for one in found:
        needed = one.fit.needed if one.fit else {}
        absent = "begun" if one.begun else "gated" if one.known and one.known.gated else "no"
        here = human_size(one.size) if one.size is not None else absent
        table.add_row(
            str(one.name),
            Text(here, "" if one.size is not None else "dim"),
            f"{one.parameters / 1e6:,.0f} M" if one.parameters else "?",
            f"{one.context:,}" if one.context else "?",
            *(f"{needed[name] / 2**30:.1f}" if name in needed else "?" for name in precisions),
            Text(one.fit.precision or "no", "green" if one.fits else "red") if one.fit else Text("?"),
            one.terms.names if one.terms else "?",
        )
    free = f"{human_size(machine.free)} are free" if machine.free is not None else "nobody can tell how much is free"
    note = f"\nMemory in GiB at each precision, 512 MiB of keys and values with it; on {machine.device} {free}."
    begun = [
        Text(f"{one.name}: {human_size(one.begun)} of a download that stopped; pull goes on with it, remove frees them")
        for one in found
        if one.begun
    ]
    return Group(table, Text(note, "dim"), *begun)


def memory_text(one: Entry) -> str:
    """Memory at each precision of the device, the most exact first."""
    if one.fit is None:
        return "?"
    return ", ".join(f"{name} {human_size(size)}" for name, size in one.fit.needed.items())


def show_view(one: Entry) -> RenderableType:
    """All that is known of one model."""
    known, kept = one.known, one.kept
    facts: list[tuple[str, str]] = [("model", str(one.name))]
    if known is not None:
        facts.append(("title", known.title))
        if known.particular:
            facts.append(("particular", known.particular))
        branch = known.revisions.get(one.name.revision)
        if branch is not None:
            facts.append(("revision", branch.what))
    if one.parameters and one.context:
        facts += [("parameters", f"{one.parameters:,}"), ("context", f"{one.context:,} tokens")]
    facts.append(("memory", memory_text(one)))
    if one.fit is not None:
        facts.append(
            ("on this machine", f"{one.fit.precision} ({one.fit.why})" if one.fits else f"does not fit: {one.fit.why}")
        )
    if kept is None:
        gated = "; gated: its page must be agreed to first" if known is not None and known.gated else ""
        facts.append(("here", f"no; starfill models pull {one.name}{gated}"))
    else:
        facts.append(("here", f"{kept.directory} ({human_size(kept.size)})"))
        facts += _origin(kept.record)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    for fact in facts:
        table.add_row(*fact)
    parts: list[RenderableType] = [table]
    if known is not None and known.revisions and one.name.revision not in known.revisions:
        parts += [
            "",
            "Its other revisions:",
            *(f"  {one.name.id}@{name}: {r.what}" for name, r in known.revisions.items()),
        ]
    if one.terms is not None:
        parts += ["", "Licence", one.terms.text()]
    if known is not None:
        parts += ["", "Cite it as", known.citation.bibtex()]
    return Group(*parts)


def _origin(record: Record | None) -> list[tuple[str, str]]:
    if record is None:
        return []
    facts = [("from", f"{record.hub}/{record.id} at commit {record.commit}"), ("pulled", record.pulled_at)]
    if record.converted_from:
        facts.append(("converted from", ", ".join(record.converted_from)))
    if record.acceptance is not None:
        accepted = record.acceptance
        facts.append(("licence accepted", f"{', '.join(accepted.licences)} on {accepted.at} ({accepted.how})"))
    return facts


class Bar(AbstractContextManager["Bar"]):
    """The progress of a download: a bar on a terminal, a line at the start and at each note elsewhere."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(binary_units=True),
            TransferSpeedColumn(), TimeRemainingColumn(), console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task(title, total=None)
        self._total: int | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, total: int) -> None:
        """So many bytes are to come."""
        if not self._console.is_terminal and total != self._total:
            self._console.print(f"{self._title}: {human_size(total)}")
        self._total = total
        self._bar.update(self._task, total=total)

    def advance(self, count: int) -> None:
        """Bytes of it came."""
        self._bar.advance(self._task, count)

    def note(self, text: str) -> None:
        """Something that a person may want to know."""
        self._bar.console.print(text)


class Lines(AbstractContextManager["Lines"]):
    """The progress of a download for a program that shows it: objects of JSON, at most one for each hundredth of it."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._total = 0
        self._done = 0
        self._told = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def begin(self, total: int) -> None:
        """So many bytes are to come."""
        self._total = total
        self._tell()

    def advance(self, count: int) -> None:
        """Bytes of it came."""
        self._done += count
        self._tell()

    def note(self, text: str) -> None:
        """Something that a person may want to know."""
        self._write(json.dumps({"note": text}))

    def _tell(self) -> None:
        hundredth = 100 * self._done // max(1, self._total)
        if hundredth != self._told:
            self._told = hundredth
            self._write(json.dumps({"done": self._done, "total": self._total}))

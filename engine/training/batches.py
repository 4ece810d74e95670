"""Windows of tokens for training: a pure function of (seed, window number), so that a run can be repeated and resumed.

A window holds samples of one package one after the other, without a mask between them: what the engine serves has other
files of the same repository at its head, and copying from there is to be learned. Every window is full, so every position
is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from engine.training import spans
from engine.training.bpe import Vocabulary
from engine.training.packed import Document
from engine.training.samples import MUTE, TEXT, Head, Layout, Sample, add_head, add_hole, held_back
from engine.training.spans import KINDS, Hole, Kind

Ids = npt.NDArray[np.uint16]
Classes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Mix:
    """What the windows are made of. All are shares from 0 to 1 unless said otherwise."""

    python: float = 0.6
    """Of the windows; the other languages share the rest by the square root of their size."""

    package_power: float = 0.6
    """A package is drawn by its size to this power, so that large ones do not fill everything."""

    plain: float = 0.06
    layouts: tuple[float, float, float] = (0.36, 0.31, 0.33)
    """psm, spm, anchored."""

    healed: float = 0.75
    repository: float = 0.4
    path: float = 0.5
    snippet: float = 0.15
    long: float = 0.33
    """Samples that fill what is left of the window; the others are shorter, down to `shortest` tokens."""

    shortest: int = 160
    no_suffix: float = 0.1
    line_start: float = 0.12
    """Of the middles that end where a line does: from the line's first character on."""

    line_end: float = 0.05
    """The cursor stands at the end of a line: what follows is a block, or nothing at all, which is to be learned too."""

    full_stop: float = 0.8
    """Random spans that are stretched over the closers at the end of their line, which S would not show."""


@dataclass(slots=True)
class _Package:
    name: str
    documents: list[int] = field(default_factory=list)
    ends: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Running total of characters, to draw a file by its size."""


class Windows:
    """Makes windows out of documents. Holds no state that changes what is made."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        documents: Sequence[Document],
        names: Sequence[str],
        length: int,
        mix: Mix,
        seed: int,
    ) -> None:
        self._vocabulary, self._documents, self._mix, self._seed = vocabulary, documents, mix, seed
        self.length = length
        self._lines: dict[int, npt.NDArray[np.int64]] = {}
        self._languages, self._shares, self._packages, self._package_shares = self._index(names)
        self._density = {language: self._characters_per_token(language) for language in self._languages}

    def _index(
        self, names: Sequence[str]
    ) -> tuple[list[str], npt.NDArray[np.float64], dict[str, list[_Package]], dict[str, npt.NDArray[np.float64]]]:
        packages: dict[str, dict[int, _Package]] = {}
        for number, document in enumerate(self._documents):
            by_source = packages.setdefault(document.language, {})
            by_source.setdefault(document.source, _Package(names[document.source])).documents.append(number)
        languages = sorted(packages)
        sizes = {}
        package_shares = {}
        for language in languages:
            weights = []
            for package in packages[language].values():
                package.ends = np.cumsum([len(self._documents[d].text) for d in package.documents])
                weights.append(float(package.ends[-1]))
            sizes[language] = sum(weights)
            powered = np.asarray(weights) ** self._mix.package_power
            package_shares[language] = powered / powered.sum()
        shares = np.asarray([np.sqrt(sizes[language]) for language in languages])
        if "python" in languages and len(languages) > 1:
            at = languages.index("python")
            shares[at] = 0.0
            shares *= (1 - self._mix.python) / shares.sum()
            shares[at] = self._mix.python
        return languages, shares / shares.sum(), {k: list(v.values()) for k, v in packages.items()}, package_shares

    def _characters_per_token(self, language: str) -> float:
        texts = [self._documents[p.documents[len(p.documents) // 2]].text[:4_000] for p in self._packages[language]]
        return sum(map(len, texts)) / max(1, self._vocabulary.count(texts))

    def window(self, number: int) -> tuple[Ids, Classes]:
        """Ids and classes, `length` + 1 of each: inputs and targets are the two ends of the same row."""
        rng = np.random.default_rng([self._seed, number])
        total = self.length + 1
        out = Sample()
        used: set[int] = set()
        package = self._draw_package(rng)
        while len(out) < total:
            picked = self._draw_document(rng, package, used)
            if picked is None:
                package = self._draw_package(rng)
                used.clear()
                continue
            used.add(picked)
            if out.ids and out.ids[-1] != self._vocabulary.control.end:
                out.add([self._vocabulary.control.end], MUTE)
            room = total - len(out)
            if room < self._mix.shortest // 2:
                self._fill(out, rng, picked, room)
                continue
            target = room
            if rng.random() >= self._mix.long and room > self._mix.shortest:
                target = int(np.exp(rng.uniform(np.log(self._mix.shortest), np.log(room))))
            sample = self._sample(rng, package, picked, target)
            if len(sample) <= room:
                out.extend(sample)
        return np.asarray(out.ids[:total], np.uint16), np.asarray(out.classes[:total], np.uint8)

    def batch(self, first: int, count: int) -> tuple[Ids, Classes]:
        """Windows number `first` to `first + count`, stacked: [count, length + 1]."""
        rows = [self.window(number) for number in range(first, first + count)]
        return np.stack([ids for ids, _ in rows]), np.stack([classes for _, classes in rows])

    def _draw_package(self, rng: np.random.Generator) -> _Package:
        language = self._languages[int(rng.choice(len(self._languages), p=self._shares))]
        packages = self._packages[language]
        return packages[int(rng.choice(len(packages), p=self._package_shares[language]))]

    def _draw_document(self, rng: np.random.Generator, package: _Package, used: set[int]) -> int | None:
        """A file by its size; after the first, often a neighbour. None when the package has no fresh one at hand."""
        for _ in range(4):
            at = int(np.searchsorted(package.ends, rng.integers(package.ends[-1]), side="right"))
            if used and rng.random() < 0.5:
                known = package.documents.index(next(iter(used)))
                at = min(max(known + int(rng.integers(-6, 7)), 0), len(package.documents) - 1)
            if package.documents[at] not in used:
                return package.documents[at]
        return None

    def _starts(self, number: int) -> npt.NDArray[np.int64]:
        known = self._lines.get(number)
        if known is None:
            data = np.frombuffer(self._documents[number].text.encode("utf-32-le"), np.uint32)
            known = self._lines[number] = np.concatenate([[0], np.flatnonzero(data == 10) + 1])
        return known

    def _fill(self, out: Sample, rng: np.random.Generator, number: int, room: int) -> None:
        text = self._documents[number].text
        starts = self._starts(number)
        at = int(starts[int(rng.integers(len(starts)))])
        ids = self._vocabulary.encode(text[at : at + room * 12])[:room]
        out.add(ids, TEXT)
        if len(ids) < room:
            out.add([self._vocabulary.control.end], TEXT)

    def _sample(self, rng: np.random.Generator, package: _Package, number: int, target: int) -> Sample:
        mix, document = self._mix, self._documents[number]
        sample = Sample()
        snippets = []
        if target > 400 and rng.random() < mix.snippet:
            snippets = self._snippets(rng, package, number, target // 4)
        head = Head(
            repository=package.name if rng.random() < mix.repository else "",
            path=document.path if rng.random() < mix.path or snippets else "",
            snippets=tuple(snippets),
        )
        add_head(sample, self._vocabulary, head)
        if len(sample) > target // 2:
            sample = Sample()
        if rng.random() < mix.plain:
            return self._plain(sample, rng, number, target)
        return self._hole(sample, rng, number, target)

    def _snippets(self, rng: np.random.Generator, package: _Package, number: int, budget: int) -> list[tuple[str, str]]:
        other = self._draw_document(rng, package, {number})
        if other is None:
            return []
        document, starts = self._documents[other], self._starts(other)
        first = int(rng.integers(len(starts)))
        at = int(starts[first])
        end = int(starts[min(first + int(rng.integers(5, 40)), len(starts) - 1)])
        end = min(end, at + int(budget * self._density[document.language]))
        return [(document.path, document.text[at:end])] if end > at else []

    def _plain(self, sample: Sample, rng: np.random.Generator, number: int, target: int) -> Sample:
        text, starts = self._documents[number].text, self._starts(number)
        at = 0 if rng.random() < 0.5 else int(starts[int(rng.integers(len(starts))) // 32 * 32])
        room = target - len(sample)
        ids = self._vocabulary.encode(text[at : at + room * 6])
        sample.add(ids[:room], TEXT)
        if len(ids) < room and at + room * 6 >= len(text):
            sample.add([self._vocabulary.control.end], TEXT)
        return sample

    def _hole(self, head: Sample, rng: np.random.Generator, number: int, target: int) -> Sample:
        mix, document = self._mix, self._documents[number]
        text, density = document.text, self._density[document.language]
        cursor, end = self._cut(rng, text)
        after = spans.suffix_start(text, end)
        if after != end and end < spans.line_end(text, end) and rng.random() < mix.full_stop:
            end = spans.line_end(text, end)
        elif after != end and end < spans.line_end(text, end):
            after = end
        raw = rng.random() >= mix.healed
        start = cursor if raw else cursor - len(held_back(self._vocabulary, text[max(0, cursor - 512) : cursor]))
        layout = tuple(Layout)[int(rng.choice(3, p=mix.layouts))]
        suffix_budget = 0 if rng.random() < mix.no_suffix else int(rng.choice((64, 128, 256, 256, 512)))
        suffix_budget = min(suffix_budget, target // 3)
        bottom = spans.suffix_end(text, after, int(suffix_budget * density))
        room = target - len(head) - 4
        prefix_budget = room - (bottom - after) / density - (end - start) / density
        for _ in range(4):
            top = spans.window_top(self._starts(number), start, max(0, int(prefix_budget * density)))
            hole = Hole(top, start, end, after, bottom)
            sample = Sample(list(head.ids), list(head.classes))
            anchor = self._anchor(rng, number, hole)
            add_hole(sample, self._vocabulary, text, hole, layout, anchor, raw=raw)
            excess = len(sample) - target
            if excess <= 0:
                return sample
            prefix_budget -= excess * 1.15 + 8
            if prefix_budget < 0:
                bottom = after
        return Sample()

    def _cut(self, rng: np.random.Generator, text: str) -> tuple[int, int]:
        """A cursor before a character that is not blank, and the end of the middle; sometimes at the end of a line."""
        mix = self._mix
        cursor = int(rng.integers(len(text)))
        while cursor < len(text) - 1 and text[cursor].isspace():
            cursor = int(rng.integers(len(text)))
        if rng.random() < mix.line_end:
            cursor = spans.line_end(text, cursor)
            nothing = rng.random() < 0.4
            return cursor, cursor if nothing else spans.middle_end(text, cursor, Kind.BLOCK, rng)
        kinds, shares = zip(*KINDS, strict=True)
        kind = Kind(kinds[int(rng.choice(len(kinds), p=shares))])
        if kind is not Kind.SPAN and rng.random() < mix.line_start:
            at = text.rfind("\n", 0, cursor) + 1
            cursor = at + len(text[at:cursor]) - len(text[at:cursor].lstrip())
        return cursor, spans.middle_end(text, cursor, kind, rng)

    def _anchor(self, rng: np.random.Generator, number: int, hole: Hole) -> int:
        starts = self._starts(number)
        line = int(np.searchsorted(starts, hole.top, side="right")) - 1
        if rng.random() < 0.8:
            return spans.anchor_at(self._documents[number].text, hole.top, line, hole.start)
        here = int(np.searchsorted(starts, hole.start, side="right")) - 1
        return int(max(starts[max(here - int(rng.integers(0, 32)), 0)], hole.top))


__all__ = ["MUTE", "Classes", "Ids", "Mix", "Windows"]

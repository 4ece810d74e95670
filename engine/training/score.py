"""Rest-of-line exact match on held-out packages: several models, the same holes, one run.

The cursor stands before a character drawn uniformly from those that are not blank; the model gives the rest of the line,
greedily, healed, with the engine's window. Intervals are 95 %, by bootstrap over files, so that holes of one file do not
count as independent.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.training import export, samples, spans
from engine.training.bpe import Vocabulary
from engine.training.decode import complete_lines
from engine.training.model import Model
from engine.training.packed import Corpus
from engine.training.samples import Layout

_RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Cursor:
    """One hole: where to complete, and what stands there."""

    package: str
    language: str
    path: str
    text: str
    at: int
    end: int

    @property
    def truth(self) -> str:
        """The rest of the line."""
        return self.text[self.at : self.end]


def draw(corpus: Corpus, count: int, languages: Sequence[str], seed: int = 11) -> list[Cursor]:
    """`count` holes per language, spread evenly over its held-out packages."""
    rng = np.random.default_rng(seed)
    grouped: dict[tuple[str, int], list[int]] = defaultdict(list)
    for number, document in enumerate(corpus.documents):
        if corpus.sources[document.source].heldout:
            grouped[document.language, document.source].append(number)
    cursors = []
    for language in languages:
        groups = {key: files for key, files in grouped.items() if key[0] == language}
        for rank, ((_, source), files) in enumerate(sorted(groups.items())):
            share = count // len(groups) + (rank < count % len(groups))
            sizes = np.asarray([len(re.sub(r"\s+", "", corpus.documents[f].text)) for f in files], float)
            for pick in rng.choice(len(files), share, p=sizes / sizes.sum()):
                document = corpus.documents[files[int(pick)]]
                at = int(rng.integers(len(document.text)))
                while document.text[at].isspace():
                    at = int(rng.integers(len(document.text)))
                end = spans.line_end(document.text, at)
                cursors.append(Cursor(corpus.sources[source].name, language, document.path, document.text, at, end))
    return cursors


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean in per cent with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1f} ({self.low:.1f} to {self.high:.1f})"


def bootstrap(values: npt.NDArray[np.float64], clusters: Sequence[str], seed: int = 5) -> Estimate:
    """Mean of `values` times 100, resampled by cluster."""
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(index, values, len(names))
    counts = np.bincount(index, minlength=len(names)).astype(float)
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(names), size=(_RESAMPLES, len(names)))
    means = sums[picks].sum(1) / counts[picks].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Estimate(100 * float(values.mean()), 100 * float(low), 100 * float(high))


def _budget(model: Model, window: int) -> tuple[int, int]:
    window = min(window, model.shape.positions)
    return window, min(spans.MAX_SUFFIX, window // 8)


def answers(
    model: Model, vocabulary: Vocabulary, cursors: Sequence[Cursor], layout: Layout, *, window: int = 2_048, batch: int = 16,
    progress: Callable[[float], None] = lambda _share: None,
) -> list[str]:  # fmt: skip
    """What a model writes at each cursor, up to the end of the line."""
    size, suffix = _budget(model, window)
    prompts = [
        samples.prompt(vocabulary, c.text, c.at, c.end, layout, window=size, suffix=suffix, path=c.path)
        for c in cursors
    ]
    return complete_lines(model, vocabulary, prompts, batch=batch, progress=progress)


def matches(cursors: Sequence[Cursor], written: Sequence[str]) -> npt.NDArray[np.float64]:
    """1 where the rest of the line is exactly right, blanks at its end aside."""
    return np.asarray([float(c.truth.rstrip() == w.rstrip()) for c, w in zip(cursors, written, strict=True)])


def similarity(cursors: Sequence[Cursor], written: Sequence[str]) -> float:
    """Mean edit similarity in per cent."""
    ratios = [
        SequenceMatcher(None, c.truth.rstrip(), w.rstrip(), autojunk=False).ratio()
        for c, w in zip(cursors, written, strict=True)
    ]
    return 100 * float(np.mean(ratios))


def measure(
    models: dict[str, tuple[Model, Vocabulary]], cursors: Sequence[Cursor], layouts: Sequence[Layout], *, window: int = 2_048,
    batch: int = 16, tell: Callable[[str], None] = lambda _line: None,
) -> dict[str, Any]:  # fmt: skip
    """Score every model under every layout, by language, with differences to the first model where there are several.

    The files' names are what the bootstrap resamples.
    """
    clusters = [f"{c.package}/{c.path}" for c in cursors]
    languages = sorted({c.language for c in cursors})
    hits: dict[tuple[str, str], npt.NDArray[np.float64]] = {}
    rows = []
    for layout in layouts:
        for name, (model, vocabulary) in models.items():
            written = answers(model, vocabulary, cursors, layout, window=window, batch=batch)
            found = hits[name, layout] = matches(cursors, written)
            for language in languages:
                here = [i for i, c in enumerate(cursors) if c.language == language]
                row = {
                    "model": name, "layout": str(layout), "language": language, "holes": len(here),
                    "exact": _as_dict(bootstrap(found[here], [clusters[i] for i in here])),
                    "similarity": round(similarity([cursors[i] for i in here], [written[i] for i in here]), 1),
                }  # fmt: skip
                first = next(iter(models))
                if name != first:
                    gain = hits[first, layout][here] - found[here]
                    row["first_minus_this"] = _as_dict(bootstrap(gain, [clusters[i] for i in here]))
                rows.append(row)
                tell(_sentence(row))
    packages = sorted({c.package for c in cursors})
    return {"packages": packages, "window": window, "rows": rows}


def _as_dict(estimate: Estimate) -> dict[str, float]:
    return {"value": round(estimate.value, 2), "low": round(estimate.low, 2), "high": round(estimate.high, 2)}


def _sentence(row: dict[str, Any]) -> str:
    exact = Estimate(**row["exact"])
    gain = row.get("first_minus_this")
    more = f"; the first model is ahead by {Estimate(**gain)}" if gain else ""
    return (
        f"{row['model']:>20}  {row['layout']:<8}  {row['language']:<10}  {row['holes']:>5} holes  exact {exact}  "
        f"similarity {row['similarity']:.1f}{more}"
    )


def load(folder: Path, device: str = "cpu") -> tuple[Model, Vocabulary]:
    """A model folder, ready to be scored."""
    model = export.read(folder).to(device).eval()
    return model, Vocabulary.read(folder / "tokenizer.json")

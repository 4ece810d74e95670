"""How good a completion is, as numbers about texts; and how sure one may be of their means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein

from lsp_server.rules.languages import Language
from lsp_server.rules.syntax import mistakes

RESAMPLES = 2_000
_ORDER, _BETA = 6, 2.0
_AROUND = 12_000  # characters each side of the cursor that are parsed


def normal(text: str) -> str:
    """Without blanks at line ends and around: nobody sees them."""
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()


def exact(shown: str, truth: str) -> bool:
    """Whether the completion is what stood there, blanks at line ends aside."""
    return normal(shown) == normal(truth)


def edit_similarity(shown: str, truth: str) -> float:
    """1 - Levenshtein distance / length of the longer, in [0, 1]."""
    return float(Levenshtein.normalized_similarity(normal(shown), normal(truth)))


def chrf(shown: str, truth: str) -> float:
    """chrF2 (Popovic 2015) in [0, 1]: F-score of character n-grams up to 6, blanks left out, recall weighed twice."""
    ours, theirs = "".join(shown.split()), "".join(truth.split())
    if not ours or not theirs:
        return float(ours == theirs)
    precisions, recalls = [], []
    for n in range(1, _ORDER + 1):
        a = Counter(ours[i : i + n] for i in range(len(ours) - n + 1))
        b = Counter(theirs[i : i + n] for i in range(len(theirs) - n + 1))
        if not a or not b:
            break
        common = (a & b).total()
        precisions.append(common / a.total())
        recalls.append(common / b.total())
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    weighed = _BETA**2 * precision + recall
    return (1 + _BETA**2) * precision * recall / weighed if weighed else 0.0


def overruns(shown: str, truth: str) -> bool:
    """Over-generation: more lines than stood there, or all that stood there and more."""
    shown, truth = normal(shown), normal(truth)
    return shown != truth and (shown.count("\n") > truth.count("\n") or shown.startswith(truth))


def repeats_surroundings(shown: str, prefix: str, suffix: str) -> bool:
    """Whether accepting it doubles what stands right of the cursor, or makes a line that is the next one with text.

    Brackets right of the cursor are doubled if the completion closes more of them than it opens.
    """
    text, (rest, _, below) = shown.rstrip(), suffix.partition("\n")
    rest = rest.strip()
    if rest:
        if "\n" in text or not text.endswith(rest):
            return False
        return rest[0] not in ")]}" or any(text.count(b) > text.count(a) for a, b in ("()", "[]", "{}") if b in rest)
    following = next((line.strip() for line in below.split("\n") if line.strip()), "")
    last = (prefix.rpartition("\n")[2] + text).rpartition("\n")[2].strip()
    return len(following) > 3 and last == following


def breaks(shown: str, language: Language, prefix: str, suffix: str, truth: str) -> bool | None:
    """Whether the file with the completion parses worse than with what stood there; None without a grammar."""
    above = prefix[-_AROUND:]
    above = above[above.find("\n") + 1 :] if len(above) < len(prefix) else above
    below = suffix[:_AROUND]
    below = below[: below.rfind("\n") + 1] if len(below) < len(suffix) else below
    found, before = mistakes(language, above + shown + below), mistakes(language, above + truth + below)
    return None if found is None or before is None else found > before


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % interval by bootstrap."""

    mean: float
    low: float
    high: float
    n: int


def estimate(values: Sequence[float | None], clusters: Sequence[str], seed: int = 5) -> Estimate | None:
    """Mean over the values that are there, resampled by cluster, so that holes of one file do not count as independent.

    A difference is paired when `values` are differences hole by hole.
    """
    kept = [(value, cluster) for value, cluster in zip(values, clusters, strict=True) if value is not None]
    if not kept:
        return None
    numbers: npt.NDArray[np.float64] = np.asarray([value for value, _ in kept], dtype=np.float64)
    names, index = np.unique(np.asarray([cluster for _, cluster in kept]), return_inverse=True)
    sums = np.bincount(index, numbers, len(names))
    counts = np.bincount(index, minlength=len(names)).astype(float)
    picks = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[picks].sum(1) / counts[picks].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Estimate(float(numbers.mean()), float(low), float(high), len(kept))


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """The chance that one of `k` out of `samples` answers is right, unbiased (Chen et al. 2021, equation 1)."""
    if samples - correct < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(samples - correct + 1, samples + 1)))

"""The corpus builder: manifest in, one packed file out, by one command.

Packages are fetched, gated by licence, filtered, scrubbed, de-duplicated (within themselves, against each other, and the
held-out part against the training part), capped, and packed together with the vocabulary learned from them.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import licences
from engine.training import bpe, dedup, languages, packed, sources
from engine.training.console import say
from engine.training.manifest import Manifest, Package
from engine.training.packed import Corpus, Document, Source
from engine.training.scrub import scrub

_BPE_CHARACTERS = 36_000_000
"""The vocabulary is learned from a sample of this size, spread over languages like the training mix."""

_TEST_SHARE = 0.25


@dataclass(slots=True)
class Harvest:
    """What one package gave."""

    source: Source
    allowed: bool
    files: list[tuple[str, str, str, dedup.Hashes, dedup.Hashes]] = field(default_factory=list)
    """Language, path, text, shingles, signature."""

    refused: Counter[str] = field(default_factory=Counter)
    masked: int = 0


def harvest(package: Package, cache: Path) -> Harvest:
    """All acceptable files of one package; SourceError if it cannot be had."""
    return harvest_opened(sources.open_package(package, cache))


def harvest_opened(opened: sources.Opened, enough: float = math.inf) -> Harvest:
    """The same for a package that is already open; stops when it has `enough` characters."""
    package = opened.package
    licence = opened.licence
    source = Source(package.name, package.registry, opened.version, licence.expression, licence.source, package.heldout)
    found = Harvest(source, licence.allowed)
    if not licence.allowed:
        return found
    # The vendored crates of a Rust program are upstream releases that stand nowhere else in the corpus.
    vendored_too = "rust" in package.languages
    for path, data in opened.members:
        language = languages.language_of(path)
        if language == "c" and "cpp" in package.languages:
            language = "cpp"
        if language not in package.languages or (package.only and not path.startswith(package.only)):
            continue
        text = languages.normalise(data)
        reason = "encoding" if text is None else languages.refusal(path, text, vendored=not vendored_too)
        if reason is None and (not opened.file_allowed(path) or licences.refuses((text or "")[:3_000])):
            reason = "licence"
        if reason is not None or text is None:
            found.refused[reason or "encoding"] += 1
            continue
        text, masked = scrub(text)
        found.masked += masked
        enough -= len(text)
        if enough < 0:
            break
        shingles = dedup.shingles(text)
        found.files.append((language, path, text, shingles, dedup.signature(shingles)))
    return found


def _try_harvest(package: Package, cache: Path) -> Harvest | str:
    try:
        return harvest(package, cache)
    except (sources.SourceError, OSError, ValueError, KeyError) as error:
        return f"{package.name}: {error}"


def select(found: Harvest, package: Package, seen: dedup.NearDuplicates) -> list[tuple[str, str, str, dedup.Hashes]]:
    """New files of one package up to its cap: source first, then tests; an order that no file system decides."""
    room = package.megabytes * 1e6
    tests = room * _TEST_SHARE
    chosen = []

    def order(item: tuple[str, str, str, dedup.Hashes, dedup.Hashes]) -> tuple[bool, str]:
        return languages.is_test(item[1]), hashlib.sha256(item[1].encode()).hexdigest()

    for language, path, text, shingles, signature in sorted(found.files, key=order):
        test = languages.is_test(path)
        if len(text) > room or (test and len(text) > tests):
            found.refused["cap"] += 1
            continue
        if seen.seen(signature):
            found.refused["duplicate"] += 1
            continue
        room -= len(text)
        tests -= len(text) if test else 0
        chosen.append((language, path, text, shingles))
    # Neighbours in a folder share names: next to each other they pack better and make better windows.
    return sorted(chosen, key=lambda item: item[1])


def assemble(harvests: Sequence[tuple[Package, Harvest]]) -> tuple[list[Source], list[Document], dict[str, Any]]:
    """De-duplicate, cap and split -> sources, documents, figures."""
    seen = dedup.NearDuplicates()
    kept: list[Source] = []
    documents: list[Document] = []
    body: list[dedup.Hashes] = []
    refused: Counter[str] = Counter()
    copies: dedup.Copies | None = None
    # The training part comes first, so that a file in both parts leaves the held-out one.
    for package, found in sorted(harvests, key=lambda pair: pair[0].heldout):
        chosen = select(found, package, seen)
        if package.heldout:
            copies = copies or dedup.Copies(body)
            fresh = [item for item in chosen if copies.share(item[3]) < dedup.COPIED]
            found.refused["copied"] += len(chosen) - len(fresh)
            chosen = fresh
        else:
            body.extend(item[3] for item in chosen)
        refused += found.refused
        if chosen:
            kept.append(found.source)
            documents += [Document(len(kept) - 1, language, path, text) for language, path, text, _ in chosen]
    figures: dict[str, Any] = {
        "refused": dict(refused.most_common()),
        "masked": sum(found.masked for _, found in harvests),
        "characters": {
            part: dict(Counter(_by_language(d for d in documents if kept[d.source].heldout is held)).most_common())
            for part, held in (("training", False), ("heldout", True))
        },
    }
    return kept, documents, figures


def _by_language(documents: Iterable[Document]) -> Counter[str]:
    totals: Counter[str] = Counter()
    for document in documents:
        totals[document.language] += len(document.text)
    return totals


def sample_for_bpe(documents: Sequence[Document], characters: int = _BPE_CHARACTERS) -> list[str]:
    """Every n-th file of each language, about the share of it that training will show: half Python, the rest alike."""
    by_language: dict[str, list[str]] = {}
    for document in documents:
        by_language.setdefault(document.language, []).append(document.text)
    texts = []
    for language, files in sorted(by_language.items()):
        share = 0.5 if language == "python" else 0.5 / max(1, len(by_language) - ("python" in by_language))
        step = max(1, round(sum(map(len, files)) / max(1.0, share * characters)))
        texts += files[::step]
    return texts


def build(manifest: Manifest, out: Path, cache: Path, *, workers: int = 2, vocabulary: int = bpe.VOCABULARY) -> Corpus:
    """Fetch, filter and pack everything; says as it goes what came in and what stayed out, and why."""
    started = time.monotonic()

    def passed() -> str:
        return f"{time.monotonic() - started:4.0f} s"

    say(f"{passed()}  fetching {len(manifest.packages)} packages")
    sources.prefetch(list(manifest.packages), cache)
    say(f"{passed()}  reading them")
    harvests = []
    unavailable = []
    with ProcessPoolExecutor(workers) as pool:
        for package, result in zip(
            manifest.packages, pool.map(_try_harvest, manifest.packages, [cache] * len(manifest.packages)), strict=True
        ):
            if isinstance(result, str):
                unavailable.append(result)
                say(f"        left out  {result}")
            elif not result.allowed:
                say(f"        left out  {package.name}: licence {result.source.licence!r}")
                unavailable.append(f"{package.name}: licence {result.source.licence}")
            else:
                harvests.append((package, result))
    say(f"{passed()}  removing duplicates")
    kept, documents, figures = assemble(harvests)
    figures["left_out"] = unavailable
    training = [d for d in documents if not kept[d.source].heldout]
    say(f"{passed()}  learning the vocabulary")
    tokenizer = bpe.train(sample_for_bpe(training), vocabulary)
    count = bpe.Vocabulary(tokenizer).count
    figures["tokens"] = {
        "training": count([d.text for d in training]),
        "heldout": count([d.text for d in documents if kept[d.source].heldout]),
    }
    say(f"{passed()}  packing {len(documents)} files, {sum(len(d.text) for d in documents) / 1e6:.0f} MB")
    corpus = Corpus(kept, documents, tokenizer, figures)
    out.parent.mkdir(parents=True, exist_ok=True)
    size = packed.write(corpus, out, streams=workers)
    out.with_suffix(".licences.md").write_text(packed.licence_table(kept) + "\n", encoding="utf-8")
    say(f"{passed()}  {out}: {size / 1e6:.1f} MB")
    say(
        f"        training {figures['tokens']['training'] / 1e6:.1f} M tokens, "
        f"held out {figures['tokens']['heldout'] / 1e6:.1f} M"
    )
    for part, mix in figures["characters"].items():
        say(f"        {part}: " + ", ".join(f"{language} {size / 1e6:.1f} MB" for language, size in mix.items()))
    say(f"        files refused: {figures['refused']}; masked: {figures['masked']}")
    return corpus


def add_installed(corpus: Corpus, manifest: Manifest, *, workers: int = 4, megabytes: float = 6.0) -> dict[str, int]:
    """Add the training machine's own packages, after the same gates -> characters added by each.

    Nothing that resembles a held-out file comes in, nor a package of a held-out name.
    """
    present = {source.name.lower() for source in corpus.sources} | manifest.heldout()
    names = [name for name in manifest.installed if name.lower() not in present]
    seen = dedup.NearDuplicates()
    with ProcessPoolExecutor(workers) as pool:
        # The packages first: the longest of them decides how long this takes.
        found = pool.map(_harvest_installed, names, [megabytes] * len(names))
        known = list(pool.map(_fingerprints, [d.text for d in corpus.documents], chunksize=128))
        results = list(found)
    heldout = dedup.Copies(
        h for (h, _), d in zip(known, corpus.documents, strict=True) if corpus.sources[d.source].heldout
    )
    for _, signature in known:
        seen.seen(signature)
    added: dict[str, int] = {}
    for name, result in zip(names, results, strict=True):
        if result is None or not result.allowed:
            continue
        package = Package(name, "installed", result.source.version, ("python",), megabytes=megabytes)
        chosen = [item for item in select(result, package, seen) if heldout.share(item[3]) < dedup.COPIED]
        if chosen:
            corpus.sources.append(result.source)
            at = len(corpus.sources) - 1
            corpus.documents += [Document(at, language, path, text) for language, path, text, _ in chosen]
            added[name] = sum(len(text) for _, _, text, _ in chosen)
    return added


def _fingerprints(text: str) -> tuple[dedup.Hashes, dedup.Hashes]:
    shingles = dedup.shingles(text)
    return shingles, dedup.signature(shingles)


def _harvest_installed(name: str, megabytes: float) -> Harvest | None:
    try:
        return harvest_opened(sources.open_installed(name, megabytes), enough=1.3e6 * megabytes)
    except (sources.SourceError, OSError, ValueError):
        return None

"""`starfill eval`: options in, tables, JSON and a picture out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engine.errors import CheckpointError, StarfillError
from engine.models import STARTER_ID, locate
from lsp_server.calibration import LEAST, LEAST_IN_PROSE
from lsp_server.engines import Engine, connect
from lsp_server.evaluation.folders import Folders
from lsp_server.evaluation.holes import Hole, Kind, cut
from lsp_server.evaluation.passing import figures, solve
from lsp_server.evaluation.picture import draw
from lsp_server.evaluation.report import Estimates, as_row, differences, show, summarise
from lsp_server.evaluation.runner import Result, Runner, reshape, window_of
from lsp_server.evaluation.sandbox import isolation
from lsp_server.evaluation.sources import read_sources
from lsp_server.evaluation.suites import PASS_SUITES, card_figure, read_holes, read_problems
from lsp_server.evaluation.tape import Recording, Tape
from lsp_server.features.neighbours import budget_of
from lsp_server.settings import Settings, load_settings
from lsp_server.shaping import ALL_RULES, Rule
from lsp_server.state.ask import Surroundings
from lsp_server.state.policy import PLAIN, Policy

LAYOUTS = ("anchored", "spm", "psm")
CONTEXTS = ("files", "path")
"""Where context can come from: other files of the same folder, as if they were open; the document's own path."""

HOLES = 200
"""As many as are cut into files where nobody says how many."""

_WINDOW = 2_048  # tokens, of a model that does not say how many it has


@dataclass(frozen=True, slots=True)
class Options:
    """What to evaluate, and how."""

    paths: tuple[Path, ...]
    holes: int | None = None
    """How many; None is `HOLES` of files, and all of a suite."""
    seed: int = 0
    kinds: tuple[Kind, ...] = tuple(Kind)
    languages: tuple[str, ...] = ()
    layout: str | None = None
    max_tokens: int | None = None
    ablate: bool = False
    automatic: bool = True
    json_file: Path | None = None
    picture: Path | None = None
    recording: Path | None = None
    suite: str | None = None
    run_code: bool = False
    contexts: frozenset[str] = frozenset()
    samples: int = 1
    prompted: bool = False
    temperature: float = 0.2

    @property
    def whole_suite(self) -> bool:
        """Whether nothing of a suite is left out but languages."""
        return self.holes is None and set(self.kinds) == set(Kind)


def kinds_of(names: Sequence[str]) -> tuple[Kind, ...]:
    """Kinds by name, all for none; raises StarfillError for one that is not known."""
    unknown = [name for name in names if name not in set(Kind)]
    if unknown:
        raise StarfillError(f"--kind {unknown[0]}: write one of {', '.join(Kind)}")
    return tuple(Kind(name) for name in names) or tuple(Kind)


def layout_of(name: str | None) -> str | None:
    """A layout by name; raises StarfillError for one that is not known."""
    if name not in (None, "auto", *LAYOUTS):
        raise StarfillError(f"--layout {name}: write one of auto, {', '.join(LAYOUTS)}")
    return name


def contexts_of(names: Sequence[str]) -> frozenset[str]:
    """Sources of context by name; raises StarfillError for one that is not known."""
    for name in names:
        if name not in CONTEXTS:
            raise StarfillError(f"--context {name}: write one of {', '.join(CONTEXTS)}")
    return frozenset(names)


async def evaluate(options: Options, flags: Mapping[str, Any], console: Console) -> dict[str, Any]:
    """Run it -> the JSON row."""
    if options.prompted and options.suite not in PASS_SUITES:
        raise StarfillError(f"--prompted is for suites with tests: --suite {', '.join(PASS_SUITES)}")
    if options.suite in PASS_SUITES:
        return await evaluate_passing(options.suite, options, flags, console)
    return await evaluate_holes(cut_holes(options), options, flags, console)


def cut_holes(options: Options) -> list[Hole]:
    """The holes that the options name; raises StarfillError when there are none."""
    if options.suite is not None:
        read = [hole for path in options.paths for hole in read_holes(options.suite, path)]
        mine = [hole for hole in read if hole.kind in options.kinds and _wanted(hole.language.id, options)]
        holes = mine[: options.holes]
    else:
        sources = [source for source in read_sources(options.paths) if _wanted(source.language.id, options)]
        holes = cut(sources, options.holes or HOLES, options.kinds, options.seed)
    if not holes:
        raise StarfillError("no holes of these kinds in files of these languages; leave --kind or --language out")
    return holes


async def evaluate_holes(
    holes: Sequence[Hole], options: Options, flags: Mapping[str, Any], console: Console
) -> dict[str, Any]:
    """Complete the holes with everything on, then with each thing switched off in turn if that is asked for."""
    settings = load_settings(flags)
    engine, model = _engine(settings, options.recording)
    max_tokens = options.max_tokens or settings.max_tokens
    policy = _policy(settings)
    variants: dict[str, list[Result]] = {}
    layouts = [name for name in LAYOUTS if name != (options.layout or "anchored")] if options.ablate else []
    try:
        tape = Tape(engine, layout=options.layout, whole=options.ablate, file=options.recording, model=model)
        await tape.begin()
        found = await _run(tape, holes, max_tokens, options, options.contexts, policy, console, "completing")
        variants["everything"] = [result for result, _ in found]
        if options.ablate:
            variants |= _without_rules(found, policy, invoked=not options.automatic)
        for layout in layouts:
            other = Tape(engine, layout=layout, whole=True, file=options.recording, model=model)
            found = await _run(other, holes, max_tokens, options, options.contexts, policy, console, layout)
            variants[f"layout {layout}"] = [result for result, _ in found]
        for source in sorted(options.contexts) if options.ablate else ():
            found = await _run(tape, holes, max_tokens, options, options.contexts - {source}, policy, console, source)
            variants[f"context {source}"] = [result for result, _ in found]
    finally:
        if engine is not None:
            await engine.aclose()
    base, *others = variants
    gains: dict[str, Estimates] = {name: differences(variants[base], variants[name]) for name in others}
    groups = [group for name in (base, *(f"layout {layout}" for layout in layouts))
              for group in summarise(name, variants[name])]  # fmt: skip
    cards = {
        group.language: figure
        for group in groups
        if options.suite
        and options.whole_suite
        and (figure := card_figure(model, options.suite, group.language)) is not None
    }
    about = {
        "question": "completion quality",
        "suite": options.suite,
        "model_card": cards,
        "model": model,
        "layout": options.layout or "auto",
        "context": sorted(options.contexts),
        "max_tokens": max_tokens,
        "seed": options.seed,
        "holes": len(holes),
    }
    row = as_row(groups, gains, about)
    show(console, groups, gains)
    for language, figure in cards.items():
        console.print(f"the model card says {figure} % exact match for {language}; its harness counts in its own way")
    _write(row, options)
    if options.picture is not None:
        options.picture.write_text(draw(groups, gains, f"{model}: {len(holes)} holes"), encoding="utf-8")
    return row


async def evaluate_passing(suite: str, options: Options, flags: Mapping[str, Any], console: Console) -> dict[str, Any]:
    """pass@k of a left-to-right suite -> the JSON row; raises StarfillError unless running its programs was allowed."""
    if not options.run_code:
        raise StarfillError(f"--suite {suite} runs programs that the model wrote; add --run-code if that is all right")
    if set(options.kinds) != set(Kind):
        raise StarfillError(f"--kind is for holes; --suite {suite} has none")
    read = [problem for path in options.paths for problem in read_problems(suite, path)]
    problems = [problem for problem in read if _wanted(problem.language, options)][: options.holes]
    if not problems:
        raise StarfillError(f"no problems in {', '.join(options.languages) or 'these files'}; leave --language out")
    settings = load_settings(flags)
    engine, model = connect(settings, trust_folder=True), _model(settings)
    if (warning := isolation().warning) is not None:
        console.print(warning, style="yellow")
    try:
        await engine.ready(invoked=True, progress=None)
        with _bar(console) as (start, advance):
            start("solving", len(problems))
            solved = await solve(
                engine,
                problems,
                options.samples,
                temperature=options.temperature,
                prompted=options.prompted,
                advance=advance,
            )
    finally:
        await engine.aclose()
    row: dict[str, Any] = {
        "question": "pass@k", "suite": suite, "model": model, "samples": options.samples, "prompted": options.prompted,
        "pass": {},
    }  # fmt: skip
    for (language, k), value in figures(solved, options.samples).items():
        beside_card = k == 1 and not options.prompted and options.whole_suite
        figure = card_figure(model, suite, language) if beside_card else None
        row["pass"][f"{language} pass@{k}"] = {
            "value": round(100 * value.mean, 2), "low": round(100 * value.low, 2), "high": round(100 * value.high, 2),
            "n": value.n, "model_card": figure,
        }  # fmt: skip
        beside = "" if figure is None else f"; the model card says {figure}"
        low, high = 100 * value.low, 100 * value.high
        console.print(
            f"{language} pass@{k}: {100 * value.mean:.1f} ({low:.1f} to {high:.1f}, {value.n} problems){beside}"
        )
    _write(row, options)
    return row


def _wanted(language: str, options: Options) -> bool:
    return not options.languages or language in options.languages


def _model(settings: Settings) -> str:
    return (locate(settings.model).id if settings.engine == "auto" else settings.model) or STARTER_ID


def _engine(settings: Settings, recording: Path | None) -> tuple[Engine | None, str]:
    """The engine that the settings name, and its model's id. None for a model that is gone, if there is a recording."""
    try:
        return connect(settings, trust_folder=True), _model(settings)
    except CheckpointError:
        if recording is None or settings.model is None or not recording.exists():
            raise
        return None, settings.model


async def _run(
    tape: Tape,
    holes: Sequence[Hole],
    max_tokens: int,
    options: Options,
    contexts: frozenset[str],
    policy: Policy,
    console: Console,
    what: str,
) -> list[tuple[Result, Recording | None]]:
    surroundings = _surroundings(options, contexts, tape.window)
    runner = Runner(max_tokens, automatic=options.automatic, context=surroundings, policy=policy)
    with _bar(console) as (start, advance):
        start(what, len(holes))
        return await runner.run(holes, tape, advance)


@contextmanager
def _bar(console: Console) -> Iterator[tuple[Callable[[str, int], None], Callable[[], None]]]:
    """A progress bar on a terminal, nothing elsewhere -> how to begin it, and how to take a step."""
    if not console.is_terminal:
        yield (lambda _what, _total: None), (lambda: None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield (
            lambda what, total: progress.update(task, description=what, total=total),
            lambda: progress.advance(task),
        )


def _write(row: Mapping[str, Any], options: Options) -> None:
    if options.json_file is not None:
        with options.json_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _without_rules(
    found: Sequence[tuple[Result, Recording | None]], policy: Policy, *, invoked: bool
) -> dict[str, list[Result]]:
    """The same generations without each rule, and without the bound on confidence; where the model was not asked, it would
    not be without the rule either.
    """
    off: dict[str, tuple[frozenset[Rule], Policy | None]] = {
        **{f"rule {rule}": (ALL_RULES - {rule}, policy) for rule in sorted(ALL_RULES)},
        "confidence": (ALL_RULES, None),
    }
    variants: dict[str, list[Result]] = {name: [] for name in off}
    for result, recording in found:
        window = window_of(result.hole)
        for name, (rules, bound) in off.items():
            hole = result.hole
            shaped = reshape(hole, recording, rules, window, invoked=invoked, policy=bound) if recording else result
            variants[name].append(shaped)
    return variants


def _policy(settings: Settings) -> Policy:
    """What of the settings says how sure the model has to be; what this user has accepted so far plays no part."""
    wanted = settings.min_confidence
    least, in_prose = (LEAST, LEAST_IN_PROSE) if wanted == "auto" else (wanted, wanted)
    return replace(PLAIN, min_confidence=least, min_in_prose=in_prose)


def _surroundings(
    options: Options, contexts: frozenset[str], model_window: int | None
) -> Callable[[Hole], Surroundings]:
    """What the language server would say of a document with these sources of context, and what a suite brings with it."""
    open_files = "files" in contexts and options.suite is None
    folders = Folders(read_sources(options.paths) if open_files else (), budget_of(model_window or _WINDOW))

    def around(hole: Hole) -> Surroundings:
        path = hole.path if "path" in contexts else None
        return Surroundings(path=path, language=hole.language.id, context=hole.context + folders.around(hole))

    return around

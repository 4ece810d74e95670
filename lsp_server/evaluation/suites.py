"""Published suites, read from files that the user has: holes for fill-in-the-middle, problems with tests for left to right.

Field names are those of the suites' own files: `openai/human-eval-infilling`, `bigcode/santacoder-fim-task`,
`gonglinyuan/safim`, `tianyang/repobench_*_v1.1`, `amazon-science/cceval`, `openai/human-eval`, MBPP, `nuprl/MultiPL-E`.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import StarfillError
from lsp_server.evaluation.holes import Hole, Kind
from lsp_server.rules.languages import by_id, by_path

_SAFIM_HOLES = ("{{completion}}", "# TODO: Your code here", "/* TODO: Your code here */", "// TODO: Your code here")
_HUMAN_EVAL_STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\n@")
_MBPP_STOPS = ("\nclass ", "\nassert ", '\n"""', "\nprint(", "\nif ", "\n#")
_SHORT = {"py": "python", "js": "javascript", "ts": "typescript", "rs": "rust", "cs": "csharp", "rb": "ruby", "sh": "bash",
          "jl": "julia", "pl": "perl", "rkt": "racket", "hs": "haskell", "kt": "kotlin"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Problem:
    """A text to continue from left to right, and the program that says whether the continuation is right."""

    name: str
    language: str
    prompt: str
    stops: tuple[str, ...]
    tests: str

    def program(self, completion: str) -> str:
        """What is run: it exits with 0 if the tests pass."""
        ends = [at for stop in self.stops if (at := completion.find(stop)) >= 0]
        body = completion[: min(ends)] if ends else completion
        return f"{self.prompt}{body}\n{self.tests}\n"


def read_holes(suite: str, file: Path) -> list[Hole]:
    """The holes of a fill-in-the-middle suite; raises StarfillError naming file, line and field where it is another."""
    reader = FIM_SUITES.get(suite)
    if reader is None:
        raise StarfillError(f"--suite {suite}: write one of {', '.join((*FIM_SUITES, *PASS_SUITES))}")
    return [_read(reader, entry, file, number) for number, entry in _entries(file)]


def read_problems(suite: str, file: Path) -> list[Problem]:
    """The problems of a left-to-right suite."""
    return [_read(PASS_SUITES[suite], entry, file, number) for number, entry in _entries(file)]


def _read(reader: Callable[[Mapping[str, Any]], Any], entry: Mapping[str, Any], file: Path, number: int) -> Any:
    try:
        return reader(entry)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise StarfillError(f"{file}:{number}: not an entry of that suite ({type(error).__name__}: {error})") from error


def _entries(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Numbered objects of a JSON-lines file (gzip or not) or of a file with one JSON list."""
    try:
        data = file.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")
        if text.lstrip().startswith("["):
            yield from enumerate(json.loads(text), 1)
            return
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield number, json.loads(line)
    except OSError as error:
        raise StarfillError(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise StarfillError(f"{file}: neither JSON lines nor a JSON list ({error})") from error


def _hole(
    path: str, language: str, prefix: str, truth: str, suffix: str, context: tuple[tuple[str, str], ...] = ()
) -> Hole:
    line = prefix.rpartition("\n")[2]
    if "\n" in truth.strip():
        kind = Kind.BLOCK
    elif suffix.partition("\n")[0].strip():
        kind = Kind.INSIDE_LINE
    else:
        kind = Kind.REST_OF_LINE if line.strip() else Kind.LINE
    start = len(prefix)
    name = _SHORT.get(language, language)
    return Hole(path, by_id(name), kind, prefix + truth + suffix, start, start + len(truth), path, context)


def _human_eval_infilling(entry: Mapping[str, Any]) -> Hole:
    # The last part of an id is the hole's: those of one problem are no more independent than those of one file.
    problem = str(entry["task_id"]).rpartition("/")[0] or str(entry["task_id"])
    return _hole(problem, "python", entry["prompt"], entry["canonical_solution"], entry["suffix"])


def _santacoder_fim(entry: Mapping[str, Any]) -> Hole:
    name = str(entry.get("name", entry["language"]))
    return _hole(name, entry["language"], entry["prompt"], entry["canonical_solution"], entry["suffix"])


def _safim(entry: Mapping[str, Any]) -> Hole:
    text = entry["eval_prompt"] if _SAFIM_HOLES[0] in entry.get("eval_prompt", "") else entry["prompt"]
    sign = next((sign for sign in _SAFIM_HOLES if sign in text), None)
    if sign is None:
        raise KeyError(_SAFIM_HOLES[0])
    prefix, _, suffix = text.partition(sign)
    return _hole(entry["task_id"], entry["lang"], prefix, entry["ground_truth"], suffix)


def _repo_bench(entry: Mapping[str, Any]) -> Hole:
    prefix = f"{entry['import_statement']}\n{entry['cropped_code']}\n"
    context = tuple((piece["path"], piece["snippet"]) for piece in entry["context"])
    language = by_path(str(entry["file_path"])).id
    truth = str(entry["next_line"])
    blanks = truth[: len(truth) - len(truth.lstrip())]
    return _hole(entry["file_path"], language, prefix + blanks, truth.lstrip(), "\n", context)


def _cross_code_eval(entry: Mapping[str, Any]) -> Hole:
    about = entry["metadata"]
    found = entry.get("crossfile_context") or {}
    pieces = found.get("list", ()) if isinstance(found, Mapping) else ()
    context = tuple((piece["filename"], piece["retrieved_chunk"]) for piece in pieces)
    language = by_path(str(about["file"])).id
    return _hole(about["file"], language, entry["prompt"], entry["groundtruth"], entry["right_context"], context)


def _human_eval(entry: Mapping[str, Any]) -> Problem:
    tests = f"{entry['test']}\ncheck({entry['entry_point']})"
    return Problem(entry["task_id"], "python", entry["prompt"], _HUMAN_EVAL_STOPS, tests)


def _mbpp(entry: Mapping[str, Any]) -> Problem:
    text = entry.get("text") or entry["prompt"]
    setup = entry.get("test_setup_code") or "\n".join(entry.get("test_imports") or ())
    tests = "\n".join(entry["test_list"])
    prompt = f'"""\n{text}\n{tests}\n"""\n'
    return Problem(f"MBPP/{entry['task_id']}", "python", prompt, _MBPP_STOPS, f"{setup}\n{tests}")


def _multipl_e(entry: Mapping[str, Any]) -> Problem:
    language = _SHORT.get(entry["language"], entry["language"])
    return Problem(entry["name"], language, entry["prompt"], tuple(entry["stop_tokens"]), entry["tests"])


FIM_SUITES: dict[str, Callable[[Mapping[str, Any]], Hole]] = {
    "humaneval-infilling": _human_eval_infilling,
    "santacoder-fim": _santacoder_fim,
    "safim": _safim,
    "repobench": _repo_bench,
    "crosscodeeval": _cross_code_eval,
}
PASS_SUITES: dict[str, Callable[[Mapping[str, Any]], Problem]] = {
    "humaneval": _human_eval,
    "mbpp": _mbpp,
    "multipl-e": _multipl_e,
}

CARDS: dict[tuple[str, str], dict[str, float]] = {
    ("santacoder", "santacoder-fim"): {"python": 44.0, "java": 62.0, "javascript": 60.0},
    ("santacoder", "humaneval"): {"python": 18.0},
    ("starcoderbase-1b", "humaneval"): {"python": 15.2},
    ("starcoderbase", "humaneval"): {"python": 30.4},
    ("starcoder", "humaneval"): {"python": 33.6},
}
"""What the models' own cards say in per cent: exact match, and pass@1. Their harnesses cut and count in their own ways."""


def card_figure(model: str, suite: str, language: str) -> float | None:
    """The model card's figure for a suite, if one is known; models by the last part of their name."""
    return CARDS.get((model.lower().rpartition("/")[2], suite), {}).get(language)

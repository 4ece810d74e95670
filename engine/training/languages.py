"""Which files are source text that a person wrote: language by name; generated, minified, vendored and odd files out."""

from __future__ import annotations

import re

SUFFIXES = {
    ".py": "python",
    ".js": "javascript", ".mjs": "javascript", ".cjs": "javascript", ".jsx": "javascript",
    ".ts": "typescript", ".mts": "typescript", ".tsx": "typescript",
    ".java": "java",
    ".c": "c", ".h": "c",
    ".cc": "cpp", ".cpp": "cpp", ".cxx": "cpp", ".hpp": "cpp", ".hh": "cpp", ".hxx": "cpp",
    ".go": "go",
    ".rs": "rust",
}  # fmt: skip
NAMES = ("python", "javascript", "typescript", "java", "c", "cpp", "go", "rust")

_MIN_CHARACTERS, _MAX_CHARACTERS = 150, 250_000
_MAX_LINE, _MAX_MEAN_LINE = 1_000, 100
_VENDORED = re.compile(
    r"(?:^|/)(?:_?vendor(?:ed|ized)?|third[_-]?party|3rdparty|external?s?|node_modules|bower_components|deps|contrib/lib|"
    r"_dist|site-packages|\.pc|generated|gen)(?:/|$)",
    re.IGNORECASE,
)
_GENERATED_NAME = re.compile(
    r"(?:[.-]min\.|\.bundle\.|[._]pb2?(?:_grpc)?\.|\.pb\.|_generated\.|\.generated\.|zz_generated|\.d\.[mc]?ts$|parsetab|lextab|"
    r"_pb\.(?:js|ts)$|-lock\.|/testdata/|/test_data/|/fixtures/|/locale/|/snapshots?/|/corpus/|_sysconfigdata|pydoc_data)",
    re.IGNORECASE,
)
_GENERATED_TEXT = re.compile(
    r"(?:auto[- ]?generated|generated (?:by|from|code|file|with|using|automatically)|do not (?:edit|modify)|@generated|"
    r"this file (?:is|was) (?:automatically )?generated|machine[- ]generated|code generated)",
    re.IGNORECASE,
)
_TEST = re.compile(
    r"(?:^|/)(?:tests?|testing|testsuite|spec|__tests__|bench(?:marks?)?|examples?)/|[._/]test[._]|_test\.|/test_|\.spec\."
)


def language_of(path: str) -> str | None:
    """The language of a file by its name; None for what the corpus does not take."""
    dot = path.rfind(".")
    return SUFFIXES.get(path[dot:].lower()) if dot > path.rfind("/") else None


def is_test(path: str) -> bool:
    """Whether the path is that of a test, an example or a benchmark."""
    return bool(_TEST.search(path.lower()))


def refusal(path: str, text: str, *, vendored: bool = True) -> str | None:
    """Why a file stays out, in one word; None when it may come in. `vendored` also refuses copies of other packages."""
    if vendored and _VENDORED.search(path):
        return "vendored"
    if _GENERATED_NAME.search("/" + path):
        return "generated"
    if not _MIN_CHARACTERS <= len(text) <= _MAX_CHARACTERS:
        return "size"
    if _GENERATED_TEXT.search(text[:1_500]):
        return "generated"
    return _odd(text)


def _odd(text: str) -> str | None:
    lines = text.split("\n")
    longest = max(map(len, lines))
    if longest > _MAX_LINE or len(text) > _MAX_MEAN_LINE * len(lines):
        return "minified"
    sample = text[:20_000]
    letters = sum(map(str.isalpha, sample))
    if letters < 0.25 * len(sample):
        return "data"
    digits = sum(map(str.isdigit, sample))
    if digits > 0.25 * len(sample):
        return "data"
    unique = len(set(lines))
    if len(lines) > 60 and unique < 0.25 * len(lines):
        return "repetitive"
    return None


def normalise(data: bytes) -> str | None:
    """Decode a file: UTF-8 only, line ends as `\\n`, no byte-order mark, no control characters; None if it is not text."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    if "\x00" in text or "\ufffd" in text:
        return None
    return text.replace("\r\n", "\n").replace("\r", "\n")

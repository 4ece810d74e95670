"""The languages of The Stack and how editors name them: comment signs, file names, blocks, and who parses them.

A language without a grammar is shaped by its indentation and brackets. An id that stands in no row is plain text.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath

_C = ("/*", "*/")
_ML = ("(*", "*)")
_XML = ("<!--", "-->")


@dataclass(frozen=True, slots=True)
class Language:
    """One language. `id` is the LSP language id; `grammar` the tree-sitter module and its function, if one is installed."""

    id: str
    line_comment: str | None = None
    block_comment: tuple[str, str] | None = None
    suffixes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    grammar: tuple[str, str] | None = None
    indented: bool = False
    """Whether indentation alone ends a block."""


PLAIN = Language("plaintext")

_G = "language"
LANGUAGES: tuple[Language, ...] = (
    Language("ada", "--", None, (".adb", ".ads")),
    Language("agda", "--", ("{-", "-}"), (".agda",), indented=True),
    Language("alloy", "//", _C, (".als",)),
    Language("antlr", "//", _C, (".g4",)),
    Language("applescript", "--", _ML, (".applescript",)),
    Language("asm", ";", None, (".asm", ".s")),
    Language("augeas", None, _ML, (".aug",)),
    Language("awk", "#", None, (".awk",)),
    Language("bat", "REM ", None, (".bat", ".cmd")),
    Language("bison", "//", _C, (".bison",)),
    Language("bluespec", "//", _C, (".bsv",)),
    Language("c", "//", _C, (".c", ".h"), grammar=("tree_sitter_c", _G)),
    Language("clojure", ";", None, (".clj", ".cljs", ".cljc", ".edn")),
    Language("cmake", "#", ("#[[", "]]"), (".cmake",), ("CMakeLists.txt",)),
    Language("coffeescript", "#", ("###", "###"), (".coffee",), indented=True),
    Language("cpp", "//", _C, (".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx"), grammar=("tree_sitter_cpp", _G)),
    Language("csharp", "//", _C, (".cs",)),
    Language("css", None, _C, (".css",)),
    Language("cuda-cpp", "//", _C, (".cu", ".cuh"), grammar=("tree_sitter_cpp", _G)),
    Language("dart", "//", _C, (".dart",)),
    Language("dockerfile", "#", None, (".dockerfile",), ("Dockerfile", "Containerfile")),
    Language("elixir", "#", None, (".ex", ".exs")),
    Language("elm", "--", ("{-", "-}"), (".elm",), indented=True),
    Language("erlang", "%", None, (".erl", ".hrl")),
    Language("fortran", "!", None, (".f90", ".f95", ".f03", ".f")),
    Language("fsharp", "//", _ML, (".fs", ".fsi", ".fsx"), indented=True),
    Language("glsl", "//", _C, (".glsl", ".vert", ".frag")),
    Language("go", "//", _C, (".go",), grammar=("tree_sitter_go", _G)),
    Language("groovy", "//", _C, (".groovy", ".gradle"), ("Jenkinsfile",)),
    Language("haskell", "--", ("{-", "-}"), (".hs",), indented=True),
    Language("html", None, _XML, (".html", ".htm"), grammar=("tree_sitter_html", _G)),
    Language("idris", "--", ("{-", "-}"), (".idr",), indented=True),
    Language("isabelle", None, _ML, (".thy",)),
    Language("java", "//", _C, (".java",), grammar=("tree_sitter_java", _G)),
    Language("javascript", "//", _C, (".js", ".mjs", ".cjs"), grammar=("tree_sitter_javascript", _G)),
    Language("javascriptreact", "//", _C, (".jsx",), grammar=("tree_sitter_javascript", _G)),
    Language("json", None, None, (".json",)),
    Language("jsp", None, ("<%--", "--%>"), (".jsp",)),
    Language("julia", "#", ("#=", "=#"), (".jl",)),
    Language("kotlin", "//", _C, (".kt", ".kts")),
    Language("latex", "%", None, (".tex", ".sty", ".cls")),
    Language("lean", "--", ("/-", "-/"), (".lean",), indented=True),
    Language("lisp", ";", ("#|", "|#"), (".lisp", ".lsp", ".cl")),
    Language("emacs-lisp", ";", None, (".el",)),
    Language("literate-agda", "--", ("{-", "-}"), (".lagda",), indented=True),
    Language("literate-coffeescript", "#", ("###", "###"), (".litcoffee",), indented=True),
    Language("literate-haskell", "--", ("{-", "-}"), (".lhs",), indented=True),
    Language("lua", "--", ("--[[", "]]"), (".lua",)),
    Language("makefile", "#", None, (".mk",), ("Makefile", "makefile", "GNUmakefile")),
    Language("maple", "#", _ML, (".mpl",)),
    Language("markdown", None, _XML, (".md", ".markdown")),
    Language("mathematica", None, _ML, (".wl", ".nb")),
    Language("matlab", "%", ("%{", "%}"), (".matlab",)),
    Language("ocaml", None, _ML, (".ml", ".mli")),
    Language("pascal", "//", ("{", "}"), (".pas", ".pp", ".dpr")),
    Language("perl", "#", None, (".pl", ".pm")),
    Language("php", "//", _C, (".php",)),
    Language("powershell", "#", ("<#", "#>"), (".ps1", ".psm1")),
    Language("prolog", "%", _C, (".pro", ".prolog")),
    Language("proto", "//", _C, (".proto",)),
    Language("python", "#", None, (".py", ".pyi", ".pyw"), grammar=("tree_sitter_python", _G), indented=True),
    Language("r", "#", None, (".r",)),
    Language("racket", ";", ("#|", "|#"), (".rkt",)),
    Language("restructuredtext", "..", None, (".rst",), indented=True),
    Language("rmd", None, _XML, (".rmd",)),
    Language("ruby", "#", ("=begin", "=end"), (".rb",), ("Rakefile", "Gemfile")),
    Language("rust", "//", _C, (".rs",), grammar=("tree_sitter_rust", _G)),
    Language("sas", "*", _C, (".sas",)),
    Language("scala", "//", _C, (".scala", ".sbt")),
    Language("scheme", ";", ("#|", "|#"), (".scm", ".ss")),
    Language("shellscript", "#", None, (".sh", ".bash", ".zsh")),
    Language("smalltalk", None, ('"', '"'), (".st",)),
    Language("solidity", "//", _C, (".sol",)),
    Language("sparql", "#", None, (".rq", ".sparql")),
    Language("sql", "--", _C, (".sql",)),
    Language("stan", "//", _C, (".stan",)),
    Language("sml", None, _ML, (".sml", ".sig")),
    Language("stata", "//", _C, (".do", ".ado")),
    Language("systemverilog", "//", _C, (".sv", ".svh")),
    Language("tcl", "#", None, (".tcl",)),
    Language("tcsh", "#", None, (".tcsh", ".csh")),
    Language("thrift", "//", _C, (".thrift",)),
    Language(
        "typescript", "//", _C, (".ts", ".mts", ".cts"), grammar=("tree_sitter_typescript", "language_typescript")
    ),
    Language("typescriptreact", "//", _C, (".tsx",), grammar=("tree_sitter_typescript", "language_tsx")),
    Language("vb", "'", None, (".vb", ".bas")),
    Language("verilog", "//", _C, (".v", ".vh")),
    Language("vhdl", "--", None, (".vhd", ".vhdl")),
    Language("xsl", None, _XML, (".xsl", ".xslt")),
    Language("xml", None, _XML, (".xml", ".svg")),
    Language("yacc", "//", _C, (".y", ".yy")),
    Language("yaml", "#", None, (".yaml", ".yml"), grammar=("tree_sitter_yaml", _G), indented=True),
    Language("zig", "//", None, (".zig",)),
)
"""The Stack's languages under their LSP ids, and the dialects that editors tell apart."""

_ALIASES = {
    "assembly": "asm",
    "batchfile": "bat",
    "c++": "cpp",
    "c-sharp": "csharp",
    "common-lisp": "lisp",
    "cuda": "cuda-cpp",
    "f-sharp": "fsharp",
    "java-server-pages": "jsp",
    "jsx": "javascriptreact",
    "protobuf": "proto",
    "proto3": "proto",
    "protocol-buffer": "proto",
    "rmarkdown": "rmd",
    "sh": "shellscript",
    "bash": "shellscript",
    "zsh": "shellscript",
    "shell": "shellscript",
    "standard-ml": "sml",
    "tex": "latex",
    "tsx": "typescriptreact",
    "visual-basic": "vb",
    "xslt": "xsl",
    "yml": "yaml",
}


def by_id(language: str | None) -> Language:
    """The row of an LSP language id or of The Stack's own name; plain text for one that is not known."""
    key = (language or "").lower()
    return _by_id().get(_ALIASES.get(key, key), PLAIN)


def by_path(path: str) -> Language:
    """The row of a file by its name; plain text for one that is not known."""
    name = PurePosixPath(path.replace("\\", "/")).name
    by_name, by_suffix = _by_file()
    return by_name.get(name) or by_suffix.get(PurePosixPath(name).suffix.lower()) or PLAIN


@cache
def _by_id() -> dict[str, Language]:
    return {language.id: language for language in LANGUAGES}


@cache
def _by_file() -> tuple[dict[str, Language], dict[str, Language]]:
    names = {name: language for language in LANGUAGES for name in language.names}
    suffixes = {suffix: language for language in LANGUAGES for suffix in language.suffixes}
    return names, suffixes

"""From a program to machine code of this processor, and the team of threads that runs it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm
from llvmlite import ir

from engine.cpu_kernels.program import ENTRANCES, Program

_OPENMP = ("libgomp", "libomp", "libiomp5")
_WHAT_A_TEAM_NEEDS = ("GOMP_parallel", "GOMP_barrier", "omp_get_thread_num", "omp_get_num_threads")


class Team:
    """The threads of torch's own operations, through the OpenMP library that torch has loaded."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._parallel = library.GOMP_parallel
        self._parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        self._parallel.restype = None
        barrier, thread, threads = (
            ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in _WHAT_A_TEAM_NEEDS[1:]
        )
        self.barrier, self.thread, self.threads = barrier, thread, threads

    def run(self, function: int, table: int, threads: int) -> None:
        """Call `function(table)` on each of `threads` threads, this one among them, and wait for all."""
        self._parallel(function, table, threads, 0)


@cache
def team() -> Team | None:
    """None where torch's threads are of another kind."""
    for path in _loaded():
        if path.name.startswith(_OPENMP):
            library = ctypes.CDLL(str(path))
            if all(hasattr(library, name) for name in _WHAT_A_TEAM_NEEDS):
                return Team(library)
    return None


def _loaded() -> list[Path]:
    """The files that this process has mapped."""
    try:
        lines = Path("/proc/self/maps").read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    return list(dict.fromkeys(Path(line.split(maxsplit=5)[5]) for line in lines if "/" in line))


class Library:
    """A compiled module."""

    def __init__(self, module: ir.Module) -> None:
        """Raises RuntimeError where LLVM does not take it."""
        machine, parsed = _machine(), llvm.parse_assembly(str(module))
        parsed.triple, parsed.data_layout = machine.triple, str(machine.target_data)
        _simplify(parsed, machine)
        self._engine = llvm.create_mcjit_compiler(parsed, machine)
        self._engine.finalize_object()

    def address(self, name: str) -> int:
        """Where a function begins."""
        return int(self._engine.get_function_address(name))

    def function(self, name: str, *arguments: type) -> Callable[..., None]:
        """A function as Python calls it; other threads of Python run meanwhile."""
        return ctypes.CFUNCTYPE(None, *arguments)(self.address(name))


class Code:
    """A compiled program."""

    def __init__(self, program: Program) -> None:
        """Raises RuntimeError where LLVM does not take it."""
        self._library = library = Library(program.module())
        self._alone = {name: library.function(name, ctypes.c_void_p) for name in ENTRANCES}
        self._together = {name: library.address(f"{name}_team") for name in ENTRANCES}

    def run(self, name: str, table: int, threads: int) -> None:
        """Call one of `ENTRANCES` with the address of a table (see `program.Entry`); many `threads` need a team."""
        helpers = team() if threads > 1 else None
        if helpers is None:
            self._alone[name](table)
        else:
            helpers.run(self._together[name], table, threads)


def _simplify(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> None:
    """What the kernels leave to be done; LLVM's whole pipeline takes ten times as long and makes nothing faster."""
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    passes = llvm.create_new_function_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    for function in module.functions:
        if not function.is_declaration:
            passes.run(function, builder)


def _machine() -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2
    )


def processor() -> str:
    """By LLVM's name."""
    return str(llvm.get_host_cpu_name())


@cache
def features() -> frozenset[str]:
    """What the processor can do, by LLVM's names."""
    return frozenset(name for name, there in llvm.get_host_cpu_features().items() if there)

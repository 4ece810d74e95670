"""Compile every shipped launch for every capability, with no GPU: `python -m triton_kernels.check [--update | --sample N]`.

`compiled.json` holds, for each launch, registers, shared memory and the time that its traffic takes at the device's
bandwidth. Without an option the table is compared with the sources and its limits are checked, which compiles nothing;
`--sample N` also compiles N launches anew, spread over the table, and compares; `--update` compiles what has changed.
Exits with 1 and one line for each difference.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from triton_kernels.family import TARGETS, Case, cases
from triton_kernels.launch import DEPENDENT_FROM, Launch

TABLE = Path(__file__).with_name("compiled.json")
SHARED_LIMIT = {80: 163, 86: 99, 89: 99, 90: 227, 120: 99}
"""KiB that one program may use."""
BANDWIDTH = {80: 2039, 86: 360, 89: 1008, 90: 4800, 120: 1792}
"""GB/s by data sheet, of the devices in `family.TARGETS`."""
LAUNCH_MICROSECONDS = 1.0
"""What a kernel costs inside a captured graph, beside its traffic. An estimate until it is measured."""
PRODUCTS = ("attend_kernel", "skinny", "head_few")
"""Kernels that must use tensor cores."""
NARROW = ("embed", "append", "advance_kernel")
"""Kernels whose loads need not be 16 bytes wide."""

_BIN = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
_TYPES = {
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    torch.int8: "*i8",
    torch.uint8: "*u8",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
_TENSOR_CORES = r"\b(?:HMMA|HGMMA|QGMMA|UTCHMMA)"


def main(arguments: list[str]) -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m triton_kernels.check", description=__doc__)
    parser.add_argument("--update", action="store_true", help="compile what has changed and rewrite compiled.json")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="compile N launches again and compare")
    options = parser.parse_args(arguments)
    wanted = dict(_wanted())
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {"triton": triton.__version__, "launches": {}}
    if options.update:
        table = _update(wanted, table)
    faults = [*_differences(wanted, table["launches"]), *_broken(table["launches"])]
    if not faults and options.sample:
        faults = _recompile(wanted, table, options.sample)
    sys.stdout.write("".join(f"{fault}\n" for fault in faults))
    sys.stdout.write(f"{len(wanted)} launches, {len(faults)} faults\n")
    return int(bool(faults))


def specialise(launch: Launch) -> tuple[dict[str, str], dict[str, object], list[str]]:
    """What the JIT infers from the arguments: -> (types, constants, names divisible by 16); pointers count as aligned."""
    fixed = {parameter.name for parameter in launch.kernel.params if parameter.do_not_specialize}
    types: dict[str, str] = {}
    constants = dict(launch.constants)
    aligned = []
    for name, value in launch.arguments.items():
        if value is None or (isinstance(value, int) and value == 1 and name not in fixed):
            constants[name] = value
        elif isinstance(value, Tensor):
            types[name] = _TYPES[value.dtype]
            aligned.append(name)
        elif isinstance(value, float):
            types[name] = "fp32"
        else:
            types[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0 and name not in fixed:
                aligned.append(name)
    return types, constants, aligned


def compile_report(launch: Launch, capability: int) -> dict[str, int]:
    """Registers, stack, shared memory and what the machine code contains."""
    names = launch.kernel.arg_names
    types, constants, aligned = specialise(launch)
    constants["DEPENDENT"] = capability >= DEPENDENT_FROM
    source = ASTSource(
        fn=launch.kernel,
        signature={name: "constexpr" if name in constants else types[name] for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    options = {
        "num_warps": launch.num_warps, "num_stages": launch.num_stages, "launch_pdl": capability >= DEPENDENT_FROM,
    }  # fmt: skip
    compiled: Any = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    if constants["DEPENDENT"] and "griddepcontrol.wait" not in compiled.asm["ptx"]:
        raise RuntimeError(f"{launch.name} does not wait for the kernel before it; call `turn` in it")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage, code = (_dump(flag, file.name) for flag in ("-res-usage", "-sass"))
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump prints no resource usage: {usage[:200]}")
    return {
        "registers": int(found[1]),
        "stack": int(found[2]) + len(re.findall(r"\b(?:STL|LDL)\b", code)),
        "shared": compiled.metadata.shared,
        "wide": len(re.findall(r"\b(?:LDG|LDGSTS)\S*\.128", code)),
        "tensor": len(re.findall(_TENSOR_CORES, code)),
        "barriers": len(re.findall(r"\bBAR\.SYNC", code)),
    }


def _dump(flag: str, path: str) -> str:
    done = subprocess.run([_BIN / "cuobjdump", flag, path], capture_output=True, text=True, check=True)
    return done.stdout


def _wanted() -> Iterator[tuple[str, tuple[str, Case]]]:
    """label -> (key, case), one for each distinct compilation."""
    seen = set()
    for capability in TARGETS:
        for case in cases(capability):
            key = _key(case)
            if key not in seen:
                seen.add(key)
                yield f"{case.label} sm_{capability}", (key, case)


def _key(case: Case) -> str:
    launch = case.launch
    types, constants, aligned = specialise(launch)
    text = (
        sorted(_sources(launch.kernel)),
        sorted(types.items()),
        sorted((name, str(value)) for name, value in constants.items()),
        aligned,
        (launch.num_warps, launch.num_stages, case.capability),
    )
    return hashlib.sha256(repr(text).encode()).hexdigest()[:12]


def _sources(function: Any, seen: frozenset[str] = frozenset()) -> set[str]:
    """The source of a kernel and of every kernel function it calls."""
    found = {function.src}
    for name in set(re.findall(r"\w+", function.src)):
        called = function.fn.__globals__.get(name)
        if isinstance(called, triton.JITFunction) and called.src not in found | seen:
            found |= _sources(called, seen | found)
    return found


def _update(wanted: dict[str, tuple[str, Case]], table: dict[str, Any]) -> dict[str, Any]:
    same = table["triton"] == triton.__version__
    known = {entry["key"]: entry for entry in table["launches"].values()} if same else {}
    fresh = _compile([case for key, case in wanted.values() if key not in known])
    launches = {}
    for label, (key, case) in wanted.items():
        report = {name: known[key][name] for name in _MEASURED} if key in known else fresh[label]
        time = LAUNCH_MICROSECONDS + case.launch.traffic / BANDWIDTH[case.capability] / 1e3
        launches[label] = {"key": key, **report, "microseconds": round(time, 2)}
    table = {"triton": triton.__version__, "launches": launches}
    lines = ",\n".join(f"  {json.dumps(label)}: {json.dumps(entry)}" for label, entry in launches.items())
    TABLE.write_text(f'{{"triton": "{triton.__version__}", "launches": {{\n{lines}\n}}}}\n')
    return table


def _compile(chosen: list[Case]) -> dict[str, dict[str, int]]:
    """Reports by label, compiled on all processors; the children inherit the cases, which cannot be pickled."""
    reports = {}
    _waiting[:] = chosen
    with multiprocessing.get_context("fork").Pool() as pool:
        for number, report in pool.imap_unordered(_compile_one, range(len(chosen))):
            case = chosen[number]
            reports[f"{case.label} sm_{case.capability}"] = report
            sys.stderr.write(f"{len(reports)}/{len(chosen)} {case.label} sm_{case.capability} {report}\n")
    return reports


_waiting: list[Case] = []


def _compile_one(number: int) -> tuple[int, dict[str, int]]:
    case = _waiting[number]
    return number, compile_report(case.launch, case.capability)


_MEASURED = ("registers", "stack", "shared", "wide", "tensor", "barriers")


def _differences(wanted: dict[str, tuple[str, Case]], launches: dict[str, Any]) -> list[str]:
    faults = [f"{label}: no longer launched; run with --update" for label in launches.keys() - wanted.keys()]
    for label, (key, _) in wanted.items():
        if label not in launches or launches[label]["key"] != key:
            faults.append(f"{label}: changed since it was compiled; run with --update")
    return faults


def _broken(launches: dict[str, Any]) -> list[str]:
    faults = []
    for label, entry in launches.items():
        name, capability = label.split()[3], int(label.rpartition("sm_")[2])
        if entry["stack"]:
            faults.append(f"{label}: spills ({entry['stack']})")
        if entry["shared"] > SHARED_LIMIT[capability] * 1024:
            faults.append(f"{label}: {entry['shared']} bytes of shared memory")
        if not entry["wide"] and name not in NARROW:
            faults.append(f"{label}: no 16-byte loads")
        if not entry["tensor"] and name in PRODUCTS:
            faults.append(f"{label}: no tensor-core instruction")
    return faults


def _recompile(wanted: dict[str, tuple[str, Case]], table: dict[str, Any], count: int) -> list[str]:
    """Limits hold under any Triton; equal numbers are asked of the one that the table was made with."""
    labels = list(wanted)
    chosen = labels[:: max(1, len(labels) // count)][:count]
    fresh = _compile([wanted[label][1] for label in chosen])
    faults = _broken(fresh)
    if table["triton"] != triton.__version__:
        return faults
    for label, report in fresh.items():
        known = {name: table["launches"][label][name] for name in _MEASURED}
        if known != report:
            faults.append(f"{label}: {known} in the table, now {report}")
    return faults


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

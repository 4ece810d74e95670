"""Invariant 6, for pickles: `models convert` takes tensors out of a `.bin` file, and nothing else of it ever happens."""

from __future__ import annotations

import builtins
import functools
import importlib
import io
import json
import operator
import os
import pickle
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.checkpoint.table import read_table
from engine.errors import CheckpointError, PickleRefused
from engine.models.conversion.convert import BIN, check_system, convert
from engine.models.conversion.unpickler import ALLOWED, Refused, read_pickle
from tests.harness.checkpoints import assert_same_greedy, make_checkpoint
from tests.harness.inprocess import InProcessEngine
from tests.harness.pickles import Call, as_pickled, legacy, named, text, zipped
from tests.harness.process import ROOT, isolated_env
from tests.harness.published import as_santacoder

PREFIX = "def total(values):\n    result = 0\n    for value in values:\n        result = result + 1"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("source") / "m", n_positions=64, dtype=torch.float16)


def contents(directory: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in directory.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("old_form", [False, True], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("views", [False, True], ids=["a storage each", "views of shared storages"])
def test_what_was_pickled_comes_out_bit_for_bit(
    source: Path, tmp_path: Path, old_form: bool, shards: int, views: bool
) -> None:
    directory = as_pickled(source, tmp_path / "m", shards=shards, old_form=old_form, masks=True, views=views)
    done = convert(directory)
    made, expected = contents(directory), load_file(source / "model.safetensors")
    assert made.keys() == expected.keys()
    assert all(
        torch.equal(made[name], tensor) and made[name].dtype == tensor.dtype for name, tensor in expected.items()
    )
    assert set(done.dropped) == {
        *(["lm_head.weight"] if shards == 1 else []),
        *(f"transformer.h.{n}.attn.{which}" for n in range(2) for which in ("bias", "masked_bias")),
    }
    assert len(read_table(directory)) == len(expected)
    assert not list(directory.glob(".converting-*"))
    assert set(done.sources) == {path.name for path in directory.glob("*.bin")}


def test_an_old_santacoder_loads_and_completes_once_it_is_converted(tmp_path: Path) -> None:
    """Its own layout in float16 with mask buffers, as its older branches have it."""
    made = make_checkpoint(tmp_path / "made", family="santacoder", vocab_size=832, n_positions=256, dtype=torch.float16)
    published = as_santacoder(made, tmp_path / "published")
    directory = as_pickled(published, tmp_path / "bin", old_form=True)
    with pytest.raises(CheckpointError, match="make it with: starfill models convert"):
        InProcessEngine.of(directory)
    convert(directory)
    done = InProcessEngine.of(directory, dtype="float32", kv_memory=2**26).complete(prompt=PREFIX, max_tokens=12)
    assert len(done.ids) == 12
    assert_same_greedy(done.ids, made, done.prompt)


def test_every_dtype_keeps_its_bits(tmp_path: Path) -> None:
    bits = torch.arange(64, dtype=torch.uint8)
    floats = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    state = {str(dtype): bits.view(dtype).clone() for dtype in floats}
    state |= {
        str(d): torch.arange(5).to(d)
        for d in (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool)
    }
    state |= {"scalar": torch.tensor(2.5), "empty": torch.empty(0, 3), "one": torch.ones(1).expand(3, 2)}
    state["parameter"] = torch.nn.Parameter(torch.ones(2))
    torch.save(state, tmp_path / BIN)
    convert(tmp_path)
    made = contents(tmp_path)
    for name, tensor in state.items():
        assert made[name].dtype == tensor.dtype
        assert made[name].shape == tensor.shape
        assert (
            made[name].numpy(force=True).tobytes() == tensor.detach().contiguous().numpy(force=True).tobytes()
            if (tensor.dtype is not torch.bfloat16)
            else torch.equal(made[name].view(torch.int16), tensor.view(torch.int16))
        )


def _touch(canary: Path) -> dict[str, bytes]:
    """Pickles that would make a file, each in another way."""
    command, path = f"touch {canary}", str(canary)
    code = f"open({path!r}, 'w').close()"
    calls: dict[str, Call] = {
        "os.system": Call(os.system, command),
        "os.popen": Call(os.popen, command),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "open": Call(open, path, "w"),
        "io.open": Call(io.open, path, "w"),
        "subprocess.Popen": Call(subprocess.Popen, ["touch", path]),
        "subprocess.check_output": Call(subprocess.check_output, ["touch", path]),
        "getattr": Call(builtins.getattr, Call(importlib.import_module, "os"), "system"),
        "functools.partial": Call(functools.partial, os.system, command),
        "operator.methodcaller": Call(operator.methodcaller("system", command), os),
        "nested pickle": Call(pickle.loads, pickle.dumps(Call(os.system, command))),
        "torch.load": Call(torch.load, path),
        "torch.storage._load_from_bytes": Call(torch.storage._load_from_bytes, pickle.dumps(Call(os.system, command))),
        "a tensor's hooks": Call(torch._utils._rebuild_tensor_v2, Call(os.system, command), 0, (1,), (1,), False, {}),
        "socket": Call(socket.create_connection, ("127.0.0.1", 9)),
    }
    pickles: dict[str, bytes] = {}
    for name, call in calls.items():
        try:
            pickles[name] = pickle.dumps({"transformer.wte.weight": call}, 2)
        except (pickle.PicklingError, TypeError, AttributeError):
            continue
    pickles |= {
        "posix.system by name": named("posix", "system", text(command)),
        "a name with dots": named("torch", "_utils.os.system", text(command), protocol=4),
        "a name that only looks like one of torch's": named(
            "torch._utils", "_rebuild_tensor_v2.__globals__", protocol=4
        ),
        "runpy": named("runpy", "_run_code", text(code)),
        "ctypes": named("ctypes", "CDLL", text(path)),
        "code by name": named("types", "CodeType", text(code)),
        "INST": b"\x80\x02(" + text(command) + b"iposix\nsystem\n.",
        "OBJ": b"\x80\x02(cposix\nsystem\n" + text(command) + b"o.",
        "BUILD on a function of ours": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}"
        + text("__code__")
        + text(code)
        + b"sb.",
        "BUILD with a setter of its own": b"\x80\x02ccollections\nOrderedDict\n)R}"
        + text("__setstate__")
        + b"cposix\nsystem\nsb"
        + text(command)
        + b"b.",
        "an extension code": b"\x80\x02\x82\x01.",
    }
    return pickles


HOSTILE = sorted(_touch(Path("/nowhere")))


@pytest.mark.parametrize(
    ("name", "old_form"),
    [*((name, False) for name in HOSTILE), *((name, True) for name in ("os.system", "INST", "exec"))],
)
def test_a_hostile_pickle_is_refused_and_nothing_of_it_runs(tmp_path: Path, name: str, old_form: bool) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "m").mkdir()
    data = _touch(canary)[name]
    (tmp_path / "m" / BIN).write_bytes(legacy(data) if old_form else zipped(data))
    with pytest.raises(CheckpointError) as caught:
        convert(tmp_path / "m")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'm' / BIN}: ")
    assert message.endswith("nothing of it was run")
    assert message.isprintable()
    assert len(message) < 500 + len(str(tmp_path))
    assert not canary.exists()
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [BIN]


def test_the_canary_would_sing(tmp_path: Path) -> None:
    """The same pickles do run where a pickle is simply loaded, so the test above can fail."""
    sung = set()
    for number, name in enumerate(("os.system", "exec", "eval", "posix.system by name", "INST", "OBJ")):
        canary = tmp_path / f"canary-{number}"
        child = "import pickle, sys; pickle.load(sys.stdin.buffer)"
        subprocess.run(
            [sys.executable, "-I", "-c", child], input=_touch(canary)[name], check=False, capture_output=True
        )
        if canary.exists():
            sung.add(name)
    assert sung == {"os.system", "exec", "eval", "posix.system by name", "INST", "OBJ"}


def test_what_a_pickle_may_name_is_ours_and_does_nothing() -> None:
    """No entry of the table is a function or class of another module, and none has a side effect."""
    for (module, name), stand_in in ALLOWED.items():
        owner = getattr(stand_in, "__module__", type(stand_in).__module__)
        assert owner == "engine.models.conversion.unpickler", (module, name)
    assert {module for module, _ in ALLOWED} == {"collections", "torch", "torch._utils"}


BOMBS: dict[str, bytes] = {
    "a bytearray of 2^60 bytes": b"\x80\x05\x96" + (2**60).to_bytes(8, "little") + b".",
    "a memo at 2^31": b"\x80\x02]r\xff\xff\xff\x7f.",
    "lists in lists": b"\x80\x02" + b"]" * 3_000_000 + b"a" * 2_999_999 + b".",
    "tuples that double": b"\x80\x02)" + b"".join(b"q\x00h\x00h\x00\x86" for _ in range(60)) + b"}q\x01h\x01h\x00Ns.",
    "a list that grows": b"\x80\x02](" + b"]" * 3_000_000 + b"e.",
    "a long frame": b"\x80\x04\x95" + (2**62).to_bytes(8, "little") + b".",
    "no end": b"\x80\x02]" + b"0N" * 1_000,
    "nothing": b"",
    "text": b"this is no pickle at all\n" * 4,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_pickle_that_would_fill_memory_or_never_end_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.models.conversion.convert._CPU_SECONDS", 2)
    (tmp_path / BIN).write_bytes(zipped(BOMBS[name]))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: .*nothing of it was run"):
        convert(tmp_path)


def _tensor(storage: bytes, *numbers: bytes) -> bytes:
    return (
        b"\x80\x02}" + text("w") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"".join(numbers) + b"\x89}tRs."
    )


def _storage(count: bytes = b"K\x04", kind: str = "FloatStorage", key: str = "0") -> bytes:
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + count + b"tQ"


FOUR = {"0": bytes(16)}
NO, ONE, FIVE, ALL = b"K\x00", b"K\x01\x85", b"K\x05\x85", b"K\x04\x85"
"""Opcodes that push 0, (1,), (5,), (4,)."""
BROKEN: dict[str, tuple[bytes, dict[str, bytes], str]] = {
    "over the end": (_tensor(_storage(), NO, FIVE, ONE), FOUR, "reaches over the end"),
    "over the end by offset": (_tensor(_storage(), b"K\x02", b"K\x03\x85", ONE), FOUR, "reaches over the end"),
    "over the end by stride": (_tensor(_storage(), NO, b"K\x02\x85", ALL), FOUR, "reaches over the end"),
    "a negative offset": (_tensor(_storage(), b"J\xff\xff\xff\xff", ONE, ONE), FOUR, "cannot be"),
    "a negative stride": (_tensor(_storage(), b"K\x03", ALL, b"J\xff\xff\xff\xff\x85"), FOUR, "cannot be"),
    "a float for a size": (_tensor(_storage(), NO, b"G" + bytes(8) + b"\x85", ONE), FOUR, "cannot be"),
    "more axes than strides": (_tensor(_storage(), NO, b"K\x02K\x02\x86", ONE), FOUR, "do not go together"),
    "expanded without end": (_tensor(_storage(), NO, b"J\xff\xff\xff\x7f\x85", b"K\x00\x85"), FOUR, "far more numbers"),
    "a storage without bytes": (_tensor(_storage(), NO, ALL, ONE), {}, "lacks the bytes"),
    "a storage with fewer bytes": (_tensor(_storage(), NO, ALL, ONE), {"0": bytes(8)}, "lacks the bytes"),
    "an unknown storage": (_tensor(_storage(kind="ComplexFloatStorage"), NO, b")", b")"), FOUR, "asks for torch.Complex"),
    "a key out of the archive": (_tensor(_storage(key="../0"), NO, ALL, ONE), FOUR, "lacks the bytes"),
    "no tensors": (pickle.dumps({}, 2), {}, "no mapping of names"),
    "a list": (pickle.dumps([1], 2), {}, "no mapping of names"),
    "a training checkpoint": (pickle.dumps({"epoch": 3}, 2), {}, "'epoch', which is no tensor"),
    "nested": (pickle.dumps({"model": {}}, 2), {}, "'model', which is no tensor"),
    "a number for a name": (pickle.dumps({3: None}, 2), {}, "no tensor's"),
    "a name that safetensors keeps": (pickle.dumps({"__metadata__": None}, 2), {}, "no tensor's"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_tensors_must_be_what_their_bytes_can_hold(tmp_path: Path, name: str) -> None:
    data, storages, says = BROKEN[name]
    (tmp_path / BIN).write_bytes(zipped(data, storages))
    with pytest.raises(CheckpointError) as caught:
        convert(tmp_path)
    assert says in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [BIN]


def _compressed(raw: bytes) -> bytes:
    """The archive again, its entries compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return buffer.getvalue()


def test_archives_that_torch_would_not_write_are_refused(tmp_path: Path) -> None:
    good = zipped(_tensor(_storage(), b"K\x00", b"K\x04\x85", b"K\x01\x85"), FOUR)
    (tmp_path / BIN).write_bytes(good)
    convert(tmp_path)
    changed = bytearray(good)
    at = changed.index(bytes(16))
    changed[at] = 1
    for raw, says in (
        (_compressed(good), "compressed or encrypted"),
        (good[: len(good) // 2], "broken zip archive"),
        (bytes(changed), "wrong check sum"),
        (zipped(pickle.dumps({}, 2), root="a/b"), "no data.pkl"),
        (good.replace(b"archive/data/0", b"archive/data/1"), "lacks the bytes"),
        (b"\x1f\x8b" + bytes(100), "is not a pickle that torch wrote"),
        (b"", "is empty"),
    ):
        (tmp_path / BIN).write_bytes(raw)
        with pytest.raises(CheckpointError, match=says):
            convert(tmp_path, force=True)
    assert (tmp_path / "model.safetensors").is_file(), "what was there stays until something better is"


def test_a_file_that_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / BIN)
    with pytest.raises(CheckpointError, match="is a pipe"):
        convert(tmp_path)
    (tmp_path / BIN).unlink()
    (tmp_path / BIN).symlink_to("/etc/hostname")
    with pytest.raises(CheckpointError, match="leads out of the model's directory"):
        convert(tmp_path)


def test_an_index_names_files_of_its_own_directory_alone(tmp_path: Path) -> None:
    for name in ("../other.bin", "/etc/passwd", "a/b.bin", "x.py", ".bin"):
        (tmp_path / f"{BIN}.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
        with pytest.raises(CheckpointError, match=r"must be a \.bin file of the same directory"):
            convert(tmp_path)


def test_what_is_there_is_replaced_only_when_told(source: Path, tmp_path: Path) -> None:
    directory = as_pickled(source, tmp_path / "m")
    convert(directory)
    before = (directory / "model.safetensors").stat().st_ino
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is there already; use --force"):
        convert(directory)
    assert (directory / "model.safetensors").stat().st_ino == before
    convert(directory, force=True)
    assert (directory / "model.safetensors").stat().st_ino != before


_LOCKED = """
import ctypes, mmap, os, resource, socket, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
_exit = os._exit
attempts = {
    "open": lambda: os.open("/etc/hostname", os.O_RDONLY),
    "create": lambda: open(sys.argv[1], "w"),
    "socket": lambda: socket.socket(),
    "unix socket": lambda: socket.socket(socket.AF_UNIX),
    "fork": os.fork,
    "exec": lambda: os.execv("/bin/true", ["/bin/true"]),
    "spawn": lambda: subprocess.run(["/bin/true"]),
    "import": lambda: __import__("this"),
    "kill": lambda: os.kill(1, 0),
    "list": lambda: os.listdir("/"),
    "memory": lambda: bytearray(2**30),
    "more": lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)),
}
raw = {  # past Python: what a program inside could ask of the kernel itself
    "open": lambda: libc.open(b"/etc/hostname", 0), "socket": lambda: libc.socket(2, 1, 0),
    "fork": lambda: libc.fork(), "execve": lambda: libc.execve(b"/bin/true", None, None),
    "ptrace": lambda: libc.ptrace(16, 1, 0, 0),
    "unlink": lambda: libc.unlink(sys.argv[1].encode()), "prctl": lambda: libc.prctl(38, 1, 0, 0, 0),
}
found = [getattr(libc, name) for name in raw]  # while libraries may still be looked into
import engine.models.conversion.lockdown as lockdown
hook = sys.argv[2] == "python"
if not hook:
    lockdown._refuse_event = lambda event, arguments: None
lockdown.lock_down(memory=2**26, seconds=60, file_size=100)
said = []
for name, attempt in (attempts if hook else raw).items():
    try:
        result = attempt()
        said.append(f"{name}: {'refused' if not hook and result == -1 else 'done'}")
    except (PermissionError, MemoryError, OSError, ValueError, ImportError) as error:
        said.append(f"{name}: refused")
os.write(1, "\\n".join(said).encode())
_exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux's")
@pytest.mark.parametrize("way", ["python", "kernel"])
def test_a_locked_down_process_can_do_nothing(tmp_path: Path, way: str) -> None:
    canary = tmp_path / "canary"
    child = subprocess.run(
        [sys.executable, "-c", _LOCKED, str(canary), way],
        env=isolated_env(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    lines = child.stdout.splitlines()
    assert len(lines) == (12 if way == "python" else 7), child.stdout
    assert all(line.endswith(": refused") for line in lines), child.stdout
    assert not canary.exists()


def test_where_nothing_can_be_given_up_nothing_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / BIN)
    child = tmp_path / "child.py"
    child.write_text(
        "import sys\nfrom engine.models.conversion import child, lockdown\nlockdown._CALLS = {}\nchild.main()\n"
    )
    started = subprocess.Popen

    def start(command: list[str], **options: object) -> object:
        at = command.index("-c")
        return started([*command[:at], str(child), *command[at + 2 :]], **options)  # type: ignore[call-overload]

    monkeypatch.setattr("engine.models.conversion.convert.subprocess.Popen", start)
    if sys.platform != "linux":
        pytest.skip("the kernel's part is Linux's")
    with pytest.raises(CheckpointError, match="does not let a process give up its rights") as caught:
        convert(tmp_path)
    assert not isinstance(caught.value, PickleRefused), "nothing was found wrong with the file"
    with pytest.raises(CheckpointError, match="does not let a process give up its rights"):
        check_system(tmp_path)


def test_packages_that_only_the_environment_leads_to_convert_too(source: Path, tmp_path: Path) -> None:
    """As in a user's own site-packages: an interpreter that has nothing of ours where it looks by itself."""
    directory = as_pickled(source, tmp_path / "m")
    code = (
        "import sys; from pathlib import Path; from engine.models.conversion.convert import convert\n"
        "convert(Path(sys.argv[1]))"
    )
    elsewhere = os.pathsep.join([str(ROOT), *(each for each in sys.path if each.endswith("site-packages"))])
    bare = getattr(sys, "_base_executable", sys.executable)
    done = subprocess.run(
        [bare, "-c", code, directory], cwd=tmp_path, env=isolated_env(tmp_path, PYTHONPATH=elsewhere), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(contents(directory)) == len(load_file(source / "model.safetensors"))


def test_a_child_that_cannot_begin_says_nothing_of_the_file(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = as_pickled(source, tmp_path / "m")
    monkeypatch.setattr("engine.models.conversion.convert._where_modules_are", list)
    for work in (convert, check_system):
        with pytest.raises(CheckpointError, match=r"could not begin \(code 1") as caught:
            work(directory)
        assert not isinstance(caught.value, PickleRefused)


def test_the_system_is_asked_without_any_pickle(tmp_path: Path) -> None:
    check_system(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_child_brings_neither_torch_nor_the_rest_of_the_engine() -> None:
    code = (
        "import sys, engine.models.conversion.child\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('torch', 'numpy', 'safetensors', 'httpx2', 'pydantic')))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def pickles_of_torch() -> Iterator[bytes]:
    buffer = io.BytesIO()
    torch.save({"w": torch.arange(4.0)}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        yield archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def test_a_pickle_with_any_byte_changed_is_read_or_refused(pickles_of_torch: bytes) -> None:
    """Whatever a byte becomes, the outcome is plain data of ours, or a refusal; never another exception."""
    for at in range(len(pickles_of_torch)):
        for flip in (0x01, 0x80, 0xFF):
            spoilt = bytearray(pickles_of_torch)
            spoilt[at] ^= flip
            if spoilt[at] in b"rjJ\x8d\x8e\x96BTX":  # lengths of their own: memory, which only the child bounds
                continue
            try:
                read_pickle(io.BytesIO(bytes(spoilt)))
            except Refused as refusal:
                assert str(refusal).isprintable()

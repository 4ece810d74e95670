"""The `starfill` command as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.checkpoints import decode as decode_with
from tests.harness.checkpoints import encode as encode_with
from tests.harness.checkpoints import make_checkpoint, oracle_greedy
from tests.harness.process import engine_pids, is_alive, isolated_env, temporary_home

SOURCE = "import os\n\n\ndef read(path):\n    if not os.path.ex\n        return None\n\n\nprint(read('.'))\n"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with temporary_home() as home:
        yield home


def starfill(home: Path, *arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("starfill")
    return subprocess.run(
        [command, *arguments],
        env=isolated_env(home, **env),
        cwd=home,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_complete_prints_what_fits_at_the_cursor(home: Path) -> None:
    file = home / "files.py"
    file.write_text(SOURCE)
    done = starfill(home, "complete", str(file), "5:22", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) >= {"text", "items", "model", "layout", "finish_reason", "reason", "usage", "ms"}
    assert found["text"].startswith("ists(")
    assert found["items"][0]["text"] == found["text"]
    assert found["items"][0]["logprob"] < 0
    assert (found["model"], found["layout"], found["reason"]) == ("starfill-starter", "anchored", None)
    assert found["usage"]["prompt_tokens"] > 0
    assert 0 < found["ms"]["first"] <= found["ms"]["total"]
    assert starfill(home, "complete", str(file), "5:22").stdout == found["text"] + "\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("complete", "missing.py", "1:1"), "missing.py"),
        (("complete", "files.py", "5"), "LINE:COLUMN"),
        (("complete", "files.py", "0:1"), "LINE:COLUMN"),
        (("complete", "files.py", "99:1"), "10 lines"),
        (("complete", "files.py", "1:1", "--model", "no/such"), "no/such"),
        (("complete", "files.py", "1:1", "--engine", "ftp://x"), "ftp://x"),
        (("generate", "x", "--engine", "unix:/nowhere.sock"), "no engine"),
        (("serve", "--model", "/nowhere"), "/nowhere"),
        (("serve", "--port", "0"), "--token-file"),
        (("serve", "--kv-memory", "lots"), "lots"),
        (("serve", "--idle-exit", "soon"), "soon"),
        (("serve", "--backend", "vllm"), "vllm"),
        (("lsp", "--engine", "nonsense"), "nonsense"),
    ],
)
def test_mistakes_are_named_in_one_line(home: Path, arguments: tuple[str, ...], named: str) -> None:
    (home / "files.py").write_text(SOURCE)
    done = starfill(home, *arguments)
    assert done.returncode == 1
    assert named in done.stderr
    assert done.stderr.startswith("starfill: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_generate_streams_what_the_model_says(home: Path, tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path / "tiny")
    text = "def area(width, height):\n"
    prompt = encode_with(directory, text)
    expected = decode_with(directory, oracle_greedy(directory, prompt, 12)[0])
    done = starfill(home, "generate", text, "--model", str(directory), "--max-tokens", "12")
    assert done.stdout == expected, done.stderr
    again = starfill(home, "generate", "-", "--model", str(directory), "--max-tokens", "12", stdin=text)
    assert again.stdout == expected
    starfill(home, "stop", "tiny")


def test_generate_raw_lets_control_tokens_act_and_fills_holes(home: Path, tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path / "raw")
    text = "<fim_prefix>x = <fim_suffix>\nprint(x)<fim_middle>"
    expected = decode_with(directory, oracle_greedy(directory, encode_with(directory, text), 8)[0])
    model = ("--model", str(directory), "--max-tokens", "8")
    assert starfill(home, "generate", text, "--raw", *model).stdout == expected
    filled = starfill(home, "generate", "x = <FILL_HERE>\nprint(x)", "--raw", *model)
    assert filled.returncode == 0
    assert filled.stdout
    starfill(home, "stop", "raw")


def test_status_and_stop(home: Path) -> None:
    (home / "files.py").write_text(SOURCE)
    assert starfill(home, "complete", "files.py", "5:22").returncode == 0
    (engine,) = json.loads(starfill(home, "status", "--json").stdout)
    assert set(engine) >= {"pid", "socket", "model", "dtype", "device", "version", "state", "slots", "uptime"}
    assert (engine["model"], engine["state"], engine["device"]) == ("starfill-starter", "ready", "cpu")
    assert "starfill-starter" in starfill(home, "status", COLUMNS="200").stdout
    assert engine_pids(home) == [engine["pid"]]
    assert "No engine of other" in starfill(home, "stop", "other").stdout
    assert "Stopped starfill-starter" in starfill(home, "stop").stdout
    assert not is_alive(engine["pid"])
    assert json.loads(starfill(home, "status", "--json").stdout) == []
    assert not Path(engine["socket"]).exists()


def test_top_shows_what_requests_cost_and_nothing_of_what_they_said(home: Path) -> None:
    canary = "xyzzy_top_canary"
    file = home / f"{canary}.py"
    file.write_text(SOURCE.replace("path", canary))
    assert starfill(home, "complete", str(file), "5:22").returncode == 0
    ((engine, page),) = ((each["engine"], each) for each in json.loads(starfill(home, "top", "--json").stdout))
    assert engine["state"] == "ready"
    newest = page["requests"][0]
    assert newest["prompt"] == newest["reused"] + newest["computed"] > 0
    assert newest["generated"] > 0
    assert newest["state"] in ("served", "aborted")
    assert 0 <= newest["queued"] <= newest["first"] <= newest["total"]
    assert page["totals"]["forward_calls_total"] > 0
    drawn = starfill(home, "top", "--once", COLUMNS="200")
    assert str(newest["prompt"]) in drawn.stdout
    assert canary not in json.dumps(page) + drawn.stdout
    logs = "".join(log.read_text() for log in (home / "log").iterdir())
    assert logs
    assert canary not in logs
    starfill(home, "stop")
    assert "No engine is running" in starfill(home, "top", "--once").stdout


def test_serve_is_an_engine_of_its_own_and_says_why_it_computes_as_it_does(home: Path, tmp_path: Path) -> None:
    log = tmp_path / "serve.log"
    argv = ("serve", "--device", "cpu", "--dtype", "float32", "--idle-exit", "2s", "--log-file", str(log))
    done = starfill(home, *argv)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert any(line["message"].startswith("ready: ") for line in lines)
    assert all(set(line) <= {"time", "level", "name", "message", "error"} for line in lines)
    assert list((home / "run").iterdir()) == []


def test_doctor_finds_this_installation_well(home: Path) -> None:
    done = starfill(home, "doctor", "--json")
    findings = json.loads(done.stdout)
    names = {finding["name"] for finding in findings}
    assert names == {
        "python", "torch", "transformers", "gpu", "threads", "starter model", "models", "settings", "folders", "stale files",
        "command", "memory", "disk", "model", "device", "engines",
    }  # fmt: skip
    assert all(finding["ok"] for finding in findings), findings
    assert done.returncode == 0


def test_doctor_names_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("not a folder")
    done = starfill(tmp_path, "doctor", "--json")
    bad = [finding for finding in json.loads(done.stdout) if not finding["ok"]]
    assert done.returncode == 1
    assert bad
    assert all(finding["remedy"] for finding in bad)


def test_with_the_network_cut_the_built_in_model_completes(home: Path) -> None:
    """Invariant 10."""
    (home / "files.py").write_text(SOURCE)
    starfill(home, "stop")
    cut = ["unshare", "--net", "--map-root-user"] if os.getuid() else ["unshare", "--net"]
    if subprocess.run([*cut, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not let a process leave the network")
    command = Path(sys.executable).with_name("starfill")
    done = subprocess.run(
        [*cut, command, "complete", "files.py", "5:22"],
        env=isolated_env(home),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.startswith("ists("), done.stderr
    starfill(home, "stop")

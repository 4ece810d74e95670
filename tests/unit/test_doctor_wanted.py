"""`starfill doctor` with the flags of an editor's server: that model, that device, that engine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from engine import doctor, registry, wanted
from engine.errors import StarfillError
from engine.finding import Finding
from engine.models import STARTER, locate
from engine.prospect import foresee
from engine.registry import EngineRecord
from engine.wanted import Wanted, examine_wanted
from lsp_server.cli import app
from lsp_server.once import wanted_engine
from tests.harness.adapters import make_adapter
from tests.harness.checkpoints import make_checkpoint
from tests.harness.process import Child, temporary_home, wait_for_health
from tests.harness.served import scripted_engine


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with temporary_home() as home:
        monkeypatch.setenv("STARFILL_HOME", str(home))
        yield home


def findings(wish: Wanted) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine_wanted(wish)}


def engine(wish: Wanted) -> Finding:
    (finding,) = examine_wanted(wish)
    assert finding.name == "engine"
    return finding


class _Stranger(BaseHTTPRequestHandler):
    """An OpenAI-compatible server with a token, and a name that is not for terminals."""

    asked: list[dict[str, Any]]

    def do_GET(self) -> None:
        self._answer(json.dumps({"data": [{"id": "team\x1b[2Jmodel"}]}).encode())

    def do_POST(self) -> None:
        self.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self._answer(b'data: {"id": "1", "choices": [{"index": 0, "text": "os"}]}\n\ndata: [DONE]\n\n')

    def _answer(self, body: bytes) -> None:
        allowed = self.headers.get("authorization") == "Bearer sesame"
        self.send_response(200 if allowed else 401)
        self.end_headers()
        self.wfile.write(body if allowed else b"{}")

    def log_message(self, *said: object) -> None:
        """Say nothing."""


@contextmanager
def stranger() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    asked: list[dict[str, Any]] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Stranger", (_Stranger,), {"asked": asked})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()


def test_the_model_and_where_it_would_run(home: Path) -> None:
    found = findings(Wanted(device="cpu", dtype="int8"))
    assert found["model"].detail == f"starfill-starter in {STARTER}, run by the native backend"
    assert (found["device"].ok, found["device"].detail) == (True, "cpu, int8 (--dtype int8)")


def test_another_model_is_examined_and_not_the_starter(home: Path, tmp_path: Path) -> None:
    made = make_checkpoint(tmp_path / "mine")
    assert findings(Wanted(model=str(made)))["model"].detail.startswith(f"mine in {made.resolve()}")
    (made / "config.json").write_text('{"model_type": "bert"}')
    bad = findings(Wanted(model=str(made)))["device"]
    assert not bad.ok
    assert "bert" in bad.detail


def test_a_model_that_is_not_here(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = findings(Wanted(model="/nowhere"))["model"]
    assert (bad.ok, "/nowhere" in bad.detail, bool(bad.remedy)) == (False, True, True)
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not findings(Wanted(model="folder"))["model"].ok  # as a language server has it


def test_a_device_that_is_not_here_and_one_without_room(home: Path) -> None:
    assert "--device cuda:99" in findings(Wanted(device="cuda:99"))["device"].detail
    bad = findings(Wanted(device="cpu", kv_memory=2**60))["device"]
    assert (bad.ok, "are free" in bad.detail) == (False, True)


def test_what_serve_would_refuse_is_found_beforehand(tmp_path: Path) -> None:
    """Room for no window, a tokenizer or tensors of another model, an adapter of such a one."""
    made = make_checkpoint(tmp_path / "m")
    adapter = make_adapter(tmp_path / "a", made)

    def refused(directory: Path, kv_memory: int = 2**26) -> str:
        with pytest.raises(StarfillError) as caught:
            foresee(directory, "cpu", "auto", kv_memory)
        return str(caught.value)

    assert foresee(adapter, "cpu", "auto", 2**26) == foresee(made, "cpu", "auto", 2**26)
    assert "--kv-memory 4 KiB holds no window of" in refused(made, 2**12)
    config = made / "config.json"
    right = json.loads(config.read_text())
    for change, says in (({"vocab_size": 100}, "has ids up to"), ({"n_inner": 64}, "config.json makes it")):
        config.write_text(json.dumps(right | change))
        assert says in refused(made)
    other = make_checkpoint(tmp_path / "other", n_layer=1)
    written = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(written | {"base_model_name_or_path": str(other)}))
    assert "has no such layer" in refused(adapter)


def test_an_engine_that_runs_is_not_measured_against_the_memory_that_it_has_taken(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Child.module("engine.cli", "serve", "--device", "cpu", home=home) as child:
        wait_for_health(registry.socket_path(registry.engine_key(locate(None))), child=child)
        found = findings(Wanted(device="cpu", dtype="int8", kv_memory=2**60))["device"]
        assert found.ok
        runs = f"its engine runs already, on cpu in float32 (pid {child.pid})"
        assert found.detail == f"{runs}, without --dtype int8: starfill stop ends it"
        assert findings(Wanted())["device"].detail == runs


def test_an_engine_that_loads_is_waited_for() -> None:
    loading = EngineRecord(7, 0.0, "", "", "m", "", "", "")
    assert wanted._as_it_runs(Wanted(device="cuda"), loading) == "its engine is loading it (pid 7)"


def test_an_engine_of_our_own_at_an_address(home: Path) -> None:
    with scripted_engine("os") as served:
        found = engine(Wanted(f"unix:{served.socket}"))
    assert found.ok
    assert found.detail == f"unix:{served.socket} completes, as scripted, an engine of starfill's"


def test_an_engine_of_somebody_else_is_named_without_its_control_characters(home: Path) -> None:
    with stranger() as (address, asked):
        found = engine(Wanted(address, token=lambda: "sesame"))
        assert (found.ok, found.detail) == (True, f"{address} completes, as 'team\\x1b[2Jmodel'")
        assert [request["max_tokens"] for request in asked] == [1]
        refused = engine(Wanted(address))
    assert (refused.ok, refused.detail) == (False, f"{address} refuses to complete (HTTP 401)")
    assert "token" in refused.remedy


def test_an_engine_that_cannot_be_asked(home: Path) -> None:
    absent = engine(Wanted(f"unix:{home}/none"))
    assert (absent.ok, "no engine listens there" in absent.detail) == (False, True)
    tokenless = engine(wanted_engine({"engine": "http://127.0.0.1:9", "token_file": "/nowhere"}))
    assert (tokenless.ok, "/nowhere" in tokenless.detail) == (False, True)


def test_flags_are_put_over_the_users_file_as_the_language_server_has_it(home: Path) -> None:
    (home / "settings.toml").write_text('model = "mine"\ndtype = "int8"\nkv_memory = "1GiB"\n')
    wish = wanted_engine({"dtype": "int4", "device": "cpu", "model": None})
    assert (wish.model, wish.dtype, wish.device, wish.kv_memory) == ("mine", "int4", "cpu", 2**30)
    (home / "settings.toml").write_text("model = [")
    assert wanted_engine({"dtype": "int4"}).dtype == "int4"


def test_the_command_takes_the_flags_of_the_language_server(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    seen: list[Wanted] = []

    def examine(wish: Wanted) -> list[Finding]:
        seen.append(wish)
        return []

    monkeypatch.setattr(doctor, "examine", examine)
    flags = ["--engine", "unix:/e", "--model", "/m", "--device", "cpu", "--dtype", "int8", "--kv-memory", "1GiB"]
    assert CliRunner().invoke(app, ["doctor", "--json", *flags]).exit_code == 0
    (wish,) = seen
    assert (wish.engine, wish.model, wish.device, wish.dtype, wish.kv_memory) == ("unix:/e", "/m", "cpu", "int8", 2**30)
    wrong = CliRunner().invoke(app, ["doctor", "--dtype", "int3"])
    assert wrong.exit_code != 0
    assert "int3" in wrong.output


def test_all_of_it_is_among_the_findings(home: Path) -> None:
    names = {finding.name: finding for finding in doctor.examine(Wanted(f"unix:{home}/none"))}
    assert not names["engine"].ok
    assert "model" not in names

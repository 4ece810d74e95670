"""`starfill models pull` where something stands in the way: gates, licences, disks, proxies; and that nobody else pulls."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys
from collections import namedtuple
from contextlib import suppress
from pathlib import Path

import pytest

from engine.errors import CheckpointError, HubError, StarfillError
from engine.lock import FileLock
from engine.models import locate
from engine.models.hub import Hub
from engine.models.licences import Terms
from engine.models.locate import ModelName
from engine.models.pulling import pull
from engine.models.record import read_record
from tests.harness.checkpoints import make_checkpoint
from tests.harness.families import make_family_checkpoint
from tests.harness.hub import FakeHub, Repo, certificates_for, proxying, serving
from tests.harness.process import isolated_env
from tests.harness.pulls import (
    ID,
    WEIGHTS,
    Asked,
    Told,
    fetch,
    nothing_is_here,
    starfill_models,
)

TOKEN = "hf_of_a_member"

pytestmark = pytest.mark.usefixtures("home")


# Gates, tokens, licences


def test_a_gated_model_says_which_page_and_which_token(
    hub: FakeHub, home: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated = "bigcode/starcoderbase-1b"
    hub.add(gated, model, licence="bigcode-openrail-m", gated=True, members={TOKEN})
    asked = Asked()
    with pytest.raises(HubError) as caught:
        fetch(gated, asked=asked)
    for part in (
        f"1. open {hub.url}/{gated},",
        f"{hub.url}/settings/tokens",
        "HF_TOKEN",
        f"starfill models pull {gated}",
    ):
        assert part in str(caught.value)
    assert not asked.terms, "nobody is asked to accept a licence for nothing"
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    with pytest.raises(
        HubError, match=rf"the account of your token is not let in: agree to its terms at {hub.url}/{gated};"
    ):
        fetch(gated)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.seen.clear()
    assert fetch(gated).fresh
    assert {seen.token for seen in hub.seen if "/cdn/" not in seen.path} == {TOKEN}
    assert {seen.token for seen in hub.seen if "/cdn/" in seen.path} == {None}, "the token stays with the hub"
    assert not any(TOKEN.encode() in path.read_bytes() for path in home.rglob("*") if path.is_file())


def test_the_licence_is_asked_for_once_and_recorded_beside_the_model(hub: FakeHub, tmp_path: Path) -> None:
    asked = Asked()
    first = fetch(asked=asked)
    [terms] = asked.terms
    assert "malware" in terms.text()
    accepted = json.loads((first.directory / "starfill.json").read_text())["acceptance"]
    assert accepted["licences"] == ["bigcode-openrail-m"]
    assert accepted["how"] == "asked"
    assert accepted["shown"] == hashlib.sha256(terms.text().encode()).hexdigest()
    assert accepted["at"].startswith("20")
    hub.add(ID, make_checkpoint(tmp_path / "newer", n_positions=64, seed=1))
    hub.add(ID, make_checkpoint(tmp_path / "branch", n_positions=64, seed=2), branch="other")
    fetch(asked=asked)
    branch = fetch(f"{ID}@other", asked=asked)
    assert len(asked.terms) == 1, "what was agreed to for a model holds for its other revisions"
    assert branch.record.acceptance == first.record.acceptance


def test_nothing_is_downloaded_before_the_licence_is_accepted(hub: FakeHub, home: Path) -> None:
    def refuse(terms: Terms, page: str) -> str:
        raise StarfillError("no")

    name = ModelName.parse(ID)
    assert name is not None
    with pytest.raises(StarfillError, match="no"):
        pull(name, Hub(), refuse, Told())
    assert not [path for path in hub.paths() if "/resolve/" in path]
    done = starfill_models("pull", ID, home=home, HF_ENDPOINT=hub.url)
    assert done.returncode == 1
    assert "must be accepted; nobody is there to ask" in done.stderr
    assert "--accept-licence" in done.stderr
    assert nothing_is_here(home)


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("y", 0)])
def test_on_a_terminal_the_question_is_asked_and_the_bar_shown(
    hub: FakeHub, home: Path, tmp_path: Path, answer: str, code: int
) -> None:
    child, terminal = pty.openpty()
    process = subprocess.Popen(
        [Path(sys.executable).with_name("starfill"), "models", "pull", ID],
        env=isolated_env(home, TERM="xterm", COLUMNS="120"),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    said = ""
    with suppress(OSError):  # its end closes the terminal
        while piece := os.read(child, 65_536):
            said += piece.decode("utf-8", "replace")
            if "Do you accept them? [y/N]" in said and answer:
                assert "malware" in said
                assert not [path for path in hub.paths() if "/resolve/" in path]
                os.write(child, answer.encode() + b"\n")
                answer = ""
    os.close(child)
    assert process.wait(60) == code, said
    if code:
        assert "not accepted, so nothing was downloaded" in said
        assert nothing_is_here(home)
    else:
        assert "100%" in said or "━" in said
        record = read_record(locate(ID).directory)
        assert record is not None
        assert record.acceptance is not None
        assert record.acceptance.how == "asked"


@pytest.mark.parametrize(
    ("id_", "card", "wanted"),
    [
        ("somebody/free", "apache-2.0", ()),
        ("somebody/rail", "bigcode-openrail-m", ("bigcode-openrail-m",)),
        ("somebody/strange", "llama9-community", ("llama9-community",)),
        ("somebody/silent", None, ("unknown",)),
        ("bigcode/santacoder", "bigcode-openrail-m", ("codeml-openrail-m",)),
        (
            "GeorgiaTechResearchInstitute/starcoder-gpteacher-code-instruct",
            "bigcode-openrail-m",
            ("bigcode-openrail-m", "openai-terms"),
        ),
    ],
)
def test_what_must_be_accepted_is_what_the_card_and_our_table_say(
    hub: FakeHub, model: Path, id_: str, card: str | None, wanted: tuple[str, ...]
) -> None:
    hub.add(id_, model, licence=card)
    asked = Asked()
    done = fetch(id_, asked=asked)
    assert [terms.ids for terms in asked.terms] == ([wanted] if wanted else [])
    assert (done.record.acceptance.licences if done.record.acceptance else ()) == wanted


# What cannot be


def test_what_starfill_could_not_read_is_refused_before_the_weights(hub: FakeHub, model: Path, home: Path) -> None:
    for missing, says in (
        ("tokenizer.json", "has no tokenizer.json"),
        ("config.json", "has no config.json"),
        (WEIGHTS, "has neither model.safetensors nor pytorch_model.bin"),
    ):
        hub.models["a/b"] = Repo({"main": {k: v for k, v in hub.models[ID].files["main"].items() if k != missing}})
        with pytest.raises(HubError, match=says):
            fetch("a/b")
    assert not [path for path in hub.paths() if "/cdn/" in path]
    assert nothing_is_here(home)


def _other(files: dict[str, bytes], **config: object) -> dict[str, bytes]:
    return files | {"config.json": json.dumps(json.loads(files["config.json"]) | config).encode()}


def test_what_no_backend_runs_is_refused_before_the_weights(hub: FakeHub, home: Path) -> None:
    good = hub.models[ID].files["main"]
    tokenizer = json.loads(good["tokenizer.json"])
    tokenizer["model"]["type"] = "Unigram"
    for files, says in (
        (_other(good, quantization_config={"quant_method": "gptq"}), "a/b/config.json: quantization_config: weights"),
        (_other(good, model_type="mamba"), "a/b/config.json: model_type 'mamba' is not supported"),
        (_other(good, vocab_size=100), "a/b/tokenizer.json: has ids up to"),
        (good | {"tokenizer.json": json.dumps(tokenizer).encode()}, "a/b/tokenizer.json: model.type: expected 'BPE'"),
    ):
        hub.models["a/b"] = Repo({"main": files})
        with pytest.raises(CheckpointError, match=rf"^{says}.*; its weights were not downloaded$"):
            fetch("a/b")
    assert not [path for path in hub.paths() if path.endswith(WEIGHTS)]
    assert not list((home / "models" / ".partial").iterdir())


def test_weights_that_are_not_those_of_the_config_take_nobodys_place(hub: FakeHub, home: Path) -> None:
    before = fetch().directory
    hub.models[ID].files["main"] = _other(hub.models[ID].files["main"], n_inner=64)
    with pytest.raises(
        CheckpointError, match=rf"config.json makes it .*; what was downloaded is kept until: .*remove {ID}"
    ):
        fetch()
    record = read_record(before)
    assert record is not None
    assert locate(ID).directory == before
    assert record.commit != hub.models[ID].commit("main")


def test_another_family_is_checked_too_and_its_library_named(
    hub: FakeHub, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("a/b", make_family_checkpoint(tmp_path / "q", "qwen2"))
    monkeypatch.setattr("engine.backends.library_version", lambda: None)
    told = Told()
    assert fetch("a/b", told=told).fresh
    assert any("pip install 'starfill[transformers]'" in note for note in told.notes)
    hub.models["a/c"] = Repo({"main": _other(hub.models["a/b"].files["main"], rope_scaling={"type": "yarn"})})
    with pytest.raises(CheckpointError, match=r"rope_scaling.*its weights were not downloaded"):
        fetch("a/c")


def test_an_index_cannot_name_what_is_not_there_or_not_a_name(hub: FakeHub, model: Path) -> None:
    small = {k: v for k, v in hub.models[ID].files["main"].items() if k != WEIGHTS}
    for name in ("../escape.safetensors", "gone.safetensors", "config.json"):
        index = json.dumps({"weight_map": {"w": name}}).encode()
        hub.models["a/b"] = Repo({"main": small | {"model.safetensors.index.json": index}})
        with pytest.raises(HubError, match="which is no file of weights there"):
            fetch("a/b")


def test_a_disk_that_is_too_small_is_noticed_before_the_weights(
    hub: FakeHub, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("engine.models.staging.shutil.disk_usage", lambda path: usage(2**30, 2**30, 1_000))
    with pytest.raises(HubError, match=rf"{ID} needs .* of disk at {home}.*, 1000 B are free; make room"):
        fetch()
    assert not [path for path in hub.paths() if "/cdn/" in path]
    assert nothing_is_here(home)


def test_two_pulls_of_one_model_do_not_mix(hub: FakeHub, home: Path) -> None:
    partial = home / "models" / ".partial"
    partial.mkdir(parents=True, mode=0o700)
    with (
        FileLock(partial / "bigcode--tiny_starcoder_py.lock").held(1),
        pytest.raises(HubError, match="by another starfill"),
    ):
        fetch()
    assert fetch().fresh


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_means_offline(hub: FakeHub, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(HubError, match=rf"{variable} is set, so nothing is downloaded; unset it"):
        fetch()
    assert not hub.seen


def test_a_hub_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        HubError, match=r"http://127\.0\.0\.1:9 cannot be reached .* check the network, HTTPS_PROXY, and HF_ENDPOINT"
    ):
        fetch()


# Company networks


def test_a_proxy_and_a_companys_certificates(model: Path, home: Path, tmp_path: Path) -> None:
    """The hub's name is known to the proxy alone, and its certificate is of an authority that only the company knows."""
    host = "hub.company.example"
    certificates, authority = certificates_for(host, tmp_path)
    with serving(FakeHub(), certificates) as hub:
        hub.add(ID, model, licence="apache-2.0")
        port = int(hub.url.rpartition(":")[2])
        with proxying(port) as proxy:
            hub.cdn = f"https://{host}"
            env = {"HF_ENDPOINT": f"https://{host}", "HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}"}
            command = ("pull", ID, "--accept-licence")
            distrusted = starfill_models(*command, home=home, **env)
            assert distrusted.returncode == 1
            assert "its certificate is not trusted here" in distrusted.stderr
            assert "SSL_CERT_FILE" in distrusted.stderr
            assert not hub.seen
            lost = starfill_models(*command, home=home, **env, SSL_CERT_FILE=str(tmp_path / "nowhere.pem"))
            assert "nowhere.pem: no such file" in lost.stderr
            for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
                done = starfill_models(*command, home=home, **env, **{variable: str(authority)})
                assert done.returncode == 0, done.stderr
                assert starfill_models("remove", ID, "--yes", home=home).returncode == 0
            assert set(proxy.tunnels) == {f"{host}:443"}
        direct = starfill_models(*command, home=home, **env | {"SSL_CERT_FILE": str(authority)})
        assert direct.returncode == 1, "without the proxy nobody knows that name"
        assert "cannot be reached" in direct.stderr or "proxy" in direct.stderr


def test_without_another_hub_named_models_come_from_the_familys(
    model: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default address, to its end: a proxy leads it here, and an authority of ours vouches for the name."""
    monkeypatch.delenv("HF_ENDPOINT")
    certificates, authority = certificates_for("huggingface.co", tmp_path)
    with serving(FakeHub(), certificates) as hub, proxying(int(hub.url.rpartition(":")[2])) as proxy:
        hub.cdn = "https://huggingface.co"
        hub.add(ID, model, licence="apache-2.0")
        env = {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}", "SSL_CERT_FILE": str(authority)}
        done = starfill_models("pull", ID, "--accept-licence", home=home, **env)
        assert done.returncode == 0, done.stderr
        assert set(proxy.tunnels) == {"huggingface.co:443"}
        record = read_record(locate(ID).directory)
        assert record is not None
        assert record.hub == "https://huggingface.co"
        missing = starfill_models("pull", "nobody/nothing", home=home, **env)
        assert "https://huggingface.co/nobody/nothing: there is no such model, or is private" in missing.stderr


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("ALL_PROXY", "socks5://me:secret@127.0.0.1:9", "ALL_PROXY=socks5://127.0.0.1:9 is a SOCKS proxy"),
        ("https_proxy", "socks4a://127.0.0.1:9", "https_proxy=socks4a://127.0.0.1:9 cannot be used"),
        ("HTTPS_PROXY", "http://127.0.0.1:nine", "HTTPS_PROXY=http://127.0.0.1:nine cannot be used"),
        ("SSL_CERT_FILE", "{}/no.pem", "no.pem: holds no certificates in PEM"),
        ("REQUESTS_CA_BUNDLE", "{}/no.pem", "no.pem: holds no certificates in PEM"),
    ],
)
def test_a_network_that_is_set_up_wrong_is_named_in_a_line(
    hub: FakeHub, home: Path, tmp_path: Path, variable: str, value: str, says: str
) -> None:
    (tmp_path / "no.pem").write_text("no certificate\n")
    done = starfill_models(
        "pull",
        ID,
        "--accept-licence",
        home=home,
        HF_ENDPOINT="https://hub.example",
        **{variable: value.format(tmp_path)},
    )
    assert done.returncode == 1
    assert says in done.stderr
    assert "secret" not in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


# Nobody else


QUIET_COMMANDS: list[tuple[str, ...]] = [
    ("models", "list", "--here", "--json"),
    ("models", "show", "nobody/nothing"),
    ("models", "remove", ID, "--yes"),
    ("status",),
]
ALL_COMMANDS: list[tuple[str, ...]] = [
    ("models", "list"),
    ("models", "show", ID),
    ("models", "show", "bigcode/starcoder"),
    ("models", "convert", "."),
    *QUIET_COMMANDS,
    ("doctor",),
    ("complete", "a.py", "2:14"),
    ("complete", "a.py", "2:14", "--model", "bigcode/not-here"),
    ("generate", "def total(", "--max-tokens", "2"),
    ("stop",),
]


@pytest.mark.parametrize(
    "commands", [QUIET_COMMANDS, pytest.param(ALL_COMMANDS, marks=pytest.mark.slow)], ids=["a few", "all"]
)
def test_no_other_command_reaches_the_network(
    hub: FakeHub, home: Path, tmp_path: Path, commands: list[tuple[str, ...]]
) -> None:
    """Every command runs where the hub's address would work, and each name or address that anybody asks for is noted."""
    guard, reached = tmp_path / "guard", tmp_path / "reached"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(
        "import sys\n"
        "def hook(event, arguments):\n"
        "    inet = event == 'socket.connect' and isinstance(arguments[-1], tuple)\n"
        "    if inet or event == 'socket.getaddrinfo':\n"
        f"        open({str(reached)!r}, 'a').write(f'{{event}} {{arguments}} {{sys.argv}}\\n')\n"
        "sys.addaudithook(hook)\n"
    )
    (tmp_path / "a.py").write_text("def total(values):\n    return su\n")
    fetch()
    hub.seen.clear()
    env = isolated_env(home, PYTHONPATH=str(guard))
    command = Path(sys.executable).with_name("starfill")

    def run(arguments: tuple[str, ...]) -> None:
        subprocess.run(
            [command, *arguments],
            env=env,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
        )

    for arguments in commands:
        run(arguments)
    assert not reached.exists(), reached.read_text()
    assert not hub.seen
    run(("models", "pull", ID, "--accept-licence"))
    assert reached.exists(), "the trap works"
    assert hub.seen


def test_the_look_alike_is_one_for_the_librarys_own_client(hub: FakeHub, model: Path, tmp_path: Path) -> None:
    """What our tests rest on behaves as huggingface_hub expects of a hub."""
    code = (
        "import sys; from huggingface_hub import HfApi, hf_hub_download\n"
        "info = HfApi().model_info(sys.argv[1], files_metadata=True)\n"
        "print(info.sha)\n"
        f"print(hf_hub_download(sys.argv[1], '{WEIGHTS}', cache_dir=sys.argv[2]))\n"
    )
    env = isolated_env(tmp_path, HF_ENDPOINT=hub.url, HF_HUB_DISABLE_TELEMETRY="1", HF_HOME=str(tmp_path / "hf"))
    done = subprocess.run(
        [sys.executable, "-c", code, ID, str(tmp_path / "cache")], env=env, capture_output=True, text=True, check=True
    )
    sha, path = done.stdout.split()
    assert sha == hub.models[ID].commit("main")
    assert Path(path).read_bytes() == (model / WEIGHTS).read_bytes()

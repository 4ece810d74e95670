"""The second backend: other families give the tokens of the library's own `generate`, with our slots and scheduler."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch

from engine.backends import choose_backend
from engine.errors import CheckpointError, DeviceError, StarfillError
from engine.loading import LoadOptions, load
from engine.models import ModelSource
from engine.prospect import foresee
from engine.transformers_backend.loading import window_that_fits
from tests.harness.adapters import make_adapter
from tests.harness.checkpoints import make_checkpoint
from tests.harness.families import (
    FAMILIES,
    family_greedy,
    family_ids,
    family_oracle,
    id_of,
    make_family_checkpoint,
    rewrite_tensors,
)
from tests.harness.inprocess import InProcessEngine
from tests.harness.process import isolated_env, temporary_home

HEAD = "import os\n\n\ndef first(values):\n    return values[0]\n\n\n"
PREFIX = HEAD + "def total(values):\n    result = 0\n    for value in values:\n        result = result + 1"
"""Its last pre-token is a digit, which no longer text could change, and its ninth line begins the anchored tail."""
SUFFIX = "\n    return result\n\n\nprint(total([1, 2, 3]))\n"
KINDS = tuple(FAMILIES)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


@cache
def _made(home: Path, kind: str) -> Path:
    return make_family_checkpoint(home / kind, kind)


@cache
def _oracle(directory: Path) -> Any:
    return family_oracle(directory)


def _engine(directory: Path, **options: Any) -> InProcessEngine:
    return InProcessEngine.of(directory, **{"dtype": "float32", "kv_memory": 2**26, **options})


def _request(layout: str) -> dict[str, Any]:
    if layout == "plain":
        return {"prompt": PREFIX}
    return {"prompt": PREFIX, "suffix": SUFFIX, "starfill": {"layout": layout}}


@pytest.mark.parametrize("layout", ["psm", "spm", "anchored", "plain"])
@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_the_librarys_own_generate(home: Path, kind: str, layout: str) -> None:
    directory = _made(home, kind)
    engine = _engine(directory)
    cold = engine.complete(**_request(layout), max_tokens=16)
    assert not cold.admitted.healed
    assert cold.computed == len(cold.prompt)
    assert cold.ids == family_greedy(_oracle(directory), cold.prompt, 16)

    warm = engine.complete(**_request(layout), max_tokens=16)
    assert (warm.computed, warm.ids) == (1, cold.ids)

    in_pieces = _engine(directory, piece=16).complete(**_request(layout), max_tokens=16)
    assert in_pieces.ids == cold.ids


def test_a_tied_pair_may_have_the_heads_name_alone(home: Path, tmp_path: Path) -> None:
    directory, whole = make_family_checkpoint(tmp_path / "m", "starcoder2"), _made(home, "starcoder2")
    expected = _engine(whole).complete(prompt=PREFIX, max_tokens=12).ids

    def rename(tensors: dict[str, Any]) -> None:
        tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")

    rewrite_tensors(directory, rename)
    assert _engine(directory).complete(prompt=PREFIX, max_tokens=12).ids == expected

    def spoil(tensors: dict[str, Any]) -> None:
        del tensors["lm_head.weight"]

    rewrite_tensors(directory, spoil)
    with pytest.raises(CheckpointError, match=r"embed_tokens\.weight is missing"):
        _engine(directory)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_is_laid_out_as_its_family_was_trained(home: Path, kind: str) -> None:
    """What a user of the library would write: control tokens around texts that are tokenised alone."""
    directory, family = _made(home, kind), FAMILIES[kind]
    engine = _engine(directory)
    automatic = engine.complete(prompt=PREFIX, suffix=SUFFIX, max_tokens=1)
    assert automatic.admitted.layout == ("anchored" if kind == "starcoder2" else "psm")
    psm = engine.complete(**_request("psm"), max_tokens=1)
    below = SUFFIX.removeprefix("\n")  # the cursor's own line ends here
    written = family.begin + family.prefix + PREFIX + family.suffix + below + family.middle
    assert psm.prompt == family_ids(directory, written)
    raw = engine.complete(prompt=written, max_tokens=1, starfill={"raw": True})
    assert raw.prompt == psm.prompt
    plain = engine.complete(prompt="x = 1", max_tokens=1)
    assert plain.prompt == family_ids(directory, family.begin + "x = 1")


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_computes_what_it_changed_and_a_branch_is_forked(home: Path, kind: str) -> None:
    directory = _made(home, kind)
    engine, oracle = _engine(directory), _oracle(directory)
    ids = [id_of(directory, text) for text in ("x", "y", "z", "a", "b")] * 20
    first = engine.complete(prompt=ids, max_tokens=20)
    assert first.ids == family_greedy(oracle, ids, 20)
    # Cut back in place, and grown another way.
    shorter = ids[:90] + ids[2:5]
    second = engine.complete(prompt=shorter, max_tokens=12)
    assert second.computed == 3
    assert second.ids == family_greedy(oracle, shorter, 12)
    # A short common head would lose a long branch: it is copied to another slot.
    branch = ids[:20] + ids[41:61]
    third = engine.complete(prompt=branch, max_tokens=12)
    assert third.computed == 20
    assert engine.scheduler.slots.forks == 1
    assert third.ids == family_greedy(oracle, branch, 12)
    assert engine.complete(prompt=shorter, max_tokens=12).ids == second.ids


@pytest.mark.parametrize("kind", KINDS)
def test_six_interleaved_requests_give_what_each_gives_alone(home: Path, kind: str) -> None:
    directory = _made(home, kind)
    requests = [
        {"prompt": PREFIX + "\n" * n, "suffix": SUFFIX, "max_tokens": 8 + n, "starfill": {"layout": layout}}
        for n, layout in enumerate(("psm", "spm", "anchored") * 2)
    ]
    alone = [_engine(directory).complete(**request) for request in requests]
    together = _engine(directory, piece=24).together(requests)
    assert [each.ids for each in together] == [each.ids for each in alone]
    assert [each.text for each in together] == [each.text for each in alone]
    assert len({tuple(each.ids) for each in alone}) > 3


def test_drawn_tokens_are_the_same_alone_and_in_company(home: Path) -> None:
    drawn = {"prompt": PREFIX, "max_tokens": 8, "temperature": 1.0, "seed": 3, "logprobs": 2, "n": 2}
    alone = _engine(_made(home, "qwen2")).complete(**drawn)
    company, _ = _engine(_made(home, "qwen2")).together([drawn, {"prompt": "x = 1", "max_tokens": 12}])
    assert company.ids == alone.ids
    assert company.others[0].ids == alone.others[0].ids != alone.ids
    assert all(len(token.top) == 2 for token in alone.tokens)


def test_an_aborted_request_leaves_a_warm_slot(home: Path) -> None:
    directory = _made(home, "qwen2")
    engine = _engine(directory, piece=16)
    from engine.api import CompletionRequest

    admitted = engine.intake.take(CompletionRequest(prompt=PREFIX, max_tokens=64, temperature=0))
    engine.scheduler.submit(admitted.generation)
    for _ in range(3):
        step = engine.scheduler.plan()
        assert step is not None
        engine.scheduler.commit(step, engine.runner.run(step))
    assert engine.scheduler.abort(admitted.generation.request)
    engine.scheduler.check_integrity()
    computed = admitted.generation.computed
    again = engine.complete(prompt=PREFIX, max_tokens=8)
    assert again.computed == max(1, len(again.prompt) - computed)
    assert again.ids == family_greedy(_oracle(directory), again.prompt, 8)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("starcoder2", {"sliding_window": 24}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}),
    ],
    ids=["starcoder2", "qwen2, in its upper layers"],
)
def test_a_window_that_slides_slides_over_what_is_cached_too(tmp_path: Path, kind: str, config: dict[str, Any]) -> None:
    directory = make_family_checkpoint(tmp_path / "m", kind, **config)
    engine, oracle = _engine(directory, piece=16), family_oracle(directory)
    ids = [id_of(directory, text) for text in ("x", "y", "z", "a", "b", "c", "d")] * 12
    full = make_family_checkpoint(tmp_path / "full", kind)
    wanted = family_greedy(oracle, ids, 16)
    assert wanted != family_greedy(family_oracle(full), ids, 16)
    assert engine.complete(prompt=ids, max_tokens=16).ids == wanted
    # What had left the window comes back into it when the text is cut.
    shorter = [*ids[:40], ids[0]]
    assert engine.complete(prompt=shorter, max_tokens=16).ids == family_greedy(oracle, shorter, 16)


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("starcoder2", {"dtype": torch.bfloat16, "shard": "100KB"}),
        ("starcoder2", {"use_bias": False, "tie_word_embeddings": False}),
        ("qwen2", {"dtype": torch.bfloat16, "shard": "100KB", "tie_word_embeddings": True}),
        ("deepseek", {"dtype": torch.float16, "num_key_value_heads": 4}),
        ("deepseek", {"attention_bias": True, "mlp_bias": True, "head_dim": 24}),
        ("gemma", {"dtype": torch.bfloat16, "num_key_value_heads": 1, "hidden_act": "gelu"}),
    ],
    ids=lambda value: value if isinstance(value, str) else ", ".join(value),
)
def test_published_variants_are_read(tmp_path: Path, kind: str, form: dict[str, Any]) -> None:
    directory = make_family_checkpoint(tmp_path / "m", kind, **form)
    if "shard" in form:
        assert len(list(directory.glob("*.safetensors"))) > 2
    done = _engine(directory).complete(**_request("psm"), max_tokens=12)
    assert done.ids == family_greedy(family_oracle(directory), done.prompt, 12)


def test_fields_of_old_configurations_are_understood(tmp_path: Path) -> None:
    """Before version 5 the library wrote positions as `rope_theta` and `rope_scaling`, and stored the frequencies."""
    directory = make_family_checkpoint(tmp_path / "m", "deepseek")
    ids = list(range(20, 120))
    wanted = family_greedy(family_oracle(directory), ids, 12)
    config = json.loads((directory / "config.json").read_text())
    del config["rope_parameters"]
    config |= {"rope_theta": 100_000, "rope_scaling": {"type": "linear", "factor": 4.0}, "torch_dtype": "float32"}
    (directory / "config.json").write_text(json.dumps(config))
    rewrite_tensors(
        directory, lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)})
    )
    assert _engine(directory).complete(prompt=ids, max_tokens=12).ids == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_auto_chooses_the_backend_and_says_so(home: Path, tmp_path: Path, kind: str) -> None:
    loaded = load(LoadOptions(ModelSource("m", _made(home, kind)), device="cpu", kv_memory=2**26))
    assert loaded.backend == "transformers"
    assert "slower" in loaded.note
    starcoder = make_checkpoint(tmp_path / "s")
    assert choose_backend("auto", starcoder) == choose_backend("native", starcoder) == "native"
    native = load(LoadOptions(ModelSource("m", starcoder), device="cpu", kv_memory=2**26))
    assert (native.backend, native.note) == ("native", "")


def test_what_neither_backend_can_do_is_refused_with_the_remedy(home: Path, tmp_path: Path) -> None:
    starcoder = make_checkpoint(tmp_path / "s")
    with pytest.raises(StarfillError, match="which the native backend runs, and faster; leave --backend out"):
        choose_backend("transformers", starcoder)
    with pytest.raises(StarfillError, match="no such backend; choose one of auto, native, transformers"):
        choose_backend("vllm", starcoder)
    qwen = _made(home, "qwen2")
    with pytest.raises(CheckpointError, match=r"model_type 'qwen2' is not supported by the native backend"):
        load(LoadOptions(ModelSource("m", qwen), device="cpu", backend="native"))
    for dtype in ("int8", "int4"):
        with pytest.raises(
            DeviceError, match=rf"--dtype {dtype}: the transformers backend stores no weights in {dtype}"
        ):
            load(LoadOptions(ModelSource("m", qwen), device="cpu", dtype=dtype))
    with pytest.raises(DeviceError, match=r"--kv-memory 4 KiB holds no window of 512 tokens"):
        load(LoadOptions(ModelSource("m", qwen), device="cpu", kv_memory=4096))


def test_what_would_be_refused_is_foreseen(home: Path, tmp_path: Path) -> None:
    qwen = _made(home, "qwen2")
    with pytest.raises(DeviceError, match=r"--kv-memory 4 KiB holds no window of 512 tokens"):
        foresee(qwen, "cpu", "auto", 4096)
    adapter = make_adapter(tmp_path / "a", qwen)
    for ask in (
        lambda: foresee(adapter, "cpu", "auto", 2**26),
        lambda: load(LoadOptions(ModelSource("a", adapter), device="cpu", kv_memory=2**26)),
    ):
        with pytest.raises(CheckpointError, match="are not merged by the transformers backend"):
            ask()
    cut = rewrite_tensors(make_family_checkpoint(tmp_path / "m", "qwen2"), lambda t: t.pop("model.norm.weight"))
    with pytest.raises(CheckpointError, match=r"tensor model\.norm\.weight is missing"):
        foresee(cut, "cpu", "auto", 2**26)


@pytest.mark.parametrize("kind", ["qwen2", "starcoder"])
def test_what_the_doctor_foresees_is_what_is_loaded(home: Path, tmp_path: Path, kind: str) -> None:
    directory = make_checkpoint(tmp_path / "s") if kind == "starcoder" else _made(home, kind)
    loaded = load(LoadOptions(ModelSource("m", directory), device="cpu", kv_memory=2**26))
    found = foresee(directory, "cpu", "auto", 2**26)
    assert found == {
        "backend": loaded.backend, "device": loaded.device, "dtype": loaded.dtype, "reason": loaded.why,
    }  # fmt: skip


def test_without_the_library_the_remedy_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version, says in ((None, "is not installed"), ("4.57.1", "is of version 4.57.1"), ("6.0.0", "is of version 6")):
        monkeypatch.setattr("engine.backends.library_version", lambda found=version: found)
        with pytest.raises(StarfillError, match=rf"{says}.*: pip install 'starfill\[transformers\]'"):
            choose_backend("auto", _made(home, "gemma"))


def test_an_engine_of_its_own_serves_it_and_the_status_says_how(home: Path, tmp_path: Path) -> None:
    directory = _made(home, "qwen2")
    oracle = family_greedy(_oracle(directory), family_ids(directory, "def total(values):\n"), 8)
    with temporary_home() as own:

        def starfill(*arguments: str) -> str:
            command = [str(Path(sys.executable).with_name("starfill")), *arguments]
            done = subprocess.run(
                command, env=isolated_env(own), cwd=own, capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        said = starfill("generate", "def total(values):\n", "--model", str(directory), "--max-tokens", "8")
        assert said == tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json")).decode(oracle)
        (engine,) = json.loads(starfill("status", "--json"))
        assert engine["backend"] == "transformers"
        assert "slower" in engine["note"]
        assert "transformers" in starfill("status")
        findings = {finding["name"]: finding for finding in json.loads(starfill("doctor", "--json"))}
        assert findings["transformers"]["ok"]
        assert "slower" in findings["transformers"]["detail"]
        starfill("stop")


@pytest.mark.parametrize(
    ("longest", "position", "memory", "window"),
    [
        (8_192, 2**10, 2**29, 8_192),
        (32_768, 28 * 2**10, 2**29, 4_096),  # Qwen2.5-Coder-1.5B: four slots
        (16_384, 192 * 2**10, 2**29, 2_048),  # DeepSeek-Coder-1.3B keeps all heads: one slot
        (16_384, 2**19, 2**29, 1_024),  # and 6.7B
        (512, 2**19, 2**20, 512),  # too much: refused by who counts the slots
    ],
)
def test_a_long_context_is_cut_to_what_its_keys_and_values_have_room_for(
    longest: int, position: int, memory: int, window: int
) -> None:
    assert window_that_fits(longest, position, memory) == window


def test_the_window_is_the_users_if_they_say_so(home: Path) -> None:
    directory = _made(home, "qwen2")
    assert _engine(directory).runner.window == 512
    assert _engine(directory, window=128).runner.window == 128
    assert _engine(directory, window=10_000).runner.window == 512

from __future__ import annotations

import itertools
import json
import subprocess
import time
from pathlib import Path

import numpy as np
import pathspec
import pytest
import torch

from engine import tuning
from engine.checkpoint.adapter import Adapter
from engine.instruct import Form, alpaca, following_of
from engine.models import ModelSource
from engine.training import card, commands, export, lora, packed, pairs, score, tune
from engine.training.batches import Mix, Windows
from engine.training.bpe import Vocabulary
from engine.training.decode import Line, complete_lines
from engine.training.feed import Feed
from engine.training.model import Cache, Model, Shape
from engine.training.record import Record
from engine.training.samples import Layout, Prompt
from engine.training.schedule import Budget, Schedule
from engine.training.scrub import EMAIL, SECRET
from engine.training.trainer import Trainer
from tests.training.training_world import World, tiny_plan

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def losses(record: Record) -> list[float]:
    return [event["loss"] for event in record.all("step")]


@pytest.fixture(scope="module")
def trained(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    out = tmp_path_factory.mktemp("trained")
    record = Trainer(world.corpus, tiny_plan(world, 40), CPU, out).run()
    record.write(out)
    card.write(out, record)
    return out, record


def test_loss_falls_and_the_folder_is_complete(trained: tuple[Path, Record]) -> None:
    out, record = trained
    curve = losses(record)
    assert curve[-1] < curve[0] - 1.0
    names = {file.name for file in out.iterdir()}
    assert names >= {"config.json", "tokenizer.json", "model.safetensors.index.json", "run.jsonl", "README.md"}
    assert len(names) <= 8
    assert all(file.stat().st_size <= 15_000_000 for file in out.iterdir())
    assert "gpt_bigcode" in (out / "README.md").read_text()
    assert record.last("heldout")["middle"] > 0
    assert card.curve_svg(record).startswith("<svg")


def test_same_seed_gives_the_same_curve(world: World, tmp_path: Path) -> None:
    first = losses(Trainer(world.corpus, tiny_plan(world, 6), CPU, tmp_path / "a").run())
    second = losses(Trainer(world.corpus, tiny_plan(world, 6), CPU, tmp_path / "b").run())
    assert [round(x, 3) for x in first] == [round(x, 3) for x in second]
    plan = tiny_plan(world, 6)
    plan.seed = 2
    assert losses(Trainer(world.corpus, plan, CPU, tmp_path / "c").run()) != first


def test_a_resumed_run_goes_on(world: World, trained: tuple[Path, Record], tmp_path: Path) -> None:
    out, record = trained
    more = Trainer(world.corpus, tiny_plan(world, 10), CPU, tmp_path / "more", resume=out)
    assert more.step == 40
    before = record.last("state")
    again = more.run()
    curve = losses(again)
    assert again.last("state")["step"] == 50
    assert again.last("state")["windows"] == before["windows"] + 10 * 4
    assert again.last("state")["tokens"] == before["tokens"] + 10 * 4 * 128
    assert len(again.all("run")) == 2
    # It starts about where the other ended, far from a fresh model's loss.
    assert curve[len(losses(record))] < curve[0] - 0.8


def test_time_budget_is_kept(world: World, tmp_path: Path) -> None:
    plan = tiny_plan(world, 0)
    plan.seconds, plan.reserve = 2.0, 0.5
    started = time.monotonic()
    Trainer(world.corpus, plan, CPU, tmp_path, started=started).run()
    assert time.monotonic() - started < 10.0


def test_export_gives_transformers_the_same_logits(trained: tuple[Path, Record], world: World) -> None:
    transformers = pytest.importorskip("transformers")
    out, _ = trained
    theirs = transformers.GPTBigCodeForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    ours = export.read(out).eval()
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, world.vocabulary.size, (2, 90)))
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(ours(ids)), theirs(ids).logits, atol=2e-5, rtol=2e-5)


def test_shards_respect_their_limit(tmp_path: Path, world: World) -> None:
    model = Model(Shape(world.vocabulary.size, width=64, layers=2, heads=2, inner=96, positions=128))
    model.initialise(1)
    export.write(model, world.corpus.tokenizer, tmp_path, limit=150_000)
    files = export.weight_files(tmp_path)
    assert len(files) > 1
    assert all(file.stat().st_size <= 150_000 for file in files)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(model.state_dict())
    back = export.read(tmp_path)
    torch.testing.assert_close(back.transformer.wpe.weight, model.transformer.wpe.weight.bfloat16().float())
    sizes = {name: tensor.numel() * 2 for name, tensor in Model(Shape()).state_dict().items()}
    assert len(export.plan(sizes)) == 3
    assert 18e6 <= Shape().parameters == sum(sizes.values()) // 2 <= 24e6


def test_schedule_rises_stays_and_falls() -> None:
    schedule = Schedule(warm_up=0.1, decay=0.4)
    values = [schedule.factor(share / 100) for share in range(101)]
    assert 0 < values[0] < values[5] < values[10] == 1.0
    assert set(values[10:61]) == {1.0}
    assert all(a > b for a, b in itertools.pairwise(values[60:]))
    assert values[-1] == 0.0
    assert Schedule(decay=0.0).factor(1.0) == 1.0
    assert Budget(10.0).share(5.0, 99) == 0.5
    assert Budget(10.0, steps=4).share(99.0, 1) == 0.25


def test_workers_make_the_same_batches(world: World) -> None:
    windows = Windows(world.vocabulary, world.corpus.part(heldout=False), ["trained", "kept"], 64, Mix(), seed=1)
    feed = Feed(windows, 6, 12, workers=2)
    try:
        for number in range(2):
            ids, classes = next(feed)
            wanted, wanted_classes = windows.batch(12 + 6 * number, 6)
            assert (ids == wanted).all()
            assert (classes == wanted_classes).all()
    finally:
        feed.close()


def test_cached_decoding_is_decoding(trained: tuple[Path, Record], world: World) -> None:
    model = export.read(trained[0]).eval()
    rng = np.random.default_rng(4)
    rows = [rng.integers(19, world.vocabulary.size, size).tolist() for size in (7, 30, 18)]
    width = max(map(len, rows))
    ids = torch.zeros(3, width, dtype=torch.long)
    for n, row in enumerate(rows):
        ids[n, : len(row)] = torch.tensor(row)
    lengths = torch.tensor([len(row) for row in rows])
    with torch.inference_mode():
        cache = Cache(model.shape, 3, width + 4, CPU, torch.float32)
        hidden = model.extend(ids, lengths, cache)
        for _ in range(4):
            for n, row in enumerate(rows):
                whole = model(torch.tensor([row]))[0, -1]
                torch.testing.assert_close(hidden[n], whole, atol=1e-4, rtol=1e-4)
            tokens = model.logits(hidden).argmax(1)
            for row, token in zip(rows, tokens.tolist(), strict=True):
                row.append(token)
            hidden = model.extend(tokens[:, None], torch.ones(3, dtype=torch.long), cache)


def test_held_back_text_is_regrown(trained: tuple[Path, Record], world: World) -> None:
    line = Line(b"re")
    line.take(5, b"r")
    assert (line.held, line.text, line.done) == (b"e", b"", False)
    line.take(6, b"eturn x\nnext")
    assert (line.held, line.text, line.done) == (b"", b"turn x", True)
    model = export.read(trained[0]).eval()
    prompts = [Prompt(world.vocabulary.encode("import os\n    "), held) for held in (b"", b"retu", b"zq")]
    together = complete_lines(model, world.vocabulary, prompts, batch=3, limit=12)
    alone = [complete_lines(model, world.vocabulary, [p], batch=1, limit=12)[0] for p in prompts]
    assert together == alone


def test_score_compares_models_on_the_same_holes(trained: tuple[Path, Record], world: World) -> None:
    model = export.read(trained[0]).eval()
    cursors = score.draw(world.corpus, 12, ["python"])
    assert {c.package for c in cursors} == {"kept"}
    assert all(not c.text[c.at].isspace() for c in cursors)
    both = {"new": (model, world.vocabulary), "old": (model, world.vocabulary)}
    figures = score.measure(both, cursors, [Layout.PSM, Layout.ANCHORED], window=96)
    assert [row["model"] for row in figures["rows"]] == ["new", "old", "new", "old"]
    assert figures["rows"][1]["first_minus_this"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    estimate = score.bootstrap(np.asarray([1.0, 0.0] * 50), [str(i) for i in range(100)])
    assert estimate.low < 50.0 == estimate.value < estimate.high


def make_repository(root: Path) -> None:
    for number in range(6):
        lines = [f"def handler_{number}_{i}(request):\n    return respond(request, code={i})\n\n" for i in range(12)]
        (root / f"module_{number}.py").write_text("import web\n\n" + "".join(lines))


@pytest.mark.parametrize("adapter", [False, True])
def test_tuning_helps_and_leaves_its_base_alone(trained: tuple[Path, Record], tmp_path: Path, adapter: bool) -> None:
    base, out, repository = trained[0], tmp_path / "tuned", tmp_path / "repository"
    repository.mkdir()
    make_repository(repository)
    before = {file.name: file.read_bytes() for file in base.iterdir()}
    plan = tune.TunePlan(steps=25, adapter=adapter, length=128, holes=4, adapter_rate=0.01, device="cpu")
    outcome = tune.tune(repository, base, out, plan)
    assert outcome.kept
    assert outcome.after.loss < outcome.before.loss
    assert before == {file.name: file.read_bytes() for file in base.iterdir()}
    if adapter:
        read = Adapter.read(out)
        name = "transformer.h.0.attn.c_attn.weight"
        weight = export.read(base).state_dict()[name]
        assert read.base.directory == base
        assert not torch.equal(read.merge(name, weight), weight)
        assert read.merge("transformer.wte.weight", weight) is weight
    else:
        export.read(out)
    with pytest.raises(tune.TuneError, match="not empty"):
        tune.tune(repository, base, out, plan)


def test_what_is_excluded_or_ignored_is_never_trained_on(tmp_path: Path) -> None:
    make_repository(tmp_path)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "secrets.py").write_text((tmp_path / "module_0.py").read_text())
    (tmp_path / ".hidden.py").write_text((tmp_path / "module_0.py").read_text())
    patterns = pathspec.GitIgnoreSpec.from_lines([*tuning.SECRETS, "module_1.py"])
    kept = [f"module_{number}.py" for number in (0, 2, 3, 4, 5)]
    assert [document.path for document in tune.collect(tmp_path, patterns.match_file)] == kept
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("module_2.py\n")
    assert [document.path for document in tune.collect(tmp_path, patterns.match_file)] == [kept[0], *kept[2:]]


def test_what_cannot_fit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    config = Shape(vocabulary=49_152, width=65_536, layers=500, heads=512, inner=262_144).config()
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(tune.TuneError, match="free; an adapter takes less"):
        tune.tune(tmp_path, tmp_path, tmp_path / "out", tune.TunePlan(adapter=False, device="cpu"))


def test_a_merged_adapter_computes_what_was_trained(world: World, tmp_path: Path) -> None:
    model = Model(Shape(world.vocabulary.size, width=64, layers=1, heads=2, inner=96, positions=64))
    model.initialise(3)
    base, out = tmp_path / "base", tmp_path / "out"
    export.write(model, world.corpus.tokenizer, base, dtype=torch.float32)
    plain = export.read(base)
    assert lora.attach(model, rank=4, alpha=8.0) > 0
    for module in model.modules():
        if isinstance(module, lora.LowRank):
            torch.nn.init.normal_(module.lora_B, std=0.05)
    lora.write(model, out, 4, 8.0, str(base))
    adapter = Adapter.read(out)
    plain.load_state_dict({name: adapter.merge(name, tensor) for name, tensor in plain.state_dict().items()})
    ids = torch.arange(40)[None]
    torch.testing.assert_close(model(ids), plain(ids), atol=1e-5, rtol=1e-4)


def test_instruction_pairs_are_tuned_on(trained: tuple[Path, Record], tmp_path: Path) -> None:
    file, out = tmp_path / "pairs.jsonl", tmp_path / "out"
    rows = [{"instruction": f"Add {i} and {i}", "input": "", "output": f"result = {i} + {i}\n"} for i in range(20)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = tune.tune(file, trained[0], out, tune.TunePlan(steps=15, length=128, device="cpu"))
    assert outcome.kept
    assert outcome.before.exact is None
    assert following_of(ModelSource("out", out)).form is Form.ALPACA


def test_pairs_are_read_in_alpacas_form_and_masked(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    rows = [
        {"instruction": "Explain.", "input": "x = 1", "output": "One."},
        {"prompt": "Write to bob@somewhere.com", "completion": "api_key = '9f8a7b6c5d4e3f2a1b0c9d8e'"},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    first, second = pairs.read(file)
    assert first.prompt == alpaca("Explain.", "x = 1")
    assert second.prompt == alpaca(f"Write to {EMAIL}")
    assert SECRET in second.response
    for wrong in ('{"instruction": "a"}', '{"instruction": 1, "output": "b"}', "[]", "no"):
        file.write_text(json.dumps(rows[0]) + "\n" + wrong)
        with pytest.raises(ValueError, match=r"pairs\.jsonl:2: "):
            pairs.read(file)


def test_commands_train_resume_score_and_finish(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, first, second = tmp_path / "corpus.xz", tmp_path / "first", tmp_path / "second"
    packed.write(world.corpus, data, preset=1)
    small = ["--corpus", str(data), "--steps", "1", "--batch", "1", "--micro", "1", "--length", "64", "--device", "cpu"]
    assert commands.main(["train", *small, "--out", str(first)]) == 0
    assert commands.main(["train", *small, "--out", str(second), "--resume", str(first)]) == 0
    assert commands.main(["card", str(second)]) == 0
    assert (second / "loss.svg").exists()
    assert (second / "tokenizer_config.json").exists()
    scored = ["score", str(second), str(first), "--corpus", str(data), "--holes", "2", "--window", "128"]
    assert commands.main([*scored, "--layouts", "spm", "--device", "cpu", "--record"]) == 0
    assert "python" in (second / "README.md").read_text()
    assert Vocabulary.read(second / "tokenizer.json").size == world.vocabulary.size
    assert "exact" in capsys.readouterr().err

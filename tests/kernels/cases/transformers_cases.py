"""Models of transformers with our attention, against the same models with their own."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

from tests.kernels.cases.support import DEVICE
from triton_kernels.launch import recorded
from triton_kernels.transformers_attention import register

VOCABULARY = 97


def model(implementation: str, *, multi_query: bool) -> GPTBigCodeForCausalLM:
    torch.manual_seed(7)
    config = GPTBigCodeConfig(
        vocab_size=VOCABULARY, n_positions=128, n_embd=64, n_layer=2, n_head=4, multi_query=multi_query,
        attn_implementation=implementation, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        resid_pdrop=0.0, attn_pdrop=0.0, embd_pdrop=0.0, initializer_range=0.3,
    )  # fmt: skip
    made = GPTBigCodeForCausalLM(config).eval()
    return made.to(DEVICE)


def tokens(batch: int, length: int) -> torch.Tensor:
    draw = torch.Generator("cpu").manual_seed(length)
    return torch.randint(1, VOCABULARY, (batch, length), device="cpu", generator=draw).to(DEVICE)


@pytest.fixture(params=[True, False], ids=["one key head", "a key head each"])
def both(request: pytest.FixtureRequest) -> Sequence[GPTBigCodeForCausalLM]:
    register()
    ours, theirs = (model(name, multi_query=request.param) for name in ("starfill", "eager"))
    assert ours.config._attn_implementation == "starfill"
    return ours, theirs


@torch.inference_mode()
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 33), (3, 17)])
def test_logits(both: Sequence[GPTBigCodeForCausalLM], batch: int, length: int) -> None:
    ours, theirs = both
    ids = tokens(batch, length)
    with recorded() as launches:
        found = ours(ids).logits
    assert [launch.name for launch in launches] == ["attend_kernel"] * 2
    torch.testing.assert_close(found, theirs(ids).logits, atol=2e-4, rtol=2e-4)


@torch.inference_mode()
def test_extending_a_cache_by_one_and_by_several(both: Sequence[GPTBigCodeForCausalLM]) -> None:
    ids = tokens(2, 30)
    caches = [each(ids[:, :20], use_cache=True).past_key_values for each in both]
    for start, end in ((20, 21), (21, 27), (27, 30)):
        steps = [
            each(ids[:, start:end], past_key_values=cache, use_cache=True)
            for each, cache in zip(both, caches, strict=True)
        ]
        torch.testing.assert_close(steps[0].logits, steps[1].logits, atol=2e-4, rtol=2e-4)
    torch.testing.assert_close(steps[0].logits, both[1](ids).logits[:, 27:], atol=2e-4, rtol=2e-4)


@torch.inference_mode()
def test_greedy_generation_uses_the_kernel_at_every_step(both: Sequence[GPTBigCodeForCausalLM]) -> None:
    ids = tokens(2, 9)
    found = []
    for each in both:
        with recorded() as launches:
            found.append(each.generate(ids, max_new_tokens=8, min_new_tokens=8, do_sample=False).tolist())
        assert len(launches) == (2 * 8 if each is both[0] else 0)
    assert found[0] == found[1]


@torch.inference_mode()
def test_padding_and_static_caches_are_left_to_sdpa(both: Sequence[GPTBigCodeForCausalLM]) -> None:
    ids, mask = tokens(2, 12), torch.ones(2, 12, dtype=torch.long, device=DEVICE)
    mask[0, :5] = 0
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    padded = [each.generate(ids, attention_mask=mask, **options).tolist() for each in both]
    assert padded[0] == padded[1]
    static = [each.generate(ids, cache_implementation="static", **options).tolist() for each in both]
    assert static[0] == static[1]


def test_gradients_are_left_to_sdpa(both: Sequence[GPTBigCodeForCausalLM]) -> None:
    ids, gradients = tokens(1, 10), []
    for each in both:
        each(ids, labels=ids).loss.backward()
        gradients.append(each.transformer.h[0].attn.c_attn.weight.grad)
    torch.testing.assert_close(*gradients, atol=2e-4, rtol=2e-4)

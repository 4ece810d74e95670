"""Spoilt `config.json`."""

from __future__ import annotations

import json

from tests.harness.hostile.spoiling import CONFIG, Spoil, Spoilt, edit_json, replace_text, set_key, write


def _case(name: str, says: str, spoil: Spoil, *, file: str = CONFIG) -> Spoilt:
    return Spoilt(f"config: {name}", file, says, spoil)


def _field(name: str, key: str, value: object, says: str | None = None) -> Spoilt:
    return _case(name, says or key, set_key(CONFIG, key, value))


def _raw(name: str, key: str, text: str, says: str) -> Spoilt:
    """A value that only text can hold."""

    def spoil_text() -> Spoil:
        mark = 987_654_321

        def both(folder: object) -> None:
            set_key(CONFIG, key, mark)(folder)  # type: ignore[arg-type]
            replace_text(CONFIG, str(mark), text)(folder)  # type: ignore[arg-type]

        return both

    return _case(name, says, spoil_text())


def _drop(found: dict[str, object]) -> None:
    del found["n_embd"]


CASES = (
    _case("empty file", "not readable as JSON", write(CONFIG, "")),
    _case("cut", "not readable as JSON", write(CONFIG, '{"model_type": "gpt_bigcode", "n_la')),
    _case("a list", "must hold a JSON object", write(CONFIG, "[]")),
    _case("not UTF-8", "not readable as JSON", write(CONFIG, b'{"model_type": "\xff\xfe"}')),
    _case("UTF-16", "not readable as JSON", write(CONFIG, '{"model_type": "gpt_bigcode"}'.encode("utf-16"))),
    _case("nested 5,000 deep", "nested deeper", write(CONFIG, '{"a":' + "[" * 5_000 + "]" * 5_000 + "}")),
    _case("a million brackets", "values", write(CONFIG, "[" * 1_000_000)),
    _case("a million values", "values", write(CONFIG, '{"a": [' + "1," * 400_000 + "1]}")),
    _case("two MiB", "larger than 1 MiB", write(CONFIG, '{"a": "' + "x" * 2**21 + '"}')),
    _case("escapes that never end", "strings", write(CONFIG, '{"a": "' + '\\"' * 500_000)),
    _case("a key twice", "'n_head' stands there twice", replace_text(CONFIG, '"n_head"', '"n_head": 1, "n_head"')),
    _case("no n_embd", "n_embd", edit_json(CONFIG, _drop)),
    _raw("NaN", "n_embd", "NaN", "NaN is not JSON"),
    _raw("infinity", "layer_norm_epsilon", "Infinity", "Infinity is not JSON"),
    _raw("a float past the largest", "layer_norm_epsilon", "1e999", "too large"),
    _raw("a number of 10,000 digits", "n_embd", "9" * 10_000, "10000 digits"),
    _raw("a whole number as a float", "n_embd", "6.4e1", "n_embd"),
    _field("a bool for a number", "n_layer", True),
    _field("text for a number", "n_layer", "2"),
    _field("null for a number", "vocab_size", None),
    _field("a list for a number", "n_head", [4]),
    _field("no layers", "n_layer", 0),
    _field("layers below zero", "n_layer", -1),
    _field("a billion layers", "n_layer", 10**9),
    _field("2**63 wide", "n_embd", 2**63),
    _field("2**70 positions", "n_positions", 2**70),
    _field("a vocabulary of 2**40", "vocab_size", 2**40),
    _field("heads that do not divide the width", "n_head", 3, "multiple of 8"),
    _field("no heads", "n_head", 0),
    _field("heads of width 2", "n_head", 16, "multiple of 8"),
    _field("epsilon zero", "layer_norm_epsilon", 0.0),
    _field("epsilon below zero", "layer_norm_epsilon", -1e-5),
    _field("epsilon as text", "layer_norm_epsilon", "1e-5"),
    _field("another activation", "activation_function", "relu"),
    _field("an activation of a strange kind", "activation_function", {"name": "gelu"}),
    _field("a flag as text", "multi_query", "yes"),
    _field("a flag as a number", "scale_attn_weights", 1),
    _field("attention scaled by layer", "scale_attn_by_inverse_layer_idx", True),
    _field("cross attention", "add_cross_attention", True),
    _field("quantised by another tool", "quantization_config", {"quant_method": "gptq", "bits": 4}),
    _field("another architecture", "model_type", "mpt", "'mpt' is not supported"),
    _field("another family, with the fields of this one", "model_type", "llama", "hidden_size"),
    _field("no architecture", "model_type", None, "None is not supported"),
    _field("an architecture of many lines", "model_type", "x\n\x1b[2J\r" * 900, "is not supported"),
    _field("more positions than the file has", "n_positions", 64, "transformer.wpe.weight has shape"),
    _field("more tokens than the file has", "vocab_size", 800, "transformer.wte.weight has shape"),
    _field("more layers than the file has", "n_layer", 3, "transformer.h.2.ln_1.weight is missing"),
    _field("fewer layers than the file has", "n_layer", 1, "no part of the model"),
    _field("wider than the file", "n_embd", 32, "has shape"),
    _field("another inner width", "n_inner", 32, "mlp.c_fc.weight has shape"),
    _field("all heads where the file has one", "multi_query", False, "c_attn.weight has shape"),
    _field("SantaCoder's form where the file has StarCoder's", "model_type", "gpt2", "has shape"),
    _field("a head of its own that is not there", "tie_word_embeddings", False, "lm_head.weight is missing"),
)

GOOD_ENOUGH = {
    "code that is not run": {
        "auto_map": {"AutoModelForCausalLM": "evil.Model"},
        "custom_pipelines": {"x": {"impl": "evil.X"}},
    },
    "token ids that are wrong": {"bos_token_id": 50256, "eos_token_id": 50256, "pad_token_id": -1},
    "keys of another time": json.loads('{"summary_type": "cls_index", "n_ctx": 3, "transformers_version": [1]}'),
    "null where a default is meant": {"n_inner": None, "activation_function": None, "attention_head_type": None},
}
"""Changes that are read over, because published files have them and nothing depends on them."""

"""Prompts of the kinds that the models' cards show, in words of ours: what matters is the control tokens and their order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_FILE = "def area(width, height):\n    "
_REST = "\n    return result\n"
_TASK = "Write a function that adds two numbers."


@dataclass(frozen=True, slots=True)
class Card:
    """What one model's card has its readers try. `form` are arguments of `make_checkpoint`."""

    prompts: tuple[str, ...]
    form: dict[str, Any] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    """Control tokens that the model has beside its family's."""
    own_layout: bool = False
    """Whether its file is in SantaCoder's layout."""
    ends: tuple[str, ...] = ("<|endoftext|>",)
    """Where the card's snippet has `generate` stop."""


_STARCODER = (
    "def print_greeting():",
    f"<fim_prefix>{_FILE}<fim_suffix>{_REST}<fim_middle>",
    f"<fim_prefix><fim_suffix>{_REST}<fim_middle>{_FILE}",
    f"<reponame>somebody/geometry<filename>src/area.py<gh_stars>10-100\n{_FILE}",
)

CARDS = {
    "bigcode/starcoderbase-1b": Card(_STARCODER),
    "bigcode/starcoder": Card(
        (
            *_STARCODER,
            f"<filename>solutions/solution_1.py\n# Here is the correct implementation of the code exercise\n{_FILE}",
            "<commit_before>x = 1\n<commit_msg>Name the constant<commit_after>",
            "<jupyter_start><jupyter_text>Load the table.<jupyter_code>import pandas\n<jupyter_output>",
            "<issue_start>username_0: It crashes<issue_comment>username_1: Since when?",
        ),
        {"activation_function": "gelu", "shards": 2},
    ),
    "bigcode/tiny_starcoder_py": Card(_STARCODER, {"n_head": 12, "n_layer": 3}),
    "bigcode/santacoder": Card(
        (
            "def print_greeting():",
            f"<fim-prefix>{_FILE}<fim-suffix>{_REST}<fim-middle>",
            f"<fim-prefix><fim-suffix>{_REST}<fim-middle>{_FILE}",
        ),
        {"family": "santacoder", "vocab_size": 896},
        own_layout=True,
    ),
    "bigcode/gpt_bigcode-santacoder": Card(
        ("def print_greeting():", f"<fim-prefix>{_FILE}<fim-suffix>{_REST}<fim-middle>"),
        {"family": "santacoder", "vocab_size": 896},
    ),
    "GeorgiaTechResearchInstitute/starcoder-gpteacher-code-instruct": Card(
        (
            f"### Instruction:\n{_TASK}\n\n### Response:\n",
            f"### Instruction:\n{_TASK}\n\n### Input:\na, b\n\n### Response:\n",
        ),
        {"activation_function": "gelu"},
    ),
    "WizardLM/WizardCoder-15B-V1.0": Card(
        (f"An instruction follows. Answer it.\n\n### Instruction:\n{_TASK}\n\n### Response:",),
        {"vocab_size": 769, "activation_function": "gelu"},
        added=("[PAD]",),
    ),
    "HuggingFaceH4/starchat-beta": Card(
        (f"<|system|>\nYou write code.<|end|>\n<|user|>\n{_TASK}<|end|>\n<|assistant|>",),
        {"vocab_size": 773},
        added=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        ends=("<|end|>",),
    ),
    "ibm-granite/granite-20b-code-base": Card(
        ("def generate():", f"<fim_prefix>{_FILE}<fim_suffix>{_REST}<fim_middle>"), {"n_layer": 4, "shards": 2}
    ),
}

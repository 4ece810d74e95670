"""What the family published, as its cards and configurations have it: the table behind `models list` and `models show`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.instruct import OPENAI_TERMS, Following, Form

if TYPE_CHECKING:
    from engine.gpt_bigcode import ModelShape

FROM_BIN = "published as .bin only, which is converted after the download"


@dataclass(frozen=True, slots=True)
class Citation:
    """A publication, ready to be cited."""

    key: str
    authors: str
    title: str
    year: int
    arxiv: str = ""
    url: str = ""

    def bibtex(self) -> str:
        """The entry."""
        fields = {"title": f"{{{self.title}}}", "author": self.authors, "year": str(self.year)}
        if self.arxiv:
            fields |= {"eprint": self.arxiv, "archivePrefix": "arXiv"}
        if self.url:
            fields["howpublished"] = f"\\url{{{self.url}}}"
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@misc{{{self.key},\n{lines}\n}}"


STARCODER = Citation(
    "li2023starcoder", "Raymond Li and Loubna Ben Allal and Yangtian Zi and others", "StarCoder: may the source be with you!",
    2023, "2305.06161",
)  # fmt: skip
SANTACODER = Citation(
    "benallal2023santacoder", "Loubna Ben Allal and Raymond Li and Denis Kocetkov and others",
    "SantaCoder: don't reach for the stars!", 2023, "2301.03988",
)  # fmt: skip
GRANITE = Citation(
    "mishra2024granite", "Mayank Mishra and Matt Stallone and Gaoyuan Zhang and others",
    "Granite Code Models: A Family of Open Foundation Models for Code Intelligence", 2024, "2405.04324",
)  # fmt: skip
WIZARDCODER = Citation(
    "luo2023wizardcoder", "Ziyang Luo and Can Xu and Pu Zhao and others",
    "WizardCoder: Empowering Code Large Language Models with Evol-Instruct", 2023, "2306.08568",
)  # fmt: skip
STARCHAT = Citation(
    "tunstall2023starchat", "Lewis Tunstall and Nathan Lambert and Nazneen Rajani and others",
    "Creating a Coding Assistant with StarCoder", 2023, url="https://huggingface.co/blog/starchat-alpha",
)  # fmt: skip
GPTEACHER = Citation(
    "gtri2023gpteacher", "{Georgia Tech Research Institute}", "StarCoder GPTeacher-Codegen Fine-Tuned", 2023,
    url="https://huggingface.co/GeorgiaTechResearchInstitute/starcoder-gpteacher-code-instruct",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the memory of a model follows from."""

    layers: int
    width: int
    heads: int
    context: int = 8_192
    vocabulary: int = 49_152
    multi_query: bool = True

    def shape(self) -> ModelShape:
        """As the engine has it. What does not change any size (activation, epsilon) is the default's."""
        from engine.gpt_bigcode import ModelShape

        return ModelShape(
            n_layer=self.layers,
            n_embd=self.width,
            n_head=self.heads,
            n_inner=4 * self.width,
            n_positions=self.context,
            vocab_size=self.vocabulary,
            multi_query=self.multi_query,
            exact_gelu=False,
            scale_attention=True,
            norm_eps=1e-5,
        )

    @property
    def parameters(self) -> int:
        """Weights, the tied vocabulary counted once."""
        d, kv = self.width, 2 * (1 if self.multi_query else self.heads) * (self.width // self.heads)
        layer = 4 * d + (d + 1) * (d + kv) + (d + 1) * d + (d + 1) * 4 * d + (4 * d + 1) * d
        return (self.vocabulary + self.context) * d + self.layers * layer + 2 * d


@dataclass(frozen=True, slots=True)
class Revision:
    """A branch that holds another model."""

    what: str
    multi_query: bool = True


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One published model."""

    id: str
    title: str
    sizes: Sizes
    licences: tuple[str, ...]
    citation: Citation
    gated: bool = False
    particular: str = ""
    """What a user should know of it."""
    following: Following = field(default_factory=Following)
    """How it takes instructions."""
    alike: tuple[str, ...] = ()
    """Other models that take instructions so, by their names without owner."""
    revisions: Mapping[str, Revision] = field(default_factory=dict)

    def of_revision(self, revision: str) -> Sizes:
        """The sizes of a branch."""
        s, other = self.sizes, self.revisions.get(revision)
        if other is None or other.multi_query == s.multi_query:
            return s
        return Sizes(s.layers, s.width, s.heads, s.context, s.vocabulary, other.multi_query)


_RAIL = ("bigcode-openrail-m",)
_FREE = ("apache-2.0",)
_15B = Sizes(40, 6_144, 48)
_ALPACA, _ASSISTANT = Following(Form.ALPACA), Following(Form.ASSISTANT)

_MODELS = (
    KnownModel(
        "bigcode/tiny_starcoder_py", "TinyStarCoderPy", Sizes(20, 768, 12), _RAIL, STARCODER,
        particular="Python only, small enough for any machine",
    ),
    KnownModel(
        "bigcode/santacoder", "SantaCoder 1.1B", Sizes(24, 2_048, 16, 2_048, 49_280), ("codeml-openrail-m",), SANTACODER,
        particular="Python, Java and JavaScript; its own layout of weights, its own FIM tokens (<fim-prefix>), 2,048 tokens "
        "of context; the code that comes with it is never run",
        revisions={
            "mha": Revision(f"all heads have keys and values of their own; {FROM_BIN}", multi_query=False),
            "no-fim": Revision(f"trained from left to right only, completes from the prefix; {FROM_BIN}"),
            "fim": Revision(f"base filtering of the data; {FROM_BIN}"),
            "stars": Revision(f"data filtered by GitHub stars; {FROM_BIN}"),
            "fertility": Revision(f"data filtered by tokenizer fertility; {FROM_BIN}"),
            "comments": Revision(f"data filtered by comments to code; {FROM_BIN}"),
            "dedup-alt": Revision(f"stronger removal of near duplicates; {FROM_BIN}"),
        },
    ),
    KnownModel(
        "bigcode/gpt_bigcode-santacoder", "SantaCoder 1.1B, converted", Sizes(24, 2_048, 16, 2_048, 49_280),
        ("codeml-openrail-m",), SANTACODER, particular="SantaCoder's weights in the layout of gpt_bigcode",
    ),
    KnownModel("bigcode/starcoderbase-1b", "StarCoderBase 1B", Sizes(24, 2_048, 16), _RAIL, STARCODER, gated=True,
        following=_ASSISTANT,
    ),
    KnownModel("bigcode/starcoderbase-3b", "StarCoderBase 3B", Sizes(36, 2_816, 22), _RAIL, STARCODER, gated=True,
        following=_ASSISTANT,
    ),
    KnownModel("bigcode/starcoderbase-7b", "StarCoderBase 7B", Sizes(42, 4_096, 32), _RAIL, STARCODER, gated=True,
        following=_ASSISTANT,
    ),
    KnownModel(
        "bigcode/starcoderbase", "StarCoderBase 15.5B", _15B, _RAIL, STARCODER, gated=True, following=_ASSISTANT,
    ),
    KnownModel(
        "bigcode/starcoder", "StarCoder 15.5B", _15B, _RAIL, STARCODER, gated=True,
        particular="StarCoderBase tuned further on Python", following=_ASSISTANT, alike=("starcoderplus",),
    ),
    KnownModel(
        "GeorgiaTechResearchInstitute/starcoder-gpteacher-code-instruct", "StarCoder GPTeacher-Codegen", _15B,
        (*_RAIL, "openai-terms"), GPTEACHER, particular="follows instructions (Alpaca prompts): for code actions",
        following=Following(Form.ALPACA, OPENAI_TERMS),
    ),
    KnownModel(
        "WizardLMTeam/WizardCoder-15B-V1.0", "WizardCoder 15B", Sizes(40, 6_144, 48, vocabulary=49_153),
        _RAIL, WIZARDCODER, particular="follows instructions; one token more than StarCoder",
        following=_ALPACA, alike=("wizardcoder-3b-v1.0", "wizardcoder-1b-v1.0"),
    ),
    KnownModel(
        "HuggingFaceH4/starchat-alpha", "StarChat Alpha", Sizes(40, 6_144, 48, vocabulary=49_156), _RAIL, STARCHAT,
        particular="a dialogue model; four tokens more than StarCoder",
        following=_ASSISTANT,
    ),
    KnownModel(
        "HuggingFaceH4/starchat-beta", "StarChat Beta", Sizes(40, 6_144, 48, vocabulary=49_156), _RAIL, STARCHAT,
        particular="a dialogue model; four tokens more than StarCoder",
        following=_ASSISTANT,
    ),
    KnownModel(
        "ibm-granite/granite-20b-code-base-8k", "Granite 20B Code", Sizes(52, 6_144, 48), _FREE, GRANITE,
        following=_ASSISTANT, alike=("granite-20b-code-base",),
    ),
    KnownModel(
        "ibm-granite/granite-20b-code-instruct-8k", "Granite 20B Code Instruct", Sizes(52, 6_144, 48), _FREE, GRANITE,
        particular="follows instructions",
    ),
    KnownModel(
        "ibm-granite/granite-34b-code-base-8k", "Granite 34B Code", Sizes(88, 6_144, 48), _FREE, GRANITE,
        following=_ASSISTANT, alike=("granite-34b-code-base",),
    ),
    KnownModel(
        "ibm-granite/granite-34b-code-instruct-8k", "Granite 34B Code Instruct", Sizes(88, 6_144, 48), _FREE, GRANITE,
        particular="follows instructions",
    ),
)  # fmt: skip
KNOWN: Mapping[str, KnownModel] = {model.id: model for model in _MODELS}
"""By id."""

FOLLOWING: Mapping[str, Following] = {
    name: model.following for model in _MODELS for name in (model.id.rpartition("/")[2].casefold(), *model.alike)
}
"""By the name without its owner, in lower case."""

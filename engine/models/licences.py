"""Under which terms models are published: what their users may not do, and who has agreed to that.

The use restrictions are told in our own words, shortened; a licence's own text is what counts, and its page is always named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence or terms of use, under the identifier that model cards use."""

    id: str
    name: str
    url: str
    restrictions: tuple[str, ...] = ()
    """What one agrees not to do; empty where there is nothing to agree to."""
    duties: tuple[str, ...] = ()
    """What else one takes on."""

    @property
    def must_be_accepted(self) -> bool:
        """Whether it restricts use."""
        return bool(self.restrictions or self.duties)

    def text(self) -> str:
        """What is shown before it is accepted."""
        lines = [self.name, self.url]
        if self.restrictions:
            lines += [
                "You agree not to use the model, or what is made from it:",
                *(f"  - {r}" for r in self.restrictions),
            ]
        if self.duties:
            lines += ["You also agree:", *(f"  - {duty}" for duty in self.duties)]
        if self.must_be_accepted:
            lines.append("This is a summary; the text at the address above is what you accept.")
        return "\n".join(lines)


_OPENRAIL = (
    "in any way that breaks a law that applies",
    "to exploit or harm minors, or to try to",
    "to make or spread malware, or anything else meant to harm electronic systems",
    "to make or spread what is verifiably false, in order to harm others",
    "to make or spread personal data, in order to harm others",
    "to put what it wrote before the public without saying plainly that a machine wrote it",
    "to defame, disparage or harass others",
    "to impersonate people in order to deceive",
    "for fully automated decisions that touch somebody's legal rights or bind them, without saying that a machine made them",
    "to discriminate against or harm people for their social behaviour or their (supposed) personality",
    "to exploit the weaknesses of a group of people (age, social, physical or mental condition) so as to harm them",
    "to discriminate against people for what the law protects",
    "to give medical advice or read medical results in place of a professional",
    "for fully automated decisions in justice, law enforcement, immigration or asylum",
)
_PASS_ON = (
    "to pass these restrictions on, with the licence, to whoever gets the model or a modification of it from you",
)

_KNOWN = (
    Licence(
        "bigcode-openrail-m", "BigCode OpenRAIL-M v1",
        "https://huggingface.co/spaces/bigcode/bigcode-model-license-agreement", _OPENRAIL, _PASS_ON,
    ),
    Licence(
        "codeml-openrail-m", "CodeML OpenRAIL-M v0.1", "https://huggingface.co/spaces/bigcode/license", _OPENRAIL,
        _PASS_ON,
    ),
    Licence(
        "bigscience-openrail-m", "BigScience OpenRAIL-M", "https://huggingface.co/spaces/bigscience/license", _OPENRAIL,
        _PASS_ON,
    ),
    Licence(
        "openrail", "An OpenRAIL licence; the model's card says which", "https://www.licenses.ai", _OPENRAIL, _PASS_ON
    ),
    Licence(
        "openai-terms", "OpenAI's terms of use, as the model was fine-tuned on what OpenAI's models wrote",
        "https://openai.com/policies/terms-of-use", ("to develop models that compete with OpenAI's",),
    ),
    Licence("apache-2.0", "Apache License 2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
    Licence("mit", "MIT License", "https://opensource.org/license/mit"),
    Licence("bsd-3-clause", "BSD 3-Clause License", "https://opensource.org/license/bsd-3-clause"),
    Licence("bsd-2-clause", "BSD 2-Clause License", "https://opensource.org/license/bsd-2-clause"),
    Licence("cc0-1.0", "CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
)  # fmt: skip
LICENCES = {licence.id: licence for licence in _KNOWN}
"""By identifier."""


@dataclass(frozen=True, slots=True)
class Terms:
    """All that applies to one model."""

    licences: tuple[Licence, ...]

    @classmethod
    def of(cls, identifiers: Iterable[str], page: str) -> Terms:
        """The terms under these identifiers; one that we do not know is to be read on the model's `page`, and accepted."""
        wanted = list(dict.fromkeys(identifiers)) or ["unknown"]
        return cls(tuple(LICENCES.get(each) or _unknown(each, page) for each in wanted))

    @property
    def names(self) -> str:
        """The identifiers, for a table."""
        return " + ".join(licence.id for licence in self.licences)

    @property
    def ids(self) -> tuple[str, ...]:
        """The identifiers of what must be accepted."""
        return tuple(licence.id for licence in self.licences if licence.must_be_accepted)

    def text(self) -> str:
        """All of it, as it is shown."""
        return "\n\n".join(licence.text() for licence in self.licences)

    def digest(self) -> str:
        """Which text was shown: sha256 of it."""
        return hashlib.sha256(self.text().encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Acceptance:
    """That somebody agreed: to what, when, and how."""

    licences: tuple[str, ...]
    at: str
    """UTC, ISO 8601."""
    how: str
    """`asked` on a terminal, or the flag that said so."""
    shown: str
    """sha256 of the text that was shown."""

    def covers(self, terms: Terms) -> bool:
        """Whether nothing is left to be asked."""
        return set(terms.ids) <= set(self.licences)


def _unknown(identifier: str, page: str) -> Licence:
    named = (
        "no licence is named" if identifier == "unknown" else f"licence {identifier!r}, which starfill does not know"
    )
    return Licence(identifier, named[:1].upper() + named[1:], page, duties=("to the terms on the model's page",))

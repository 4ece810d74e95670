"""Secrets and e-mail addresses, masked before any text is stored."""

from __future__ import annotations

import re

EMAIL = "user@example.com"
SECRET = "REDACTED"  # noqa: S105  (the mask, not a secret)

# Only well-known endings: `a@b.T` is a matrix product.
_EMAIL = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._%+-]*@(?!example\.(?:com|org|net)\b)[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*"
    r"\.(?:com|org|net|edu|gov|mil|io|dev|info|me|co|biz|name|ai|app|cloud|de|fr|uk|us|eu|nl|be|ch|at|it|es|pt|pl|cz|sk|hu|"
    r"ro|bg|gr|tr|ru|ua|by|se|no|dk|fi|is|ie|lt|lv|ee|jp|cn|kr|tw|in|au|nz|ca|mx|br|ar|cl|za|il|ir|sg|hk|id|th|vn|my|pk)\b"
)
_BLOCK = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)
_TOKENS = re.compile(
    r"\b(?:(?:AKIA|ASIA|AROA|AIDA)[0-9A-Z]{16}"  # Amazon
    r"|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,}|glpat-[A-Za-z0-9_-]{20,}"  # GitHub, GitLab
    r"|xox[abposr]-[A-Za-z0-9-]{10,}"  # Slack
    r"|sk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,}|hf_[A-Za-z0-9]{30,}"
    r"|[rs]k_live_[A-Za-z0-9]{16,}"  # Stripe
    r"|AIza[0-9A-Za-z_-]{35}|ya29\.[0-9A-Za-z_-]{20,}"  # Google
    r"|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,}"
    r"|eyJ[A-Za-z0-9_-]{15,}\.eyJ[A-Za-z0-9_-]{15,}\.[A-Za-z0-9_-]{10,})"  # JSON Web Tokens
)
_ASSIGNED = re.compile(
    r"""((?:api[_-]?key|secret|passw(?:or)?d|passphrase|token|credential|private[_-]?key)\w*["']?\s*[:=]\s*["'])"""
    r"""([A-Za-z0-9+/_=-]{20,})(["'])""",
    re.IGNORECASE,
)
_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]{1,10}://[A-Za-z0-9._%+-]{1,64}:)([^\s:@/'\"{}<>$%]{3,64})(@)")


def scrub(text: str) -> tuple[str, int]:
    """Mask what looks like a person's address or a secret -> (text, how many were masked)."""
    count = 0
    if "@" in text:
        text, emails = _EMAIL.subn(EMAIL, text)
        count += emails
        text, urls = _IN_URL.subn(rf"\g<1>{SECRET}\g<3>", text)
        count += urls
    if "PRIVATE KEY-----" in text:
        text, blocks = _BLOCK.subn(SECRET, text)
        count += blocks
    text, tokens = _TOKENS.subn(SECRET, text)
    masked = 0

    def mask(found: re.Match[str]) -> str:
        nonlocal masked
        if not _looks_random(found[2]):
            return found[0]
        masked += 1
        return found[1] + SECRET + found[3]

    text = _ASSIGNED.sub(mask, text)
    return text, count + tokens + masked


def _looks_random(value: str) -> bool:
    return any(c.isdigit() for c in value) and any(c.isalpha() for c in value) and len(set(value)) >= 10

"""A run as a picture: where completions are right, and what each rule gives. Plain SVG, made of what the report has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from lsp_server.evaluation.report import MEASURES, Estimates, Group
from lsp_server.evaluation.scores import Estimate

_WIDTH, _LABEL, _ROW, _TOP = 760, 190, 22, 46
_PANELS = ("exact", "similarity", "overrun", "broken")
_COLOURS = {"exact": "#2b6cb0", "similarity": "#2f855a", "overrun": "#b7791f", "broken": "#c53030"}
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1a202c}.t{font-weight:600}.s{fill:#4a5568}"
    "@media(prefers-color-scheme:dark){text{fill:#e2e8f0}.s{fill:#a0aec0}rect.b{fill:#1a202c}}"
)


def draw(groups: Sequence[Group], gains: Mapping[str, Estimates], title: str) -> str:
    """Bars by kind and language, then the gain of each thing that was switched off, each with its 95 % interval."""
    base = [group for group in groups if group.variant == groups[0].variant] if groups else []
    rows: list[tuple[str, Estimates]] = [(_label(group), group.estimates) for group in base]
    parts: list[str] = []
    height = _TOP + _panel(parts, "per cent of holes, or of what was shown", rows, _TOP, signed=False)
    if gains:
        height += _TOP
        names = [(f"without {name}", estimates) for name, estimates in gains.items()]
        height += _panel(parts, "what it gives, in points (paired)", names, height, signed=True)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height + 16}" role="img">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f'<rect class="b" width="100%" height="100%" fill="#fff"/>'
        f'<text class="t" x="12" y="20">{escape(title)}</text>'
    )
    return head + "".join(parts) + "</svg>\n"


def _label(group: Group) -> str:
    return " ".join(part for part in (group.language, group.kind) if part != "all") or "all holes"


def _panel(parts: list[str], caption: str, rows: Sequence[tuple[str, Estimates]], top: int, *, signed: bool) -> int:
    """Append one panel -> its height."""
    names = [name for name in _PANELS if any(name in estimates for _, estimates in rows)]
    if not names:
        return 0
    width = (_WIDTH - _LABEL - 12) / len(names)
    parts.append(f'<text class="s" x="12" y="{top}">{escape(caption)}</text>')
    for column, name in enumerate(names):
        left = _LABEL + column * width
        values = [estimates[name] for _, estimates in rows if name in estimates]
        low = min(0.0, *(value.low for value in values)) if signed else 0.0
        high = max(0.0, *(value.high for value in values)) or 1.0
        scale = (width - 52) / (high - low)
        parts.append(f'<text class="s" x="{left:.0f}" y="{top}">{escape(MEASURES[name])}</text>')
        for number, (_, estimates) in enumerate(rows):
            y = top + 10 + number * _ROW
            if name in estimates:
                parts.append(_bar(estimates[name], _COLOURS[name], left, y, low, scale, signed=signed))
    for number, (label, _) in enumerate(rows):
        parts.append(f'<text x="12" y="{top + 22 + number * _ROW}">{escape(label)}</text>')
    return 10 + len(rows) * _ROW


def _bar(value: Estimate, colour: str, left: float, y: float, low: float, scale: float, *, signed: bool) -> str:
    zero = left - low * scale
    end = left + (value.mean - low) * scale
    middle = y + _ROW / 2 - 3
    text = f"{100 * value.mean:+.1f}" if signed else f"{100 * value.mean:.1f}"
    return (
        f'<rect x="{min(zero, end):.1f}" y="{y + 2:.0f}" width="{abs(end - zero):.1f}" height="{_ROW - 10}" '
        f'fill="{colour}" fill-opacity="0.75"/>'
        f'<line x1="{left + (value.low - low) * scale:.1f}" x2="{left + (value.high - low) * scale:.1f}" '
        f'y1="{middle:.0f}" y2="{middle:.0f}" stroke="#718096"/>'
        f'<text x="{left + max(value.high - low, 0) * scale + 4:.1f}" y="{middle + 4:.0f}">{text}</text>'
    )

"""Named numbers as bars in one diagram, as plain SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_TOP, _LINE, _WIDE = 46, 20, 320
_INK, _GOOD, _OTHER = "#444", "#2a7", "#c63"


@dataclass(frozen=True, slots=True)
class Bar:
    """One number; `good` ones have a colour of their own."""

    label: str
    value: float
    text: str
    good: bool


def draw(title: str, bars: Sequence[Bar], *, left: int, highest: float, mark: float | None = None) -> str:
    """`left`: pixels for labels; `highest`: the value of a bar that goes all the way; `mark`: where a line stands."""
    height = _TOP + _LINE * len(bars) + 14
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + _WIDE + 60}" height="{height}" '
        f'font-family="sans-serif" font-size="12" fill="{_INK}">',
        f'<text x="8" y="18">{title}</text>',
    ]
    for number, bar in enumerate(bars):
        y, width, colour = _TOP + number * _LINE, _WIDE * bar.value / highest, _GOOD if bar.good else _OTHER
        parts += [
            f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{bar.label}</text>',
            f'<rect x="{left}" y="{y + 2}" width="{max(1.0, width):.1f}" height="13" fill="{colour}"/>',
            f'<text x="{left + width + 5:.1f}" y="{y + 13}">{bar.text}</text>',
        ]
    if mark is not None:
        x = left + _WIDE * mark / highest
        parts.append(f'<line x1="{x:.1f}" y1="{_TOP - 6}" x2="{x:.1f}" y2="{height - 8}" stroke="{_INK}"/>')
    return "\n".join([*parts, "</svg>", ""])

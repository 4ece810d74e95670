"""A few lines in one diagram, as plain SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

Point = tuple[float, float]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 400, 64, 190, 52, 52
_COLOURS = ("#2b6cb0", "#2f855a", "#b7791f", "#c53030", "#6b46c1", "#4a5568")
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1a202c}.t{font-weight:600}.g{stroke:#a0aec0;stroke-opacity:.5}"
    "@media(prefers-color-scheme:dark){text{fill:#e2e8f0}rect{fill:#1a202c}}"
)


def draw(title: str, across: str, up: str, lines: Mapping[str, Sequence[Point]], ticks: Sequence[float]) -> str:
    """`lines` by name, each as points in order; `ticks` are values on the upright axis, its lowest and highest among them."""
    most = max(x for points in lines.values() for x, _ in points) * 1.05
    low, high = min(ticks), max(ticks)

    def place(point: Point) -> tuple[float, float]:
        x = _LEFT + point[0] / most * (_WIDTH - _LEFT - _RIGHT)
        y = _HEIGHT - _BOTTOM - (min(max(point[1], low), high) - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)
        return x, y

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{escape(title)}</title>'
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
        f'<text class="t" x="12" y="20">{escape(title)}</text>'
        f'<text x="12" y="40">{escape(up)}</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 12}">{escape(across)}</text>'
    ]
    for tick in ticks:
        x, y = place((0, tick))
        parts.append(
            f'<line class="g" x1="{x:.1f}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500) if most / step <= 10)
    for number in range(int(most / step) + 1):
        x, _ = place((number * step, low))
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{number * step}</text>')
    for number, (name, points) in enumerate(lines.items()):
        colour, spots = _COLOURS[number % len(_COLOURS)], [place(point) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in spots]
        y = _TOP + 8 + 20 * number
        parts.append(
            f'<line x1="{_WIDTH - _RIGHT + 16}" x2="{_WIDTH - _RIGHT + 36}" y1="{y}" y2="{y}" stroke="{colour}" '
            f'stroke-width="2"/><text x="{_WIDTH - _RIGHT + 42}" y="{y + 4}">{escape(name)}</text>'
        )
    return "".join(parts) + "</svg>\n"

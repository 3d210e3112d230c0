"""Courses over time as an SVG picture: one panel below the other, without a library; for light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

_WIDTH: Final = 860
_PANEL: Final = 130
_GAP: Final = 44
_LEFT: Final = 64
_RIGHT: Final = 16
_TOP: Final = 44
_MOST_POINTS: Final = 800
_TICKS: Final = 4
_STYLE: Final = """\
svg { background: #ffffff; font: 12px system-ui, sans-serif; }
text { fill: #24292f; } .dim { fill: #57606a; } .grid { stroke: #d0d7de; stroke-width: 1; }
polyline { fill: none; stroke-width: 1.5; } .l0 { stroke: #0969da; } .l1 { stroke: #bc4c00; } .t0 { fill: #0969da; } .t1 { fill: #bc4c00; }
@media (prefers-color-scheme: dark) {
  svg { background: #0d1117; } text { fill: #e6edf3; } .dim { fill: #9198a1; } .grid { stroke: #3d444d; }
  .l0 { stroke: #4493f8; } .l1 { stroke: #f0883e; } .t0 { fill: #4493f8; } .t1 { fill: #f0883e; }
}"""


class Panel(NamedTuple):
    """What stands in one panel: up to two lines by name, over the same x values, and their unit."""

    title: str
    lines: dict[str, Sequence[float]]
    from_zero: bool = True


def picture(title: str, x: Sequence[float], x_unit: str, panels: Sequence[Panel]) -> str:
    """The SVG text. `x` and every line have the same length, at least two."""
    height = _TOP + len(panels) * (_PANEL + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<text x="{_LEFT}" y="20" font-weight="600">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, x, _TOP + 12 + number * (_PANEL + _GAP))
    parts.append(f'<text class="dim" x="{_WIDTH - _RIGHT}" y="{height - 2}" text-anchor="end">{escape(x_unit)}</text></svg>')
    return "\n".join(parts) + "\n"


def _panel(panel: Panel, x: Sequence[float], top: float) -> list[str]:
    values = [value for line in panel.lines.values() for value in line]
    low, high, step = _scale(0.0 if panel.from_zero else min(values), max(values))
    parts = [f'<text x="{_LEFT}" y="{top - 8}">{escape(panel.title)}</text>']
    at = float(_WIDTH - _RIGHT)
    for number, name in reversed(list(enumerate(panel.lines))):
        parts.append(f'<text class="t{number}" x="{at}" y="{top - 8}" text-anchor="end">{escape(name)}</text>')
        at -= 8 * len(name) + 16
    tick = low
    while tick <= high + step / 2:
        y = _y(tick, low, high, top)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y}" x2="{_WIDTH - _RIGHT}" y2="{y}"/>')
        parts.append(f'<text class="dim" x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
        tick += step
    first, last = x[0], x[-1]
    _, x_high, x_step = _scale(first, last)
    tick = math.ceil(first / x_step) * x_step
    while tick <= min(last, x_high):
        parts.append(
            f'<text class="dim" x="{_x(tick, first, last)}" y="{top + _PANEL + 15}" text-anchor="middle">{tick:.6g}</text>'
        )
        tick += x_step
    every = max(1, len(x) // _MOST_POINTS)
    for number, line in enumerate(panel.lines.values()):
        points = " ".join(f"{_x(x[i], first, last)},{_y(line[i], low, high, top)}" for i in range(0, len(x), every))
        parts.append(f'<polyline class="l{number}" points="{points}"/>')
    return parts


def _scale(low: float, high: float) -> tuple[float, float, float]:
    """Round bounds around both, and a round step between ticks."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / _TICKS))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * _TICKS >= span)
    return math.floor(low / step) * step, math.ceil(high / step) * step or step, step


def _x(value: float, first: float, last: float) -> float:
    return round(_LEFT + (value - first) / ((last - first) or 1) * (_WIDTH - _LEFT - _RIGHT), 1)


def _y(value: float, low: float, high: float, top: float) -> float:
    return round(top + _PANEL - (value - low) / (high - low) * _PANEL, 1)

"""A few points with their names beside them as SVG text: where each method ended, for example.

In: names and places. Out: SVG in the style of `charts`; names are moved until none covers another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from alpaca_farm_core.evaluation.report.format import number
from alpaca_farm_core.evaluation.report.scales import Scale, nice_ticks, tick_label
from alpaca_farm_core.evaluation.report.svg import colour, element, frame, label, line, tooltip

_CHARACTER, _LINE = 6.2, 12.0  # pixels of one character and of one line at the charts' font size


class NamedPoint(NamedTuple):
    """One dot; `faint` for a reference."""

    name: str
    x: float
    y: float
    faint: bool = False


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        """Whether two boxes share a place."""
        apart = self.right < other.left or other.right < self.left or self.bottom < other.top or other.bottom < self.top
        return not apart


def named_points(
    points: Sequence[NamedPoint], x_label: str, y_label: str, *, width: float = 420, height: float = 270
) -> str:
    """Dots with axes and their names.

    Args:
        points: What to draw.
        x_label: Name and unit of the horizontal axis.
        y_label: Name and unit of the vertical axis, written above it.
        width: Of the view box.
        height: Of the view box.
    """
    xs, ys = [point.x for point in points] or [0.0, 1.0], [point.y for point in points] or [0.0, 1.0]
    x_ticks, y_ticks = nice_ticks(min(xs), max(xs), 5), nice_ticks(min(ys), max(ys), 5)
    left = 10 + _CHARACTER * max(len(tick_label(tick, y_ticks)) for tick in y_ticks)
    x, y = Scale(x_ticks[0], x_ticks[-1], left, width - 12), Scale(y_ticks[0], y_ticks[-1], height - 36, 24)
    parts = [label(y_label, 0, 12), label(x_label, x.end, height - 4, anchor="end")]
    for tick in y_ticks:
        parts += [line(x.start, y(tick), x.end, y(tick))]
        parts += [label(tick_label(tick, y_ticks), x.start - 6, y(tick) + 3.5, anchor="end")]
    parts += [label(tick_label(tick, x_ticks), x(tick), y.start + 15, anchor="middle") for tick in x_ticks]
    taken = [_Box(x(p.x) - 4, y(p.y) - 4, x(p.x) + 4, y(p.y) + 4) for p in points]
    for point in sorted(points, key=lambda p: (p.y, p.x)):
        box = _free_place(point, x, y, taken)
        taken.append(box)
        text = tooltip(f"{point.name}: {number(point.y)} ({x_label} {number(point.x)})")
        style = f"fill:{colour('muted') if point.faint else colour(0)}"
        parts.append(element("circle", text, cx=x(point.x), cy=y(point.y), r=3.2, style=style, class_="mark"))
        parts.append(label(point.name, box.left, box.bottom - 3, fill="muted" if point.faint else "ink"))
    return frame(parts, width, height, f"{y_label} by {x_label}", standalone=False)


def _free_place(point: NamedPoint, x: Scale, y: Scale, taken: Sequence[_Box]) -> _Box:
    """Where the name goes: right of the dot, else left of it, else further up or down."""
    room = _CHARACTER * len(point.name)
    at_x, at_y = x(point.x), y(point.y)
    places = []
    for shift in (0.0, _LINE, -_LINE, 2 * _LINE, -2 * _LINE, 3 * _LINE, -3 * _LINE):
        for start in (at_x + 7, at_x - 7 - room):
            top = at_y - _LINE / 2 + shift
            places.append(_Box(start, top, start + room, top + _LINE))
    inside = [place for place in places if place.left >= x.start and place.right <= x.end + 10]
    free = [place for place in inside if not any(place.meets(other) for other in taken)]
    return (free or inside or places)[0]

"""A scatter of many points as SVG text, with the means of equal parts drawn through it.

In: points. Out: SVG in the style of `charts`. Of more points than can be told apart an even sample is
drawn; the means are of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from alpaca_farm_core.evaluation.report.format import number
from alpaca_farm_core.evaluation.report.scales import Scale, nice_ticks, tick_label
from alpaca_farm_core.evaluation.report.svg import colour, element, frame, label, line, tooltip

Point = tuple[float, float]
_MOST_POINTS = 1500
_PARTS = 8
_FEW_VALUES, _SPREAD, _GOLDEN = 5, 14.0, 0.6180339887  # dots of a few values are spread by so many pixels, evenly


def scatter(
    points: Sequence[Point],
    x_label: str,
    y_label: str,
    *,
    paint: int = 0,
    y_span: Point = (0.0, 1.0),
    x_span: Point | None = None,
    width: float = 420,
    height: float = 236,
) -> str:
    """Points and the line of their means.

    Args:
        points: (x, y).
        x_label: Name and unit of the horizontal axis.
        y_label: Name and unit of the vertical axis, written above it.
        paint: Number of the colour.
        y_span: Limits of the vertical axis.
        x_span: Limits of the horizontal axis; by default those of the points.
        width: Of the view box.
        height: Of the view box.
    """
    xs = [x for x, _ in points] or [0.0, 1.0]
    x_ticks, y_ticks = nice_ticks(*(x_span or (min(xs), max(xs))), 5), nice_ticks(*y_span, 5)
    x = Scale(x_ticks[0], x_ticks[-1], 38, width - 12)
    y = Scale(y_ticks[0], y_ticks[-1], height - 36, 24)
    parts = [label(y_label, 0, 12)]
    for tick in y_ticks:
        parts += [line(x.start, y(tick), x.end, y(tick))]
        parts += [label(tick_label(tick, y_ticks), x.start - 6, y(tick) + 3.5, anchor="end")]
    parts += [label(tick_label(tick, x_ticks), x(tick), y.start + 15, anchor="middle") for tick in x_ticks]
    if x_ticks[0] < 0 < x_ticks[-1]:
        parts += [line(x(0), y.start, x(0), y.end, stroke="muted", stroke_dasharray="3 3")]
    parts += [label(x_label, x.end, height - 4, anchor="end")]
    stride = max(1, -(-len(points) // _MOST_POINTS))
    dot = f"fill:{colour(paint)};fill-opacity:.3"
    drawn = sorted(points)[::stride]
    spread = _SPREAD if len({b for _, b in points}) <= _FEW_VALUES else 0.0
    parts += [
        element("circle", cx=x(a), cy=round(y(b) + spread * (k * _GOLDEN % 1 - 0.5), 1), r=2.6, style=dot)
        for k, (a, b) in enumerate(drawn)
    ]
    parts += _means(points, x, y, paint)
    return frame(parts, width, height, f"{y_label} by {x_label}", standalone=False)


def part_means(points: Sequence[Point], parts: int = _PARTS) -> list[tuple[float, float, int]]:
    """(mean x, mean y, count) of equally many points each, in rising x; fewer parts for few points."""
    rows = sorted(points)
    parts = max(1, min(parts, len(rows) // 5)) if rows else 0
    cuts = [round(len(rows) * k / parts) for k in range(parts + 1)] if parts else []
    found = []
    for start, end in pairwise(cuts):
        part = rows[start:end]
        found.append((sum(a for a, _ in part) / len(part), sum(b for _, b in part) / len(part), len(part)))
    return found


def _means(points: Sequence[Point], x: Scale, y: Scale, paint: int) -> list[str]:
    means = part_means(points)
    if not means:
        return []
    path = "M" + "L".join(f"{x(a):g} {y(b):g}" for a, b, _ in means)
    style = f"fill:none;stroke:{colour('ink')};stroke-width:1.8;stroke-linejoin:round"
    marks = [
        element(
            "circle",
            tooltip(f"{n} pairs at {number(a)}: {number(b)}"),
            cx=x(a), cy=y(b), r=3.4, style=f"fill:{colour(paint)};stroke:{colour('ink')};stroke-width:1.2",
        )
        for a, b, n in means
    ]  # fmt: skip
    return [element("path", d=path, style=style), *marks]

"""Charts as SVG text: lines over steps, dots with whiskers, grouped bars.

In: plain numbers and names. Out: SVG whose colours follow the page's theme, with a `<title>` on each
mark. No script, no font, no file. `chart_svg` gives an image that stands alone, for example for the
Prefect UI.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from alpaca_farm_core.evaluation.report.format import number
from alpaca_farm_core.evaluation.report.scales import Scale, nice_ticks, tick_label
from alpaca_farm_core.evaluation.report.svg import colour, element, frame, label, line, tooltip

_MAX_TOOLTIPS = 150
_CHARACTER = 6.7  # pixels of one character at the charts' font size, on average


@dataclass(frozen=True)
class Series:
    """A line: points (x, y) in rising x; `faint` is for a reference; one without a name has no label.

    `band` holds (x, low, high): an interval around the line, shaded.
    """

    name: str
    points: Sequence[tuple[float, float]]
    faint: bool = False
    band: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True)
class Whisker:
    """A named value with its interval; `note` goes to the right of it (for example the count)."""

    name: str
    value: float
    low: float
    high: float
    note: str = ""
    series: int = 0


def chart_svg(series: Sequence[Series], x_label: str, y_label: str, title: str = "") -> str:
    """A line chart as an SVG document of its own; see `svg.data_uri` to show it in Markdown."""
    return line_chart(series, x_label, y_label, title=title, width=640, height=300, standalone=True)


def line_chart(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    title: str = "",
    width: float = 420,
    height: float = 236,
    reference: tuple[float, str] | None = None,
    markers: Sequence[tuple[float, str]] = (),
    standalone: bool = False,
) -> str:
    """Lines with axes, and names at their right ends.

    Args:
        series: What to draw; empty ones are left out.
        x_label: Name and unit of the horizontal axis.
        y_label: Name and unit of the vertical axis, written above it.
        title: Heading inside the picture, for use without a caption.
        width: Of the view box; the picture scales with its container.
        height: Of the view box.
        reference: A horizontal line at a value, with its name.
        markers: Vertical lines at some x, with their names, one under the other.
        standalone: Make a document of its own.
    """
    drawn = [one for one in series if one.points]
    xs = [x for one in drawn for x, _ in one.points] or [0.0, 1.0]
    ys = [y for one in drawn for _, y in one.points] + ([reference[0]] if reference else []) or [0.0, 1.0]
    ys += [bound for one in drawn for _, *bounds in one.band for bound in bounds]
    x_ticks, y_ticks = nice_ticks(min(xs), max(xs), 5), nice_ticks(min(ys), max(ys), 5)
    names = [one.name for one in drawn if one.name] if len(drawn) > 1 else []
    right = width - (12 + max((_CHARACTER * len(name) for name in names), default=0))
    left = 10 + _CHARACTER * max(len(tick_label(tick, y_ticks)) for tick in y_ticks)
    x_low, x_high = (min(xs), max(xs)) if max(xs) > min(xs) else (x_ticks[0], x_ticks[-1])
    x_low = 0.0 if 0 < x_low <= 0.1 * x_high else x_low
    x, y = Scale(x_low, x_high, left, right), Scale(y_ticks[0], y_ticks[-1], height - 36, 40 if title else 24)
    parts = [label(title, 0, 12, fill="ink", font_weight="600")] if title else []
    parts += [label(y_label, 0, y.end - 12)]
    parts += _grid(x, y, [t for t in x_ticks if x_low <= t <= x_high], y_ticks)
    parts += [label(x_label, right, height - 4, anchor="end")]
    if reference:
        parts += [line(left, y(reference[0]), right, y(reference[0]), stroke="muted", stroke_dasharray="3 3")]
        parts += [label(reference[1], right, y(reference[0]) - 4, anchor="end")]
    for place, (at, name) in enumerate(markers):
        parts += [line(x(at), y.start, x(at), y.end, stroke="muted", stroke_dasharray="3 3")]
        parts += [_marker_name(name, x(at), x, y, place, _CHARACTER * len(y_label))]
    parts += [_line_of(one, index, x, y, x_label) for index, one in enumerate(drawn)]
    parts += _end_names(drawn, right + 6, y) if names else []
    return frame(parts, width, height, title or f"{y_label} by {x_label}", standalone)


def _marker_name(name: str, at: float, x: Scale, y: Scale, place: int, taken: float) -> str:
    """Above the line; where the axis's name is in the way (up to `taken`), beside its upper end."""
    room = _CHARACTER * len(name) / 2
    centre = max(x.start + room, min(at, x.end - room))
    if not place and centre - room > taken:
        return label(name, centre, y.end - 4, anchor="middle")
    return label(name, at + 5, y.end + 12 + 13 * place)


def _grid(x: Scale, y: Scale, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> list[str]:
    parts = []
    for tick in y_ticks:
        parts += [
            line(x.start, y(tick), x.end, y(tick)),
            label(tick_label(tick, y_ticks), x.start - 6, y(tick) + 3.5, anchor="end"),
        ]
    for tick in x_ticks:
        parts += [label(tick_label(tick, x_ticks), x(tick), y.start + 15, anchor="middle")]
    return parts


def _line_of(one: Series, index: int, x: Scale, y: Scale, x_label: str) -> str:
    stroke = colour("muted") if one.faint else colour(index)
    places = [(x(a), y(b)) for a, b in one.points]
    path = "M" + "L".join(f"{a:g} {b:g}" for a, b in places)
    shade = _band(one, stroke, x, y)
    style = (
        f"fill:none;stroke:{stroke};stroke-width:{1.2 if one.faint else 1.8};stroke-linejoin:round;stroke-linecap:round"
    )
    parts = [*shade, element("path", d=path, style=style, stroke_dasharray="4 3" if one.faint else None)]
    stride = max(1, len(places) // _MAX_TOOLTIPS)
    visible = len(places) <= 16 and not one.faint
    for (px, py), (vx, vy) in list(zip(places, one.points, strict=True))[::stride]:
        text = tooltip(f"{one.name}: {number(vy)} ({x_label} {number(vx)})")
        mark = f"fill:{stroke}" if visible else "fill:transparent"
        parts.append(element("circle", text, cx=px, cy=py, r=2.4 if visible else 6, style=mark, class_="mark"))
    return element("g", "".join(parts))


def _band(one: Series, stroke: str, x: Scale, y: Scale) -> list[str]:
    """The shaded interval; at a single point a bar."""
    if not one.band:
        return []
    if len(one.band) == 1:
        (at, low, high) = one.band[0]
        style = f"stroke:{stroke};stroke-width:6;opacity:.18"
        return [element("line", x1=x(at), y1=y(low), x2=x(at), y2=y(high), style=style)]
    corners = [(a, high) for a, _, high in one.band] + [(a, low) for a, low, _ in reversed(one.band)]
    outline = "M" + "L".join(f"{x(a):g} {y(b):g}" for a, b in corners) + "Z"
    return [element("path", d=outline, style=f"fill:{stroke};opacity:.14;stroke:none")]


def _end_names(drawn: Sequence[Series], x: float, y: Scale) -> list[str]:
    """Names beside the last points, pushed apart so that none covers another."""
    wanted = sorted((y(one.points[-1][1]), index) for index, one in enumerate(drawn) if one.name)
    parts, floor = [], y.end - 100.0
    highest = y.start - 13 * (len(wanted) - 1)
    for rank, (place, index) in enumerate(wanted):
        at = max(min(place, highest + 13 * rank), floor + 13)
        floor = at
        fill = colour("muted") if drawn[index].faint else colour(index)
        text = label(drawn[index].name, x, at + 3.5).replace(colour("muted"), fill, 1)
        parts.append(text)
    return parts


def dot_whisker(
    rows: Sequence[Whisker],
    x_label: str,
    *,
    reference: tuple[float, str] | None = None,
    span: tuple[float, float] | None = None,
    width: float = 640,
    longest: int = 26,
    standalone: bool = False,
) -> str:
    """One row per name: a dot at the value, a line over its interval, the figures at the right.

    Args:
        rows: From top to bottom.
        x_label: Name and unit of the axis.
        reference: A vertical line at a value, with its name (for example 50, "even").
        span: Axis limits; by default what the intervals and the reference need.
        width: Of the view box.
        longest: Characters of a name; what is longer is cut.
        standalone: Make a document of its own.
    """
    height = 30 * len(rows) + 62
    rows = [replace(row, name=_short(row.name, longest)) for row in rows]
    left = 10 + _CHARACTER * max((len(row.name) for row in rows), default=4)
    right = width - 14 - _CHARACTER * max((len(row.note) for row in rows), default=0)
    values = [v for row in rows for v in (row.low, row.high)] + ([reference[0]] if reference else [])
    ticks = nice_ticks(*(span or (min(values, default=0.0), max(values, default=1.0))), 6)
    x = Scale(ticks[0], ticks[-1], left, right)
    top, bottom = 22, height - 38
    parts = [line(x(tick), top, x(tick), bottom) for tick in ticks]
    parts += [label(tick_label(tick, ticks), x(tick), bottom + 15, anchor="middle") for tick in ticks]
    parts += [label(x_label, right, height - 5, anchor="end")]
    if reference:
        at = x(reference[0])
        parts += [line(at, top - 4, at, bottom, stroke="muted", stroke_dasharray="3 3")]
        room = _CHARACTER * len(reference[1]) / 2
        parts += [label(reference[1], max(room, min(at, width - room)), top - 9, anchor="middle")]
    parts += [_whisker(row, top + 15 + 30 * index, x, right) for index, row in enumerate(rows)]
    return frame(parts, width, height, x_label, standalone)


def _whisker(row: Whisker, y: float, x: Scale, right: float) -> str:
    stroke = colour(row.series)
    interval = f"{number(row.low)} to {number(row.high)}"
    parts = [
        tooltip(f"{row.name}: {number(row.value)} ({interval})"),
        label(row.name, x.start - 10, y + 4, anchor="end", fill="ink"),
        element("rect", x=x.start, y=y - 13, width=round(x.end - x.start, 1), height=26, style="fill:transparent"),
        element(
            "line",
            x1=x(row.low),
            y1=y,
            x2=x(row.high),
            y2=y,
            style=f"stroke:{stroke};stroke-width:2;stroke-linecap:round",
        ),
        element(
            "circle", cx=x(row.value), cy=y, r=4.5, style=f"fill:{stroke};stroke:{colour('panel')};stroke-width:1.5"
        ),
        label(row.note, right + 10, y + 4, fill="ink", class_="figures") if row.note else "",
    ]
    return element("g", "".join(parts))


def bars(
    categories: Sequence[str],
    series: Sequence[tuple[str, Sequence[float | None]]],
    x_label: str,
    *,
    colours: Sequence[int] = (),
    digits: int = 2,
    width: float = 640,
    standalone: bool = False,
) -> str:
    """Horizontal bars grouped by category, one colour per series, each with its figure.

    Args:
        categories: From top to bottom.
        series: (name, one value per category; None leaves the bar out).
        x_label: Name and unit of the axis.
        colours: Number of the colour of each series; by default 0, 1, 2 …
        digits: Decimals of the figures.
        width: Of the view box.
        standalone: Make a document of its own.
    """
    thickness, gap = 14, 11
    paint = colours or range(len(series))
    group = thickness * len(series) + gap
    top = 26
    bottom = top + group * len(categories)
    height = bottom + 38
    left = 10 + _CHARACTER * max((len(_short(name)) for name in categories), default=4)
    values = [value for _, column in series for value in column if value is not None]
    ticks = nice_ticks(min([0.0, *values]), max([0.0, *values]) or 1.0, 6)
    x = Scale(ticks[0], ticks[-1], left, width - 46)
    parts = [line(x(tick), top, x(tick), bottom) for tick in ticks]
    parts += [label(tick_label(tick, ticks), x(tick), bottom + 15, anchor="middle") for tick in ticks]
    parts += [label(x_label, x.end, height - 5, anchor="end"), *_keys([name for name, _ in series], paint, left)]
    for row, category in enumerate(categories):
        base = top + group * row + gap / 2
        parts.append(
            label(_short(category), left - 10, base + thickness * len(series) / 2 + 4, anchor="end", fill="ink")
        )
        for index, (name, column) in enumerate(series):
            if (value := column[row]) is not None:
                parts.append(
                    _bar(f"{category}, {name}", value, paint[index], base + thickness * index, x, digits, thickness)
                )
    return frame(parts, width, height, x_label, standalone)


def _bar(name: str, value: float, paint: int, y: float, x: Scale, digits: int, thickness: float) -> str:
    start, end = sorted((x(0.0), x(value)))
    figure = f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")
    box = element(
        "rect",
        tooltip(f"{name}: {figure}"),
        x=start,
        y=y,
        width=max(round(end - start, 1), 1),
        height=thickness - 2,
        rx=1.5,
        style=f"fill:{colour(paint)}",
    )
    return box + label(figure, end + 5, y + thickness - 4, class_="figures")


def _keys(names: Sequence[str], paint: Sequence[int], left: float) -> list[str]:
    """The legend of grouped bars, in one row above them."""
    parts, at = [], left
    for index, name in zip(paint, names, strict=True):
        parts.append(element("rect", x=round(at, 1), y=5, width=9, height=9, rx=2, style=f"fill:{colour(index)}"))
        parts.append(label(name, round(at + 14, 1), 13.5, fill="ink"))
        at += 14 + _CHARACTER * len(name) + 18
    return parts


def _short(name: str, limit: int = 26) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"

import base64
import itertools
from xml.etree import ElementTree

import pytest

from alpaca_farm_core.evaluation.report import format as words
from alpaca_farm_core.evaluation.report.charts import Series, Whisker, bars, chart_svg, dot_whisker, line_chart
from alpaca_farm_core.evaluation.report.named_points import NamedPoint, named_points
from alpaca_farm_core.evaluation.report.scales import Scale, nice_ticks, tick_label
from alpaca_farm_core.evaluation.report.svg import data_uri

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 10, [0, 2.5, 5, 7.5, 10]),
        (0.03, 0.97, [0, 0.25, 0.5, 0.75, 1.0]),
        (-1.2, 2.9, [-2, 0, 2, 4]),
        (5, 5, [4.5, 4.75, 5.0, 5.25, 5.5]),
        (0, 0, [0, 0.25, 0.5, 0.75, 1]),
    ],
)
def test_ticks_are_round_and_cover(low, high, ticks):
    found = nice_ticks(low, high)
    assert found == pytest.approx(ticks)
    assert found[0] <= low <= high <= found[-1]


def test_tick_labels_share_their_decimals():
    assert [tick_label(t, [0, 2.5, 5]) for t in (0, 2.5, -5)] == ["0.0", "2.5", "−5.0"]
    assert tick_label(20000, [0, 20000]) == "20k"
    assert Scale(0, 10, 100, 200)(2.5) == 125


def points_of(path):
    return [tuple(map(float, pair.split())) for pair in path.lstrip("M").split("L")]


def test_a_line_goes_through_its_points():
    root = ElementTree.fromstring(line_chart([Series("loss", [(0, 4), (5, 0), (10, 2)])], "step", "loss"))
    (path,) = [element for element in root.iter() if element.tag == "path"]
    (x0, y0), (x1, y1), (x2, y2) = points_of(path.attrib["d"])
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 < y2 < y1
    titles = [element.text for element in root.iter() if element.tag == "title"]
    assert titles == ["loss: 4 (step 0)", "loss: 0 (step 5)", "loss: 2 (step 10)"]


def test_names_of_lines_that_end_together_stay_apart():
    lines = [Series(name, [(0, 0), (1, 1 + n / 1000)]) for n, name in enumerate("abc")]
    root = ElementTree.fromstring(line_chart(lines, "step", "y"))
    heights = sorted(float(e.attrib["y"]) for e in root.iter() if e.tag == "text" and e.text in "abc")
    assert all(b - a >= 12.9 for a, b in itertools.pairwise(heights))


@pytest.mark.parametrize(
    "series", [[], [Series("none", [])], [Series("one", [(3, 3)])], [Series("flat", [(0, 0), (9, 0)])]]
)
def test_degenerate_series_draw_without_a_fault(series):
    picture = line_chart(series, "x", "y", reference=(0.0, "zero"))
    ElementTree.fromstring(picture)
    assert "nan" not in picture


def test_long_series_keep_their_points_and_thin_their_tooltips():
    root = ElementTree.fromstring(line_chart([Series("a", [(n, n) for n in range(5000)])], "step", "y"))
    (path,) = [e for e in root.iter() if e.tag == "path"]
    assert len(points_of(path.attrib["d"])) == 5000
    assert sum(e.tag == "circle" for e in root.iter()) <= 160


def test_whiskers_and_bars_have_the_right_extent():
    root = ElementTree.fromstring(dot_whisker([Whisker("a", 50, 40, 60)], "%", span=(0, 100)))
    (whisker,) = [e for e in root.iter() if e.tag == "line" and "stroke-width:2" in e.attrib["style"]]
    (dot,) = [e for e in root.iter() if e.tag == "circle"]
    x1, x2, middle = float(whisker.attrib["x1"]), float(whisker.attrib["x2"]), float(dot.attrib["cx"])
    assert middle == pytest.approx((x1 + x2) / 2, abs=0.11)
    root = ElementTree.fromstring(bars(["a", "b"], [("m", [1.0, 2.0]), ("n", [None, -1.0])], "x"))
    widths = [float(e.attrib["width"]) for e in root.iter() if e.tag == "rect" and list(e)]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.2)
    assert widths[2] == pytest.approx(widths[0], abs=0.2)


def test_names_are_escaped():
    picture = dot_whisker([Whisker("<b>&", 1, 0, 2, note="</svg>")], "<x>", reference=(1, '"<even>"'))
    root = ElementTree.fromstring(picture)
    assert any(e.text == "<b>&" for e in root.iter())


def test_a_chart_of_its_own_is_an_image():
    uri = data_uri(chart_svg([Series("reward", [(0, 1), (1, 2)])], "step", "reward", "PPO"))
    kind, _, data = uri.partition(",")
    assert kind == "data:image/svg+xml;base64"
    root = ElementTree.fromstring(base64.b64decode(data))
    assert root.tag == SVG + "svg"
    assert root.find(SVG + "style") is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (words.number(None), "–"),
        (words.number(1234567), "1,234,567"),
        (words.number(-0.01234), "−0.0123"),
        (words.number(12345.6), "12,346"),
        (words.number(3e-7), "3.00e−7"),
        (words.number(0.0), "0"),
        (words.number(True), "True"),
        (words.fixed(-0.04), "0.0"),
        (words.percent(51.25), "51.2 %"),
        (words.share(0.5), "50.0 %"),
        (words.interval([1.0, 99.94]), "1.0–99.9"),
        (words.interval(None), "–"),
        (words.duration(0.84), "0.8 s"),
        (words.duration(185), "3 min 05 s"),
        (words.duration(7830), "2 h 10 min"),
        (words.money(0.0), "$0"),
        (words.money(0.0042), "$0.0042"),
        (words.money(12.5), "$12.50"),
        (words.moment("2025-11-22T12:34:56+00:00"), "2025-11-22 12:34 UTC"),
        (words.setting(""), "(empty)"),
        (words.setting(None), "null"),
        (words.setting([1, "a"]), '[1, "a"]'),
    ],
)
def test_numbers_as_people_read_them(text, expected):
    assert text == expected


def test_names_of_points_stand_beside_their_dots_and_cover_nothing():
    crowd = [
        ("one", 0.0, 0.0),
        ("another", 0.01, 0.001),
        ("third", 0.02, 0.0),
        ("<far>", 1.0, 1.0),
        ("fourth", 0.0, 0.01),
    ]
    root = ElementTree.fromstring(named_points([NamedPoint(*point) for point in crowd], "x", "y"))
    names = {name for name, _, _ in crowd}
    texts = [(t.text, float(t.get("x")), float(t.get("y"))) for t in root.iter("text") if t.text in names]
    assert {name for name, _, _ in texts} == names
    for (one, x, y), (other, a, b) in itertools.combinations(texts, 2):
        apart = x + 6.2 * len(one) <= a or a + 6.2 * len(other) <= x or abs(y - b) >= 11.9
        assert apart, (one, other)
    titles = {title.text for title in root.iter("title")}
    assert "<far>: 1.00 (x 1.00)" in titles

"""The stage `overoptimisation`: the figures of `curve` as JSON, pictures and one page.

In: per seed a trained policy (`method_SEED`) and evaluations of its kept steps (`evaluation_SEED_STEP`). Out:
overoptimisation.json, an SVG per figure, overoptimisation.html. Pictures have room for further curves (another
method, best-of-n): they are series of the same charts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from alpaca_farm_core.artifacts.files import write_json, write_text_atomic
from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.evaluation.overoptimisation.curve import Point, curve, read_run, turn
from alpaca_farm_core.evaluation.report.charts import Series, line_chart
from alpaca_farm_core.pipeline.stage import StageContext, StageResult

FACTS = "overoptimisation.json"
_TITLES = {
    "proxy": ("Proxy reward", "reward model's score"),
    "win_rate": ("Judged win rate against the start", "%"),
    "gold": ("Gold utility", "mean over instructions"),
}
Curves = Mapping[str, Sequence[Mapping[str, Any]]]
"""Name of a method → its points, as of `curve.curve`."""


def draw_curves(context: StageContext) -> StageResult:
    """Body of the stage `overoptimisation`.

    Raises:
        DataError: runs that kept other steps.
    """
    runs = _runs(context.inputs)
    facts = {
        "seeds": sorted(runs),
        "curves": {"ppo": curve(runs)},
        "runs": {str(seed): [_row(point) for point in points] for seed, points in runs.items()},
        "turn": turn(runs),
    }
    write_json(context.output / FACTS, facts)
    drawn = pictures(facts["curves"], facts["turn"])  # type: ignore[arg-type]
    for name, picture in drawn.items():
        write_text_atomic(context.output / f"{name}.svg", picture)
    write_text_atomic(context.output / "overoptimisation.html", _page(facts, drawn))
    found = facts["turn"] or {}
    return StageResult(metrics={"n_seeds": len(runs), **found})  # type: ignore[dict-item]


def pictures(curves: Curves, found: Mapping[str, Any] | None) -> dict[str, str]:
    """A picture per figure against KL, the turning point marked; figures that no curve has are left out."""
    marker = (found["kl"], f"gold turns, step {found['step']}" if found["turns"] else "highest gold") if found else None
    drawn = {}
    for figure, (title, y_label) in _TITLES.items():
        series = [_series(name, points, figure) for name, points in curves.items()]
        if any(one.points for one in series):
            drawn[figure] = line_chart(
                series,
                "KL from the start, nats per response",
                y_label,
                title=title,
                width=640,
                height=260,
                reference=(50.0, "even") if figure == "win_rate" else None,
                marker=marker,
                standalone=True,
            )
    return drawn


def _series(name: str, points: Sequence[Mapping[str, Any]], figure: str) -> Series:
    rows = sorted((point for point in points if point[figure] is not None), key=lambda point: point["kl"])
    band = [(row["kl"], *row[f"{figure}_interval"]) for row in rows if row[f"{figure}_interval"]]
    return Series(name, [(row["kl"], row[figure]) for row in rows], band=band)


def _runs(inputs: Mapping[str, Artifact]) -> dict[int, list[Point]]:
    evaluations: dict[int, dict[int, Artifact]] = {}
    for role, artifact in inputs.items():
        if role.startswith("evaluation_"):
            seed, step = role.removeprefix("evaluation_").split("_")
            evaluations.setdefault(int(seed), {})[int(step)] = artifact
    kept = {seed: sorted(found) for seed, found in evaluations.items()}
    if len({tuple(steps) for steps in kept.values()}) != 1:
        raise DataError(f"The runs kept other steps: {kept}.", "Evaluate the same steps of every run.")
    return {seed: read_run(inputs[f"method_{seed}"], evaluations[seed]) for seed in sorted(evaluations)}


def _row(point: Point) -> dict[str, Any]:
    return {name: getattr(point, name) for name in ("step", "kl", "proxy", "win_rate", "win_rate_se", "gold")}


def _page(facts: Mapping[str, Any], drawn: Mapping[str, str]) -> str:
    environment = Environment(
        loader=PackageLoader("alpaca_farm_core.evaluation.overoptimisation", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    charts = [Markup(picture) for picture in drawn.values()]
    return environment.get_template("overoptimisation.html.jinja").render(facts=facts, charts=charts)

"""The stage `overoptimisation`: the figures of `curve` as JSON, pictures and one page.

In: per seed a trained policy (`method_SEED`), evaluations of its kept steps (`evaluation_SEED_STEP`), the proxy
reward of the same answers (`measured_SEED_STEP`, step 0 the start) and best-of-n's judged samples
(`best_of_n_SEED`). Out: overoptimisation.json, an SVG per figure, overoptimisation.html.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from alpaca_farm_core.artifacts.files import write_json, write_text_atomic
from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.evaluation.overoptimisation.curve import Point, curve, read_best_of_n, read_run, turn
from alpaca_farm_core.evaluation.report.charts import Series, line_chart
from alpaca_farm_core.pipeline.stage import StageContext, StageResult

FACTS = "overoptimisation.json"
_TITLES = {
    "proxy": ("Proxy reward", "reward model's score, gain over the start"),
    "win_rate": ("Judged win rate against the start", "%"),
    "gold": ("Gold utility", "mean over instructions"),
}
_UNITS = {"best-of-n": "n"}
Runs = Mapping[int, Sequence[Point]]
"""Seed → points, all of the same steps."""
Curves = Mapping[str, Sequence[Mapping[str, Any]]]
"""Name of a method → its points, as of `curve.curve`."""


def draw_curves(context: StageContext) -> StageResult:
    """Body of the stage `overoptimisation`.

    Raises:
        DataError: runs that kept other steps.
    """
    runs: dict[str, Runs] = {"ppo": _runs(context.inputs)}
    best = _by_seed(context.inputs, "best_of_n_")
    if best:
        runs["best-of-n"] = {seed: read_best_of_n(judged) for seed, judged in best.items()}
    facts = study_facts(runs)
    write_json(context.output / FACTS, facts)
    for name, picture in pictures(facts).items():
        write_text_atomic(context.output / f"{name}.svg", picture)
    write_text_atomic(context.output / "overoptimisation.html", page(facts))
    return StageResult(metrics={"n_seeds": len(facts["seeds"]), **(facts["turns"]["ppo"] or {})})


def study_facts(runs: Mapping[str, Runs]) -> dict[str, Any]:
    """Everything the study states, as plain data: method → seed → points in; curves, runs and turns out."""
    return {
        "seeds": sorted(runs["ppo"]),
        "curves": {name: curve(found) for name, found in runs.items()},
        "runs": {
            name: {str(seed): [_row(point) for point in points] for seed, points in found.items()}
            for name, found in runs.items()
        },
        "turns": {name: turn(found, _UNITS.get(name, "step")) for name, found in runs.items()},
    }


def pictures(facts: Mapping[str, Any], standalone: bool = True) -> dict[str, str]:
    """A picture per figure against KL: means with bands, single runs faint, each turning point marked.

    Figures that no curve has are left out.
    """
    markers = [
        (found["kl"], f"{name} turns, {_UNITS.get(name, 'step')} {found['step']}" if found["kl"] else f"{name} falls")
        for name, found in facts["turns"].items()
        if found and found["turns"]
    ]
    drawn = {}
    for figure, (title, y_label) in _TITLES.items():
        series = [_series(name, points, figure) for name, points in facts["curves"].items()]
        if any(one.points for one in series):
            drawn[figure] = line_chart(
                [*series, *_single(facts["runs"], figure)],
                "KL from the start, nats per response",
                y_label,
                title=title,
                width=640,
                height=260,
                reference=(50.0, "even") if figure == "win_rate" else None,
                markers=markers,
                standalone=standalone,
            )
    return drawn


def _single(runs: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]], figure: str) -> list[Series]:
    """A nameless line per run, where there are several."""
    found = []
    for points in (points for of in runs.values() if len(of) > 1 for points in of.values()):
        zero = points[0]["proxy"] if figure == "proxy" else 0.0
        known = sorted((point["kl"], point[figure] - zero) for point in points if point[figure] is not None)
        found.append(Series("", known, faint=True))
    return found


def page(facts: Mapping[str, Any]) -> str:
    """The page of `study_facts`: one file, nothing to fetch."""
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader(f"alpaca_farm_core.evaluation.{of}") for of in ("overoptimisation", "report")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    charts = [Markup(picture) for picture in pictures(facts, standalone=False).values()]
    return environment.get_template("overoptimisation.html.jinja").render(facts=facts, charts=charts)


def _series(name: str, points: Sequence[Mapping[str, Any]], figure: str) -> Series:
    rows = sorted((point for point in points if point[figure] is not None), key=lambda point: point["kl"])
    band = [(row["kl"], *row[f"{figure}_interval"]) for row in rows if row[f"{figure}_interval"]]
    return Series(name, [(row["kl"], row[figure]) for row in rows], band=band)


def _runs(inputs: Mapping[str, Artifact]) -> dict[int, list[Point]]:
    evaluations, measured = _by_seed_and_step(inputs, "evaluation_"), _by_seed_and_step(inputs, "measured_")
    kept = {seed: sorted(found) for seed, found in evaluations.items()}
    if len({tuple(steps) for steps in kept.values()}) != 1:
        raise DataError(f"The runs kept other steps: {kept}.", "Evaluate the same steps of every run.")
    methods = _by_seed(inputs, "method_")
    return {seed: read_run(methods[seed], evaluations[seed], measured.get(seed, {})) for seed in sorted(evaluations)}


def _by_seed(inputs: Mapping[str, Artifact], prefix: str) -> dict[int, Artifact]:
    return {int(role.removeprefix(prefix)): found for role, found in inputs.items() if role.startswith(prefix)}


def _by_seed_and_step(inputs: Mapping[str, Artifact], prefix: str) -> dict[int, dict[int, Artifact]]:
    found: dict[int, dict[int, Artifact]] = {}
    for role, artifact in inputs.items():
        if role.startswith(prefix):
            seed, step = role.removeprefix(prefix).split("_")
            found.setdefault(int(seed), {})[int(step)] = artifact
    return found


def _row(point: Point) -> dict[str, Any]:
    return {name: getattr(point, name) for name in ("step", "kl", "proxy", "win_rate", "win_rate_se", "gold")}

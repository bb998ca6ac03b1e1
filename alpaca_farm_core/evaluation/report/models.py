"""One page that compares any number of models from their annotations, and the same facts as a dictionary.

In: scored models. Out: facts (plain values) and HTML: win rates with intervals, ranks, which differences
are real, length against preference, groups, the most and least improved answers with both texts and the
judge's words, cost and what is missing. Nothing to fetch; every text is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import Any

from jinja2 import Template
from markupsafe import Markup

from alpaca_farm_core.errors import DataError
from alpaca_farm_core.evaluation.board import Board
from alpaca_farm_core.evaluation.board_formats import figure, places, span
from alpaca_farm_core.evaluation.report.charts import Whisker, bars, dot_whisker
from alpaca_farm_core.evaluation.report.page import page_template
from alpaca_farm_core.evaluation.report.scatter import scatter
from alpaca_farm_core.evaluation.scoring import ScoredModel, breakdown, compare_models
from alpaca_farm_core.seeding import stable_uniform

_EXAMPLES = 3
_MOST_GROUPS = 14
_MOST_PAIRS = 45


def models_facts(scored: Sequence[ScoredModel], title: str, examples: int = _EXAMPLES) -> dict[str, Any]:
    """All that the page says, as plain values.

    Args:
        scored: Models, best first.
        title: Heading.
        examples: Answers to show per model and kind.
    """
    board = Board()
    for one in scored:
        board.add_scored(one, overwrite=False)
    placed = {row["model"]: row for row in board.sorted_rows()}
    return {
        "title": title,
        "baseline": next((one.annotations.baseline for one in scored if one.annotations.baseline), None),
        "models": [_model(one, placed[one.row["model"]], examples) for one in scored],
        "pairs": _pairs(scored),
        "annotators": sorted({name or "(none)" for one in scored for name in one.row["annotators"]}),
        "cost_usd": _total([one.row["cost_usd"] for one in scored]),
    }


def models_page(facts: Mapping[str, Any]) -> str:
    """The page of `models_facts`."""
    models = [model for model in facts["models"] if model["win_rate"] is not None]
    return _template().render(
        facts=facts,
        rates=Markup(_rates(models)) if models else None,
        groups=_groups(models),
        scatters=_scatters(models),
    )


def length_points(one: ScoredModel) -> list[tuple[float, float]]:
    """(len_model − len_baseline in characters, score) of the rows with both outputs and a score."""
    texts = one.annotations.texts
    rows = zip(texts["output_1"], texts["output_2"], one.scores, strict=True)
    return [
        (float(len(model) - len(base)), score)
        for base, model, score in rows
        if base is not None and model is not None and score is not None
    ]


def pick_examples(one: ScoredModel, n: int) -> list[dict[str, Any]]:
    """The rows that the judge found most improved and most worsened; ties in an order of the content alone."""
    texts = one.annotations.texts
    known = [place for place, score in enumerate(one.scores) if score is not None and score != 0.5]
    order = sorted(known, key=lambda place: stable_uniform("comparison", texts["instruction"][place] or ""))
    best = sorted(order, key=lambda place: -(one.scores[place] or 0.0))
    kinds = (("Most improved", [p for p in best if (one.scores[p] or 0) > 0.5][:n]),
             ("Most worsened", [p for p in reversed(best) if (one.scores[p] or 0) < 0.5][:n]))  # fmt: skip
    return [
        {
            "title": title,
            "rows": [{**{name: texts[name][p] or "" for name in texts}, "score": one.scores[p]} for p in ps],
        }
        for title, ps in kinds
        if ps
    ]


def _model(one: ScoredModel, placed: Mapping[str, Any], examples: int) -> dict[str, Any]:
    datasets = [name or "" for name in one.annotations.texts["dataset"]]
    field = one.row["by"]["field"] if "by" in one.row else "dataset"
    groups = one.row["by"]["groups"] if "by" in one.row else breakdown(datasets, one.scores)
    points = length_points(one)
    return {
        **placed,
        "group_field": field,
        "groups": groups if len(groups) > 1 else [],
        "length_points": points,
        "examples": pick_examples(one, examples),
    }


def _pairs(scored: Sequence[ScoredModel]) -> list[dict[str, Any]]:
    """Paired comparisons of all models that share instructions; none where there would be too many to read."""
    with_text = [one for one in scored if None not in one.annotations.texts["instruction"]]
    found = []
    for first, second in list(combinations(with_text, 2))[:_MOST_PAIRS]:
        try:
            found.append(compare_models(scored, first.row["model"], second.row["model"]).to_row())
        except DataError as error:
            found.append({"model": first.row["model"], "other": second.row["model"], "problem": error.headline})
    return found


def _rates(models: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for model in models:
        low, high = model["interval"] or (model["win_rate"], model["win_rate"])
        rows.append(Whisker(model["model"], model["win_rate"], low, high, note=figure(model["win_rate"])))
    words = "win rate, % (95 % interval)"
    return dot_whisker(rows, words, reference=(50.0, "even"), span=(0.0, 100.0), width=460)


def _groups(models: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Grouped bars of the first models, at most six, over the groups that any of them has."""
    with_groups = [model for model in models if model["groups"]][:6]
    names = sorted({group["group"] for model in with_groups for group in model["groups"]})[:_MOST_GROUPS]
    if not names:
        return None
    columns = []
    for model in with_groups:
        rates = {group["group"]: group["win_rate"] for group in model["groups"]}
        columns.append((_short(model["model"]), [rates.get(name) for name in names]))
    return Markup(bars([name or "(none)" for name in names], columns, "win rate, %", digits=1))


def _short(name: str, limit: int = 30) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"


def _scatters(models: Sequence[Mapping[str, Any]]) -> list[tuple[str, Markup]]:
    points = [x for model in models for x, _ in model["length_points"]]
    if not points:
        return []
    limits = (min(points), max(points))
    label = "characters longer than the baseline's answer"
    return [
        (model["model"], Markup(scatter(model["length_points"], label, "preference for the model", x_span=limits)))
        for model in models
        if model["length_points"]
    ]


def _total(costs: Sequence[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if known else None


@cache
def _template() -> Template:
    return page_template("models", {"figure": figure, "span": span, "places": places})

"""Body of the stage `comparison`: facts to JSON and CSV, facts with times and cost to a page.

Times and cost come from the manifests' volatile part, so they are in `comparison.html` and `cost.json` only.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Template
from markupsafe import Markup

from alpaca_farm_core.artifacts.files import write_json, write_text_atomic
from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.evaluation.comparison.config import ComparisonConfig
from alpaca_farm_core.evaluation.comparison.facts import build_facts, by_role
from alpaca_farm_core.evaluation.report import format as words
from alpaca_farm_core.evaluation.report.charts import Series, Whisker, dot_whisker, line_chart
from alpaca_farm_core.evaluation.report.named_points import NamedPoint, named_points
from alpaca_farm_core.evaluation.report.page import page_template
from alpaca_farm_core.pipeline.device_time import CPU_HOURS, GPU_HOURS, known_hours
from alpaca_farm_core.pipeline.stage import StageContext, StageResult

FACTS, TABLE, PAGE, COST = "comparison.json", "comparison.csv", "comparison.html", "cost.json"


def write_comparison(context: StageContext) -> StageResult:
    """Write the comparison's files.

    Raises:
        DataError: nothing was evaluated, or by different annotators.
    """
    config: ComparisonConfig = context.config
    facts = build_facts(config, context.inputs)
    cost = costs(context.inputs, config)
    write_json(context.output / FACTS, facts)
    write_text_atomic(context.output / TABLE, to_csv(facts["rows"]))
    write_json(context.output / COST, cost)
    write_text_atomic(context.output / PAGE, render(facts, cost))
    best = facts["rows"][0]
    return StageResult(
        metrics={
            "n_methods": len(facts["rows"]),
            "n_seeds": len(config.seeds),
            "best": best["method"],
            facts["basis"]: best[facts["basis"]],
        },
        n_missing=sum(row["n_missing"] for row in facts["rows"]),
    )


def costs(inputs: Mapping[str, Artifact], config: ComparisonConfig) -> dict[str, dict[str, float]]:
    """Method → seconds, hours of GPUs and CPUs, and dollars of what it alone made, mean over seeds.

    Stages that methods share are left out; time is that of making the policy or answers, not of judging them.
    """
    totals = {method: dict.fromkeys(("seconds", GPU_HOURS, CPU_HOURS, "cost_usd"), 0.0) for method in config.methods}
    prefixes = ("made", "own", "evaluation", "answers")
    for prefix in prefixes:
        for (_, method), artifact in by_role(inputs, prefix).items():
            volatile = artifact.manifest.volatile
            name = method.split(".")[0]
            if prefix in ("made", "own"):
                totals[name]["seconds"] += float(volatile["seconds"]) / len(config.seeds)
                for kind, hours in known_hours(volatile).items():
                    totals[name][kind] += (hours or 0.0) / len(config.seeds)
            totals[name]["cost_usd"] += float(volatile["cost_usd"]) / len(config.seeds)
    return totals


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Comma-separated values; intervals as two columns, unknown values empty, the paper's column left out."""
    flat = []
    for row in rows:
        cells: dict[str, Any] = {}
        for name, value in row.items():
            if name.endswith("_interval"):
                cells[f"{name}_low"], cells[f"{name}_high"] = value or (None, None)
            elif name != "paper":
                cells[name] = value
        flat.append(cells)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return stream.getvalue()


def render(facts: Mapping[str, Any], cost: Mapping[str, Mapping[str, float]]) -> str:
    """The page as HTML; every text is escaped by the template, only our own SVG is marked as safe."""
    return _template().render(
        facts=facts,
        cost=cost,
        win_rates=Markup(_win_rates(facts)),
        movement=_movement(facts),
        curves=_curves(facts),
    )


def _win_rates(facts: Mapping[str, Any]) -> str:
    basis = facts["basis"]
    rows = [
        Whisker(row["method"], row[basis], *(row[f"{basis}_interval"] or (row[basis], row[basis])))
        for row in facts["rows"]
        if row[basis] is not None
    ]
    words_of = {"gold_win_rate": "gold win rate against SFT, %", "win_rate": "judged win rate against SFT, %"}
    return dot_whisker(rows, words_of[basis], reference=(50.0, "even"))


def _movement(facts: Mapping[str, Any]) -> list[Markup]:
    """Where each method ended by KL: proxy reward, and gold gain where it is known; one point each."""
    figures = {"reward": "proxy reward", "gold_gain": "gold utility gained over SFT"}
    pictures = []
    for name, words_of in figures.items():
        points = [
            NamedPoint(row["method"], row["kl"], row[name], faint=row["method"] == "sft")
            for row in facts["policies"]
            if row[name] is not None
        ]
        if points:
            pictures.append(Markup(named_points(points, "KL from the SFT policy, nats per response", words_of)))
    return pictures


def _curves(facts: Mapping[str, Any]) -> list[Markup]:
    """Best-of-n by KL(n), proxy and gold each with an axis of its own: their units differ."""
    rows, pictures = facts["best_of_n"], []
    for name, words_of in (("reward", "proxy reward of the best of n"), ("gold_utility", "its gold utility")):
        points = [(row["kl"], row[name]) for row in rows if row[name] is not None]
        if points:
            chart = line_chart([Series(words_of, points)], "KL(n) = log n − (n − 1)/n, nats", words_of, height=270)
            pictures.append(Markup(chart))
    return pictures


@cache
def _template() -> Template:
    names = ("number", "fixed", "percent", "share", "interval", "duration", "hours", "money")
    return page_template("comparison", {name: getattr(words, name) for name in names})

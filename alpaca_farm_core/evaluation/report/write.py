"""Body of the stage `report`: facts to JSON, facts and provenance to HTML."""

from __future__ import annotations

from alpaca_farm_core.artifacts.files import write_json, write_text_atomic
from alpaca_farm_core.evaluation.leaderboard import ROLE_PREFIX
from alpaca_farm_core.evaluation.report.config import ReportConfig
from alpaca_farm_core.evaluation.report.facts import build_facts
from alpaca_farm_core.evaluation.report.lineage import generations, references
from alpaca_farm_core.evaluation.report.provenance import environments, stage_rows, totals
from alpaca_farm_core.evaluation.report.render import render_page
from alpaca_farm_core.pipeline.stage import StageContext, StageResult


def write_report(context: StageContext) -> StageResult:
    """Write report.json and report.html.

    Raises:
        DataError: there is no evaluation of the method to report on, or an input's file is malformed.
    """
    config: ReportConfig = context.config
    facts = build_facts(config, context.inputs)
    stages = stage_rows(context.inputs, generations(facts["lineage"]))
    provenance = {
        "stages": stages,
        "totals": totals(stages),
        "environments": environments(context.inputs),
        "references": references(context.inputs),
        "evaluation_cost": context.inputs[ROLE_PREFIX + facts["method"]].manifest.volatile.get("cost_usd"),
    }
    write_json(context.output / "report.json", facts)
    write_text_atomic(context.output / "report.html", render_page(facts, provenance))
    shown = ("model", "reference", "verdict", "basis", "win_rate", "interval", "kl")
    return StageResult(metrics={key: facts["headline"][key] for key in shown})

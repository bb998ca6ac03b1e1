"""The stage `report`: one page per run and the same facts as JSON.

All inputs but one evaluation are optional ('*' roles): a section without its artifact is left out,
and says so where a reader would look for it. `report.html` shows times and is not compared between
runs; `report.json` holds facts only.
"""

from __future__ import annotations

from alpaca_farm_core.evaluation.report.config import ReportConfig
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult


def _run(context: StageContext) -> StageResult:
    from alpaca_farm_core.evaluation.report.write import write_report

    return write_report(context)


STAGE_REPORT = Stage(
    name="report",
    version=2,
    config_class=ReportConfig,
    inputs={
        "data*": "dataset",
        "sft*": "policy",
        "samples*": "outputs",
        "preferences*": "preferences",
        "reward_model*": "reward_model",
        "method*": "policy",
        "outputs_*": "outputs",
        "evaluation_*": "evaluation",
        "leaderboard*": "leaderboard",
    },
    output="report",
    run=_run,
    volatile_files=("report.html",),
    summary="writes report.html and report.json",
)

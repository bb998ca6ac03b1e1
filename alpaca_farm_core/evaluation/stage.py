"""The stages `evaluate` (one model against a reference) and `leaderboard` (several evaluations).

Declarations only: the judging is in `judge`, the table in `leaderboard`.
"""

from __future__ import annotations

from collections.abc import Mapping

from alpaca_farm_core.annotators.summary import PASSPORTS
from alpaca_farm_core.evaluation.config import EvaluationConfig, LeaderboardConfig
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult


def _evaluate(context: StageContext) -> StageResult:
    from alpaca_farm_core.evaluation.judge import evaluate

    return evaluate(context)


def _annotator_files(config: EvaluationConfig) -> Mapping[str, str]:
    from alpaca_farm_core.annotators.factory import annotator_external

    return annotator_external(config.annotator)


def _leaderboard(context: StageContext) -> StageResult:
    from alpaca_farm_core.evaluation.leaderboard import build_leaderboard

    return build_leaderboard(context)


STAGE_EVALUATE = Stage(
    name="evaluate",
    version=1,
    config_class=EvaluationConfig,
    inputs={"outputs": "outputs", "reference": "outputs"},
    output="evaluation",
    run=_evaluate,
    external=_annotator_files,
    volatile_files=(PASSPORTS,),
    summary="judges a model's outputs against the reference's",
)

STAGE_LEADERBOARD = Stage(
    name="leaderboard",
    version=1,
    config_class=LeaderboardConfig,
    inputs={"evaluation_*": "evaluation"},
    output="leaderboard",
    run=_leaderboard,
    summary="ranks the evaluated models",
)

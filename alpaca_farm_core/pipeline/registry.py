"""All stages by name. Importing it loads declarations only, no trainer."""

from __future__ import annotations

from alpaca_farm_core.annotators.human import STAGE_HUMAN
from alpaca_farm_core.annotators.stage import STAGE as PREFERENCES
from alpaca_farm_core.config.base import did_you_mean
from alpaca_farm_core.data.stage import STAGE as DATASET
from alpaca_farm_core.errors import UsageError
from alpaca_farm_core.evaluation.comparison.stage import STAGE_COMPARISON, STAGE_MEASURE
from alpaca_farm_core.evaluation.overoptimisation.stage import (
    STAGE_CHECKPOINT,
    STAGE_JUDGE_SAMPLES,
    STAGE_OVEROPTIMISATION,
)
from alpaca_farm_core.evaluation.reevaluation.stage import STAGE_ANCHORS, STAGE_HISTORY
from alpaca_farm_core.evaluation.report.stage import STAGE_REPORT
from alpaca_farm_core.evaluation.stage import STAGE_EVALUATE, STAGE_LEADERBOARD
from alpaca_farm_core.generation.stage import STAGE_API, STAGE_DECODE, STAGE_SAMPLE
from alpaca_farm_core.methods.registry import method_stages
from alpaca_farm_core.methods.reward_model.stage import STAGE as REWARD_MODEL
from alpaca_farm_core.methods.sft.stage import STAGE as SFT
from alpaca_farm_core.pipeline.stage import Stage

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        DATASET,
        SFT,
        STAGE_SAMPLE,
        PREFERENCES,
        STAGE_HUMAN,
        REWARD_MODEL,
        *method_stages(),
        STAGE_DECODE,
        STAGE_API,
        STAGE_EVALUATE,
        STAGE_LEADERBOARD,
        STAGE_MEASURE,
        STAGE_COMPARISON,
        STAGE_ANCHORS,
        STAGE_HISTORY,
        STAGE_CHECKPOINT,
        STAGE_JUDGE_SAMPLES,
        STAGE_OVEROPTIMISATION,
        STAGE_REPORT,
    )
}


def stage_named(name: str) -> Stage:
    """Look a stage up.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in STAGES:
        raise UsageError(f"There is no stage '{name}'.", did_you_mean(name, STAGES))
    return STAGES[name]

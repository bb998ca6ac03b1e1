"""The stages `checkpoint` (one step of a training as a policy) and `overoptimisation` (all of them in one picture).

Declarations only; the figures are in `curve`.
"""

from __future__ import annotations

from alpaca_farm_core.evaluation.overoptimisation.config import CheckpointConfig, OveroptimisationConfig
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult


def _checkpoint(context: StageContext) -> StageResult:
    from alpaca_farm_core.evaluation.overoptimisation.checkpoint import take_checkpoint

    return take_checkpoint(context)


def _overoptimisation(context: StageContext) -> StageResult:
    from alpaca_farm_core.evaluation.overoptimisation.write import draw_curves

    return draw_curves(context)


STAGE_CHECKPOINT = Stage(
    name="checkpoint",
    version=1,
    config_class=CheckpointConfig,
    inputs={"policy": "policy"},
    output="policy",
    run=_checkpoint,
    summary="takes a kept step of a training as a policy",
)

STAGE_OVEROPTIMISATION = Stage(
    name="overoptimisation",
    version=1,
    config_class=OveroptimisationConfig,
    inputs={"method_*": "policy", "evaluation_*": "evaluation"},
    output="report",
    run=_overoptimisation,
    summary="draws proxy reward, win rate and gold utility against KL",
)

"""The stages of the over-optimisation study; declarations only, the figures are in `curve` and `samples`.

`checkpoint`: one step of a training as a policy. `judge_samples`: best-of-n for every n. `overoptimisation`: all in
one picture.
"""

from __future__ import annotations

from collections.abc import Mapping

from alpaca_farm_core.evaluation.config import EvaluationConfig
from alpaca_farm_core.evaluation.overoptimisation.config import CheckpointConfig, OveroptimisationConfig
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult


def _checkpoint(context: StageContext) -> StageResult:
    from alpaca_farm_core.evaluation.overoptimisation.checkpoint import take_checkpoint

    return take_checkpoint(context)


def _judge_samples(context: StageContext) -> StageResult:
    from alpaca_farm_core.evaluation.overoptimisation.samples import judge_samples

    return judge_samples(context)


def _annotator_files(config: EvaluationConfig) -> Mapping[str, str]:
    from alpaca_farm_core.annotators.factory import annotator_external

    return annotator_external(config.annotator)


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

STAGE_JUDGE_SAMPLES = Stage(
    name="judge_samples",
    version=1,
    config_class=EvaluationConfig,
    inputs={"samples": "outputs", "reference": "outputs"},
    output="measurement",
    run=_judge_samples,
    external=_annotator_files,
    summary="judges all samples of best-of-n, for every n at once",
)

STAGE_OVEROPTIMISATION = Stage(
    name="overoptimisation",
    version=2,
    config_class=OveroptimisationConfig,
    inputs={
        "method_*": "policy",
        "evaluation_*": "evaluation",
        "measured_*": "measurement",
        "best_of_n_*": "measurement",
    },
    output="report",
    run=_overoptimisation,
    summary="draws proxy reward, win rate and gold utility against KL",
)

"""The stage `feedme`: policy, preferences and dataset in, policy out; and the method as data."""

from __future__ import annotations

from alpaca_farm_core.methods.feedme.config import FeedMEConfig
from alpaca_farm_core.methods.method import Method
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult
from alpaca_farm_core.training.memory import supervised_memory


def _run(context: StageContext) -> StageResult:
    from alpaca_farm_core.methods.feedme.train import train

    return train(context)


STAGE = Stage(
    name="feedme",
    version=1,
    config_class=FeedMEConfig,
    inputs={"policy": "policy", "preferences": "preferences", "data": "dataset"},
    output="policy",
    run=_run,
    trains=True,
    memory=lambda config, execution, models: supervised_memory(config, execution, models["policy"], config.max_length),
    summary="Fine-tune the policy on the preferred answers.",
)

METHOD = Method.of_stage(STAGE, "Binary FeedME", "Fine-tuning on the preferred answer of each pair.")

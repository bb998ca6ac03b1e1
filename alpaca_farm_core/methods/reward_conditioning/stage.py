"""The stage `reward_conditioning`: policy, preferences and dataset in, policy out; and the method as data."""

from __future__ import annotations

from alpaca_farm_core.methods.method import Method
from alpaca_farm_core.methods.reward_conditioning.config import RewardConditioningConfig
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult
from alpaca_farm_core.training.memory import supervised_memory


def _run(context: StageContext) -> StageResult:
    from alpaca_farm_core.methods.reward_conditioning.train import train

    return train(context)


STAGE = Stage(
    name="reward_conditioning",
    version=1,
    config_class=RewardConditioningConfig,
    inputs={"policy": "policy", "preferences": "preferences", "data": "dataset"},
    output="policy",
    run=_run,
    trains=True,
    memory=lambda config, execution, models: supervised_memory(config, execution, models["policy"], config.max_length),
    summary="Fine-tune the policy on both answers of each pair, behind a good or a bad token.",
)

METHOD = Method.of_stage(
    STAGE,
    "Binary reward conditioning",
    "Both answers learnt behind a good or bad token; the good one is given at decoding.",
)

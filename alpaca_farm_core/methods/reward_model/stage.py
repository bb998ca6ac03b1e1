"""The stage `reward_model`: policy and preferences in, reward model out."""

from __future__ import annotations

from alpaca_farm_core.methods.reward_model.config import RewardModelConfig
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult
from alpaca_farm_core.training.memory import supervised_memory


def _run(context: StageContext) -> StageResult:
    from alpaca_farm_core.methods.reward_model.train import train

    return train(context)


STAGE = Stage(
    name="reward_model",
    version=1,
    config_class=RewardModelConfig,
    inputs={"policy": "policy", "preferences": "preferences"},
    output="reward_model",
    run=_run,
    trains=True,
    memory=lambda config, execution, models: supervised_memory(
        config, execution, models["policy"], config.max_length, lm_head=False
    ),
    summary="Learn a reward from preferences.",
)

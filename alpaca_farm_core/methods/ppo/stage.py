"""The stage `ppo`: policy, prompts and a reward in, policy out; and the method as data."""

from __future__ import annotations

from alpaca_farm_core.methods.method import Method
from alpaca_farm_core.methods.on_policy import INPUTS, calls, external
from alpaca_farm_core.methods.ppo.config import PPOConfig
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult


def _run(context: StageContext) -> StageResult:
    from alpaca_farm_core.methods.ppo.train import train

    return train(context)


STAGE = Stage(
    name="ppo",
    version=1,
    config_class=PPOConfig,
    inputs=INPUTS,
    output="policy",
    run=_run,
    external=external,
    trains=True,
    summary="Improve the policy against the reward model by proximal policy optimisation.",
)

METHOD = Method(
    name="ppo",
    title="PPO",
    summary="Reinforcement learning against the reward model with a KL penalty.",
    stages=(STAGE,),
    calls=calls("ppo"),
)

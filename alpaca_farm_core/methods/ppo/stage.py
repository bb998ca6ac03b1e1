"""The stage `ppo`: policy, prompts and a reward in, policy out; and the method as data."""

from __future__ import annotations

from alpaca_farm_core.methods.on_policy import on_policy_method, on_policy_stage
from alpaca_farm_core.methods.ppo.config import PPOConfig
from alpaca_farm_core.pipeline.stage import StageContext, StageResult


def _run(context: StageContext) -> StageResult:
    from alpaca_farm_core.methods.ppo.train import train

    return train(context)


STAGE = on_policy_stage(
    "ppo",
    1,
    PPOConfig,
    _run,
    "Improve the policy against the reward model by proximal policy optimisation.",
    critic=lambda config: config.critic,
)
METHOD = on_policy_method(STAGE, "PPO", "Reinforcement learning against the reward model with a KL penalty.")

"""The stage `grpo`: policy, prompts and a reward in, policy out; and the method as data."""

from __future__ import annotations

from alpaca_farm_core.methods.grpo.config import GRPOConfig
from alpaca_farm_core.methods.on_policy import on_policy_method, on_policy_stage
from alpaca_farm_core.pipeline.stage import StageContext, StageResult


def _run(context: StageContext) -> StageResult:
    from alpaca_farm_core.methods.grpo.train import train

    return train(context)


STAGE = on_policy_stage("grpo", 1, GRPOConfig, _run, "Improve the policy by group relative policy optimisation.")
METHOD = on_policy_method(
    STAGE, "GRPO", "Clipped policy gradient with advantages relative to a group of answers; no critic."
)

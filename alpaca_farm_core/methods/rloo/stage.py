"""The stage `rloo`: policy, prompts and a reward in, policy out; and the method as data."""

from __future__ import annotations

from alpaca_farm_core.methods.on_policy import on_policy_method, on_policy_stage
from alpaca_farm_core.methods.rloo.config import RLOOConfig
from alpaca_farm_core.pipeline.stage import StageContext, StageResult


def _run(context: StageContext) -> StageResult:
    from alpaca_farm_core.methods.rloo.train import train

    return train(context)


STAGE = on_policy_stage("rloo", 1, RLOOConfig, _run, "Improve the policy by REINFORCE with a leave-one-out baseline.")
METHOD = on_policy_method(STAGE, "RLOO", "REINFORCE with the other answers to a prompt as baseline; no critic.")

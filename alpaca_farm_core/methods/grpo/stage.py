"""The stage `grpo`: policy, prompts and a reward in, policy out; and the method as data."""

from __future__ import annotations

from alpaca_farm_core.methods.grpo.config import GRPOConfig
from alpaca_farm_core.methods.method import Method
from alpaca_farm_core.methods.on_policy import INPUTS, calls, external
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult


def _run(context: StageContext) -> StageResult:
    from alpaca_farm_core.methods.grpo.train import train

    return train(context)


STAGE = Stage(
    name="grpo",
    version=1,
    config_class=GRPOConfig,
    inputs=INPUTS,
    output="policy",
    run=_run,
    external=external,
    trains=True,
    summary="Improve the policy by group relative policy optimisation.",
)

METHOD = Method(
    name="grpo",
    title="GRPO",
    summary="Clipped policy gradient with advantages relative to a group of answers; no critic.",
    stages=(STAGE,),
    calls=calls("grpo"),
)

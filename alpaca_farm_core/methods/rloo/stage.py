"""The stage `rloo`: policy, prompts and a reward in, policy out; and the method as data."""

from __future__ import annotations

from alpaca_farm_core.methods.method import Method
from alpaca_farm_core.methods.on_policy import INPUTS, calls, external
from alpaca_farm_core.methods.rloo.config import RLOOConfig
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult


def _run(context: StageContext) -> StageResult:
    from alpaca_farm_core.methods.rloo.train import train

    return train(context)


STAGE = Stage(
    name="rloo",
    version=1,
    config_class=RLOOConfig,
    inputs=INPUTS,
    output="policy",
    run=_run,
    external=external,
    trains=True,
    summary="Improve the policy by REINFORCE with a leave-one-out baseline.",
)

METHOD = Method(
    name="rloo",
    title="RLOO",
    summary="REINFORCE with the other answers to a prompt as baseline; no critic.",
    stages=(STAGE,),
    calls=calls("rloo"),
)

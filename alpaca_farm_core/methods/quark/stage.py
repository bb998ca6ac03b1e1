"""The stage `quark`: policy, prompts and a reward in, policy out; and the method as data."""

from __future__ import annotations

from alpaca_farm_core.methods.method import Method
from alpaca_farm_core.methods.on_policy import INPUTS, calls, external
from alpaca_farm_core.methods.quark.config import QuarkConfig
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult


def _run(context: StageContext) -> StageResult:
    from alpaca_farm_core.methods.quark.train import train

    return train(context)


STAGE = Stage(
    name="quark",
    version=1,
    config_class=QuarkConfig,
    inputs=INPUTS,
    output="policy",
    run=_run,
    external=external,
    trains=True,
    summary="Improve the policy by learning from its answers of high reward.",
)

METHOD = Method(
    name="quark",
    title="Quark",
    summary="Likelihood training on the best answers so far, or on answers marked by their reward quantile.",
    stages=(STAGE,),
    calls=calls("quark"),
)

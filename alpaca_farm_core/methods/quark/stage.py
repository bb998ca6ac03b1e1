"""The stage `quark`: policy, prompts and a reward in, policy out; and the method as data."""

from __future__ import annotations

from alpaca_farm_core.methods.on_policy import on_policy_method, on_policy_stage
from alpaca_farm_core.methods.quark.config import QuarkConfig
from alpaca_farm_core.pipeline.stage import StageContext, StageResult


def _run(context: StageContext) -> StageResult:
    from alpaca_farm_core.methods.quark.train import train

    return train(context)


STAGE = on_policy_stage(
    "quark",
    1,
    QuarkConfig,
    _run,
    "Improve the policy by learning from its answers of high reward.",
    uses_reference=True,
)
METHOD = on_policy_method(
    STAGE, "Quark", "Likelihood training on the best answers so far, or on answers marked by their reward quantile."
)

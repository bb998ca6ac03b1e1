"""The stages `reference_logprobs` and `dpo`: policy and preferences in, policy out; and the method as data."""

from __future__ import annotations

from alpaca_farm_core.methods.dpo.config import DPOConfig, ReferenceLogprobsConfig
from alpaca_farm_core.methods.method import Call, Method
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult
from alpaca_farm_core.training.memory import scoring_memory, supervised_memory


def _run_reference(context: StageContext) -> StageResult:
    from alpaca_farm_core.methods.dpo.reference import score_reference

    return score_reference(context)


def _run(context: StageContext) -> StageResult:
    from alpaca_farm_core.methods.dpo.train import train

    return train(context)


STAGE_REFERENCE = Stage(
    name="reference_logprobs",
    version=1,
    config_class=ReferenceLogprobsConfig,
    inputs={"policy": "policy", "preferences": "preferences"},
    output="logprobs",
    run=_run_reference,
    memory=lambda config, execution, models: scoring_memory(config, execution, models["policy"], 2 * config.max_length),
    summary="Log-probabilities of both answers of each pair under the reference policy.",
)

STAGE = Stage(
    name="dpo",
    version=1,
    config_class=DPOConfig,
    inputs={"policy": "policy", "preferences": "preferences", "reference": "logprobs", "data": "dataset"},
    output="policy",
    run=_run,
    trains=True,
    memory=lambda config, execution, models: supervised_memory(config, execution, models["policy"]),
    summary="Train the policy on preferences by direct preference optimisation.",
)

METHOD = Method(
    name="dpo",
    title="DPO",
    summary="Direct preference optimisation, without a reward model.",
    stages=(STAGE_REFERENCE, STAGE),
    calls=(
        Call("reference_logprobs", {"policy": "sft", "preferences": "preferences"}),
        Call(
            "dpo",
            {"policy": "sft", "preferences": "preferences", "reference": "reference_logprobs", "data": "data"},
        ),
    ),
)

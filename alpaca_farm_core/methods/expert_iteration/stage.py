"""The stages `expert_samples` and `expert_iteration`, and the method as data: both stages once per round."""

from __future__ import annotations

from typing import Any

from alpaca_farm_core.methods.best_of_n.stage import run as run_best_of_n
from alpaca_farm_core.methods.expert_iteration.config import ExpertIterationConfig, ExpertSamplesConfig
from alpaca_farm_core.methods.method import Call, Method
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult
from alpaca_farm_core.training.memory import decoding_memory, supervised_memory


def _run(context: StageContext) -> StageResult:
    from alpaca_farm_core.methods.expert_iteration.train import train

    return train(context)


STAGE_SAMPLES = Stage(
    name="expert_samples",
    version=1,
    config_class=ExpertSamplesConfig,
    inputs={"policy": "policy", "reward_model": "reward_model", "data": "dataset"},
    output="outputs",
    run=run_best_of_n,
    memory=decoding_memory,
    summary="Best-of-n answers to unlabeled instructions.",
)

STAGE = Stage(
    name="expert_iteration",
    version=1,
    config_class=ExpertIterationConfig,
    inputs={"policy": "policy", "samples": "outputs", "data": "dataset"},
    output="policy",
    run=_run,
    trains=True,
    memory=lambda config, execution, models: supervised_memory(config, execution, models["policy"], config.max_length),
    summary="Fine-tune the policy on the best of its own answers.",
)


def _calls(study: Any) -> tuple[Call, ...]:
    """Sample and fine-tune, round by round; a study with more rounds shares the first ones of another."""
    settings: ExpertIterationConfig = study.section("expert_iteration")
    calls: list[Call] = []
    policy = "sft"
    for number in range(1, settings.rounds + 1):
        samples, trained = f"expert_samples_{number}", f"expert_iteration_{number}"
        sources = {"policy": policy, "reward_model": "reward_model", "data": "data"}
        calls.append(Call("expert_samples", sources, samples))
        config = settings.model_copy(update={"rounds": number})
        calls.append(Call("expert_iteration", {"policy": policy, "samples": samples, "data": "data"}, trained, config))
        policy = trained
    return tuple(calls)


METHOD = Method(
    name="expert-iteration",
    title="Expert iteration",
    summary="Fine-tuning on the best of n own answers by the reward model.",
    stages=(STAGE_SAMPLES, STAGE),
    calls=_calls,
)

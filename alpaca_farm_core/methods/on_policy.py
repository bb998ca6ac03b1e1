"""How on-policy methods are declared: one stage each, from the SFT model, prompts and a reward. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from alpaca_farm_core.methods.method import Call, Method, shared_inputs
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult
from alpaca_farm_core.training.memory import Critic, on_policy_memory
from alpaca_farm_core.training.on_policy.config import OnPolicyConfig
from alpaca_farm_core.training.rewards.config import reward_external


def on_policy_stage(
    name: str,
    version: int,
    config_class: type[OnPolicyConfig],
    run: Callable[[StageContext], StageResult],
    summary: str,
    critic: Callable[[Any], Critic] = lambda config: "none",
    uses_reference: bool = False,
) -> Stage:
    """Declare the stage of an on-policy method; a reward model is an input only where it is the reward.

    `critic` tells by the config what kind of critic is held in memory, `uses_reference` whether updates run the
    reference.
    """
    return Stage(
        name=name,
        version=version,
        config_class=config_class,
        inputs={"policy": "policy", "reward_model*": "reward_model", "data": "dataset"},
        output="policy",
        run=run,
        external=_external,
        trains=True,
        memory=lambda config, execution, models: on_policy_memory(
            config, execution, models, critic(config), uses_reference
        ),
        summary=summary,
    )


def on_policy_method(stage: Stage, title: str, summary: str) -> Method:
    """Declare an on-policy method by its stage."""
    return Method(stage.name, title, summary, (stage,), partial(_calls, stage))


def _external(config: OnPolicyConfig) -> Mapping[str, str]:
    return reward_external(config.reward)


def _calls(stage: Stage, study: Any) -> tuple[Call, ...]:
    config: OnPolicyConfig = study.section(stage.name)
    reward = {"reward_model": "reward_model"} if config.reward.needs_reward_model else {}
    return (Call(stage.name, {**shared_inputs(stage), **reward}),)

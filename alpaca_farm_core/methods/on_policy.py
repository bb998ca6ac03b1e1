"""How on-policy methods are declared: their inputs, and the calls that make them. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from alpaca_farm_core.artifacts.manifest import Kind
from alpaca_farm_core.methods.method import Call
from alpaca_farm_core.training.on_policy.config import OnPolicyConfig
from alpaca_farm_core.training.rewards.config import reward_external

INPUTS: Mapping[str, Kind] = {"policy": "policy", "reward_model*": "reward_model", "data": "dataset"}
"""A reward model is an input only where it is the reward."""


def external(config: OnPolicyConfig) -> Mapping[str, str]:
    """Content hashes of what the reward reads from outside the store."""
    return reward_external(config.reward)


def calls(stage: str) -> Callable[[Any], tuple[Call, ...]]:
    """The one call of a method: from the SFT model, the prompts and, where it is the reward, the reward model."""

    def of_study(study: Any) -> tuple[Call, ...]:
        config: OnPolicyConfig = study.section(stage)
        inputs = {"policy": "sft", "data": "data"}
        if config.reward.needs_reward_model:
            inputs["reward_model"] = "reward_model"
        return (Call(stage, inputs),)

    return of_study

"""What rewards answers, and what of it enters a fingerprint. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import model_validator

from alpaca_farm_core.annotators.config import AnnotatorConfig
from alpaca_farm_core.config.base import Config, Field
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.plugins import REWARDS


class RewardConfig(Config):
    """What rewards the answers of a policy in training."""

    kind: Literal["model", "function", "http", "annotator"] = Field(
        "model",
        description="'model' (a reward model artifact), 'function' (Python, by entry point), 'http' (a server of "
        "yours), or 'annotator' (a judge compares each answer with one of the reference policy).",
    )
    name: str = Field(
        "",
        description=f"The function's name in the entry-point group '{REWARDS}', or the name under which the endpoint's "
        "rewards are kept (give another one when the endpoint rewards otherwise).",
    )
    annotator: AnnotatorConfig = Field(default_factory=AnnotatorConfig, description="The judge of kind 'annotator'.")

    @property
    def needs_reward_model(self) -> bool:
        """Whether a reward model artifact is read."""
        return self.kind == "model"

    @model_validator(mode="after")
    def functions_and_endpoints_have_names(self) -> Self:
        """Rewards are found, or kept, by name."""
        if self.kind in ("function", "http") and not self.name:
            raise ValueError(f"reward.kind = '{self.kind}' needs reward.name")
        return self


def reward_external(config: RewardConfig) -> Mapping[str, str]:
    """Content hashes of what a reward reads from outside the store: a function's source, an annotator's prompts.

    Raises:
        ConfigError: there is no such function or annotator.
    """
    if config.kind == "annotator":
        from alpaca_farm_core.annotators.factory import annotator_external

        return annotator_external(config.annotator)
    if config.kind == "function":
        from alpaca_farm_core.training.rewards.function import function_hash

        return {"reward_function": function_hash(config.name)}
    return {}


def check_reward(config: RewardConfig, execution: ExecutionConfig) -> None:
    """Find before a long run what would stop its reward: function, address, judge and key; asks nothing.

    Raises:
        ConfigError: there is no such function or annotator, or no address to ask.
        AnnotationError: no API key where one is needed.
    """
    reward_external(config)
    if config.kind == "annotator":
        from alpaca_farm_core.annotators.factory import check_annotator

        check_annotator(config.annotator, execution)
    if config.kind == "http":
        from alpaca_farm_core.training.rewards.endpoint import RewardEndpoint

        RewardEndpoint.find(execution.reward_url)

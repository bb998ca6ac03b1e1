"""The settings of a whole study: one section per stage, and how to run them. No torch here.

The study's seed reaches every section that has none of its own, so that `seed=1` is another run of
the whole chain and `ppo.seed=1` of PPO alone.
"""

from __future__ import annotations

from typing import Any

from alpaca_farm_core.annotators.config import HumanPreferencesConfig, PreferencesConfig
from alpaca_farm_core.config.base import Config, Field
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.config.overrides import flatten
from alpaca_farm_core.data.config import DatasetConfig
from alpaca_farm_core.evaluation.config import EvaluationConfig, LeaderboardConfig
from alpaca_farm_core.evaluation.overoptimisation.config import OveroptimisationConfig
from alpaca_farm_core.evaluation.reevaluation.config import ReevaluateConfig
from alpaca_farm_core.generation.config import DecodeConfig, SampleConfig
from alpaca_farm_core.methods.ppo.config import PPOConfig
from alpaca_farm_core.methods.reward_model.config import RewardModelConfig
from alpaca_farm_core.methods.sft.config import SFTConfig


class StudyConfig(Config):
    """All settings of a run; sections carry the names of the stages they belong to."""

    seed: int = Field(0, ge=0, description="Seed of everything that has none of its own.")
    dataset: DatasetConfig = Field(default_factory=DatasetConfig, description="Instructions and splits.")
    sft: SFTConfig = Field(default_factory=SFTConfig, description="Supervised fine-tuning.")
    sample: SampleConfig = Field(default_factory=SampleConfig, description="Sampling the answers to compare.")
    preferences: PreferencesConfig = Field(default_factory=PreferencesConfig, description="Judging the pairs.")
    human_preferences: HumanPreferencesConfig = Field(
        default_factory=HumanPreferencesConfig, description="Labels of people instead of simulated ones."
    )
    reward_model: RewardModelConfig = Field(default_factory=RewardModelConfig, description="Reward modelling.")
    ppo: PPOConfig = Field(default_factory=PPOConfig, description="Proximal policy optimisation.")
    decode: DecodeConfig = Field(default_factory=DecodeConfig, description="Answers to evaluate.")
    evaluate: EvaluationConfig = Field(default_factory=EvaluationConfig, description="Judging the answers.")
    leaderboard: LeaderboardConfig = Field(default_factory=LeaderboardConfig, description="The table.")
    reevaluate: ReevaluateConfig = Field(
        default_factory=ReevaluateConfig, description="Models over time: which, and what raises an alarm."
    )
    overoptimisation: OveroptimisationConfig = Field(
        default_factory=OveroptimisationConfig, description="Proxy reward against gold, along a long training."
    )
    execution: ExecutionConfig = Field(default_factory=ExecutionConfig, description="How to run; not what to compute.")

    def section(self, stage: str) -> Config:
        """Return the settings of a stage, every seed filled in."""
        section: Config = getattr(self, stage)
        return with_seed(section, self.seed)


def with_seed(config: Config, seed: int) -> Config:
    """Return `config` with `seed` wherever it or a config inside it has a seed that is None."""
    changes: dict[str, Any] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Config):
            changes[name] = with_seed(value, seed)
        elif name == "seed" and value is None:
            changes[name] = seed
    return config.model_copy(update=changes)


def differences_from_defaults(study: StudyConfig) -> dict[str, tuple[Any, Any]]:
    """Dotted key → (default, value) of every setting that is not at its default."""
    defaults = flatten(StudyConfig().model_dump(mode="json"))
    values = flatten(study.model_dump(mode="json"))
    return {key: (defaults.get(key), value) for key, value in values.items() if value != defaults.get(key)}

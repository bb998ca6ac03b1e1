"""The settings of a whole study: one section per stage, and how to run them. No torch here.

The sections of the shared stages are declared here; those of the methods come from the registry, so that
a method, built in or from another package, needs no line here. The study's seed reaches every section that
has none of its own, so that `seed=1` is another run of the whole chain and `ppo.seed=1` of PPO alone.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

from pydantic import create_model

from alpaca_farm_core.annotators.config import HumanPreferencesConfig, PreferencesConfig
from alpaca_farm_core.config.base import Config, Field
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.config.overrides import flatten
from alpaca_farm_core.data.config import DatasetConfig
from alpaca_farm_core.evaluation.comparison.config import ComparisonConfig, MeasureConfig
from alpaca_farm_core.evaluation.config import EvaluationConfig, LeaderboardConfig
from alpaca_farm_core.evaluation.overoptimisation.config import OveroptimisationConfig
from alpaca_farm_core.evaluation.reevaluation.config import ReevaluateConfig
from alpaca_farm_core.generation.config import ApiOutputsConfig, DecodeConfig, SampleConfig
from alpaca_farm_core.methods.registry import method_stages
from alpaca_farm_core.methods.reward_model.config import RewardModelConfig
from alpaca_farm_core.methods.sft.config import SFTConfig


class StudyConfig(Config):
    """All settings of a run; sections carry the names of the stages they belong to.

    What `study_class` returns has the sections of all methods besides.
    """

    seed: int = Field(0, ge=0, description="Seed of everything that has none of its own.")
    dataset: DatasetConfig = Field(default_factory=DatasetConfig, description="Instructions and splits.")
    sft: SFTConfig = Field(default_factory=SFTConfig, description="Supervised fine-tuning.")
    sample: SampleConfig = Field(default_factory=SampleConfig, description="Sampling the answers to compare.")
    preferences: PreferencesConfig = Field(default_factory=PreferencesConfig, description="Judging the pairs.")
    human_preferences: HumanPreferencesConfig = Field(
        default_factory=HumanPreferencesConfig, description="Labels of people instead of simulated ones."
    )
    reward_model: RewardModelConfig = Field(default_factory=RewardModelConfig, description="Reward modelling.")
    decode: DecodeConfig = Field(default_factory=DecodeConfig, description="Answers to evaluate.")
    api_outputs: ApiOutputsConfig = Field(
        default_factory=ApiOutputsConfig, description="Answers of API models to evaluate beside."
    )
    evaluate: EvaluationConfig = Field(default_factory=EvaluationConfig, description="Judging the answers.")
    leaderboard: LeaderboardConfig = Field(default_factory=LeaderboardConfig, description="The table.")
    measure: MeasureConfig = Field(default_factory=MeasureConfig, description="Proxy reward and KL of a method.")
    comparison: ComparisonConfig = Field(default_factory=ComparisonConfig, description="Methods side by side.")
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


@cache
def study_class() -> type[StudyConfig]:
    """`StudyConfig` with a section for each stage of each method."""
    sections: dict[str, Any] = {
        stage.name: (stage.config_class, Field(default_factory=stage.config_class, description=stage.summary))
        for stage in method_stages()
    }
    return cast(type[StudyConfig], create_model("StudyConfig", __base__=StudyConfig, __module__=__name__, **sections))


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
    defaults = flatten(type(study)().model_dump(mode="json"))
    values = flatten(study.model_dump(mode="json"))
    return {key: (defaults.get(key), value) for key, value in values.items() if value != defaults.get(key)}

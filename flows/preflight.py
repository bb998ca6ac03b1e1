"""What would stop a run, found before it starts: settings, sources, annotators, keys. Light: no Prefect, no torch."""

from __future__ import annotations

from typing import Any

from alpaca_farm_core.annotators.config import AnnotatorConfig
from alpaca_farm_core.annotators.factory import check_annotator
from alpaca_farm_core.artifacts.store import Store, check_name
from alpaca_farm_core.config.study import StudyConfig
from alpaca_farm_core.generation.api import check_api_outputs
from alpaca_farm_core.generation.config import ApiOutputsConfig
from alpaca_farm_core.pipeline.runner import Planner
from alpaca_farm_core.training.rewards.config import RewardConfig, check_reward
from flows.compositions import composition_named


def preflight(flow: str, study: StudyConfig, run_name: str, store: Store, **options: Any) -> None:
    """Plan a run and check what its missing stages need from outside the store; asks and runs nothing.

    Args:
        flow: Name of the composition.
        study: All settings.
        run_name: Prefix of the artifacts' names.
        store: Where artifacts are.
        options: Arguments of the composition itself.

    Raises:
        FarmError: an unusable run name, an unknown flow or annotator, a source that cannot be read, no API key
            where one is needed.
    """
    check_name(run_name)
    planner = Planner(study, run_name, store)
    composition_named(flow)(planner, **options)
    for planned in planner.steps:
        judge = getattr(planned.step.config, "annotator", None)
        reward = getattr(planned.step.config, "reward", None)
        if planned.hit is None and isinstance(judge, AnnotatorConfig):
            check_annotator(judge, study.execution)
        if planned.hit is None and isinstance(planned.step.config, ApiOutputsConfig):
            check_api_outputs(planned.step.config, study.execution)
        if planned.hit is None and isinstance(reward, RewardConfig):
            check_reward(reward, study.execution)

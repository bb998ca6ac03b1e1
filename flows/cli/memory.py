"""What the stages of a planned run will need of memory; from artifacts in the store and the study's settings."""

from __future__ import annotations

from pathlib import Path

from alpaca_farm_core.models.architecture import Architecture, base_architecture
from alpaca_farm_core.pipeline.runner import PlannedStep, Planner
from alpaca_farm_core.training.memory import MemoryPlan
from alpaca_farm_core.training.room import memory_plan


def planned_memory(planned: PlannedStep, planner: Planner) -> MemoryPlan | None:
    """Plan one step; a model that is not made yet has the sizes of the study's base model."""
    stage = planned.step.stage
    kinds = {role: kind for role, kind in stage.inputs.items() if kind in ("policy", "reward_model")}
    inputs: dict[str, Path | Architecture] = {}
    for role, fingerprint in planned.recipe.inputs.items():
        if role in kinds or f"{role}*" in kinds:
            made = planner.store.find(fingerprint, payload=False)
            model = made.path if made else base_architecture(planner.study.sft.model)
            if model is not None:
                inputs[role] = model
    return memory_plan(stage, planned.step.config, planner.execution, inputs)

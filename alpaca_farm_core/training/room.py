"""Whether a stage fits: its memory plan against what this machine or its GPU has. No torch unless a GPU is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import OutOfMemoryError
from alpaca_farm_core.models.architecture import Architecture, architecture_in, base_architecture
from alpaca_farm_core.training.memory import MemoryPlan, gigabytes

if TYPE_CHECKING:
    from alpaca_farm_core.pipeline.stage import Stage

BASE = "base"
"""Role of the base model among the models of a stage that reads one from outside the store."""


def memory_plan(
    stage: Stage, config: Any, execution: ExecutionConfig, inputs: Mapping[str, Path | Architecture]
) -> MemoryPlan | None:
    """Plan a stage; None where it declares no plan, or the sizes of a model are not known.

    Args:
        stage: The stage.
        config: Its config.
        execution: How it runs; device "auto" is taken for a GPU where there is one.
        inputs: Role → a model's folder, or its sizes; other inputs are passed over.
    """
    if stage.memory is None:
        return None
    found = {role: path if isinstance(path, Architecture) else architecture_in(path) for role, path in inputs.items()}
    base = getattr(config, "model", None)
    if base is not None:
        found[BASE] = base_architecture(base)
    models = {role: model for role, model in found.items() if model is not None}
    if execution.device == "auto":
        execution = execution.model_copy(update={"device": "cuda" if has_gpu() else "cpu"})
    try:
        return stage.memory(config, execution, models)
    except KeyError:
        return None


def has_gpu() -> bool:
    """Whether the driver of an NVIDIA GPU is there; asks no library."""
    return Path("/dev/nvidia0").exists()


def require_memory(
    stage: Stage, config: Any, execution: ExecutionConfig, inputs: Mapping[str, Path | Architecture], advice: str
) -> MemoryPlan | None:
    """Return the stage's plan, and refuse what would soon end for lack of memory.

    Raises:
        OutOfMemoryError: the plan exceeds `execution.memory_gb`, or what the machine has; with `advice`.
    """
    plan = memory_plan(stage, config, execution, inputs)
    if plan is None:
        return None
    there = int(1e9 * execution.memory_gb) or memory_here(execution)
    together = plan.peak * (1 if execution.device.startswith("cuda") else execution.processes)
    if there and together > there:
        raise OutOfMemoryError(
            f"{stage.name} would need {plan}; there are {gigabytes(there)} GB.",
            f"{advice} Or set execution.memory_gb to start anyway.",
        )
    return plan


def memory_here(execution: ExecutionConfig) -> int:
    """Bytes of the GPU's memory or of this machine's (of its container, where that has less); 0 = not known."""
    if execution.device.startswith("cuda") or (execution.device == "auto" and has_gpu()):
        import torch

        return int(torch.cuda.mem_get_info()[1]) if torch.cuda.is_available() else 0
    limits = [_read(Path("/sys/fs/cgroup/memory.max")), _read(Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        limits.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")))
    except (OSError, StopIteration):
        return 0
    return min(limit for limit in limits if limit)


def _read(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max" where there is no limit
        return 0

"""How long a stage kept machines busy: processes × hours, on GPUs or on CPUs, over all its attempts.

A stage's body in, its result with a note whether it computed on a GPU out; the manifest keeps the hours in its volatile
part. An attempt that was killed outright noted nothing and is not counted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from alpaca_farm_core.artifacts.files import read_json, write_json
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult

GPU_HOURS, CPU_HOURS = "gpu_hours", "cpu_hours"
_ATTEMPTS = "attempts.json"


def run_measured(stage: Stage, context: StageContext) -> StageResult:
    """Run the body in this process and note whether tensors were on a GPU meanwhile."""
    for device in _gpus():
        sys.modules["torch"].cuda.reset_peak_memory_stats(device)
    result = stage.run(context)
    on_gpu = any(sys.modules["torch"].cuda.max_memory_allocated(device) for device in _gpus())
    return replace(result, on_gpu=on_gpu)


@contextmanager
def noted_attempt(workspace: Path) -> Iterator[None]:
    """Add the seconds of one attempt to those that the workspace knows of, however it ends."""
    began = time.monotonic()
    try:
        yield
    finally:
        write_json(workspace / _ATTEMPTS, [*_attempts(workspace), round(time.monotonic() - began, 3)])


def device_hours(stage: Stage, execution: ExecutionConfig, workspace: Path, result: StageResult) -> dict[str, float]:
    """`gpu_hours` of a stage that used GPUs (one for each process), else `cpu_hours` of its processes."""
    processes = execution.processes * execution.nodes if stage.trains else 1
    return {GPU_HOURS if result.on_gpu else CPU_HOURS: processes * sum(_attempts(workspace)) / 3600}


def known_hours(volatile: Mapping[str, object]) -> dict[str, float | None]:
    """Both kinds of hours of a manifest; None for the kind that it does not have."""
    found = {name: volatile.get(name) for name in (GPU_HOURS, CPU_HOURS)}
    return {name: float(value) if isinstance(value, int | float) else None for name, value in found.items()}


def _attempts(workspace: Path) -> list[float]:
    file = workspace / _ATTEMPTS
    return [float(seconds) for seconds in read_json(file)] if file.exists() else []


def _gpus() -> range:
    """Devices of this process, if it has begun to use any; nothing is imported or started for the question."""
    torch = sys.modules.get("torch")
    return range(torch.cuda.device_count()) if torch is not None and torch.cuda.is_initialized() else range(0)

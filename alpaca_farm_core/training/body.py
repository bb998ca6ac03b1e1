"""A training stage's body, wherever it runs: signals wait for a checkpoint, lack of memory is explained."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from alpaca_farm_core.artifacts.disk import readable_storage_errors
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import OutOfMemoryError
from alpaca_farm_core.pipeline.device_time import run_measured
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult
from alpaca_farm_core.training.room import require_memory
from alpaca_farm_core.training.trackers import tracked

_ALLOCATION_FAILURES = ("out of memory", "can't allocate memory", "cannot allocate memory")


def run_here(stage: Stage, context: StageContext) -> StageResult:
    """Run the body in this process.

    Raises:
        TrainingStoppedError: at the deadline, behind a checkpoint.
        OutOfMemoryError: of the GPU or the machine.
        StoreError: the disk is full.
        UsageError: a tracker's package is not installed.
    """
    storage = readable_storage_errors(context.scratch.parents[2])
    with context.stop.listening(), storage, explained_memory_errors(stage.name, context.execution):
        folders = {role: artifact.path for role, artifact in context.inputs.items()}
        plan = require_memory(stage, context.config, context.execution, folders, what_to_lower(context.execution))
        if plan:
            context.progress.say(f"Memory planned: {plan}.")
        _forget_peak()
        with tracked(context) as followed:
            result = run_measured(stage, followed)
        return replace(result, timings={**result.timings, "peak_memory_gb": _peak_memory_bytes() / 1e9})


def _forget_peak() -> None:
    """Let the GPU and Linux measure peaks from now on; elsewhere the resident one is that of the whole process."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and cuda.is_available():
        cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory_bytes() -> int:
    """Peak of this stage: allocated on the GPU where one was used, else resident in this process."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and cuda.is_available() and cuda.max_memory_allocated():
        return int(cuda.max_memory_allocated())
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def explained_memory_errors(stage: str, execution: ExecutionConfig) -> Iterator[None]:
    """Say of a lack of memory what a user can lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch's own error is a RuntimeError
        words = str(error).lower()
        known = isinstance(error, MemoryError) or any(sign in words for sign in _ALLOCATION_FAILURES)
        if isinstance(error, OutOfMemoryError) or not known:
            raise
        first = (str(error).splitlines() or ["no more is known"])[0]
        raise OutOfMemoryError(f"Memory ran out in {stage}: {first}", what_to_lower(execution)) from error


def what_to_lower(execution: ExecutionConfig) -> str:
    """The settings that decide how much memory training takes, with their values; none changes the result."""
    return (
        f"Lower execution.micro_batch_tokens (now {execution.micro_batch_tokens}) and execution.decode_batch_size "
        f"(now {execution.decode_batch_size}), or set execution.activation_checkpointing, then run the same again: it "
        "goes on from its last checkpoint. Adapters (lora.rank) or ppo.critic=shared_trunk, another run, need far less."
    )

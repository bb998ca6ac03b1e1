"""A training stage's body, wherever it runs: signals wait for a checkpoint, lack of memory is explained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from alpaca_farm_core.artifacts.store import readable_storage_errors
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import OutOfMemoryError
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult

_ALLOCATION_FAILURES = ("out of memory", "can't allocate memory", "cannot allocate memory")


def run_here(stage: Stage, context: StageContext) -> StageResult:
    """Run the body in this process.

    Raises:
        TrainingStoppedError: at the deadline, behind a checkpoint.
        OutOfMemoryError: of the GPU or the machine.
        StoreError: the disk is full.
    """
    store = context.scratch.parents[2]
    with (
        context.stop.listening(),
        readable_storage_errors(store),
        explained_memory_errors(stage.name, context.execution),
    ):
        return stage.run(context)


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
        f"(now {execution.decode_batch_size}), then run the same again: it goes on from its last checkpoint."
    )

"""TensorBoard and Weights & Biases: metrics of a stage that trains go to them as well, through accelerate's trackers.

A stage's context in, the same with a progress that passes metrics on out; process 0 alone does so. What trackers
write lies in the store's folder `trackers/`, outside of every artifact, and W&B's key comes from its environment
(`WANDB_API_KEY`; `WANDB_MODE=offline` sends nothing).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alpaca_farm_core.artifacts.files import read_json
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import UsageError
from alpaca_farm_core.pipeline.progress import Progress
from alpaca_farm_core.pipeline.stage import StageContext

PROJECT = "alpaca-farm"
"""W&B's project where `WANDB_PROJECT` names none."""


def check_trackers(execution: ExecutionConfig) -> None:
    """Check that the packages of `execution.trackers` are installed.

    Raises:
        UsageError: one is not.
    """
    for name in execution.trackers:
        if find_spec(name) is None:
            raise UsageError(
                f"execution.trackers names {name}, but the package {name} is not installed.",
                f"Run `pip install 'alpaca-farm-flows[{name}]'`, or leave it out of execution.trackers.",
            )


@contextmanager
def tracked(context: StageContext) -> Iterator[StageContext]:
    """The context with a progress that feeds the trackers until the block ends; itself where there are none.

    Raises:
        UsageError: a tracker's package is not installed.
    """
    check_trackers(context.execution)
    if not context.execution.trackers or os.environ.get("RANK", "0") != "0":
        yield context
        return
    with ExitStack() as stack:
        yield replace(context, progress=_TrackedProgress(context, stack))


class _TrackedProgress:
    """Passes everything on, and the metrics of each unit to the trackers; `step` counts the units from 1."""

    def __init__(self, context: StageContext, stack: ExitStack) -> None:
        self._context, self._stack = context, stack
        self._shown: Progress = context.progress
        self._trackers: list[Any] | None = None
        self._step = 0

    def start(self, description: str, total: int, unit: str, done: int = 0) -> None:
        """Begin to count; the first call also starts the trackers, once it is known which device is used."""
        self._shown.start(description, total, unit, done)
        self._step = done
        if self._trackers is None:
            self._trackers = _started(self._context, done)
            for tracker in self._trackers:
                self._stack.callback(tracker.finish)

    def advance(self, n: int = 1, metrics: Mapping[str, float] | None = None) -> None:
        """Count, and pass the finite ones on."""
        self._shown.advance(n, metrics)
        self._step += n
        finite = {name: float(value) for name, value in (metrics or {}).items() if math.isfinite(value)}
        for tracker in (self._trackers or ()) if finite else ():
            tracker.log(finite, step=self._step)

    def say(self, message: str) -> None:
        """Pass on."""
        self._shown.say(message)


def _started(context: StageContext, done: int) -> list[Any]:
    workspace = context.scratch.parent
    fingerprint = workspace.name
    title = f"{_name_of(workspace)}-{fingerprint[:8]}"
    folder = Path(context.execution.tracker_folder or context.calls.parent / "trackers").expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    makers = {"tensorboard": _tensorboard, "wandb": _wandb}
    trackers = [makers[name](title, fingerprint, folder, done) for name in context.execution.trackers]
    for name, tracker in zip(context.execution.trackers, trackers, strict=True):
        tracker.start()
        if name == "wandb":  # TensorBoard would make a run of its own for the settings, at each resume
            tracker.store_init_configuration(context.config.model_dump(mode="json"))
        context.progress.say(f"{name} gets this run's metrics: {folder}.")
    return trackers


def _tensorboard(title: str, fingerprint: str, folder: Path, done: int) -> Any:
    from accelerate.tracking import TensorBoardTracker

    # What a killed attempt wrote behind the checkpoint is hidden.
    return TensorBoardTracker(title, folder, purge_step=done + 1)


def _wandb(title: str, fingerprint: str, folder: Path, done: int) -> Any:
    from accelerate.tracking import WandBTracker

    project = os.environ.get("WANDB_PROJECT", PROJECT)
    return WandBTracker(project, name=title, id=fingerprint[:32], resume="allow", dir=str(folder))


def _name_of(workspace: Path) -> str:
    """What the artifact will be called."""
    file = workspace / "name.json"
    return str(read_json(file)["name"]) if file.exists() else "stage"

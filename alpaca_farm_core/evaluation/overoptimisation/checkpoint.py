"""The stage `checkpoint`: a folder that a training kept becomes a policy artifact, without being copied.

In: a policy with `checkpoints/step_XXXX`. Out: that folder's files, as hard links where the disk allows them
(artifacts never change, so two may share their bytes).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from alpaca_farm_core.errors import DataError
from alpaca_farm_core.evaluation.overoptimisation.config import CheckpointConfig
from alpaca_farm_core.pipeline.stage import StageContext, StageResult


def take_checkpoint(context: StageContext) -> StageResult:
    """Body of the stage `checkpoint`.

    Raises:
        DataError: the policy kept no such step.
    """
    config: CheckpointConfig = context.config
    policy = context.inputs["policy"]
    folder = policy.path / "checkpoints" / f"step_{config.step:04d}"
    if not folder.is_dir():
        kept = ", ".join(sorted(path.name for path in folder.parent.glob("step_*"))) or "none"
        raise DataError(
            f"{policy.reference} kept no step {config.step} (it has: {kept}).", "Set ppo.save_every to a divisor of it."
        )
    shutil.copytree(folder, context.output, copy_function=_link, dirs_exist_ok=True)
    return StageResult(metrics={"step": config.step})


def _link(source: str, target: str) -> str:
    Path(target).unlink(missing_ok=True)  # of an attempt that was cut off
    try:
        os.link(source, target)
    except OSError:  # a disk without links
        shutil.copyfile(source, target)
    return target

"""`python -m alpaca_farm_core.training.child JOB.json`: one process of a training stage that runs apart.

In: a job file (stage, config, inputs, folders, execution settings). Out: the stage's files, its progress on
standard output, and its result or error beside the job file. Rank and world size come from the launcher.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from alpaca_farm_core.artifacts.files import read_json
from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import FarmError
from alpaca_farm_core.pipeline.progress import SilentProgress
from alpaca_farm_core.pipeline.registry import stage_named
from alpaca_farm_core.pipeline.stage import StageContext
from alpaca_farm_core.pipeline.stop import StopRequest
from alpaca_farm_core.training.body import run_here
from alpaca_farm_core.training.children import end_with_parent
from alpaca_farm_core.training.messages import LineProgress, write_error, write_result

RANK, LAUNCHED = "RANK", "TORCHELASTIC_RUN_ID"


def main(job_file: Path) -> int:
    """Run the job; return the exit code."""
    rank = int(os.environ.get(RANK, "0"))
    if LAUNCHED in os.environ:
        end_with_parent(signal.SIGKILL)()  # the launcher hands SIGTERM on; without it nobody is left to ask
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    job = read_json(job_file)
    stage = stage_named(job["stage"])
    execution = ExecutionConfig.build(job["execution"], at="execution")
    context = StageContext(
        config=stage.config_class.build(job["config"], at=stage.name),
        inputs={role: Artifact.read(Path(path)) for role, path in job["inputs"].items()},
        output=Path(job["output"]),
        scratch=Path(job["scratch"]),
        calls=Path(job["calls"]),
        execution=execution,
        progress=LineProgress() if rank == 0 else SilentProgress(),
        stop=StopRequest(execution.deadline_hours),
    )
    try:
        result = run_here(stage, context)
    except Exception as error:
        write_error(job_file.parent, rank, error)
        return error.exit_code if isinstance(error, FarmError) else 1
    finally:
        _leave_the_others()
    if rank == 0:
        write_result(job_file.parent, result)
    return 0


def _exit(number: int, frame: object) -> None:
    sys.exit(128 + number)


def _leave_the_others() -> None:
    """Close the process group; torch warns of one left open."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

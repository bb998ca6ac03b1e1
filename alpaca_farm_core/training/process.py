"""The one runner of stages that train: in processes of their own, or here where the settings allow it.

A stage apart is started by this interpreter (one process) or by torch.distributed.run (several). Its
progress is replayed here, its other output goes to a log file and, throttled, to the progress; its errors
are raised here as if it had run here. However this process ends, none of the others outlives it for long:
they get SIGTERM from `_stop` or from the kernel, write a checkpoint, and go.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from alpaca_farm_core.artifacts.files import write_json
from alpaca_farm_core.artifacts.locks import exclusive
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import FarmError, OutOfMemoryError, TrainingProcessError, TrainingStoppedError
from alpaca_farm_core.pipeline.progress import Progress
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult
from alpaca_farm_core.training.body import run_here, what_to_lower
from alpaca_farm_core.training.children import end_with_parent
from alpaca_farm_core.training.messages import read_error, read_result, replay
from alpaca_farm_core.training.trackers import check_trackers

STOP_SECONDS = 12.0
"""Between SIGTERM and SIGKILL: time for the step to end and its checkpoint to be written."""

DEADLINE_GRACE_SECONDS = 300.0
"""A stage apart that has not stopped by itself so long after its deadline hangs, and is stopped."""

_RUNNING: set[subprocess.Popen[bytes]] = set()
_CHILD = "alpaca_farm_core.training.child"
# oneDNN keeps 1,024 compiled kernels by default: with lengths that never repeat, hundreds of megabytes for nothing.
_KERNELS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}
_LINES_PER_PERIOD, _PERIOD_SECONDS = 10, 10.0
_LINES_SHOWN = 20
_WAITING = "waiting for processes of an earlier attempt to write their checkpoint and end"
_KILLED = ("exitcode  : -9", "Signal 9 (SIGKILL)")  # how torch.distributed.run reports it


def run_training(stage: Stage, context: StageContext) -> StageResult:
    """Run a training stage where its execution settings say.

    Raises:
        FarmError: what the stage raises, its deadline, lack of memory, a lost process.
    """
    check_trackers(context.execution)
    # Processes of an earlier attempt may still be writing their checkpoint, though their caller was killed: the
    # launcher inherits the open lock file, so nobody starts before they have gone.
    with exclusive(context.scratch / "training.lock", lambda holder: context.progress.say(_WAITING)) as lock:
        if needs_own_process(context.execution):
            return run_apart(stage, context, lock)
        return run_here(stage, context)


def needs_own_process(execution: ExecutionConfig) -> bool:
    """Tell whether a training stage runs apart."""
    if execution.own_process == "always" or execution.processes > 1 or execution.nodes > 1:
        return True
    if execution.device != "auto":
        return execution.device.startswith("cuda")
    import torch

    return torch.cuda.is_available()


def run_apart(stage: Stage, context: StageContext, lock: IO[str]) -> StageResult:
    """Run a training stage in processes of its own, which hold `lock` until they end.

    Raises:
        FarmError: what the stage raises, its deadline, lack of memory, a lost process.
    """
    folder = context.scratch / "job"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    job_file = _write_job(folder, stage, context)
    command = launch_command(context.execution, job_file)
    if context.execution.nodes > 1:
        context.progress.say(f"Start on each of the other machines: {' '.join(command[1:])}")
    output = _run(command, context, folder / "training.log", lock)
    error = read_error(folder)
    if error is not None:
        raise error
    result = read_result(folder)
    if result is None:
        raise _lost(stage, context.execution, output)
    return result


def launch_command(execution: ExecutionConfig, job_file: Path) -> list[str]:
    """The command that starts all processes of this machine."""
    if execution.processes * execution.nodes == 1:
        return [sys.executable, "-m", _CHILD, str(job_file)]
    meeting = (
        ["--rdzv-backend", "c10d", "--rdzv-endpoint", execution.rendezvous, "--rdzv-id", job_file.parents[2].name[:16]]
        if execution.nodes > 1
        else ["--standalone"]
    )
    return [
        *(sys.executable, "-m", "torch.distributed.run", *meeting),
        *("--nnodes", str(execution.nodes), "--nproc-per-node", str(execution.processes), "--max-restarts", "0"),
        *("-m", _CHILD, str(job_file)),
    ]


def _write_job(folder: Path, stage: Stage, context: StageContext) -> Path:
    file = folder / "job.json"
    write_json(
        file,
        {
            "stage": stage.name,
            "config": context.config.model_dump(mode="json"),
            "inputs": {role: str(artifact.path) for role, artifact in context.inputs.items()},
            "output": str(context.output),
            "scratch": str(context.scratch),
            "calls": str(context.calls),
            "execution": context.execution.model_dump(mode="json"),
        },
    )
    return file


def _environment(execution: ExecutionConfig) -> dict[str, str]:
    threads = execution.threads or max(1, (os.cpu_count() or 1) // execution.processes)
    told = {} if execution.processes == 1 else {"OMP_NUM_THREADS": str(threads)}
    # Where this package is imported from must be the same there, installed or not.
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**_KERNELS, **os.environ, **told, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


class Output:
    """Sorts what the processes print: progress is replayed, the rest goes to the log and, throttled, to people.

    Attributes:
        tail: The last ordinary lines.
        exit_code: Of the launcher, once it has ended.
    """

    def __init__(self, progress: Progress, log: IO[str]) -> None:
        self.tail: deque[str] = deque(maxlen=200)
        self.exit_code = 0
        self._progress, self._log = progress, log
        self._period_began, self._shown, self._hidden = time.monotonic(), 0, 0

    def take(self, line: str) -> None:
        """Take one line."""
        if replay(line, self._progress):
            return
        self._log.write(line + "\n")
        self._log.flush()
        self.tail.append(line)
        if time.monotonic() - self._period_began > _PERIOD_SECONDS:
            self._tell_hidden()
            self._period_began, self._shown = time.monotonic(), 0
        if line.strip() and self._shown < _LINES_PER_PERIOD:
            self._shown += 1
            self._progress.say(line.strip())
        else:
            self._hidden += bool(line.strip())

    def end(self, exit_code: int) -> None:
        """Note how the launcher ended."""
        self._tell_hidden()
        self.exit_code = exit_code

    def _tell_hidden(self) -> None:
        if self._hidden:
            self._progress.say(f"… {self._hidden} more lines in {self._log.name}")
            self._hidden = 0


def stop_all() -> None:
    """Ask all training processes that this process has started to write a checkpoint and end; does not wait."""
    for process in tuple(_RUNNING):
        process.terminate()


def _run(command: list[str], context: StageContext, log: Path, lock: IO[str]) -> Output:
    hours = context.execution.deadline_hours
    process = subprocess.Popen(
        command,
        env=_environment(context.execution),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=(lock.fileno(),),
        preexec_fn=end_with_parent(signal.SIGTERM),
    )
    _RUNNING.add(process)
    try:
        with log.open("w", encoding="utf-8") as stream:
            output = Output(context.progress, stream)
            for line in _lines(process, 3600 * hours + DEADLINE_GRACE_SECONDS if hours else None):
                output.take(line)
            output.end(process.wait())
    finally:  # also on what a signal raises: nothing may stay behind
        _RUNNING.discard(process)
        _stop(process)
    return output


def _lines(process: subprocess.Popen[bytes], limit_seconds: float | None) -> Iterator[str]:
    """Yield lines as they come.

    Raises:
        TrainingStoppedError: after `limit_seconds`.
    """
    assert process.stdout is not None
    end = time.monotonic() + limit_seconds if limit_seconds is not None else None
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if end is not None and time.monotonic() > end:
                raise TrainingStoppedError(
                    "Training hung: it did not stop at its deadline and was stopped.",
                    "Run the same again to go on from its last checkpoint, or raise execution.deadline_hours.",
                )
            if not selector.select(timeout=1.0):
                continue
            block = os.read(process.stdout.fileno(), 65536)
            if not block:
                break
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                yield line.decode("utf-8", errors="replace")
    if rest:
        yield rest.decode("utf-8", errors="replace")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask with SIGTERM, so that a checkpoint is written; then kill. The launcher's own children die with it."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _lost(stage: Stage, execution: ExecutionConfig, output: Output) -> FarmError:
    """The error of processes that ended without result or error of their own."""
    said = "\n".join(list(output.tail)[-_LINES_SHOWN:])
    if output.exit_code == -signal.SIGKILL or any(sign in line for line in output.tail for sign in _KILLED):
        return OutOfMemoryError(
            f"A training process of {stage.name} was killed by the system (SIGKILL), which nearly always means that "
            "the machine's memory ran out.",
            what_to_lower(execution),
        )
    return TrainingProcessError(
        f"The training processes of {stage.name} ended with exit code {output.exit_code}, and said last:\n{said}",
        "Run the same again to go on from the last checkpoint.",
    )

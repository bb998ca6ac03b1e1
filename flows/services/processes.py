"""Child processes that never outlive this one: started, watched, and stopped with all they started.

In: a command and an environment. Out: a `Service`. Whatever way this process ends, its services get
SIGTERM: by `stop`, or from the kernel (Linux) when this process is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from alpaca_farm_core.training.children import end_with_parent

_LAST_LINES = 15


@dataclass
class Service:
    """One running child.

    Attributes:
        name: What people call it.
        process: The child.
        log: File of its output.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def is_alive(self) -> bool:
        """Tell whether it still runs."""
        return self.process.poll() is None

    def last_lines(self) -> str:
        """The end of its output, for an error message."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LAST_LINES:])


def start_service(
    name: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path, folder: Path
) -> Service:
    """Start `python -m …` in a process group of its own, so that Ctrl-C reaches only this process."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
            preexec_fn=end_with_parent(signal.SIGTERM),
        )
    return Service(name, process, log)


def stop(services: Sequence[Service], patience_seconds: float) -> None:
    """Stop services in the order given, with everything they started; SIGKILL after the patience."""
    tree = [process for service in services for process in _tree(service.process.pid)]
    deadline = time.monotonic() + patience_seconds
    for service in services:
        if service.is_alive():
            service.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            service.process.wait(max(0.1, deadline - time.monotonic()))
    end(tree, max(0.5, deadline - time.monotonic()))
    for service in services:
        service.process.wait()


def orphans(services: Sequence[Service]) -> list[psutil.Process]:
    """What dead services left to this process, and all below it (it must have called `adopt_orphans`)."""
    known = {service.process.pid for service in services}
    own = [child for child in psutil.Process().children() if child.pid not in known]
    return [process for child in own for process in _tree(child.pid)]


def reap_orphans(services: Sequence[Service]) -> None:
    """Let go of what dead services left to this process and what has ended since, which would stay as zombies.

    Linux only, as nothing is adopted elsewhere. The exit status of the services themselves is left to `is_alive`.
    """
    if sys.platform != "linux":
        return
    known = {service.process.pid for service in services}
    with contextlib.suppress(ChildProcessError):  # not a child is left
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid in known:
                return  # `is_alive` reaps it; whatever has ended beside it waits for the next call
            os.waitpid(ended.si_pid, 0)


def end(processes: Sequence[psutil.Process], patience_seconds: float) -> None:
    """SIGTERM, then SIGKILL to those that still run."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(processes, timeout=patience_seconds)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=5)


def _tree(pid: int) -> list[psutil.Process]:
    """A process and all below it; psutil tells a process from a later one with the same number."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []

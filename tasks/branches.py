"""Branches of a flow side by side: each in a thread that waits for its stages, which train in other processes.

Stages that do not train run here, one at a time: two threads of one Python would only slow each other down, and
torch's random numbers belong to the process. When one branch fails, no new one is begun; those that run come to
their end. An interrupt stops all of them, behind checkpoints.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar, cast

from alpaca_farm_core.training.process import STOP_SECONDS, stop_all
from tasks.display import current_display

Result = TypeVar("Result")

running_beside: ContextVar[bool] = ContextVar("running_beside", default=False)
"""Whether this is a branch with others beside it."""

turn = threading.Lock()
"""Held by the branch that runs a stage in this process."""


def side_by_side(branches: Sequence[Callable[[], Result]], lanes: int) -> list[Result]:
    """Run branches, `lanes` at a time, begun in their order; results in their order.

    Raises:
        BaseException: what the first branch to fail raised, once the others beside it have ended.
    """
    work = _Work(branches)
    threads = [threading.Thread(target=copy_context().run, args=(work.go_on,), daemon=True) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)  # with a limit, so that signals are heard
    except BaseException:
        work.stop(threads)
        raise
    if work.errors:
        raise work.errors[0]
    return cast(list[Result], work.results)


class _Work:
    """Branches still to be run, and what came of the others."""

    def __init__(self, branches: Sequence[Callable[[], Any]]) -> None:
        self.results: list[Any] = [None] * len(branches)
        self.errors: list[BaseException] = []
        self._left = list(enumerate(branches))
        self._lock = threading.Lock()

    def go_on(self) -> None:
        """Run branches until none is left or one has failed; the body of each thread."""
        running_beside.set(True)
        current_display.set(current_display.get().beside())
        while (taken := self._take()) is not None:
            place, branch = taken
            try:
                self.results[place] = branch()
            except BaseException as error:  # handed to the thread that waits
                self.errors.append(error)

    def _take(self) -> tuple[int, Callable[[], Any]] | None:
        with self._lock:
            return self._left.pop(0) if self._left and not self.errors else None

    def stop(self, threads: Sequence[threading.Thread]) -> None:
        """Begin no new branch, and let training write its checkpoints; other work ends with the process."""
        with self._lock:
            self._left.clear()
        stop_all()
        end = time.monotonic() + STOP_SECONDS
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))

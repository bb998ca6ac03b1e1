"""How a training stage is asked to end early: by a signal or by its deadline, between two steps.

A loop asks `is_asked` after each step, writes a checkpoint, and calls `leave`. What then happens is
decided here once, for a stage in the flow's own process and for one in a process of its own.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from alpaca_farm_core.errors import TrainingStoppedError

PATIENCE_SECONDS = 8.0
"""A signal that finds no end of a step for so long interrupts at once; older checkpoints are kept."""

TOGETHER_SECONDS = 1.0
"""Signals so close to the first are the same request: a batch system or timeout(1) sends one to the process and one
to its group, and a caller hands its own on."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _StopAsked(BaseException):
    """Unwinds a stage that has written its checkpoint."""


class StopRequest:
    """Asks one stage to stop.

    Args:
        deadline_hours: After so long the stage is asked to stop; 0 = never.
    """

    def __init__(self, deadline_hours: float = 0.0) -> None:
        self._hours = deadline_hours
        self._deadline = time.monotonic() + 3600 * deadline_hours if deadline_hours else None
        self._signal: int | None = None
        self._one_request_until = 0.0
        self._before: dict[int, Any] = {}

    def is_asked(self) -> bool:
        """Tell whether the stage should stop after this step."""
        return self._signal is not None or (self._deadline is not None and time.monotonic() >= self._deadline)

    def leave(self) -> NoReturn:
        """Leave the stage; its checkpoint is written.

        Raises:
            TrainingStoppedError: at the deadline. On a signal, what its earlier handler raises.
        """
        raise _StopAsked

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hold signals back until the next end of a step; then hand them to whoever handled them before.

        Only the main thread receives signals; in another one this listens to the deadline alone.
        """
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        try:
            yield
        except _StopAsked:
            self._restore()
            self._deliver()
            raise TrainingStoppedError(
                f"Training stopped at its deadline of {self._hours:g} hours; its checkpoint is kept.",
                "Run the same again to go on from there, or raise execution.deadline_hours.",
            ) from None
        finally:
            self._restore()
        self._deliver()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:  # asked before, or patience is over
            if time.monotonic() >= self._one_request_until:
                self._restore()
                signal.raise_signal(number)
            return
        self._signal, self._one_request_until = number, time.monotonic() + TOGETHER_SECONDS
        timer = threading.Timer(PATIENCE_SECONDS, self._insist, (number,))
        timer.daemon = True
        timer.start()

    def _insist(self, number: int) -> None:
        if self._before:
            self._one_request_until = 0.0
            os.kill(os.getpid(), number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _deliver(self) -> None:
        """Raise the signal that was held back; its handler normally does not return."""
        if self._signal is not None:
            signal.raise_signal(self._signal)
            raise SystemExit(128 + self._signal)

"""Shows a stage's progress in the Prefect UI and, when the command line asks for it, in the terminal.

In: the calls of the core's `Progress`. Out: one progress artifact per phase, updated every few seconds at most (each
update is a request and a row), log lines, and whatever the terminal's display does. Requests are made in a thread of
their own: a server that is away must not hold up hours of training, only its display.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextvars import copy_context
from dataclasses import dataclass, field
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger

from tasks.display import current_display

_UPDATE_SECONDS = 5.0
_LAST_UPDATE_SECONDS = 5.0
"""The end of a stage waits so long for its last update to be shown."""


@dataclass(eq=False)
class _Phase:
    """A phase of a stage; `artifact` is the sender's alone."""

    description: str
    total: int
    unit: str
    done: int
    began: float = field(default_factory=time.monotonic)
    shown: bool = False
    artifact: UUID | None = None


class PrefectProgress:
    """Reports one task run.

    Args:
        key: Key of the progress artifact (lowercase letters, digits and dashes).
    """

    def __init__(self, key: str) -> None:
        self.logger = get_run_logger()
        self._phase: _Phase | None = None
        self._shown_at = 0.0
        self._sender = _Sender(key, self.logger)

    def start(self, description: str, total: int, unit: str, done: int = 0) -> None:
        """Begin a phase; its progress artifact appears once it has lasted a few seconds."""
        current_display.get().start(description, total, unit, done)
        self._end_phase()
        self._phase = _Phase(description, total, unit, done)
        self._shown_at = self._phase.began

    def advance(self, n: int = 1, metrics: Mapping[str, float] | None = None) -> None:
        """Count units; update the UI at most every few seconds."""
        current_display.get().advance(n, metrics)
        phase = self._phase
        if phase is None:
            return
        phase.done += n
        if time.monotonic() - self._shown_at >= _UPDATE_SECONDS:
            self._show(phase)
            shown = "  ".join(f"{key} {value:.4g}" for key, value in (metrics or {}).items())
            self.logger.info("%s %d/%d %s  %s", phase.description, phase.done, phase.total, phase.unit, shown)

    def say(self, message: str) -> None:
        """Log one fact."""
        current_display.get().say(message)
        self.logger.info(message)

    def finish(self) -> None:
        """Bring the progress artifact to its end."""
        self._end_phase()
        self._sender.close()

    def _end_phase(self) -> None:
        if self._phase is not None and self._phase.shown:
            self._show(self._phase)
        self._phase = None

    def _show(self, phase: _Phase) -> None:
        if phase.total == 0:
            return
        percent = min(100.0, 100.0 * phase.done / phase.total)
        rate = phase.done / max(time.monotonic() - phase.began, 1e-9)
        phase.shown, self._shown_at = True, time.monotonic()
        text = f"{phase.description}: {phase.done} of {phase.total} {phase.unit}, {rate:.3g}/s"
        self._sender.put(phase, percent, text)


class _Sender:
    """Sends updates one after the other; of those of one phase that wait, the newest."""

    def __init__(self, key: str, logger: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        self._key, self._logger = key, logger
        self._waiting: deque[tuple[_Phase, float, str]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def put(self, phase: _Phase, percent: float, text: str) -> None:
        """Have an update sent soon."""
        with self._changed:
            if self._waiting and self._waiting[-1][0] is phase:
                self._waiting.pop()
            self._waiting.append((phase, percent, text))
            self._changed.notify()
        if self._thread is None:
            # In the run's context, from which Prefect knows whose artifact it is.
            self._thread = threading.Thread(target=copy_context().run, args=(self._work,), daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Send what waits, but do not wait for a server that is away."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_LAST_UPDATE_SECONDS)

    def _work(self) -> None:
        while (update := self._next()) is not None:
            try:
                self._send(*update)
            except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: the run is over and its client closed
                self._logger.warning("The progress could not be shown (%s); the stage goes on.", error)

    def _next(self) -> tuple[_Phase, float, str] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return self._waiting.popleft() if self._waiting else None

    def _send(self, phase: _Phase, percent: float, text: str) -> None:
        if phase.artifact is None:
            created = create_progress_artifact(percent, key=self._key, description=text)
            phase.artifact = created if isinstance(created, UUID) else None
        else:
            update_progress_artifact(phase.artifact, progress=percent, description=text)

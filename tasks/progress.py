"""Shows a stage's progress in the Prefect UI and, when the command line asks for it, in the terminal.

In: the calls of the core's `Progress`. Out: one progress artifact per phase, updated every few
seconds at most (each update is a request and a row), log lines, and whatever the terminal's display does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger

from tasks.display import current_display

_UPDATE_SECONDS = 5.0


class PrefectProgress:
    """Reports one task run.

    Args:
        key: Key of the progress artifact (lowercase letters, digits and dashes).
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.logger = get_run_logger()
        self.artifact: UUID | None = None
        self.total = self.done = 0
        self.unit = self.description = ""
        self.began = self.shown = 0.0

    def start(self, description: str, total: int, unit: str, done: int = 0) -> None:
        """Begin a phase; its progress artifact appears once it has lasted a few seconds."""
        current_display.get().start(description, total, unit, done)
        self._show(final=True)
        self.description, self.total, self.unit, self.done = description, total, unit, done
        self.artifact = None
        self.began = self.shown = time.monotonic()

    def advance(self, n: int = 1, metrics: Mapping[str, float] | None = None) -> None:
        """Count units; update the UI at most every few seconds."""
        current_display.get().advance(n, metrics)
        self.done += n
        if time.monotonic() - self.shown >= _UPDATE_SECONDS:
            self._show()
            shown = "  ".join(f"{key} {value:.4g}" for key, value in (metrics or {}).items())
            self.logger.info("%s %d/%d %s  %s", self.description, self.done, self.total, self.unit, shown)

    def say(self, message: str) -> None:
        """Log one fact."""
        current_display.get().say(message)
        self.logger.info(message)

    def finish(self) -> None:
        """Bring the progress artifact to its end."""
        self._show(final=True)

    def _show(self, final: bool = False) -> None:
        if self.total == 0 or (final and self.artifact is None):
            return
        percent = min(100.0, 100.0 * self.done / self.total)
        rate = self.done / max(time.monotonic() - self.began, 1e-9)
        text = f"{self.description}: {self.done} of {self.total} {self.unit}, {rate:.3g}/s"
        self.shown = time.monotonic()
        try:
            self._send(percent, text)
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            # Hours of training are not given up for a display.
            self.logger.warning("The progress could not be shown (%s); the stage goes on.", error)

    def _send(self, percent: float, text: str) -> None:
        if self.artifact is None:
            created = create_progress_artifact(percent, key=self.key, description=text)
            self.artifact = created if isinstance(created, UUID) else None
        else:
            update_progress_artifact(self.artifact, progress=percent, description=text)

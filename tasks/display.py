"""The terminal's side of a run: what the command line shows, silent unless it installs a display."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol

from alpaca_farm_core.artifacts.manifest import Artifact
from alpaca_farm_core.pipeline.progress import Progress, SilentProgress


class Display(Progress, Protocol):
    """A progress that also hears where stages begin and end."""

    def stage_begins(self, title: str) -> None:
        """A stage is about to run or to be found."""

    def stage_ends(self, title: str, artifact: Artifact | None, cached: bool) -> None:
        """A stage has its artifact (None: it failed)."""

    def beside(self) -> Display:
        """A display for a branch that runs beside others."""


class SilentDisplay(SilentProgress):
    """Shows nothing."""

    def stage_begins(self, title: str) -> None:
        """Ignore."""

    def stage_ends(self, title: str, artifact: Artifact | None, cached: bool) -> None:
        """Ignore."""

    def beside(self) -> SilentDisplay:
        """Itself."""
        return self


SILENT = SilentDisplay()
current_display: ContextVar[Display] = ContextVar("current_display", default=SILENT)

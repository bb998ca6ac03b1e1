"""What a training process tells the one that started it: progress as marked lines, its end as a file.

Lines that begin with MARK are calls of `Progress` as JSON; every other line is ordinary output.
"""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alpaca_farm_core import errors
from alpaca_farm_core.artifacts.files import read_json, write_json
from alpaca_farm_core.errors import FarmError
from alpaca_farm_core.pipeline.progress import Progress
from alpaca_farm_core.pipeline.stage import StageResult

MARK = "\x1e"


class LineProgress:
    """Prints the calls of `Progress` as marked lines; goes on in silence when nobody reads them any more."""

    def start(self, description: str, total: int, unit: str, done: int = 0) -> None:
        """Print."""
        self._print("start", description=description, total=total, unit=unit, done=done)

    def advance(self, n: int = 1, metrics: Mapping[str, float] | None = None) -> None:
        """Print."""
        self._print("advance", n=n, metrics=None if metrics is None else dict(metrics))

    def say(self, message: str) -> None:
        """Print."""
        self._print("say", message=message)

    def _print(self, call: str, **arguments: Any) -> None:
        with contextlib.suppress(BrokenPipeError):
            print(MARK + json.dumps([call, arguments]), flush=True)


def replay(line: str, progress: Progress) -> bool:
    """Make the call that a marked line stands for; return whether the line was one."""
    if not line.startswith(MARK):
        return False
    call, arguments = json.loads(line[len(MARK) :])
    getattr(progress, {"start": "start", "advance": "advance", "say": "say"}[call])(**arguments)
    return True


def write_result(folder: Path, result: StageResult) -> None:
    """Leave the result of the stage."""
    write_json(folder / "result.json", asdict(result))


def read_result(folder: Path) -> StageResult | None:
    """Read the result, if there is one."""
    file = folder / "result.json"
    return StageResult(**read_json(file)) if file.exists() else None


def write_error(folder: Path, rank: int, error: BaseException) -> None:
    """Leave what went wrong in one process: a user's error by its class, anything else with its traceback."""
    if isinstance(error, FarmError):
        told = {"class": type(error).__name__, "headline": error.headline, "next_action": error.next_action}
    else:
        told = {"traceback": "".join(traceback.format_exception(error))}
    write_json(folder / f"error-{rank}.json", told)


def read_error(folder: Path) -> Exception | None:
    """Read what went wrong: a user's error where one process left one, else the first traceback.

    A process that fails makes the others fail too, with tracebacks that say nothing of the cause.
    """
    told = [read_json(file) for file in sorted(folder.glob("error-*.json"))]
    for error in told:
        if "class" in error:
            error_class: type[FarmError] = getattr(errors, error["class"], FarmError)
            return error_class(error["headline"], error["next_action"])
    return RuntimeError(f"A training process failed:\n{told[0]['traceback']}") if told else None

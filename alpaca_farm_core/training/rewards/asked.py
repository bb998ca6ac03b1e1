"""Rewards that are asked for, answer by answer, through the broker and the call cache.

What was answered once is never asked again, also after a kill; an answer without reward stops the run,
since nothing can be learnt from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from alpaca_farm_core.annotators.broker import Judge, ask
from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.calls import Answer, CallStats, Request
from alpaca_farm_core.artifacts.files import canonical_json
from alpaca_farm_core.errors import AnnotationError
from alpaca_farm_core.pipeline.progress import Progress
from alpaca_farm_core.training.rewards.base import Answers, Scores
from alpaca_farm_core.types import Output


class Source(Judge, Protocol):
    """Who is asked.

    Attributes:
        source: Identity in the cache: equal ones give equal rewards.
    """

    source: str


class Whispered:
    """A progress that passes messages on but keeps the bar of the training run."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def start(self, description: str, total: int, unit: str, done: int = 0) -> None:
        """Keep the bar."""

    def advance(self, n: int = 1, metrics: Mapping[str, float] | None = None) -> None:
        """Keep the bar."""

    def say(self, message: str) -> None:
        """Pass on."""
        self._progress.say(message)


class AskedReward:
    """Rewards of a function or an endpoint."""

    def __init__(self, source: Source, calls: Path, progress: Progress) -> None:
        self._source, self._cache, self._progress = source, CallCache(calls), Whispered(progress)
        self.stats = CallStats()

    def __call__(self, answers: Answers) -> Scores:
        """Ask for each distinct answer that the cache does not know."""
        requests = [self._request(row) for row in answers.rows()]
        outcomes = ask(requests, self._source, self._cache, self.stats, self._progress)
        rewards = [float(outcome.text) for outcome in outcomes if isinstance(outcome, Answer) and outcome.text]
        if len(rewards) < len(outcomes):
            raise AnnotationError(
                f"{len(outcomes) - len(rewards)} of {len(outcomes)} answers got no reward from {self._source.source}.",
                "Run again: rewards so far are kept, and the run resumes from its last checkpoint.",
            )
        return Scores(rewards)

    def _request(self, row: Output) -> Request:
        asked: dict[str, Any] = {
            "instruction": row.instruction,
            "input": row.input,
            "output": row.output,
            "finished": row.finished,
        }
        return Request(f"reward of {self._source.source}", ({"role": "user", "content": canonical_json(asked)},), {})

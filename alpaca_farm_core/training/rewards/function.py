"""A Python function as reward, found by its entry point in a user's own package.

The function takes a list of `Output` rows and returns one finite number per row, equal for equal rows.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alpaca_farm_core.annotators.broker import POLL_S, Jobs
from alpaca_farm_core.annotators.calls import Answer, Request
from alpaca_farm_core.config.base import did_you_mean
from alpaca_farm_core.errors import AnnotationError, ConfigError
from alpaca_farm_core.plugins import REWARDS, load_plugin, package, plugin_hash, plugins
from alpaca_farm_core.types import Output

RewardFunction = Callable[[Sequence[Output]], Sequence[float]]
_BATCH = 1000


def find_function(name: str) -> RewardFunction:
    """Load the reward function of that name.

    Raises:
        ConfigError: no installed package offers it, or it cannot be loaded.
    """
    known = plugins(REWARDS)
    if name not in known:
        hint = did_you_mean(name, known) if known else f"Offer one under the entry-point group '{REWARDS}'."
        raise ConfigError(f"No installed package offers a reward function '{name}'.", hint)
    function: Any = load_plugin(REWARDS, name)
    if not callable(function):
        raise ConfigError(f"'{name}' of {package(known[name])} is no function.", "Repair that package.")
    found: RewardFunction = function
    return found


def function_hash(name: str) -> str:
    """Hash of the module that holds the function.

    Raises:
        ConfigError: no installed package offers it.
    """
    find_function(name)
    return plugin_hash(REWARDS, name)


class FunctionJudge:
    """Answers the broker's jobs by calling the function, a batch at a time."""

    def __init__(self, name: str) -> None:
        self.source = f"function {name}@{function_hash(name)}"
        self._name, self._function = name, find_function(name)

    def work(self, jobs: Jobs) -> None:
        """Settle all jobs.

        Raises:
            AnnotationError: the function fails, or returns something else than one finite number per row.
        """
        while len(jobs):
            batch = jobs.take(_BATCH)
            if batch:
                rewards = self._call([row_of(request) for request in batch])
                answers = [Answer(json.dumps(reward), finish_reason="stop") for reward in rewards]
                jobs.commit({request.key: answer for request, answer in zip(batch, answers, strict=True)})
            else:
                time.sleep(POLL_S)

    def _call(self, rows: Sequence[Output]) -> list[float]:
        try:
            rewards = [float(reward) for reward in self._function(rows)]
        except Exception as error:
            raise AnnotationError(
                f"The reward function '{self._name}' failed: {type(error).__name__}: {error}.",
                "Repair it and run again: the run resumes from its last checkpoint.",
            ) from error
        if len(rewards) != len(rows):
            found = f"{len(rewards)} rewards for {len(rows)} answers"
        else:
            found = next((f"the reward {reward}" for reward in rewards if not math.isfinite(reward)), "")
        if found:
            raise AnnotationError(
                f"The reward function '{self._name}' returned {found}.",
                "It must return one finite number per answer.",
            )
        return rewards


def row_of(request: Request) -> Output:
    """The answer that a request asks to reward."""
    row: Mapping[str, Any] = json.loads(request.messages[0]["content"])
    return Output(row["instruction"], row["input"], row["output"], "policy", finished=row["finished"])

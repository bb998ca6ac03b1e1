"""Ranks of models with intervals: which differences on a leaderboard are real.

In: a rate and its standard error per model and, where there are any, scores by instruction, by which two
models are compared in pairs. Out: rank, interval of the rank, and the models that are really better or
worse. All pairs are tested at once, two-sided, by Holm's procedure at 5 %, so that with 95 % chance no
stated difference is false. Sources: Holm 1979; Mogstad, Romano, Shaikh, Wilhelm 2024 for rank intervals
from pairwise tests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from alpaca_farm_core.evaluation.paired import compare, two_sided_p

LEVEL = 0.05


@dataclass(frozen=True)
class Entry:
    """One model: rate and standard error in percent, and its scores in [0, 1] by instruction, if known."""

    model: str
    rate: float
    standard_error: float | None
    scores: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Rank:
    """Place of one model.

    Attributes:
        model: Its name.
        rank: 1 + the number of models with a higher rate.
        low: Best place that the data allow: 1 + the number of really better models.
        high: Worst place that the data allow: number of models − the number of really worse ones.
        really_better: Models it is really behind.
        really_worse: Models it is really ahead of.
    """

    model: str
    rank: int
    low: int
    high: int
    really_better: tuple[str, ...]
    really_worse: tuple[str, ...]


def ranks(entries: Sequence[Entry], level: float = LEVEL) -> dict[str, Rank]:
    """Rank models by rate, best first, with intervals.

    Where one of two models has no standard error (a single row), their difference is never real.
    """
    tested = {(a.model, b.model): _p_value(a, b) for a, b in combinations(entries, 2)}
    real = _holm(tested, level)
    rates = {entry.model: entry.rate for entry in entries}
    better: dict[str, list[str]] = {entry.model: [] for entry in entries}
    worse: dict[str, list[str]] = {entry.model: [] for entry in entries}
    for pair in real:
        low, high = sorted(pair, key=rates.__getitem__)
        better[low].append(high)
        worse[high].append(low)
    return {
        model: Rank(
            model=model,
            rank=1 + sum(other > rate for other in rates.values()),
            low=1 + len(better[model]),
            high=len(entries) - len(worse[model]),
            really_better=tuple(sorted(better[model])),
            really_worse=tuple(sorted(worse[model])),
        )
        for model, rate in rates.items()
    }


def _p_value(first: Entry, second: Entry) -> float:
    """Paired where both have scores on shared instructions, else from both standard errors."""
    if first.scores and second.scores and not first.scores.keys().isdisjoint(second.scores):
        p_value = compare(first.model, first.scores, second.model, second.scores).p_value
        if p_value is not None:
            return p_value
    if first.standard_error is None or second.standard_error is None:
        return 1.0
    return two_sided_p(first.rate - second.rate, math.hypot(first.standard_error, second.standard_error))


def _holm(p_values: Mapping[tuple[str, str], float], level: float) -> list[tuple[str, str]]:
    """Pairs rejected by Holm's step-down procedure."""
    rejected = []
    for step, (pair, p_value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        if p_value > level / (len(p_values) - step):
            break
        rejected.append(pair)
    return rejected

"""Mean and interval of scores that are crossed: every seed answers every instruction.

In: scores by (seed, instruction). Out: their mean with an interval over both. Two runs of a method differ by
seed, two instructions by difficulty; the variance of the mean is the sum of the two one-way cluster variances
less what both count (Cameron, Gelbach and Miller 2011), and never less than the larger of the two. With one seed
the interval is over instructions alone. Pure Python.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alpaca_farm_core.evaluation.intervals import Z95

Scores = Mapping[tuple[int, str], float]


@dataclass(frozen=True)
class Estimate:
    """A mean in the unit of its scores.

    Attributes:
        mean: Over all scores.
        standard_error: Over seeds and instructions; None where neither has two.
        interval: mean ± 1.96 standard errors; None where the standard error is.
        seed_spread: Standard deviation of the seeds' own means (ddof 1); None for one seed.
        n: Scores.
    """

    mean: float
    standard_error: float | None
    interval: tuple[float, float] | None
    seed_spread: float | None
    n: int

    def scaled(self, factor: float) -> dict[str, Any]:
        """Plain dictionary with all figures times `factor` (100 for percent)."""
        return {
            "mean": factor * self.mean,
            "standard_error": None if self.standard_error is None else factor * self.standard_error,
            "interval": None if self.interval is None else [factor * bound for bound in self.interval],
            "seed_spread": None if self.seed_spread is None else factor * self.seed_spread,
            "n": self.n,
        }


def two_way(scores: Scores) -> Estimate:
    """Estimate the mean of n > 0 crossed scores."""
    values = list(scores.values())
    mean = math.fsum(values) / len(values)
    by_seed, by_instruction = _sums(scores, mean, 0), _sums(scores, mean, 1)
    seeds, instructions = _variance(by_seed, len(values)), _variance(by_instruction, len(values))
    known = [one for one in (seeds, instructions) if one is not None]
    if not known:
        return Estimate(mean, None, None, None, len(values))
    both = _variance([[value - mean] for value in values], len(values))
    variance = max(*known, sum(known) - (both or 0.0)) if len(known) == 2 else known[0]
    error = math.sqrt(variance)
    return Estimate(mean, error, (mean - Z95 * error, mean + Z95 * error), _spread(scores), len(values))


def difference(first: Scores, second: Scores) -> Estimate | None:
    """Mean of first − second over the (seed, instruction) both have; None when they share none."""
    shared = {key: first[key] - second[key] for key in first if key in second}
    return two_way(shared) if shared else None


def _sums(scores: Scores, mean: float, part: int) -> list[list[float]]:
    """Centred scores by seed (part 0) or by instruction (part 1)."""
    groups: dict[int | str, list[float]] = {}
    for key, value in scores.items():
        groups.setdefault(key[part], []).append(value - mean)
    return list(groups.values())


def _variance(groups: list[list[float]], n: int) -> float | None:
    """Cluster-robust variance of a mean of n scores, G/(G − 1) corrected; None for one cluster."""
    if len(groups) < 2:
        return None
    squares = math.fsum(math.fsum(group) ** 2 for group in groups)
    return len(groups) / (len(groups) - 1) * squares / n**2


def _spread(scores: Scores) -> float | None:
    seeds: dict[int, list[float]] = {}
    for (seed, _), value in scores.items():
        seeds.setdefault(seed, []).append(value)
    means = [math.fsum(values) / len(values) for values in seeds.values()]
    if len(means) < 2:
        return None
    centre = math.fsum(means) / len(means)
    return math.sqrt(math.fsum((one - centre) ** 2 for one in means) / (len(means) - 1))

"""Percentile intervals by resampling clusters (Efron 1979): rows of one instruction, or of one dataset, stay together.

In: sums per cluster. Out: an interval in the unit of the statistic. Seeded, so that the same labels give the
same interval. Clusters with equal sums are drawn together, by a multinomial over the distinct ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from alpaca_farm_core.errors import UsageError
from alpaca_farm_core.evaluation.intervals import Interval

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
BOOTSTRAP_SAMPLES = 2000
# Draws of one bootstrap at most; beyond it minutes pass and the normal interval is the same.
_MOST_DRAWS = 200_000_000
_DRAWS_AT_ONCE = 4_000_000


def ratio(sums: Floats) -> Floats:
    """Numerators over denominators, of sums [..., 2]."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan)


def bootstrap(
    sums_GK: Floats,
    statistic: Statistic = ratio,
    samples: int = BOOTSTRAP_SAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> Interval | None:
    """Percentile interval of a statistic over resampled clusters.

    Args:
        sums_GK: One row per cluster: whatever the statistic needs, as sums.
        statistic: Sums over each resample [D, K] → values [D]; NaN where it is not defined.
        samples: Resamples.
        seed: Of the resampling.
        level: Share of the resamples inside.

    Returns:
        (low, high); None with fewer than two clusters, or where the statistic is undefined in a resample of
        twenty or more.

    Raises:
        UsageError: more draws than are sensible.
    """
    n = len(sums_GK)
    if n < 2:
        return None
    distinct, counts = np.unique(sums_GK, axis=0, return_counts=True)
    if len(counts) * samples > _MOST_DRAWS:
        raise UsageError(
            f"A bootstrap of {samples} samples over {len(counts)} different clusters takes minutes.",
            "Take fewer samples, or --interval normal where there is one: it is the same at this size.",
        )
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // len(counts))
    values = []
    for start in range(0, samples, at_once):
        drawn = generator.multinomial(n, counts / n, size=min(at_once, samples - start))
        values.append(statistic(drawn @ distinct))
    found = np.concatenate(values)
    known = found[~np.isnan(found)]
    if len(known) < 0.95 * samples:
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

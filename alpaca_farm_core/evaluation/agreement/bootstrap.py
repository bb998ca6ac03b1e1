"""Percentile intervals by resampling instructions (Efron 1979): pairs of one instruction stay together.

In: per-instruction sums. Out: 95 % intervals. Seeded, so that the same labels give the same interval.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from alpaca_farm_core.evaluation.intervals import Interval

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
_CELLS_AT_ONCE = 2_000_000


def interval(sums: NDArray[np.float64], statistic: Statistic, draws: int = 2000, seed: int = 0) -> Interval | None:
    """Return the 2.5 % and 97.5 % quantiles of a statistic over resampled instructions.

    Args:
        sums: One row per instruction: whatever the statistic needs, as sums [N, K].
        statistic: Sums over a resample [D, K] → values [D]; NaN where it is not defined.
        draws: Resamples.
        seed: Of the resampling.

    Returns:
        (low, high); None with fewer than two instructions, or where the statistic is undefined in a resample
        of twenty or more.
    """
    n = len(sums)
    if n < 2:
        return None
    rng = np.random.default_rng(seed)
    values = []
    step = max(1, _CELLS_AT_ONCE // n)
    for start in range(0, draws, step):
        counts = rng.multinomial(n, np.full(n, 1 / n), size=min(step, draws - start))
        values.append(statistic(counts @ sums))
    found = np.concatenate(values)
    known = found[~np.isnan(found)]
    if len(known) < 0.95 * draws:
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numerators over denominators, of sums [..., 2]."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan)

"""Power: how wide the interval of a win rate will be, and what difference it will show, with n instructions.

In: the spread of one model's scores (or none: the widest there is, 0.5) and a number of instructions.
Out: percentage points. Source: the normal approximation, half width z·sd/√n; the smallest difference
seen with a given power is (z + z_power)·sd/√n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

from alpaca_farm_core.errors import UsageError
from alpaca_farm_core.evaluation.intervals import Z95, mean_and_standard_error

WIDEST_SD = 0.5
"""Standard deviation of scores that are 0 or 1 with equal chance: no score in [0, 1] spreads more."""


def power(n: int, sd: float = WIDEST_SD, chance: float = 0.8) -> dict[str, Any]:
    """What `n` instructions will give.

    Args:
        n: Number of instructions.
        sd: Standard deviation of the scores in [0, 1].
        chance: Power of the smallest detectable difference from 50 %.

    Returns:
        n, sd, standard_error, half_width (of the 95 % interval) and detectable_difference, the latter
        three in percentage points.

    Raises:
        UsageError: n is below 1.
    """
    if n < 1:
        raise UsageError(f"An evaluation on {n} instructions says nothing.", "Give a number of at least 1.")
    error = 100 * sd / math.sqrt(n)
    return {
        "n": n,
        "sd": sd,
        "standard_error": error,
        "half_width": Z95 * error,
        "power": chance,
        "detectable_difference": (Z95 + NormalDist().inv_cdf(chance)) * error,
    }


def instructions_needed(half_width: float, sd: float = WIDEST_SD) -> int:
    """Smallest number of instructions whose 95 % interval is at most ± `half_width` points.

    Raises:
        UsageError: the half width is not above 0.
    """
    if half_width <= 0:
        raise UsageError(f"No number of instructions gives ± {half_width:g} points.", "Give a width above 0.")
    return max(1, math.ceil((100 * Z95 * sd / half_width) ** 2 - 1e-9))


def spread(scores: Sequence[float | None]) -> float:
    """Sample standard deviation of the scores there are; the widest where fewer than two are, or all are equal."""
    kept = [score for score in scores if score is not None]
    error = mean_and_standard_error(kept)[1] or 0.0
    return error * math.sqrt(len(kept)) or WIDEST_SD

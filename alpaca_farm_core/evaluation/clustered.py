"""Standard errors and bootstrap intervals of a mean whose rows come in clusters (one instruction, one dataset).

In: scores in [0, 1] and a cluster name per score. Out: standard errors in the unit of the scores,
intervals in percent. Sources: Liang and Zeger 1986 with the G/(G−1) correction (cluster-robust
variance of a mean); `evaluation.bootstrap` for the percentile intervals. numpy inside.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from alpaca_farm_core.evaluation.bootstrap import BOOTSTRAP_SAMPLES, Floats, bootstrap
from alpaca_farm_core.evaluation.intervals import Interval


@dataclass(frozen=True)
class Clusters:
    """Scores summed by cluster.

    Attributes:
        sums_G: Sum of the scores of each cluster.
        sizes_G: Number of scores of each cluster.
    """

    sums_G: Floats
    sizes_G: Floats

    @classmethod
    def of(cls, scores: Sequence[float], names: Sequence[Hashable] | None = None) -> Clusters:
        """Sum n > 0 scores by cluster; without names every score is a cluster of its own."""
        values = np.asarray(scores, dtype=np.float64)
        if names is None:
            return cls(values, np.ones_like(values))
        codes: dict[Hashable, int] = {}
        places = np.fromiter((codes.setdefault(name, len(codes)) for name in names), np.int64, len(values))
        sizes = np.bincount(places).astype(np.float64)
        return cls(np.bincount(places, weights=values).astype(np.float64), sizes)

    @property
    def n(self) -> int:
        """Number of clusters."""
        return len(self.sums_G)

    @property
    def mean(self) -> float:
        """Mean of all scores."""
        return float(self.sums_G.sum() / self.sizes_G.sum())

    def standard_error(self) -> float | None:
        """√(G/(G−1) · Σ_g (S_g − mean·n_g)²) / N; None for a single cluster.

        With one score per cluster this is the sample standard deviation over √n.
        """
        if self.n < 2:
            return None
        residuals = self.sums_G - self.mean * self.sizes_G
        return math.sqrt(self.n / (self.n - 1) * float(residuals @ residuals)) / float(self.sizes_G.sum())

    def bootstrap(self, samples: int = BOOTSTRAP_SAMPLES, seed: int = 0) -> Interval | None:
        """95 % percentile interval, in percent, of the mean over resampled clusters; None for a single cluster.

        Raises:
            UsageError: more draws than are sensible.
        """
        found = bootstrap(np.stack([self.sums_G, self.sizes_G], axis=1), samples=samples, seed=seed)
        return found and (100 * found[0], 100 * found[1])

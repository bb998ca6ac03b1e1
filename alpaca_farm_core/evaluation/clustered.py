"""Standard errors and bootstrap intervals of a mean whose rows come in clusters (one instruction, one dataset).

In: scores in [0, 1] and a cluster name per score. Out: standard errors in the unit of the scores,
intervals in percent. Sources: Liang and Zeger 1986 with the G/(G−1) correction (cluster-robust
variance of a mean); Efron 1979 (percentile bootstrap), resampling whole clusters. numpy inside.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alpaca_farm_core.errors import UsageError
from alpaca_farm_core.evaluation.intervals import Interval

Floats = NDArray[np.float64]
BOOTSTRAP_SAMPLES = 2000
# Draws of one bootstrap at most; beyond it minutes pass and the normal interval is the same.
_MOST_DRAWS = 200_000_000
_DRAWS_AT_ONCE = 4_000_000


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


def bootstrap(clusters: Clusters, samples: int = BOOTSTRAP_SAMPLES, seed: int = 0, level: float = 0.95) -> Interval:
    """Percentile interval, in percent, of the mean over resampled clusters.

    Clusters with equal sum and size are drawn together, by a multinomial over the distinct ones.

    Raises:
        UsageError: more draws than are sensible.
    """
    distinct, counts = np.unique(np.stack([clusters.sums_G, clusters.sizes_G]), axis=1, return_counts=True)
    if len(counts) * samples > _MOST_DRAWS:
        raise UsageError(
            f"A bootstrap of {samples} samples over {len(counts)} different clusters takes minutes.",
            "Take --interval normal, which is the same at this size, or fewer --bootstrap-samples.",
        )
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // len(counts))
    means: list[Floats] = []
    for start in range(0, samples, at_once):
        drawn = generator.multinomial(clusters.n, counts / clusters.n, size=min(at_once, samples - start))
        sums, sizes = drawn @ distinct.T[:, 0], drawn @ distinct.T[:, 1]
        means.append(sums / sizes)
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return 100 * float(low), 100 * float(high)

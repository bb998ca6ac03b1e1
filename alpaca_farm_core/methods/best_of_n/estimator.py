"""Best-of-n for every n from one set of N samples: rewards in, the whole curve out. Pure arithmetic on lists.

For N samples sorted by reward, r₍₁₎ ≤ … ≤ r₍N₎, the best of a random subset of n is r₍ᵢ₎ in C(i − 1, n − 1) of the
C(N, n) subsets, so Σᵢ C(i − 1, n − 1) / C(N, n) · r₍ᵢ₎ is unbiased for the expected best of n fresh samples.

Source: Nakano et al. 2021 (WebGPT), appendix I; the same weights on another figure of the samples (the gold
utility, say) estimate that figure under best-of-n by reward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def subset_weights(n_samples: int, n: int) -> list[float]:
    """Probability that the i-th smallest of `n_samples` is the best of a random subset of n; sums to 1.

    Raises:
        ValueError: n is not in 1 … n_samples.
    """
    if not 1 <= n <= n_samples:
        raise ValueError(f"n = {n} is not in 1 … {n_samples}")
    subsets = math.comb(n_samples, n)
    return [math.comb(place - 1, n - 1) / subsets for place in range(1, n_samples + 1)]


def best_of_n_curve(rewards: Sequence[float], figures: Sequence[float] | None = None) -> list[float]:
    """Expected figure of the sample with the highest reward among n, for n = 1 … N.

    Args:
        rewards: Of the N samples of one instruction; equal ones stand in the order in which `choose` prefers them.
        figures: What is averaged; None = the rewards themselves.
    """
    figures = rewards if figures is None else figures
    # `choose` takes the first of equal rewards, so among equals the earlier sample ranks higher.
    order = sorted(range(len(rewards)), key=lambda place: (rewards[place], -place))
    ranked = [figures[place] for place in order]
    return [
        math.fsum(weight * value for weight, value in zip(subset_weights(len(rewards), n), ranked, strict=True))
        for n in range(1, len(rewards) + 1)
    ]


def choose(rewards: Sequence[float]) -> int:
    """Place of the highest reward, the first of equals."""
    return max(range(len(rewards)), key=lambda place: (rewards[place], -place))


def kl_of_best_of_n(n: int) -> float:
    """KL divergence in nats of best-of-n from the policy that samples: log n − (n − 1)/n.

    Exact for rewards without ties, an upper bound otherwise (Beirami et al. 2024). The policy that samples is
    the one with this temperature and top-p.
    """
    return math.log(n) - (n - 1) / n

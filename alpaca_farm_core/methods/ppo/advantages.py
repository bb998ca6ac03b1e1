"""Advantages and returns of PPO: a judged rollout and values in; what policy and critic learn from out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alpaca_farm_core.methods.ppo.config import PPOConfig
from alpaca_farm_core.methods.ppo.loss import explained_variance, shaped_rewards
from alpaca_farm_core.training.advantages import Advantages, generalised_advantages
from alpaca_farm_core.training.kl import kl_estimate
from alpaca_farm_core.training.masking import Total, alone, masked_mean, masked_whiten
from alpaca_farm_core.training.on_policy.judged import Judged


@dataclass(frozen=True)
class Learnable:
    """What the update needs besides the responses, [N, R] each; 0 where nothing counts.

    Attributes:
        values_NR: Of the critic before the update.
        advantages_NR: Whitened over the whole rollout batch.
        returns_NR: Targets of the values.
    """

    values_NR: Tensor
    advantages_NR: Tensor
    returns_NR: Tensor


@dataclass(frozen=True)
class Shaped:
    """Rewards of each token, whatever the values are.

    Attributes:
        rewards_NR: The response's at its last token, KL penalties at all.
        counted_NR: Positions that have advantages: response tokens, or all of them as in the original.
        gamma: Discount of later rewards.
        lam: λ of the estimate.
    """

    rewards_NR: Tensor
    counted_NR: Tensor
    gamma: float
    lam: float

    def estimate(self, values_NR: Tensor, rows: Sequence[int] | None = None) -> Advantages:
        """Advantages and returns of all responses or of `rows`, [N or B, R]; a response's depend on its own values."""
        parts = (self.rewards_NR, values_NR, self.counted_NR)
        rewards, values, counted = parts if rows is None else (part[rows] for part in parts)
        return generalised_advantages(rewards, values, counted, self.gamma, self.lam)


def shape(judged: Judged, config: PPOConfig, kl_coef: float, total: Total = alone) -> Shaped:
    """Add the KL penalty to rewards; whitening is over all processes."""
    mask_NR = judged.mask_NR
    kl_NR = kl_estimate(judged.logprobs_NR, judged.reference_logprobs_NR, "k1")
    if config.paper_compat:
        kl_NR = kl_NR.clamp(min=0)
    rewards_NR = shaped_rewards(judged.penalised_N, kl_NR, mask_NR, kl_coef)
    # The original counts all max_new_tokens positions, padding included, as part of every response.
    counted_NR = torch.ones_like(mask_NR) if config.paper_compat else mask_NR
    if config.whiten_rewards:
        rewards_NR = masked_whiten(rewards_NR, counted_NR, shift_mean=False, total=total)
    return Shaped(rewards_NR, counted_NR, config.gamma, config.lam)


def learnable(shaped: Shaped, values_NR: Tensor, total: Total = alone) -> Learnable:
    """Turn rewards and values into advantages and returns; whitening is over all processes."""
    estimate = shaped.estimate(values_NR)
    advantages_NR = masked_whiten(estimate.advantages, shaped.counted_NR, total=total)
    return Learnable(values_NR, advantages_NR, estimate.returns)


def value_metrics(judged: Judged, targets: Learnable, total: Total) -> dict[str, float]:
    """How well the critic foresaw the returns of this rollout (explained variance: this process's rows)."""
    return {
        "return_mean": float(masked_mean(targets.returns_NR, judged.mask_NR, total)),
        "explained_variance": explained_variance(targets.values_NR, targets.returns_NR, judged.mask_NR),
    }

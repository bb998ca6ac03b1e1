"""Advantages and returns of PPO: a judged rollout and a critic in; what policy and critic learn from out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from alpaca_farm_core.methods.ppo.config import PPOConfig
from alpaca_farm_core.methods.ppo.loss import explained_variance, shaped_rewards
from alpaca_farm_core.training.advantages import generalised_advantages
from alpaca_farm_core.training.kl import kl_estimate
from alpaca_farm_core.training.masking import Total, alone, masked_mean, masked_whiten
from alpaca_farm_core.training.on_policy.judged import Judged
from alpaca_farm_core.training.rollouts import Passes

if TYPE_CHECKING:
    from alpaca_farm_core.models.heads import ValueModel


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


def learnable(
    judged: Judged, critic: ValueModel | None, passes: Passes, config: PPOConfig, kl_coef: float, total: Total = alone
) -> Learnable:
    """Turn rewards, KL and values into advantages and returns; whitening is over all processes.

    Values that were judged along with the policy are taken; others come from `critic`.
    """
    mask_NR = judged.mask_NR
    values_NR = judged.values_NR
    if values_NR is None:
        values_NR = passes.all_values(cast("ValueModel", critic), judged.responses, mask_NR.shape[1])
    kl_NR = kl_estimate(judged.logprobs_NR, judged.reference_logprobs_NR, "k1")
    if config.paper_compat:
        kl_NR = kl_NR.clamp(min=0)
    rewards_NR = shaped_rewards(judged.penalised_N, kl_NR, mask_NR, kl_coef)
    # The original counts all max_new_tokens positions, padding included, as part of every response.
    counted_NR = torch.ones_like(mask_NR) if config.paper_compat else mask_NR
    if config.whiten_rewards:
        rewards_NR = masked_whiten(rewards_NR, counted_NR, shift_mean=False, total=total)
    estimate = generalised_advantages(rewards_NR, values_NR, counted_NR, config.gamma, config.lam)
    advantages_NR = masked_whiten(estimate.advantages, counted_NR, total=total)
    return Learnable(values_NR, advantages_NR, estimate.returns)


def value_metrics(judged: Judged, targets: Learnable, total: Total) -> dict[str, float]:
    """How well the critic foresaw the returns of this rollout (explained variance: this process's rows)."""
    return {
        "return_mean": float(masked_mean(targets.returns_NR, judged.mask_NR, total)),
        "explained_variance": explained_variance(targets.values_NR, targets.returns_NR, judged.mask_NR),
    }

"""The formulas of PPO: tensors [B, T] of response tokens and their mask in, sums over tokens out.

Sums, not means: the caller divides by the number of tokens of the whole minibatch, so that neither
micro-batches nor processes change the result. What lies outside the mask may be NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from alpaca_farm_core.training.masking import masked_fill_zero, masked_sum
from alpaca_farm_core.training.on_policy.surrogate import clipped_surrogate


class PolicyLoss(NamedTuple):
    """Sums over tokens, scalars.

    Attributes:
        loss: Clipped surrogate, to be minimised.
        clipped: Tokens where the clipped branch is the larger one.
        approx_kl: ½ (log π − log π_old)², an estimate of the KL of this update.
    """

    loss: Tensor
    clipped: Tensor
    approx_kl: Tensor


class ValueLoss(NamedTuple):
    """Sums over tokens, scalars.

    Attributes:
        loss: ½ clipped squared error, to be minimised.
        clipped: Tokens where the clipped branch is the larger one.
        squared_error: (V − return)².
    """

    loss: Tensor
    clipped: Tensor
    squared_error: Tensor


def policy_loss(
    logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor, clip_range: float
) -> PolicyLoss:
    """Σ of the clipped surrogate over the tokens: equation 7 of Schulman et al. 2017."""
    terms = clipped_surrogate(logprobs_BT, old_logprobs_BT, advantages_BT, mask_BT, clip_range)
    return PolicyLoss(terms.loss.sum(), terms.clipped.sum(), terms.approx_kl.sum())


def value_loss(
    values_BT: Tensor, old_values_BT: Tensor, returns_BT: Tensor, mask_BT: Tensor, clip_range: float
) -> ValueLoss:
    """½ Σ max((V − R)², (clip(V, V_old ± ε) − R)²).

    Source: the value clipping of OpenAI's baselines `ppo2`, as AlpacaFarm uses it.
    """
    values_BT = masked_fill_zero(values_BT, mask_BT)
    old_values_BT, returns_BT = masked_fill_zero(old_values_BT, mask_BT), masked_fill_zero(returns_BT, mask_BT)
    near_BT = torch.minimum(torch.maximum(values_BT, old_values_BT - clip_range), old_values_BT + clip_range)
    plain_BT, clipped_BT = (values_BT - returns_BT).square(), (near_BT - returns_BT).square()
    return ValueLoss(
        loss=0.5 * torch.maximum(plain_BT, clipped_BT).sum(),
        clipped=(clipped_BT > plain_BT).sum(),
        squared_error=plain_BT.detach().sum(),
    )


def shaped_rewards(rewards_B: Tensor, kl_BT: Tensor, mask_BT: Tensor, kl_coef: float) -> Tensor:
    """−β · KL at every token, plus the response's reward at its last one; 0 outside the mask.

    Source: Ouyang et al. 2022, equation 2, with the KL spread over the tokens.
    """
    shaped_BT = masked_fill_zero(-kl_coef * kl_BT, mask_BT)
    last_B = mask_BT.sum(1) - 1
    shaped_BT[torch.arange(len(last_B), device=last_B.device), last_B] += rewards_B
    return shaped_BT


def explained_variance(values_BT: Tensor, returns_BT: Tensor, mask_BT: Tensor) -> float:
    """1 − Var(return − V) / Var(return) over the mask; 0 when the returns do not vary."""
    count = mask_BT.sum().clamp(min=1)

    def variance(x_BT: Tensor) -> Tensor:
        mean = masked_sum(x_BT, mask_BT) / count
        return masked_sum((x_BT - mean).square(), mask_BT) / count

    spread = variance(returns_BT)
    return float(1 - variance(returns_BT - values_BT) / spread) if spread > 0 else 0.0

"""Advantages: generalised estimation per token, and comparison within groups of answers to one prompt.

In: rewards (and values) per response token, right-padded, with a mask; or one reward per response, groups
together. Out: advantages of the same shape. Nothing after a response's last token reaches it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from alpaca_farm_core.training.masking import masked_fill_zero


class Advantages(NamedTuple):
    """Advantage and return (the value's target) of each response token, [B, T] each."""

    advantages: Tensor
    returns: Tensor


def generalised_advantages(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, gamma: float, lam: float
) -> Advantages:
    """Compute GAE(γ, λ) with a value of 0 after each row's last token.

    δ_t = r_t + γ V_{t+1} − V_t;  A_t = δ_t + γ λ A_{t+1};  return_t = A_t + V_t.

    Source: Schulman et al. 2016, "High-dimensional continuous control using generalized advantage
    estimation", equation 16. Each row's mask must be a prefix of the row.
    """
    rewards_BT, values_BT = masked_fill_zero(rewards_BT, mask_BT), masked_fill_zero(values_BT, mask_BT)
    next_values_BT = torch.cat([values_BT[:, 1:], torch.zeros_like(values_BT[:, :1])], dim=1)
    deltas_BT = rewards_BT + gamma * next_values_BT - values_BT
    advantages_BT = torch.zeros_like(deltas_BT)
    running_B = torch.zeros_like(deltas_BT[:, 0])
    for t in reversed(range(deltas_BT.shape[1])):
        running_B = deltas_BT[:, t] + gamma * lam * running_B
        advantages_BT[:, t] = running_B
    return Advantages(advantages_BT, masked_fill_zero(advantages_BT + values_BT, mask_BT))


def leave_one_out(rewards_N: Tensor, group_size: int) -> Tensor:
    """A_i = r_i − mean of the other rewards of its group; groups stand together, in order.

    Source: Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free!"; Ahmadian et al. 2024,
    "Back to basics", equation 8. Equal rewards give 0.
    """
    rewards_GK = rewards_N.reshape(-1, group_size)
    others_GK = (rewards_GK.sum(1, keepdim=True) - rewards_GK) / (group_size - 1)
    return (rewards_GK - others_GK).reshape(-1)


def group_relative(rewards_N: Tensor, group_size: int, scale: bool = True, epsilon: float = 1e-4) -> Tensor:
    """A_i = (r_i − mean) / (std + ε) within its group; groups stand together, in order.

    Population std. Equal rewards give 0, up to the rounding of their mean. Without `scale` the division is
    left out.

    Source: Shao et al. 2024, "DeepSeekMath", section 4.1.2; without scale: Liu et al. 2025, "Understanding
    R1-zero-like training", equation 3.
    """
    rewards_GK = rewards_N.reshape(-1, group_size)
    centred_GK = rewards_GK - rewards_GK.mean(1, keepdim=True)
    if scale:
        centred_GK = centred_GK / (rewards_GK.std(1, correction=0, keepdim=True) + epsilon)
    return centred_GK.reshape(-1)


def equal_groups(rewards_N: Tensor, group_size: int) -> Tensor:
    """Per response, 1.0 where all rewards of its group are equal, so that nothing can be learnt from it; else 0.0."""
    rewards_GK = rewards_N.reshape(-1, group_size)
    equal_G = (rewards_GK == rewards_GK[:, :1]).all(1)
    return equal_G.float().repeat_interleave(group_size)

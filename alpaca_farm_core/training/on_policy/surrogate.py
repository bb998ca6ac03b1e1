"""The clipped surrogate that PPO and its critic-free relatives share: [B, T] of response tokens in, per token out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from alpaca_farm_core.training.masking import masked_fill_zero


class Surrogate(NamedTuple):
    """Per ratio; 0 outside the mask.

    Attributes:
        loss: To be minimised.
        clipped: Where the clipped branch is the larger one.
        approx_kl: ½ (log π − log π_old)², an estimate of the KL of this update.
    """

    loss: Tensor
    clipped: Tensor
    approx_kl: Tensor


def clipped_surrogate(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip_range: float
) -> Surrogate:
    """max(−A ρ, −A clip(ρ, 1 ± ε)) with ρ = π / π_old, for tensors of any one shape.

    What lies outside the mask may be NaN. Source: Schulman et al. 2017, "Proximal policy optimization
    algorithms", equation 7.
    """
    # Mask before exp: a NaN or a huge ratio in the padding would poison the gradient even when not summed.
    difference = masked_fill_zero(logprobs - old_logprobs, mask)
    advantages = masked_fill_zero(advantages, mask)
    ratio = difference.exp()
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    return Surrogate(torch.maximum(plain, clipped), clipped > plain, 0.5 * difference.detach().square())

"""The loss of GRPO: tensors [B, T] of response tokens and one advantage per response in, sums out."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from alpaca_farm_core.training.kl import KLEstimator, kl_estimate
from alpaca_farm_core.training.masking import masked_fill_zero
from alpaca_farm_core.training.on_policy.surrogate import clipped_surrogate


class GroupLoss(NamedTuple):
    """Sums over responses (of means over tokens) or over tokens, scalars.

    Attributes:
        policy: Clipped surrogate, to be minimised.
        kl: The KL term before its coefficient, to be minimised.
        clipped: Tokens where the clipped branch is the larger one.
        approx_kl: ½ (log π − log π_old)².
    """

    policy: Tensor
    kl: Tensor
    clipped: Tensor
    approx_kl: Tensor


def grpo_loss(
    logprobs_BT: Tensor,
    old_logprobs_BT: Tensor,
    reference_logprobs_BT: Tensor,
    advantages_B: Tensor,
    mask_BT: Tensor,
    clip_range: float,
    kl: KLEstimator = "k3",
    over_tokens: bool = False,
) -> GroupLoss:
    """Σ_i w_i Σ_t max(−A_i ρ, −A_i clip(ρ, 1 ± ε)), and the same sum of the KL estimates; w_i = 1/|o_i| or 1.

    Source: Shao et al. 2024, "DeepSeekMath", equations 3 and 4; with w = 1 (`over_tokens`): Yu et al. 2025,
    "DAPO", equation 8, up to its asymmetric clipping.
    """
    # Mask before exp: a huge number in the padding would poison the gradient even when not summed.
    logprobs_BT, reference_logprobs_BT = (masked_fill_zero(x, mask_BT) for x in (logprobs_BT, reference_logprobs_BT))
    advantages_BT = advantages_B[:, None].expand_as(mask_BT)
    terms = clipped_surrogate(logprobs_BT, old_logprobs_BT, advantages_BT, mask_BT, clip_range)
    kl_BT = masked_fill_zero(kl_estimate(logprobs_BT, reference_logprobs_BT, kl), mask_BT)
    weights_B1 = 1.0 if over_tokens else 1.0 / mask_BT.sum(1, keepdim=True).clamp(min=1)
    return GroupLoss(*((weights_B1 * term).sum() for term in (terms.loss, kl_BT, terms.clipped, terms.approx_kl)))

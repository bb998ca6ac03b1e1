"""The loss of Quark: per-token terms [B, T] and the mask of targets in, sums over tokens out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from alpaca_farm_core.training.masking import masked_sum


class QuarkLoss(NamedTuple):
    """Sums over target tokens, scalars.

    Attributes:
        loss: To be minimised.
        nll: −log π.
        kl: KL to the reference.
        entropy: Of the policy.
    """

    loss: Tensor
    nll: Tensor
    kl: Tensor
    entropy: Tensor


def quark_loss(
    logprobs_BT: Tensor, kl_BT: Tensor, entropies_BT: Tensor, targets_BT: Tensor, kl_coef: float, entropy_coef: float
) -> QuarkLoss:
    """Σ [−log π(a) + β · KL(π ‖ π_ref) − c · H(π)] over the targets.

    Source: Lu et al. 2022, "Quark: controllable text generation with reinforced unlearning", equation 2; the
    entropy bonus is AlpacaFarm's.
    """
    nll, kl, entropy = (
        -masked_sum(logprobs_BT, targets_BT),
        masked_sum(kl_BT, targets_BT),
        masked_sum(entropies_BT, targets_BT),
    )
    return QuarkLoss(nll + kl_coef * kl - entropy_coef * entropy, nll, kl, entropy)


def original_targets(mask_BT: Tensor, finished_B: Tensor, max_new_tokens: int) -> Tensor:
    """Which response tokens AlpacaFarm's Quark trains on.

    Its pool keeps texts without EOS, so EOS is no target; and it pads responses on the left, so the first
    token of a response shorter than the window is predicted from padding, which has no gradient.
    """
    lengths_B = mask_BT.sum(1) - finished_B.long()
    places_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    first_B = (lengths_B < max_new_tokens).long()
    return (places_T[None, :] >= first_B[:, None]) & (places_T[None, :] < lengths_B[:, None])

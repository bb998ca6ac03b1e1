"""The loss of RLOO: log-probabilities of whole responses and one advantage each in, sums over responses out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from alpaca_farm_core.training.masking import masked_fill_zero
from alpaca_farm_core.training.on_policy.surrogate import clipped_surrogate


class ResponseLoss(NamedTuple):
    """Sums over responses, scalars; the names are those of `Surrogate`."""

    loss: Tensor
    clipped: Tensor
    approx_kl: Tensor


def rloo_loss(
    logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantages_B: Tensor, mask_BT: Tensor, clip_range: float
) -> ResponseLoss:
    """Σ max(−A ρ, −A clip(ρ, 1 ± ε)) where ρ = π(response) / π_old(response), the response being one action.

    At ρ = 1 its gradient is REINFORCE's, −A ∇ log π(response). Source: Ahmadian et al. 2024, "Back to basics:
    revisiting REINFORCE style optimization for learning from human feedback in LLMs", equations 7 and 8.
    """
    logprobs_B = masked_fill_zero(logprobs_BT, mask_BT).sum(1)
    old_logprobs_B = masked_fill_zero(old_logprobs_BT, mask_BT).sum(1)
    everywhere = torch.ones_like(logprobs_B, dtype=torch.bool)
    terms = clipped_surrogate(logprobs_B, old_logprobs_B, advantages_B, everywhere, clip_range)
    return ResponseLoss(terms.loss.sum(), terms.clipped.sum(), terms.approx_kl.sum())

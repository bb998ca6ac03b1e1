"""Losses of direct preference optimisation: log-probabilities and soft labels of pairs in, sums out.

B pairs; side 1 and side 2 as they were shown to the annotator. `targets_B` is preference − 1: 0 where side 1
is better, 1 where side 2 is, 0.5 for a tie, anything between for weighted labels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class DPOSums(NamedTuple):
    """Sums over pairs, scalars.

    Attributes:
        loss: With its graph.
        n_correct: Decided pairs whose winner has the higher implicit reward.
        n_decided: Pairs that are no ties.
        margin: Implicit reward of the winner minus the loser's, over decided pairs.
        winner_reward: Implicit reward of the winners.
        loser_reward: Implicit reward of the losers.
    """

    loss: Tensor
    n_correct: Tensor
    n_decided: Tensor
    margin: Tensor
    winner_reward: Tensor
    loser_reward: Tensor


def log_ratios(logprobs_B: Tensor, reference_logprobs_B: Tensor, lengths_B: Tensor | None) -> Tensor:
    """Log π(y|x) − log π_ref(y|x); per token of y when lengths are given."""
    ratios_B = logprobs_B.float() - reference_logprobs_B.float()
    return ratios_B if lengths_B is None else ratios_B / lengths_B.float()


def sigmoid_loss(margins_B: Tensor, targets_B: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """DPO for each pair, [B]: −(1 − y) log σ(β h) − y log σ(−β h).

    h is the log-ratio of side 1 minus that of side 2, and y the target, moved to y (1 − ε) + (1 − y) ε by
    label smoothing. A tie (y = 0.5) pulls h to 0.

    Source: Rafailov et al. 2023, equation 7; ε: Mitchell 2023, "A note on DPO with noisy preferences".
    """
    smoothed_B = targets_B * (1 - label_smoothing) + (1 - targets_B) * label_smoothing
    return torch.nn.functional.binary_cross_entropy_with_logits(-beta * margins_B, smoothed_B, reduction="none")


def ipo_loss(margins_B: Tensor, targets_B: Tensor, tau: float) -> Tensor:
    """IPO for each pair, [B]: (1 − y)(h − 1/2τ)² + y (h + 1/2τ)².

    A tie pulls h to 0 as both squares balance. Source: Azar et al. 2023, equation 17.
    """
    wanted = 1 / (2 * tau)
    return (1 - targets_B) * (margins_B - wanted).square() + targets_B * (margins_B + wanted).square()


def pair_sums(ratios_1_B: Tensor, ratios_2_B: Tensor, losses_B: Tensor, targets_B: Tensor, beta: float) -> DPOSums:
    """Sum losses and figures; the implicit reward of a response is β times its log-ratio.

    Equal implicit rewards are no correct order, so that an untrained policy scores 0, not by the side.
    """
    rewards_1_B, rewards_2_B = beta * ratios_1_B.detach(), beta * ratios_2_B.detach()
    decided_B, second_B = targets_B != 0.5, targets_B > 0.5
    winners_B = torch.where(second_B, rewards_2_B, rewards_1_B)
    losers_B = torch.where(second_B, rewards_1_B, rewards_2_B)
    correct_B = decided_B & (winners_B > losers_B)
    decided = decided_B.to(winners_B.dtype)
    return DPOSums(
        losses_B.sum(),
        correct_B.sum(),
        decided_B.sum(),
        ((winners_B - losers_B) * decided).sum(),
        (winners_B * decided).sum(),
        (losers_B * decided).sum(),
    )

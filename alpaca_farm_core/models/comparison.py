"""Two models' distributions over the same positions, in chunks: log-probabilities, exact KL and entropy.

The heads run over a chunk of positions at a time, and once more per chunk in the backward pass, so that
neither model's logits [B, T, V] are ever held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from alpaca_farm_core.models.logprobs import CHUNK_LOGITS

Head = Callable[[Tensor], Tensor]


class Comparison(NamedTuple):
    """Per position, float32; 0 where the mask is false. Gradients flow through all three.

    Attributes:
        logprobs: log π(target).
        kl: KL(π ‖ π_ref) over the reference's vocabulary, in nats.
        entropies: Entropy of π over that vocabulary, in nats.
    """

    logprobs: Tensor
    kl: Tensor
    entropies: Tensor


def compare(
    hidden_BTD: Tensor,
    head: Head,
    reference_hidden_BTD: Tensor,
    reference_head: Head,
    targets_BT: Tensor,
    mask_BT: Tensor,
    temperature: float = 1.0,
    chunk: int = 0,
) -> Comparison:
    """Compare a policy with a reference where the mask is true.

    Args:
        hidden_BTD: The policy's state before each target.
        head: [N, D] → logits [N, V]; tokens that the reference does not have stand behind its own and are
            left out of KL and entropy.
        reference_hidden_BTD: The reference's state before each target.
        reference_head: The same of the reference; no gradient.
        targets_BT: Token ids.
        mask_BT: Positions to score.
        temperature: Divides the logits of both (> 0).
        chunk: Positions per run of the heads; 0 = as many as make CHUNK_LOGITS logits.
    """
    hidden_ND, reference_ND, targets_N = hidden_BTD[mask_BT], reference_hidden_BTD[mask_BT], targets_BT[mask_BT]
    if not chunk:
        with torch.no_grad():
            chunk = max(1, CHUNK_LOGITS // int(head(hidden_ND[:0]).shape[-1]))

    def score(hidden: Tensor, reference: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            reference_logits = reference_head(reference)
        return from_logits(head(hidden), reference_logits, targets, temperature)

    again = len(targets_N) > chunk and torch.is_grad_enabled()
    columns = [
        checkpoint(score, *part, use_reentrant=False, preserve_rng_state=False) if again else score(*part)
        for part in zip(*(torch.split(x, chunk) for x in (hidden_ND, reference_ND, targets_N)), strict=True)
    ]
    return Comparison(*(_scatter(mask_BT, torch.cat(column)) for column in zip(*columns, strict=True)))


def from_logits(
    logits_NV: Tensor, reference_logits_NV: Tensor, targets_N: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Log π(target); Σ π (log π − log π_ref); −Σ π log π: the last two over the reference's vocabulary."""
    logits_NV, reference_logits_NV = logits_NV.float() / temperature, reference_logits_NV.float() / temperature
    chosen_N = torch.log_softmax(logits_NV, -1).gather(-1, targets_N.unsqueeze(-1)).squeeze(-1)
    logprobs_NV = torch.log_softmax(logits_NV[:, : reference_logits_NV.shape[-1]], -1)
    reference_NV = torch.log_softmax(reference_logits_NV, -1)
    probabilities_NV = logprobs_NV.exp()
    kl_N = (probabilities_NV * (logprobs_NV - reference_NV)).sum(-1)
    return chosen_N, kl_N, -(probabilities_NV * logprobs_NV).sum(-1)


def _scatter(mask_BT: Tensor, values_N: Tensor) -> Tensor:
    empty_BT = torch.zeros(mask_BT.shape, dtype=values_N.dtype, device=values_N.device)
    return empty_BT.masked_scatter(mask_BT, values_N)

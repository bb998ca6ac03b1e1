"""Drawing one token per row: logits and a uniform number in, token and its log-probability out.

The uniform numbers are a function of (row seed, step) alone, so what a row draws depends neither on its
neighbours in the batch nor on how many of them there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from alpaca_farm_core.models.logprobs import entropy


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are drawn; the fields are those of `generation.config.SamplingConfig`.

    Attributes:
        max_new_tokens: Tokens of a response at most, EOS included.
        temperature: Divides the logits; 0 = greedy.
        top_p: Nucleus; 1 = all tokens.
        top_k: Likeliest tokens kept; 0 = all.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


class Drawn(NamedTuple):
    """Token ids, their log-probabilities, and (if asked for) the entropies they were drawn with, [B] each."""

    tokens_B: Tensor
    logprobs_B: Tensor
    entropies_B: Tensor | None = None


def uniforms(seeds_B: Tensor, steps: int) -> Tensor:
    """Return float64 numbers in [0, 1) of shape [B, steps]: number (b, t) depends on (seeds[b], t) only.

    SplitMix64 (Steele, Lea and Flood 2014) used as a counter-based generator: the state is
    seed + (t + 1) · golden ratio. int64 arithmetic wraps as the algorithm wants it.
    """
    counter_T = torch.arange(1, steps + 1, dtype=torch.int64, device=seeds_B.device) * _signed(0x9E3779B97F4A7C15)
    state = _mix(seeds_B)[:, None] + counter_T[None, :]
    return _shift_right(_mix(state), 32).double() / 2.0**32


def draw(
    logits_BV: Tensor,
    uniforms_B: Tensor,
    params: SamplingParams,
    banned: Sequence[int] = (),
    entropies: bool = False,
) -> Drawn:
    """Draw by inverse CDF from softmax(logits / temperature), cut by top-k, then by top-p.

    The log-probabilities returned are those of the uncut, temperature-scaled policy (of the plain policy
    when greedy): what a policy gradient needs.

    Args:
        logits_BV: Scores of the next token.
        uniforms_B: Numbers in [0, 1), float64.
        params: How to draw.
        banned: Tokens never drawn (the pad token, which would be taken for padding by readers of the
            text); their log-probability is left in the normaliser.
        entropies: Return the entropies of the uncut policy too, in nats.
    """
    scaled_BV = logits_BV.float()
    if params.temperature not in (0, 1):
        scaled_BV = scaled_BV / params.temperature
    logprobs_BV = torch.log_softmax(scaled_BV, dim=-1)
    allowed_BV = logprobs_BV
    if banned:
        allowed_BV = logprobs_BV.clone()
        allowed_BV[:, list(banned)] = -torch.inf
    if params.temperature == 0:
        tokens_B = allowed_BV.argmax(dim=-1)
    else:
        tokens_B = _inverse_cdf(_cut(allowed_BV, params).exp(), uniforms_B)
    chosen_B = logprobs_BV.gather(1, tokens_B[:, None]).squeeze(1)
    return Drawn(tokens_B, chosen_B, entropy(logprobs_BV) if entropies else None)


def _inverse_cdf(weights_BV: Tensor, uniforms_B: Tensor) -> Tensor:
    """Return the first index whose cumulative weight exceeds u × total.

    In float64 with u a multiple of 2⁻³², u × total stays below the total, so no index of weight 0 is hit.
    """
    cumulative_BV = weights_BV.cumsum(dim=-1, dtype=torch.float64)
    threshold_B1 = uniforms_B[:, None] * cumulative_BV[:, -1:]
    return torch.searchsorted(cumulative_BV, threshold_B1, right=True).squeeze(1)


def _cut(logprobs_BV: Tensor, params: SamplingParams) -> Tensor:
    """Set to −inf what top-k and top-p exclude; top-p looks at what top-k left, renormalised."""
    if params.top_k and params.top_k < logprobs_BV.shape[1]:
        # The k-th value decides, so ties at the border all stay.
        border_B1 = logprobs_BV.topk(params.top_k, dim=-1).values[:, -1:]
        logprobs_BV = logprobs_BV.masked_fill(logprobs_BV < border_B1, -torch.inf)
    if params.top_p < 1:
        sorted_BV, order_BV = logprobs_BV.sort(dim=-1, descending=True, stable=True)
        probabilities_BV = sorted_BV.softmax(dim=-1)
        # A token stays while the probability of those before it is below top_p: never an empty set.
        drop_BV = probabilities_BV.cumsum(dim=-1) - probabilities_BV >= params.top_p
        logprobs_BV = logprobs_BV.masked_fill(drop_BV.scatter(1, order_BV, drop_BV), -torch.inf)
    return logprobs_BV


def _mix(state: Tensor) -> Tensor:
    """SplitMix64's finaliser."""
    state = (state ^ _shift_right(state, 30)) * _signed(0xBF58476D1CE4E5B9)
    state = (state ^ _shift_right(state, 27)) * _signed(0x94D049BB133111EB)
    return state ^ _shift_right(state, 31)


def _shift_right(state: Tensor, bits: int) -> Tensor:
    """Logical shift of an int64 tensor (torch's own is arithmetic)."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """Read 64 bits as a signed number, as int64 tensors hold them."""
    return value - (1 << 64) if value >= 1 << 63 else value

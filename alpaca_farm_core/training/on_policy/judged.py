"""One rollout batch, judged: responses in; rewards and log-probabilities of policy and reference out.

Old log-probabilities are those that decoding drew with, where it ran the policy itself in the precision of training:
a pass less, and the KL of the first step is 0 and the first ratios are 1 up to rounding (1e-5). Where a copy decodes
(in bfloat16, of a sharded policy), or a critic on the policy's trunk needs the pass for its values, they are computed
in one pass over the finished responses, by the same code as the reference's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alpaca_farm_core.training.kl import kl_estimate
from alpaca_farm_core.training.masking import masked_fill_zero
from alpaca_farm_core.training.on_policy.config import OnPolicyConfig
from alpaca_farm_core.training.rewards.base import Answers, Reward
from alpaca_farm_core.training.rollouts import Passes, Responses

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alpaca_farm_core.models.heads import ValueHead


@dataclass(frozen=True)
class Judged:
    """Responses and what reward, policy and reference say of them.

    Attributes:
        responses: N sampled responses.
        mask_NR: True at response tokens.
        rewards_N: As given.
        penalised_N: The same after the penalty for unfinished responses.
        logprobs_NR: Of the policy that sampled them.
        entropies_NR: Of that policy.
        reference_logprobs_NR: Of the reference policy.
        counts: Sums over the responses that the reward reports besides.
        values_NR: Of a value head on that policy's states, where there is one.
    """

    responses: Responses
    mask_NR: Tensor
    rewards_N: Tensor
    penalised_N: Tensor
    logprobs_NR: Tensor
    entropies_NR: Tensor
    reference_logprobs_NR: Tensor
    counts: Mapping[str, float] = field(default_factory=dict)
    values_NR: Tensor | None = None

    @property
    def kl_N(self) -> Tensor:
        """k1 estimate of the KL, summed over each response."""
        return masked_fill_zero(self.logprobs_NR - self.reference_logprobs_NR, self.mask_NR).sum(1)

    @property
    def k3_N(self) -> Tensor:
        """k3 estimate of the KL, summed over each response."""
        k3_NR = kl_estimate(self.logprobs_NR, self.reference_logprobs_NR, "k3")
        return masked_fill_zero(k3_NR, self.mask_NR).sum(1)


def judge(
    answers: Answers,
    policy: PreTrainedModel,
    reference: PreTrainedModel,
    reward: Reward,
    passes: Passes,
    config: OnPolicyConfig,
    width: int = 0,
    policy_prompts: list[list[int]] | None = None,
    value_head: ValueHead | None = None,
) -> Judged:
    """Run reward, policy and reference over answers.

    Args:
        answers: What was sampled.
        policy: Who sampled it.
        reference: Where it started.
        reward: What rewards it.
        passes: How forward passes run.
        config: Temperature and penalty.
        width: Response positions of the grids; 0 = those of the longest response.
        policy_prompts: What the policy was shown where that differs from what reward and reference are shown.
        value_head: Of a critic that shares the policy's trunk: its values come from the same pass.
    """
    responses = answers.responses
    width = width or responses.width()
    scored = reward(answers)
    rewards_N = torch.tensor(scored.rewards, device=passes.device)
    finished_N = torch.tensor(responses.finished, device=passes.device)
    shown = responses if policy_prompts is None else replace(responses, prompt_ids=policy_prompts)
    values_NR = None
    if value_head is None:
        drawn = shown.drawn_scores(width, passes.device)
        scores = drawn if drawn is not None else passes.all_token_scores(policy, shown, config.temperature, width)
    else:
        scores, values_NR = passes.all_scores_and_values(policy, value_head, shown, config.temperature, width)
    reference_scores = passes.all_token_scores(reference, responses, config.temperature, width, entropies=False)
    return Judged(
        responses,
        responses.mask_NR(width, passes.device),
        rewards_N,
        penalise_unfinished(rewards_N, finished_N, config.unfinished_penalty),
        scores.logprobs_BT,
        scores.entropies_BT,
        reference_scores.logprobs_BT,
        scored.counts,
        values_NR,
    )


def penalise_unfinished(rewards_N: Tensor, finished_N: Tensor, penalty: float | None) -> Tensor:
    """Give responses that did not end the penalty instead of their reward; None = leave all as they are."""
    return rewards_N if penalty is None else torch.where(finished_N, rewards_N, penalty)

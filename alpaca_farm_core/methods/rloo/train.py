"""RLOO: policy, reward and prompts in; the best policy, its checkpoints, metrics and sampled rollouts out.

Source: Ahmadian et al. 2024, "Back to basics". The loop is `training.on_policy`. How it differs from the paper:
1. the KL penalty −β · KL(response) is part of the reward, by the unclamped k1 estimate;
2. the probability ratio of the response is clipped, which matters only when a rollout batch is used for
   several optimiser steps; with one it is plain REINFORCE;
3. sums are divided by the number of responses, never by tokens.
"""

from __future__ import annotations

from torch import Tensor

from alpaca_farm_core.methods.rloo.loss import rloo_loss
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.training.advantages import leave_one_out
from alpaca_farm_core.training.on_policy.groups import GroupAlgorithm, Rows
from alpaca_farm_core.training.on_policy.judged import Judged
from alpaca_farm_core.training.on_policy.loop import OnPolicy
from alpaca_farm_core.training.on_policy.setup import set_up


class RLOO(GroupAlgorithm):
    """Leave-one-out advantages, response-level loss."""

    title = "RLOO"

    def advantages(self, judged: Judged, kl_coef: float) -> Tensor:
        """Of the rewards minus the KL penalty, against the other answers."""
        return leave_one_out(judged.penalised_N - kl_coef * judged.kl_N, self.group_size)

    def loss(self, rows: Rows, kl_coef: float) -> tuple[Tensor, dict[str, Tensor]]:
        """REINFORCE on whole responses."""
        result = rloo_loss(
            rows.logprobs_BT, rows.old_logprobs_BT, rows.advantages_B, rows.mask_BT, self.config.clip_range
        )
        sums = {"policy_loss": result.loss, "clip_fraction": result.clipped, "approx_kl": result.approx_kl}
        return result.loss, sums


def train(context: StageContext) -> StageResult:
    """Body of the stage `rloo`.

    Raises:
        DataError: too few prompts for one step.
        ModelError: a model cannot be used.
        TrainingDivergedError: a reward, loss or gradient became NaN or infinite.
    """
    setup = set_up(context)
    return OnPolicy(context, setup, RLOO(setup)).train()

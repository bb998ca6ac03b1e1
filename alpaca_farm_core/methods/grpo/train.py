"""GRPO: policy, reward and prompts in; the best policy, its checkpoints, metrics and sampled rollouts out.

Source: Shao et al. 2024, "DeepSeekMath: pushing the limits of mathematical reasoning in open language models",
section 4.1. The loop is `training.on_policy`. How it differs from the paper:
1. the reward is one number per response (outcome supervision); there is no process supervision;
2. the standard deviation of a group has 1e-4 added, so that equal rewards give 0 and not noise;
3. the reference policy stays where the run began; it is not renewed between iterations.
"""

from __future__ import annotations

from torch import Tensor

from alpaca_farm_core.methods.grpo.loss import grpo_loss
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.training.advantages import group_relative
from alpaca_farm_core.training.on_policy.groups import GroupAlgorithm, Rows
from alpaca_farm_core.training.on_policy.judged import Judged
from alpaca_farm_core.training.on_policy.loop import OnPolicy
from alpaca_farm_core.training.on_policy.setup import set_up


class GRPO(GroupAlgorithm):
    """Group-relative advantages, token-level loss with a KL term."""

    title = "GRPO"
    sums = ("policy_loss", "kl_loss", "clip_fraction", "approx_kl")

    def advantages(self, judged: Judged, kl_coef: float) -> Tensor:
        """Of the rewards, relative to the group's."""
        return group_relative(judged.penalised_N, self.group_size, self.config.scale_advantages)

    def weight(self, mask_NR: Tensor) -> Tensor | float:
        """Tokens or responses, as `mean_over` says."""
        return mask_NR.sum() if self.config.mean_over == "tokens" else super().weight(mask_NR)

    def loss(self, rows: Rows, kl_coef: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Clipped surrogate and KL term."""
        config = self.config
        result = grpo_loss(*rows, config.clip_range, config.kl_loss, over_tokens=config.mean_over == "tokens")
        sums = {
            "policy_loss": result.policy,
            "kl_loss": result.kl,
            "clip_fraction": result.clipped,
            "approx_kl": result.approx_kl,
        }
        return result.policy + kl_coef * result.kl, sums


def train(context: StageContext) -> StageResult:
    """Body of the stage `grpo`.

    Raises:
        DataError: too few prompts for one step.
        ModelError: a model cannot be used.
        TrainingDivergedError: a reward, loss or gradient became NaN or infinite.
    """
    setup = set_up(context)
    return OnPolicy(context, setup, GRPO(setup)).train()

"""PPO as an algorithm of the on-policy loop: actor and critic, whitened advantages, clipped losses."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor

from alpaca_farm_core.methods.ppo.advantages import learnable, value_metrics
from alpaca_farm_core.methods.ppo.config import PPOConfig
from alpaca_farm_core.methods.ppo.loss import policy_loss, value_loss
from alpaca_farm_core.models.heads import ValueModel
from alpaca_farm_core.models.lora import adapt
from alpaca_farm_core.training.kl import kl_estimate
from alpaca_farm_core.training.masking import masked_sum
from alpaca_farm_core.training.on_policy.algorithm import Plain, epoch_minibatches
from alpaca_farm_core.training.on_policy.judged import Judged
from alpaca_farm_core.training.on_policy.setup import Setup
from alpaca_farm_core.training.rollouts import MicroBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


_SUMS = ("policy_loss", "clip_fraction", "approx_kl", "value_loss", "value_clip_fraction", "value_error")


class PPO(Plain):
    """The learners of a run and what they learn at each step."""

    title = "PPO"

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.config: PPOConfig = setup.config
        self.critic = build_critic(setup)
        self.learners = {
            "policy": setup.policy,
            "critic": setup.learner(self.critic, self.config.critic_learning_rate),
        }
        # The original pads every response to max_new_tokens, counts the padding, and clips both models together.
        self.clip_together = self.config.paper_compat
        self.width = self.config.max_new_tokens if self.config.paper_compat else 0

    def objective(self, judged: Judged, step: int, kl_coef: float) -> ActorCritic:
        """Advantages from shaped rewards and values."""
        return ActorCritic(self, judged, step, kl_coef)


class ActorCritic:
    """The clipped losses of actor and critic on one judged rollout batch."""

    def __init__(self, ppo: PPO, judged: Judged, step: int, kl_coef: float) -> None:
        self._ppo, self._judged, self._step = ppo, judged, step
        self._config, self._setup = ppo.config, ppo.setup
        self.responses = judged.responses
        self.sums = (*_SUMS, "kl_loss") if self._config.kl_loss_coef else _SUMS
        total = self._setup.workers.total
        self.targets = learnable(judged, ppo.critic, self._setup.passes, self._config, kl_coef, total)
        self.metrics = value_metrics(judged, self.targets, total)

    def minibatches(self) -> list[list[int]]:
        """`epochs` shuffled passes over the rollout batch."""
        config, workers = self._config, self._setup.workers
        assert config.seed is not None
        n, size = config.rollout_batch_size, config.minibatch_size
        return epoch_minibatches(n, size, config.epochs, config.seed, self._step, workers)

    def weight(self, rows: list[int]) -> Tensor | float:
        """Response tokens of the minibatch."""
        if self._config.paper_compat:
            return len(rows) * self._config.max_new_tokens
        return self._judged.mask_NR[rows].sum()

    def backward(self, part: MicroBatch, weight: float) -> dict[str, Tensor]:
        """Gradients of both models; sums of losses and of clipped tokens."""
        config, judged, targets = self._config, self._judged, self.targets
        rows, width = part.rows, part.width
        mask = judged.mask_NR[rows, :width]
        policy = cast("PreTrainedModel", self._setup.policy.model)
        logprobs = self._setup.passes.token_scores(policy, part, config.temperature).logprobs_BT
        actor = policy_loss(
            logprobs, judged.logprobs_NR[rows, :width], targets.advantages_NR[rows, :width], mask, config.clip_range
        )
        loss, sums = (
            actor.loss,
            {"policy_loss": actor.loss, "clip_fraction": actor.clipped, "approx_kl": actor.approx_kl},
        )
        if config.kl_loss_coef:
            kl = masked_sum(kl_estimate(logprobs, judged.reference_logprobs_NR[rows, :width], config.kl_loss), mask)
            loss, sums["kl_loss"] = loss + config.kl_loss_coef * kl, kl
        (loss / weight).backward()  # type: ignore[no-untyped-call]
        values = self._setup.passes.values(self._ppo.critic, part)
        critic = value_loss(
            values,
            targets.values_NR[rows, :width],
            targets.returns_NR[rows, :width],
            mask,
            config.value_clip_range,
        )
        (config.vf_coef * critic.loss / weight).backward()  # type: ignore[no-untyped-call]
        return sums | {
            "value_loss": critic.loss,
            "value_clip_fraction": critic.clipped,
            "value_error": critic.squared_error,
        }


def build_critic(setup: Setup) -> ValueModel:
    """The value model: a copy of its source's backbone, or adapters on a tree that shares its weights."""
    config: PPOConfig = setup.config
    source = setup.reference
    if config.critic_init == "reward_model":
        assert setup.reward_model is not None, "the config refuses other rewards"
        source = setup.reward_model
    critic = ValueModel.from_model(source, zero_head=config.zero_value_head, share=bool(config.lora.rank))
    critic.to(setup.workers.device).requires_grad_(True)
    assert config.seed is not None
    adapt(critic.backbone, config.lora, config.seed)
    return critic.eval()

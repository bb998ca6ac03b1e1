"""PPO as an algorithm of the on-policy loop: actor and critic, whitened advantages, clipped losses.

The critic is a model of its own, or a value head on the policy's trunk.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from alpaca_farm_core.methods.ppo.advantages import Shaped, learnable, shape, value_metrics
from alpaca_farm_core.methods.ppo.config import PPOConfig
from alpaca_farm_core.methods.ppo.loss import policy_loss, value_loss
from alpaca_farm_core.models.heads import ValueHead, ValueModel
from alpaca_farm_core.models.lora import adapt
from alpaca_farm_core.training.kl import kl_estimate
from alpaca_farm_core.training.masking import masked_fill_zero, masked_sum
from alpaca_farm_core.training.on_policy.algorithm import Plain, epoch_minibatches
from alpaca_farm_core.training.on_policy.judged import Judged
from alpaca_farm_core.training.on_policy.setup import Setup
from alpaca_farm_core.training.rollouts import MicroBatch

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


_SUMS = ("policy_loss", "clip_fraction", "approx_kl", "value_loss", "value_clip_fraction", "value_error")


class PPO(Plain):
    """The learners of a run and what they learn at each step."""

    title = "PPO"

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.config: PPOConfig = setup.config
        self.critic = None if self.config.critic == "shared_trunk" else build_critic(setup)
        policy = cast("PreTrainedModel", setup.policy.model)
        self.value_head = ValueHead(policy) if self.critic is None else None
        trained = cast("nn.Module", self.critic or self.value_head)
        self.learners = {
            "policy": setup.policy,
            "critic": setup.learner(trained, self.config.critic_learning_rate, small=self.critic is None),
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
        self._ppo, self._judged = ppo, judged
        self._config, self._setup = ppo.config, ppo.setup
        self.responses = judged.responses
        self.sums = (*_SUMS, "kl_loss") if self._config.kl_loss_coef else _SUMS
        self._minibatches = self._cut(step)
        total = self._setup.workers.total
        shaped = shape(judged, self._config, kl_coef, total)
        self._ahead: deque[tuple[list[int], dict[str, Tensor]]] = deque()
        values_NR = self._values(shaped) if judged.values_NR is None else judged.values_NR
        self.targets = learnable(shaped, values_NR, total)
        self.metrics = value_metrics(judged, self.targets, total)

    def minibatches(self) -> list[list[int]]:
        """`epochs` shuffled passes over the rollout batch."""
        return self._minibatches

    def weight(self, rows: list[int]) -> Tensor | float:
        """Response tokens of the minibatch."""
        if self._config.paper_compat:
            return len(rows) * self._config.max_new_tokens
        return self._judged.mask_NR[rows].sum()

    def backward(self, part: MicroBatch, weight: float) -> dict[str, Tensor]:
        """Gradients of both models; sums of losses and of clipped tokens.

        Of two models one graph after the other is held; a shared trunk has one graph for both losses.
        """
        passes, temperature, ppo = self._setup.passes, self._config.temperature, self._ppo
        policy = cast("PreTrainedModel", self._setup.policy.model)
        if ppo.value_head is not None:
            scores, values = passes.scores_and_values(policy, ppo.value_head, part, temperature, entropies=False)
            actor, sums = self._actor(scores.logprobs_BT, part)
            critic, more = self._critic(values, part)
            _backward((actor + critic) / weight)
            return sums | more
        actor, sums = self._actor(passes.token_scores(policy, part, temperature, entropies=False).logprobs_BT, part)
        _backward(actor / weight)
        if self._ahead:
            rows, more = self._ahead.popleft()
            assert rows == part.rows, "the first minibatch is the first one that is learnt"
            return sums | more
        critic, more = self._critic(passes.values(cast("ValueModel", ppo.critic), part), part)
        _backward(critic / weight)
        return sums | more

    def _cut(self, step: int) -> list[list[int]]:
        config = self._config
        assert config.seed is not None
        n, size = config.rollout_batch_size, config.minibatch_size
        return epoch_minibatches(n, size, config.epochs, config.seed, step, self._setup.workers)

    def _values(self, shaped: Shaped) -> Tensor:
        """Values of a critic of its own before the update, [N, R].

        The first minibatch learns from the very pass that gives its values: the weights are the same. Its gradients
        are made here, micro-batch by micro-batch, and `backward` finds rows and sums in `_ahead`. Not with dropout,
        which values are without.
        """
        passes, critic, mask_NR = self._setup.passes, cast("ValueModel", self._ppo.critic), self._judged.mask_NR
        width = mask_NR.shape[1]
        if self._config.dropout:
            return passes.all_values(critic, self.responses, width)
        first = self._minibatches[0]
        others = sorted(set(range(len(self.responses))).difference(first))
        values_NR = passes.all_values(critic, self.responses, width, others)
        weight = torch.as_tensor(self.weight(first), device=passes.device)
        weight_everywhere = float(self._setup.workers.total(weight))
        for part in passes.micro_batches(self.responses, first):
            values, rows = passes.values(critic, part), part.rows
            known = masked_fill_zero(values.detach(), mask_NR[rows, : part.width])
            if part.counted:
                values_NR[rows, : part.width] = known
            returns = shaped.estimate(values_NR, rows).returns[:, : part.width]
            loss, sums = self._critic(values, part, known, returns)
            _backward(loss / (weight_everywhere if part.counted else math.inf))
            self._ahead.append((rows, {name: total.detach() for name, total in sums.items()}))
        return values_NR

    def _actor(self, logprobs: Tensor, part: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of the policy, summed over the tokens, and what is recorded of it."""
        config, judged = self._config, self._judged
        rows, width = part.rows, part.width
        mask = judged.mask_NR[rows, :width]
        advantages = self.targets.advantages_NR[rows, :width]
        actor = policy_loss(logprobs, judged.logprobs_NR[rows, :width], advantages, mask, config.clip_range)
        sums = {"policy_loss": actor.loss, "clip_fraction": actor.clipped, "approx_kl": actor.approx_kl}
        if not config.kl_loss_coef:
            return actor.loss, sums
        kl = masked_sum(kl_estimate(logprobs, judged.reference_logprobs_NR[rows, :width], config.kl_loss), mask)
        return actor.loss + config.kl_loss_coef * kl, {**sums, "kl_loss": kl}

    def _critic(
        self, values: Tensor, part: MicroBatch, old: Tensor | None = None, returns: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted loss of the values, summed over the tokens, and what is recorded of it.

        Values before the update and returns are the targets' unless given, [B, width] each.
        """
        rows, width = part.rows, part.width
        critic = value_loss(
            values,
            self.targets.values_NR[rows, :width] if old is None else old,
            self.targets.returns_NR[rows, :width] if returns is None else returns,
            self._judged.mask_NR[rows, :width],
            self._config.value_clip_range,
        )
        return self._config.vf_coef * critic.loss, {
            "value_loss": critic.loss,
            "value_clip_fraction": critic.clipped,
            "value_error": critic.squared_error,
        }


def _backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


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
